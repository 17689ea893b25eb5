"""One function per verb: what the command line and the page call, and what Python users import.

The rooms meet here, in `door.py` (what a run needs to begin), in `training/` (the run in the making) and in
`collecting.py`; what the page asks of the store, of runs (`board`), of processes (`jobs`) and of models (`talk`)
is handed on under its module's name. Nothing here prints or parses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import board as board
from tuition import files, starter
from tuition import jobs as jobs
from tuition import talk as talk
from tuition.collect import ConflictError as ConflictError
from tuition.collect import NotAllowedError as NotAllowedError
from tuition.collect import NotFoundError as NotFoundError
from tuition.collect import Store as Store
from tuition.collect import TooManyError as TooManyError
from tuition.collect import batches as batches
from tuition.collect import demonstrations as demonstrations
from tuition.collect import drafts as drafts
from tuition.collect import exports as exports
from tuition.collect import gold as gold
from tuition.collect import guidelines as guidelines
from tuition.collect import judging as judging
from tuition.collect import losses as losses
from tuition.collect import overview as overview
from tuition.collect import people as people
from tuition.collect import prompts as prompts
from tuition.collect import queue as queue
from tuition.collect import suggestions as suggestions
from tuition.collect.accepted import latest_event as latest_event
from tuition.collecting import Imported as Imported
from tuition.collecting import add_typed_prompt as add_typed_prompt
from tuition.collecting import ask_service as ask_service
from tuition.collecting import compare as compare
from tuition.collecting import import_prompts as import_prompts
from tuition.collecting import note_losses
from tuition.collecting import set_suggestion_service as set_suggestion_service
from tuition.collecting import suggestion_service as suggestion_service
from tuition.conversation import Conversation, Message, Rendered
from tuition.data import (
    Ledger,
    Mend,
    Reading,
    find_sources,
    fixed_rows,
    near_duplicates,
    overlap,
    presidio_check,
    rejected_lines,
    split_share,
)
from tuition.door import (
    as_names,
    choose_folder,
    gather,
    make_training,
    refuse_mixed_runs,
    refuse_strangers_among_ranks,
    write_rows,
)
from tuition.errors import Finding, Origin, UserError
from tuition.recipe import Recipe, RenderSettings, make_recipe
from tuition.screen import Opening, Watcher
from tuition.signals import Signals
from tuition.training.waiting import forget_word, start_of_environment

if TYPE_CHECKING:
    from tuition.batch.prepared import Prepared
    from tuition.evaluate.generate import Generated
    from tuition.evaluate.judge import Judge
    from tuition.evaluate.load import Answerer
    from tuition.evaluate.report.several import Several
    from tuition.evaluate.score import Evaluation
    from tuition.planning import Expected
    from tuition.render import Renderer
    from tuition.render.page import PageFacts
    from tuition.render.tokens import Tokens
    from tuition.ship.preferences import Counts
    from tuition.ship.push import Pushed

Rows = Iterable[tuple[str, str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]]
_ANSWER_TOKENS = 256


# --- train ---


class Run:
    """A run folder, from Python.

    Args:
        path: the folder that `train` wrote.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._answerer: Answerer | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def passed(self) -> bool:
        """No more of the general text was forgotten than the recipe allows; True where none was given."""
        forgetting = read_report_facts(self.path).get("forgetting")
        return not (forgetting and forgetting["exceeded"])

    def generate(
        self, prompt: str | Sequence[Mapping[str, Any]], *, max_new_tokens: int = _ANSWER_TOKENS
    ) -> str:
        """The trained model's answer to a prompt or a list of messages, decoded greedily."""
        if self._answerer is None:
            self._answerer = load(str(self.path))
        return answer(self._answerer, prompt, max_new_tokens=max_new_tokens).text

    def evaluate(self, data: str | Sequence[str] = (), **options: Any) -> Evaluation:
        """See `tuition.evaluate`."""
        return evaluate(str(self.path), data, **options)

    def export(self, to: str | Path, *, format: str = "hf", dtype: str = "float32") -> Path:
        """See `tuition.export`."""
        return export(str(self.path), to, format=format, dtype=dtype)


def train(
    recipe: str | Path | Recipe | None = None,
    *,
    data: str | Path | Sequence[str | Path] | Rows | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    command: str = "tuition.train(…)",
    **settings: Any,
) -> Run:
    """Fine-tune a model on demonstrations.

    Args:
        recipe: a recipe file, a run folder to resume, or a Recipe; settings given beside it win.
        data: files, folders or hub names; or rows themselves: (prompt, completion) pairs, dictionaries
            in any shape that a file may have, or lists of messages.
        resume: go on from the newest checkpoint of the run folder.
        watcher: told what happens; None: silence.
        command: what run.json says the run was started with.
        settings: any key of the recipe, such as `model` or `epochs`.

    Raises:
        UserError: anything the user can mend.
        tuition.errors.Interrupted: stopped by a signal, with a complete checkpoint written.
    """
    given, rows = gather(recipe, data, settings)
    start = start_of_environment()
    if start.many:
        refuse_strangers_among_ranks(given, rows)
    folder, given = choose_folder(recipe, given, resume=resume)
    if start.restarts and folder.holds_a_run():  # one of the ranks died, and torchrun has started all again
        given, resume = gather(folder.path, None, {})[0], True
    signals = Signals()
    with signals.listening(), folder.claimed() if start.rank == 0 else nullcontext():
        if start.rank == 0:
            refuse_mixed_runs(folder, resume)
        written = None if rows is None else write_rows(folder.path, rows, resume=resume)
        if written is not None:
            given["data"] = (str(written),)
        try:
            training = make_training(
                given,
                folder,
                resume=resume,
                watcher=watcher if start.rank == 0 else None,
                command=command,
                signals=signals,
                start=start,
            )
            training.watcher.opening(training.prepare())
            training.run()
        finally:
            forget_word(folder, start)
            if written is not None and not folder.holds_a_run():  # it never began: leave nothing behind
                files.remove_file(written)
    return Run(folder.path)


def plan(
    recipe: str | Path | Recipe | None = None, *, gpus: int = 1, gpu: str = "h100", **settings: Any
) -> Expected:
    """What a run would take on other hardware: memory by part, bytes on the wire, time. Calculated, not measured."""
    from tuition.planning import plan_of

    given, _ = gather(recipe, None, settings)
    return plan_of(make_recipe(dict(given)), gpus=gpus, gpu=gpu)


def run_folder(recipe: str | Path | Recipe | None = None, *, resume: bool = False, **settings: Any) -> Path:
    """The folder that `train` would write, after the same look at the door.

    Raises:
        UserError: the settings are wrong, or the folder holds another run.
    """
    given, _ = gather(recipe, None, settings)
    folder, given = choose_folder(recipe, given, resume=resume)
    refuse_mixed_runs(folder, resume)
    make_recipe(dict(given))
    return folder.path


def dry_run(
    recipe: str | Path | Recipe | None = None, *, watcher: Watcher | None = None, **settings: Any
) -> Opening:
    """Everything `train` does before step 1, and nothing written: the opening screen."""
    given, _ = gather(recipe, None, settings)
    folder, given = choose_folder(recipe, given, resume=False)
    return make_training(
        given, folder, resume=False, watcher=watcher, command="", signals=Signals()
    ).prepare()


# --- look at data ---


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found.

    Attributes:
        ledger: what became of each row, with the findings.
        shapes: source → the shape found in it.
    """

    ledger: Ledger
    shapes: dict[str, str]


def check(
    data: str | Sequence[str],
    *,
    model: str | None = None,
    mapping: Mapping[str, str] | None = None,
    deep: bool = False,
    presidio: str | None = None,
    near: bool = False,
    against: Sequence[str] = (),
    **render: Any,
) -> Checked:
    """Read every row of every source and say what is wrong with it.

    Args:
        model: also render with this model's tokenizer, which finds what only tokens show.
        mapping: which columns hold what, where the shape is not found by itself.
        deep: also look for personal data, keys and other languages; several times slower.
        presidio: also look for names, places and numbers of identity with presidio (an extra) and this spaCy
            model; `patterns` needs no model and finds numbers only.
        near: also look for near duplicates.
        against: evaluation files whose questions must not be in the data.
        render: settings of how tokens are made, such as `max_length` or `chat_template`.
    """
    from tuition.render.corpus import settle

    sources = find_sources(as_names(data))
    ledger = Ledger()
    shapes: dict[str, str] = {}
    kept: list[Conversation] = []
    look = presidio_check(presidio) if presidio is not None else None
    renderer = None if model is None else make_renderer(model, **render)
    before = None
    for group in (sources.train, sources.validation, sources.test):
        reading = Reading(group, ledger=ledger, mapping=mapping, deep=deep, training=before)
        conversations = _remembered(reading, kept) if near or against else reading
        if look is not None:
            conversations = _looked_at(conversations, look, ledger)
        if renderer is None:
            for conversation in conversations:
                ledger.keep(conversation.origin)
        else:
            for outcome in renderer.render(conversations):
                settle(ledger, outcome, side="train")
        shapes |= reading.shapes
        before = before or reading
    ledger.check_balance()
    if near:
        for finding in near_duplicates(kept):
            ledger.add(finding)
    if against:
        for finding in overlap(kept, Reading(find_sources(as_names(against)).train)):
            ledger.add(finding)
    return Checked(ledger, shapes)


def _remembered(reading: Iterable[Conversation], kept: list[Conversation]) -> Iterator[Conversation]:
    for conversation in reading:
        kept.append(conversation)
        yield conversation


def _looked_at(
    reading: Iterable[Conversation], look: Callable[[Conversation], Iterator[Finding]], ledger: Ledger
) -> Iterator[Conversation]:
    for conversation in reading:
        for finding in look(conversation):
            ledger.add(finding)
        yield conversation


def fix(data: str, to: str | Path) -> tuple[int, list[Mend], list[Finding]]:
    """Write a mended copy of a file: safe mends only, each named; what cannot be mended is left out and named.

    Returns:
        rows written, the mends, and the findings of the rows that are not in the copy.
    """
    _refuse_overwriting(data, to)
    written = 0
    mends: list[Mend] = []
    faults: list[Finding] = []

    def lines() -> Iterator[bytes]:
        nonlocal written
        for row in fixed_rows(data):
            mends.extend(row.mends)
            if row.finding is not None:
                faults.append(row.finding)
            if row.line is not None:
                written += 1
                yield f"{row.line}\n".encode()

    files.write_bytes(Path(to), lines())
    return written, mends, faults


def _refuse_overwriting(source: str, to: str | Path) -> None:
    """Data is never written over by what was made from it."""
    source, _ = split_share(source)
    if Path(source).exists() and Path(to).exists() and Path(source).samefile(to):
        raise UserError("is the data itself", where=str(to), next_step="Name another file to write")


def quarantine(checked: Checked, to: str | Path) -> int:
    """Write the rejected rows with their reasons as JSONL; how many there are."""
    for source in checked.shapes.keys() | {entry.origin.file for entry in checked.ledger.rejected}:
        _refuse_overwriting(source, to)
    written = 0

    def counted() -> Iterator[bytes]:
        nonlocal written
        for line in rejected_lines(checked.ledger):
            written += 1
            yield line

    files.write_bytes(Path(to), counted())
    return written


def make_renderer(model: str, **render: Any) -> Renderer:
    """The renderer that a run with these settings would use."""
    from tuition.render import Renderer, adopt_template, choose_template, load_tokenizer, on_day

    settings = make_render_settings(render)
    tokenizer = load_tokenizer(starter.model_path(model))
    template = on_day(
        choose_template(settings.chat_template, tokenizer, settings.chat_template_kwargs),
        settings.template_date,
    )
    adopt_template(tokenizer, template)
    longest = settings.max_length if settings.max_length != "auto" else 10**9
    return Renderer.from_settings(tokenizer, template, settings, max_length=int(longest))


def make_render_settings(given: Mapping[str, Any]) -> RenderSettings:
    """The render section of a recipe, from settings given one by one."""
    return make_recipe({"model": "-", "data": "-", **given}).section(RenderSettings)


def preview(
    data: str | Sequence[str],
    model: str,
    *,
    limit: int | None = None,
    mapping: Mapping[str, str] | None = None,
    on_rejected: Callable[[Finding], None] = lambda finding: None,
    **render: Any,
) -> Iterator[tuple[Rendered, Tokens]]:
    """The examples that training would learn from, in the order of the file, with the tokenizer to read them.

    Args:
        mapping: which columns hold what, where the shape is not found by itself.
        on_rejected: told of each row that gives none.
    """
    renderer = make_renderer(model, **render)
    reading = Reading(find_sources(as_names(data)).train, mapping=mapping)
    shown = 0
    for outcome in renderer.render(reading):
        if outcome.rejection is not None:
            on_rejected(outcome.rejection)
        for example in islice(outcome.examples, None if limit is None else limit - shown):
            yield example, renderer.tokens
            shown += 1
        if shown == limit:
            return
    for finding in reading.ledger.findings:
        if finding.severity == "error":
            on_rejected(finding)


def preview_html(
    data: str | Sequence[str],
    model: str,
    to: str | Path,
    *,
    limit: int = 10_000,
    mapping: Mapping[str, str] | None = None,
    **render: Any,
) -> PageFacts:
    """Write the whole data set as one page that opens offline: ledger, findings and examples.

    Args:
        limit: most examples in the page; it says how many it leaves out. All rows are read and counted.
        mapping: which columns hold what, where the shape is not found by itself.
        render: settings of how tokens are made, such as `max_length` or `chat_template`.

    Raises:
        UserError: the page would be written over the data, or the data cannot be read.
    """
    from tuition.render.page import write_page

    sources = find_sources(as_names(data))
    for source in (*sources.train, *sources.validation, *sources.test):
        _refuse_overwriting(source, to)
    title = ", ".join(as_names(data))
    return write_page(
        Path(to), sources, make_renderer(model, **render), title=title, limit=limit, mapping=mapping
    )


def prepare(data: str | Sequence[str], *, model: str, to: str | Path, **settings: Any) -> Prepared:
    """Tokenise once, into a folder under `to` named by the hash of all that decided the tokens.

    `datasets.load_from_disk(folder)["train"]` has `input_ids` and `labels`, for any trainer.

    Args:
        settings: settings of how tokens are made and rows are split, such as `max_length` or `val_split`.
    """
    from tuition.batch.corpus import prepare_corpus
    from tuition.recipe import DataSettings

    recipe = make_recipe({"model": model, "data": list(as_names(data)), **settings})
    render = recipe.section(RenderSettings)
    corpus = prepare_corpus(
        find_sources(recipe.data),
        make_renderer(model, **render.model_dump()),
        data=recipe.section(DataSettings),
        render=render,
        seed=recipe.seed,
        root=Path(to),
    )
    return corpus.prepared


# --- use a model ---


def answer(
    answerer: Answerer, prompt: str | Sequence[Mapping[str, Any]], *, max_new_tokens: int = _ANSWER_TOKENS
) -> Generated:
    """One answer to a prompt or to a list of messages, decoded greedily.

    Raises:
        UserError: the prompt is no text, leaves no room, or its messages cannot be read.
    """
    from tuition.evaluate.generate import generate, room_for_answer

    messages = [Message("user", prompt)] if isinstance(prompt, str) else _messages(prompt)
    model, renderer = answerer.loaded.model, answerer.renderer
    _refuse_lone_surrogates(messages)
    if room_for_answer(model, len(renderer.prompt_ids(messages)), max_new_tokens) < 1:
        raise UserError(
            "the prompt is empty or fills the model's context",
            next_step="Give a prompt that leaves room to answer",
        )
    return generate(model, renderer, [(messages, ())], max_new_tokens=max_new_tokens, batch_size=1)[0]


def _messages(prompt: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages from Python, read as a row of a file is."""
    from tuition.data.catalogue import RowError
    from tuition.data.formats import FORMATS

    try:
        (conversation,) = FORMATS["messages"].convert({"messages": list(prompt)}, Origin("<python>", 1))
    except RowError as refusal:
        raise UserError(refusal.reason.message, where="messages", next_step=refusal.reason.fix) from None
    return list(conversation.messages)


def _refuse_lone_surrogates(messages: Sequence[Message]) -> None:
    for message in messages:
        try:
            message.content.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError("the prompt is not valid UTF-8", next_step="Give it as UTF-8 text") from None


def load(name: str, *, device: str = "auto", trust_remote_code: str | None = None) -> Answerer:
    """A model that answers: a run folder, an adapter, a model folder or a hub name.

    Args:
        trust_remote_code: the model's own code that may run, as the recipe's setting of that name; a run's
            recipe trusts nothing here, for the folder may be a stranger's.
    """
    from tuition.evaluate.load import load_answerer
    from tuition.train.model import quiet_transformers

    quiet_transformers()
    return load_answerer(starter.model_path(name), device=device, trusted=trust_remote_code)


def generate_file(
    name: str,
    data: str,
    *,
    max_new_tokens: int = _ANSWER_TOKENS,
    device: str = "auto",
    trust_remote_code: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Answer the prompt of every row of a file; a row that has none gives an object with its `error`."""
    from tuition.evaluate.generate import Question, generate
    from tuition.evaluate.prompts import read_prompts

    read = list(read_prompts(_all_of(data)))
    answerer = load(name, device=device, trust_remote_code=trust_remote_code)
    questions = [item for item in read if isinstance(item, Question)]
    answers = iter(
        generate(
            answerer.loaded.model,
            answerer.renderer,
            [(q.messages, q.conversation.tools) for q in questions],
            max_new_tokens=max_new_tokens,
            batch_size=32,
        )
    )
    for item in read:
        if not isinstance(item, Question):
            yield {
                "file": item.origin.file,
                "line": item.origin.line,
                "error": item.code,
                "reason": item.message,
            }
            continue
        origin, given = item.conversation.origin, next(answers)
        yield {
            "file": origin.file, "line": origin.line, "prompt": item.prompt, "expected": item.expected,
            "answer": given.text, "stopped": given.stopped,
        }  # fmt: skip


def evaluate(
    model: str,
    data: str | Sequence[str] = (),
    *,
    baseline: str | None = None,
    metric: str | Sequence[str] | None = "exact_match",
    general: str | Sequence[str] = (),
    rows: str | Sequence[str] = (),
    require: str | Sequence[str] = (),
    require_certain: bool = False,
    most_forgotten: float = 0.05,
    judge: Judge | None = None,
    max_new_tokens: int = _ANSWER_TOKENS,
    limit: int | None = None,
    device: str = "auto",
    trust_remote_code: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Evaluation:
    """Score a model on held-out rows: loss over their answers, and metrics over its own answers.

    Args:
        model: a run folder, an adapter, a model folder or a hub name.
        baseline: another model, prompted in the same way; it answers the same prompts, and the comparison
            is paired.
        metric: one or several, see docs/evaluation.md; None scores the loss only.
        general: general text, scored before and after training to see what was forgotten; `starter`: the
            sentences that come with tuition.
        rows: demonstrations, each scored before and after training; a store keeps the losses of its own.
        require: conditions such as `exact_match>=baseline+0.05`; see `Evaluation.passed`.
        require_certain: the whole interval must meet them.
        most_forgotten: bits a byte that may be lost on general text.
        judge: a model that compares the answers of both.
        limit: answer only the first so many prompts.
        trust_remote_code: see `load`; of the model, not of the baseline.
        on_progress: told what is done (`scoring MODEL`, `answering MODEL`), how much of it, and of how much.

    Raises:
        UserError: no such metric, no row that can be scored, or two models that read different rows.
    """
    from tuition.evaluate.forgetting import find_general
    from tuition.evaluate.gate import read_conditions
    from tuition.evaluate.measures import find_metrics, split_names
    from tuition.evaluate.whole import Wishes, evaluate_all
    from tuition.train.model import quiet_transformers

    names = [part for text in as_names(metric or ()) for part in split_names(text)]
    conditions = read_conditions([require] if isinstance(require, str) else require)
    metrics = find_metrics([name for name in names if name != "loss"])
    quiet_transformers()
    wishes = Wishes(
        data=_all_of(data) if data else (),
        metrics=tuple(metrics),
        baseline=None if baseline is None else starter.model_path(baseline),
        general=find_general(as_names(starter.general_path(general))),
        rows=_all_of(rows) if rows else (),
        conditions=tuple(conditions),
        certain=require_certain,
        most_forgotten=most_forgotten,
        judge=judge,
        max_new_tokens=max_new_tokens,
        limit=limit,
        device=device,
        trusted=trust_remote_code,
    )
    found = evaluate_all(starter.model_path(model), wishes, on_progress)
    note_losses(found.demonstrations or (), model)
    return found


def report(run: str | Path, *, png: bool = False) -> Path:
    """Write the report of a run anew from what its folder holds; the page.

    Args:
        png: also write each of its pictures into `pictures/` in the folder; needs matplotlib.

    Raises:
        UserError: there is no run, or matplotlib is wanted and not installed.
    """
    from tuition.evaluate.report import write_report
    from tuition.evaluate.report.pictures import write_pictures

    if png:
        write_pictures(Path(run))
    return write_report(Path(run))


def report_several(runs: Sequence[str | Path], to: str | Path) -> Several:
    """Write one page that compares runs, against the first in pairs where they answered the same prompts.

    Raises:
        UserError: a folder holds no run, or is named twice.
    """
    from tuition.evaluate.report.several import read_runs
    from tuition.evaluate.report.severalpage import write_comparison

    return write_comparison(read_runs([Path(run) for run in runs]), Path(to))


def harness_command(model: str, tasks: str | Sequence[str], *, python: str | None = None) -> list[str]:
    """The command that runs tasks of lm-evaluation-harness on a model.

    Args:
        python: the interpreter that has lm_eval; None: this one.

    Raises:
        UserError: no task is named, or the run has no model yet.
    """
    import sys

    from tuition.evaluate.harness import harness_command as command

    names = [name.strip() for text in as_names(tasks) for name in text.split(",") if name.strip()]
    return command(starter.model_path(model), names, python=python or sys.executable)


def export(
    model: str,
    to: str | Path,
    *,
    format: str = "hf",
    dtype: str = "float32",
    llama_cpp: str | Path | None = None,
    trust_remote_code: str | None = None,
    on_checked: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Write a run or model in a format that others use, after a fresh process has read it and answered alike.

    Args:
        format: a key of `EXPORTS`: hf, adapter, gguf or ollama.
        llama_cpp: for gguf and ollama: the folder of llama.cpp; None: $LLAMA_CPP or PATH.
        trust_remote_code: see `load`.
        on_checked: told what the fresh process confirmed.

    Raises:
        UserError: the folder exists, or what was written answers differently.
    """
    import torch

    from tuition.ship.export import export as export_model

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise UserError(f"unknown dtype '{dtype}'", next_step=f"Choose one of: {', '.join(types)}")
    folder = None if llama_cpp is None else Path(llama_cpp)
    answerer = load(model, device="cpu", trust_remote_code=trust_remote_code)
    trip = export_model(answerer, Path(to), format=format, dtype=types[dtype], llama_cpp=folder)
    on_checked(trip.sentence)
    return Path(to)


def serve(
    model: str,
    *,
    baseline: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    api_key: str | None = None,
    on_ready: Callable[[str, list[str], list[str]], None] = lambda address, models, others: None,
) -> None:
    """Answer OpenAI's chat requests, and show a page to chat on, until Ctrl-C.

    Args:
        baseline: a second model, shown beside the first on the page and prompted by its own template.
        port: 0 takes one that is free.
        api_key: what requests must carry; needed for any host but this machine.
        on_ready: told the address, the names of the models, and commands of other servers for the same folder.

    Raises:
        UserError: the port is taken, or the host is open to others and there is no key.
    """
    from tuition.ship.commands import other_servers
    from tuition.ship.server import Server
    from tuition.train.folder import RunFolder

    names = list(dict.fromkeys(Path(name).resolve().name or name for name in (model, baseline) if name))
    if baseline is not None and len(names) == 1:
        names = [f"{names[0]}-tuned", f"{names[0]}-base"]
    answerers = [load(name, device=device) for name in (model, baseline) if name]
    server = Server(dict(zip(names, answerers, strict=True)), host=host, port=port, api_key=api_key)
    run = RunFolder(Path(model))
    folder = str(run.adapter if answerers[0].adapted else run.model) if run.holds_a_run() else model
    server.run(lambda address: on_ready(address, names, other_servers(answerers[0], folder, names[0])))


def push(
    model: str,
    to: str,
    *,
    format: str = "hf",
    dtype: str = "float32",
    private: bool = True,
    dry_run: bool = False,
    on_checked: Callable[[str], None] = lambda sentence: None,
) -> Pushed:
    """Export to a temporary folder, through the gate, and upload it to the Hugging Face hub.

    Args:
        to: owner/name.
        dry_run: export and list the files, and upload nothing.

    Raises:
        UserError: no such name, nobody is logged in, or the hub refuses; nothing is uploaded before the gate.
    """
    import tempfile

    from tuition.ship.push import Pushed, check_name, files_in, refuse_local_base, token_or_refuse, upload

    check_name(to)
    token = None if dry_run else token_or_refuse()
    with tempfile.TemporaryDirectory(prefix="tuition-push-") as place:
        folder = export(
            model, Path(place) / to.split("/")[1], format=format, dtype=dtype, on_checked=on_checked
        )
        refuse_local_base(folder)
        address = None if token is None else upload(folder, to, token=token, private=private)
        return Pushed(to, files_in(folder), address)


def preferences(
    model: str,
    data: str | Sequence[str],
    to: str | Path,
    *,
    metric: str = "exact_match",
    judge: Judge | None = None,
    samples: int = 4,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    limit: int | None = None,
    max_new_tokens: int = _ANSWER_TOKENS,
    device: str = "auto",
    trust_remote_code: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Counts:
    """Draw answers to every prompt of a file, compare them in pairs, and write TRL's preference data.

    Args:
        metric: the answer that scores higher is chosen; not asked where there is a judge.
        judge: a model that compares the answers in both orders.
        samples: answers to each prompt.
        limit: only the first so many prompts.

    Raises:
        UserError: no row has a prompt, or no pair a winner.
    """
    from tuition.evaluate.generate import Question
    from tuition.evaluate.measures import find_metric
    from tuition.evaluate.prompts import read_prompts
    from tuition.ship.preferences import Drawing, by_judge, by_metric, write_preferences

    _refuse_overwriting(as_names(data)[0], to)
    read = list(read_prompts(_all_of(data)))
    questions = [item for item in read if isinstance(item, Question)]
    without_prompt, questions = len(read) - len(questions), questions[:limit]
    better = by_metric(find_metric(metric)) if judge is None else by_judge(judge, Path(to).parent)
    counts = write_preferences(
        load(model, device=device, trust_remote_code=trust_remote_code),
        questions,
        Path(to),
        better,
        Drawing(samples, temperature, top_p, seed, max_new_tokens),
        judged_by=metric if judge is None else judge.model,
        on_prompt=lambda done: on_progress(f"answering {model}", done, len(questions)),
    )
    counts.without_prompt = without_prompt
    return counts


# --- start, look around ---


def init(folder: str | Path) -> list[Path]:
    """Write a commented recipe.yaml and 20 sample rows; the paths written.

    Raises:
        UserError: one of them exists already.
    """
    target = Path(folder)
    rows = starter.DEMONSTRATIONS.read_text(encoding="utf-8").splitlines()[:20]
    contents = {target / "recipe.yaml": _SAMPLE_RECIPE, target / "data.jsonl": "\n".join(rows) + "\n"}
    for path in contents:
        if path.exists():
            raise UserError("exists already", where=str(path), next_step="Name another folder, or remove it")
    files.make_folder(target)
    for path, text in contents.items():
        files.write_text(path, text)
    return list(contents)


_SAMPLE_RECIPE = """\
# Every setting with its sentence: tuition schema. Run it: tuition train recipe.yaml
model: starter            # a local folder or a hub name; starter is the tiny model that comes with tuition
data: data.jsonl          # files, folders or hub names; the shape is found by itself
method: full              # full, or lora
epochs: 3
batch_size: 16            # examples in one update
learning_rate: auto       # by method and size of the model
max_length: auto          # tokens; what the model can hold
too_long: drop            # longer rows: drop (counted), cut, cut_turns, split, or refuse
train_on: assistant       # assistant turns, the last one, all tokens, or marked spans
val_split: 0.05           # share of rows held out to choose the best checkpoint
seed: 0
output_dir: auto          # outputs/ and the name of the data file, the first that is free
"""


def demo(*, watcher: Watcher | None = None, output_dir: str = "auto") -> tuple[Run, Evaluation]:
    """The whole journey on the embedded starter: train it, and ask base and tuned what neither was shown."""
    from tuition.train.folder import first_free

    run = train(
        model=str(starter.BASE),
        data=_from_here(starter.DEMONSTRATIONS),
        general="starter",
        output_dir=str(first_free("demo")) if output_dir == "auto" else output_dir,
        watcher=watcher,
        command="tuition demo",
    )
    result = evaluate(
        str(run.path),
        str(starter.HELDOUT),
        baseline=str(starter.BASE),
        metric="exact_match",
        max_new_tokens=32,
    )
    return run, result


def explain(code: str) -> dict[str, str]:
    """What a finding code means.

    Raises:
        UserError: there is no such code.
    """
    import difflib
    from dataclasses import asdict

    from tuition.data import CODES
    from tuition.render.codes import RENDER_CODES

    codes = {**CODES, **RENDER_CODES}
    if code.upper() not in codes:
        near = difflib.get_close_matches(code.upper(), codes, n=3, cutoff=0.5) or [min(codes), max(codes)]
        raise UserError(
            f"there is no code '{code}'",
            next_step=f"docs/findings.md lists them all; near are {', '.join(sorted(near))}",
        )
    return {"code": code.upper(), **asdict(codes[code.upper()])}


def doctor() -> dict[str, Any]:
    """The machine and the versions, each with a verdict."""
    from tuition.machine import examine

    return examine()


def _from_here(path: Path) -> str:
    """The shorter of the two ways to write a path: from the working folder where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def schema() -> dict[str, Any]:
    """The JSON schema of the recipe."""
    return Recipe.model_json_schema()


def _all_of(data: str | Sequence[str]) -> tuple[str, ...]:
    """Every file of a source to be judged on: a folder's test files, else its validation files, else all."""
    return find_sources(as_names(data)).held_out()


def read_report_facts(folder: str | Path) -> dict[str, Any]:
    """run.json of a run folder."""
    return dict(json.loads((Path(folder) / "run.json").read_text(encoding="utf-8")))
