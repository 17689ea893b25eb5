"""One function per verb: what the command line and the page call, and what Python users import.

The rooms meet here (and in `training.py`, the run in the making). Nothing here prints or parses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import files, starter
from tuition.conversation import Message, Rendered
from tuition.data import Ledger, Reading, find_sources, rejected_rows
from tuition.errors import UserError
from tuition.recipe import Recipe, RenderSettings, make_recipe, read_settings
from tuition.screen import Opening, Watcher

if TYPE_CHECKING:
    from tuition.evaluate.compare import Comparison
    from tuition.evaluate.generate import Generated
    from tuition.evaluate.heldout import HeldOut
    from tuition.evaluate.load import Answerer
    from tuition.render import Renderer
    from tuition.render.tokens import Tokens

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

    def generate(
        self, prompt: str | Sequence[Mapping[str, Any]], *, max_new_tokens: int = _ANSWER_TOKENS
    ) -> str:
        """The trained model's answer to a prompt or a list of messages, decoded greedily."""
        if self._answerer is None:
            self._answerer = load(str(self.path))
        return answer(self._answerer, prompt, max_new_tokens=max_new_tokens).text

    def evaluate(self, data: str | Sequence[str], **options: Any) -> Evaluation:
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
        tuition.train.loop.Interrupted: stopped by a signal, with a complete checkpoint written.
    """
    training = plan_training(recipe, data=data, resume=resume, watcher=watcher, command=command, **settings)
    training.watcher.opening(training.prepare())
    training.run()
    return Run(training.folder.path)


def dry_run(
    recipe: str | Path | Recipe | None = None, *, watcher: Watcher | None = None, **settings: Any
) -> Opening:
    """Everything `train` does before step 1, and nothing written: the opening screen."""
    opening: Opening = plan_training(recipe, watcher=watcher, **settings).prepare()
    return opening


def plan_training(
    recipe: str | Path | Recipe | None,
    *,
    data: Any = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    command: str = "",
    **settings: Any,
) -> Any:
    """The door of a run: settings checked, the folder chosen, nothing read yet.

    Raises:
        UserError: wrong settings, or a folder that holds a run already.
    """
    from tuition.train.journal import RunFolder
    from tuition.training import Training

    given = {**_settings_of(recipe), **{k: v for k, v in settings.items() if v is not None}}
    if "model" in given:
        given["model"] = starter.model_path(str(given["model"]))
    rows = None
    if data is not None:
        given["data"], rows = _names_or_rows(data)
    name = "rows" if rows is not None else None
    given["output_dir"] = str(_run_folder(given, resume, name))
    folder = RunFolder(Path(given["output_dir"]))
    _refuse_mixed_runs(folder, resume)
    if rows is not None:
        given["data"] = (str(_write_rows(folder.path, rows)),)
    return Training(
        make_recipe(given, where=str(recipe) if isinstance(recipe, str | Path) else "recipe"),
        folder,
        resume=resume,
        watcher=watcher or Watcher(),
        command=command,
    )


def _settings_of(recipe: str | Path | Recipe | None) -> dict[str, Any]:
    if recipe is None:
        return {}
    if isinstance(recipe, Recipe):
        return recipe.model_dump(mode="json", exclude_unset=True)
    path = Path(recipe)
    return read_settings(path / "recipe.yaml" if (path / "recipe.yaml").exists() else path)


def _names_or_rows(data: Any) -> tuple[Any, list[Any] | None]:
    if isinstance(data, str | Path):
        return (str(data),), None
    items = list(data)
    if all(isinstance(item, str | Path) for item in items):
        return tuple(str(item) for item in items), None
    return (), items


def _run_folder(given: Mapping[str, Any], resume: bool, name: str | None) -> Path:
    """The folder that `output_dir` names; auto is the first free one under outputs/."""
    setting = given.get("output_dir", "auto")
    if setting != "auto":
        return Path(setting)
    if resume:
        raise UserError(
            "--resume needs to know which run",
            where="output_dir",
            next_step="tuition train RUN_FOLDER --resume",
        )
    data = given.get("data") or ("run",)
    first = data if isinstance(data, str) else next(iter(data), "run")
    stem = name or Path(str(first).split("#")[0].rstrip("/")).name.split(".")[0] or "run"
    candidates = (Path("outputs") / (stem if n == 1 else f"{stem}-{n}") for n in range(1, 10**6))
    return next(path for path in candidates if not path.exists())


def _refuse_mixed_runs(folder: Any, resume: bool) -> None:
    if resume and not folder.holds_a_run():
        raise UserError(
            "holds no run to resume", where=str(folder.path), next_step="Name a run folder, or drop --resume"
        )
    if not resume and folder.holds_a_run():
        raise UserError(
            "holds a run already",
            where=str(folder.path),
            next_step=f"Go on with it (tuition train {folder.path} --resume), name another --output-dir, "
            "or remove the folder",
        )


def _write_rows(folder: Path, rows: Sequence[Any]) -> Path:
    """Rows from Python become a file in the run folder: the run can then be read, resumed and repeated."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.jsonl"
    try:
        files.write_jsonl(path, [_as_row(row) for row in rows])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"rows must be plain JSON values ({error})",
            where="data",
            next_step="Give (prompt, completion) pairs, dictionaries or lists of messages",
        ) from None
    return path


def _as_row(row: Any) -> Any:
    if isinstance(row, tuple) and len(row) == 2:
        return {"prompt": row[0], "completion": row[1]}
    if isinstance(row, list):
        return {"messages": row}
    return dict(row) if isinstance(row, Mapping) else row


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


def check(data: str | Sequence[str], *, model: str | None = None, **render: Any) -> Checked:
    """Read every row of every source and say what is wrong with it.

    Args:
        model: also render with this model's tokenizer, which finds what only tokens show.
        render: settings of how tokens are made, such as `max_length` or `chat_template`.
    """
    from tuition.render.corpus import settle

    sources = find_sources(_as_names(data))
    ledger = Ledger()
    shapes: dict[str, str] = {}
    tokens = None if model is None else make_renderer(model, **render)
    for group in (sources.train, sources.validation, sources.test):
        reading = Reading(group, ledger=ledger)
        if tokens is None:
            for conversation in reading:
                ledger.keep(conversation.origin)
        else:
            for outcome in tokens.render(reading):
                settle(ledger, outcome, side="train")
        shapes |= reading.shapes
    ledger.check_balance()
    return Checked(ledger, shapes)


def quarantine(checked: Checked, to: str | Path) -> int:
    """Write the rejected rows with their reasons as JSONL; how many there are."""
    rows = list(rejected_rows(checked.ledger))
    files.write_jsonl(Path(to), rows)
    return len(rows)


def make_renderer(model: str, **render: Any) -> Renderer:
    """The renderer that a run with these settings would use."""
    from tuition.render import Renderer, adopt_template, choose_template, load_tokenizer

    settings = make_render_settings(render)
    tokenizer = load_tokenizer(starter.model_path(model))
    template = choose_template(settings.chat_template, tokenizer)
    adopt_template(tokenizer, template)
    longest = settings.max_length if settings.max_length != "auto" else 10**9
    return Renderer(
        tokenizer, template, train_on=settings.train_on, max_length=int(longest), too_long=settings.too_long
    )


def make_render_settings(given: Mapping[str, Any]) -> RenderSettings:
    """The render section of a recipe, from settings given one by one."""
    return make_recipe({"model": "-", "data": "-", **given}).section(RenderSettings)


def preview(
    data: str | Sequence[str], model: str, *, limit: int | None = None, **render: Any
) -> Iterator[tuple[Rendered, Tokens]]:
    """The examples that training would learn from, in the order of the file, with the tokenizer to read them."""
    renderer = make_renderer(model, **render)
    examples = (
        example
        for outcome in renderer.render(Reading(find_sources(_as_names(data)).train))
        for example in outcome.examples
    )
    for example in islice(examples, limit):
        yield example, renderer.tokens


def preview_html(data: str | Sequence[str], model: str, to: str | Path, **render: Any) -> int:
    """Write every example as one page that opens offline; how many there are."""
    from tuition.render.page import write_page

    return write_page(Path(to), preview(data, model, **render), title=", ".join(_as_names(data)))


# --- use a model ---


def answer(
    answerer: Answerer, prompt: str | Sequence[Mapping[str, Any]], *, max_new_tokens: int = _ANSWER_TOKENS
) -> Generated:
    """One answer to a prompt or to a list of messages, decoded greedily."""
    from tuition.evaluate.generate import generate

    messages = [Message("user", prompt)] if isinstance(prompt, str) else [_message(m) for m in prompt]
    return generate(
        answerer.loaded.model,
        answerer.renderer,
        [(messages, ())],
        max_new_tokens=max_new_tokens,
        batch_size=1,
    )[0]


def load(name: str, *, device: str = "auto") -> Answerer:
    """A model that answers: a run folder, an adapter, a model folder or a hub name."""
    from tuition.evaluate.load import load_answerer
    from tuition.train.model import quiet_transformers

    quiet_transformers()
    return load_answerer(starter.model_path(name), device=device)


def generate_file(
    name: str, data: str, *, max_new_tokens: int = _ANSWER_TOKENS, device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """Answer the prompt of every row of a file."""
    from tuition.evaluate.generate import generate

    answerer = load(name, device=device)
    questions = questions_of(data)
    answers = generate(
        answerer.loaded.model,
        answerer.renderer,
        [(q.messages, q.conversation.tools) for q in questions],
        max_new_tokens=max_new_tokens,
        batch_size=32,
    )
    for question, given in zip(questions, answers, strict=True):
        origin = question.conversation.origin
        yield {
            "file": origin.file, "line": origin.line, "prompt": question.prompt,
            "expected": question.expected, "answer": given.text, "stopped": given.stopped,
        }  # fmt: skip


def questions_of(data: str | Sequence[str]) -> list[Any]:
    """The questions in a source: each conversation up to its last answer.

    Raises:
        UserError: no row has a prompt and an answer.
    """
    from tuition.evaluate.generate import question_of

    conversations = Reading(_all_of(data))
    questions = [question for question in map(question_of, conversations) if question is not None]
    if not questions:
        raise UserError(
            "no row has a prompt and an answer",
            where=str(data),
            next_step="`tuition check` shows what is in it",
        )
    return questions


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one model on one source.

    Attributes:
        held_out: loss over learned tokens; None where the rows have no answers.
        score: the metric over all prompts.
        comparison: against the baseline, on the same prompts.
        base_held_out: the baseline's loss.
    """

    model: str
    metric: str
    held_out: HeldOut
    score: Any
    comparison: Comparison | None = None
    base_held_out: HeldOut | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that `evaluate --json` prints."""
        from dataclasses import asdict

        shown: dict[str, Any] = {
            "model": self.model,
            "metric": self.metric,
            "held_out": asdict(self.held_out),
        }
        shown["score"] = None if self.score is None else asdict(self.score)
        if self.base_held_out is not None:
            shown["base_held_out"] = asdict(self.base_held_out)
        if self.comparison is not None:
            shown["comparison"] = self.comparison.to_json()
        return shown


def evaluate(
    model: str,
    data: str | Sequence[str],
    *,
    baseline: str | None = None,
    metric: str | None = "exact_match",
    max_new_tokens: int = _ANSWER_TOKENS,
    limit: int | None = None,
    device: str = "auto",
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Evaluation:
    """Score a model on held-out rows: loss over their answers, and a metric over its own answers.

    Args:
        model: a run folder, an adapter, a model folder or a hub name.
        baseline: another model that answers the same prompts; the comparison is paired.
        metric: a key of `METRICS`; None scores the loss only.
        limit: answer only the first so many prompts.
        on_progress: told the model's name, prompts answered and prompts in all.
    """
    from tuition.evaluate import metrics
    from tuition.evaluate.compare import Answer, compare

    questions = questions_of(data)[:limit]
    tuned = _examine(model, data, questions, metric, max_new_tokens, device, on_progress)
    if baseline is None:
        values = (
            [metrics.METRICS[metric](a, q.expected) for a, q in zip(tuned[1], questions, strict=True)]
            if metric
            else []
        )
        return Evaluation(model, metric or "loss", tuned[0], metrics.score(values) if values else None)
    base = _examine(baseline, data, questions, metric, max_new_tokens, device, on_progress, like=model)
    if metric is None:
        return Evaluation(model, "loss", tuned[0], None, None, base[0])
    answers = [
        Answer(q.prompt, q.expected, before, after, str(q.conversation.origin))
        for q, before, after in zip(questions, base[1], tuned[1], strict=True)
    ]
    comparison = compare(answers, metric)
    _record(model, comparison, answers)
    return Evaluation(model, metric, tuned[0], comparison.tuned, comparison, base[0])


def _examine(
    name: str,
    data: str | Sequence[str],
    questions: Sequence[Any],
    metric: str | None,
    max_new_tokens: int,
    device: str,
    on_progress: Callable[[str, int, int], None],
    like: str | None = None,
) -> tuple[HeldOut, list[str]]:
    """Loss and answers of one model. A baseline is prompted like the model it is compared with."""
    from tuition.evaluate.generate import generate
    from tuition.evaluate.heldout import held_out_loss, learned_bytes
    from tuition.evaluate.load import load_answerer, render_settings_of
    from tuition.train.model import quiet_transformers
    from tuition.train.selfcheck import choose_path

    quiet_transformers()
    render = render_settings_of(like) if like else None
    answerer = load_answerer(starter.model_path(name), device=device, render=render)
    examples = [e for outcome in answerer.renderer.render(Reading(_all_of(data))) for e in outcome.examples]
    if not examples:
        raise UserError(
            "no row can be scored", where=str(data), next_step=f"tuition check {data} --model {name}"
        )
    choose_path(answerer.loaded, examples)
    text_bytes = learned_bytes(examples, answerer.renderer.tokens)
    held_out = held_out_loss(answerer.loaded, examples, text_bytes=text_bytes, packing=(None, 4096))
    if metric is None:
        return held_out, []
    prompts = [(q.messages, q.conversation.tools) for q in questions]
    answers = generate(
        answerer.loaded.model,
        answerer.renderer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=64,
        on_answer=lambda done: on_progress(name, done, len(prompts)),
    )
    return held_out, [given.text for given in answers]


def _record(model: str, comparison: Comparison, answers: Sequence[Any]) -> None:
    """A comparison of a run belongs in the run's folder and its report."""
    from tuition.evaluate.report import write_report
    from tuition.train.journal import RunFolder

    folder = RunFolder(Path(model))
    if not folder.holds_a_run():
        return
    files.write_json(folder.evaluation, {"comparisons": [comparison.to_json()]})
    rows = []
    for given in answers:
        file, _, line = given.origin.rpartition(":")
        rows.append({
            "prompt": given.prompt, "expected": given.expected, "base": given.base, "tuned": given.tuned,
            "file": file, "line": int(line),
        })  # fmt: skip
    files.write_jsonl(folder.samples, rows)
    write_report(folder.path)


def export(model: str, to: str | Path, *, format: str = "hf", dtype: str = "float32") -> Path:
    """Write a run or model in a format that others use, after reading it back and comparing logits.

    Raises:
        UserError: the folder exists, or what was written answers differently.
    """
    import torch

    from tuition.ship.export import export as export_model

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise UserError(f"unknown dtype '{dtype}'", next_step=f"Choose one of: {', '.join(types)}")
    export_model(load(model, device="cpu"), Path(to), format=format, dtype=types[dtype])
    return Path(to)


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
    target.mkdir(parents=True, exist_ok=True)
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
too_long: drop            # longer rows: drop (counted), cut, or refuse
train_on: assistant       # assistant turns, the last one, or all tokens
val_split: 0.05           # share of rows held out to choose the best checkpoint
seed: 0
output_dir: auto          # outputs/NAME, the first that is free
"""


def demo(*, watcher: Watcher | None = None, output_dir: str = "auto") -> tuple[Run, Evaluation]:
    """The whole journey on the embedded starter: train it, and ask base and tuned what neither was shown."""
    demonstrations, questions = (_from_here(path) for path in (starter.DEMONSTRATIONS, starter.HELDOUT))
    run = train(
        model=str(starter.BASE),
        data=demonstrations,
        output_dir=str(_run_folder({"output_dir": output_dir}, False, "demo")),
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
            f"there is no code '{code}'", next_step=f"There are {', '.join(sorted(near))}, for example"
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


def _message(given: Mapping[str, Any]) -> Message:
    try:
        return Message(role=given["role"], content=str(given["content"]))
    except KeyError as error:
        raise UserError(
            f"a message has no {error}", where="messages", next_step='Give {"role": "user", "content": "…"}'
        ) from None


def _as_names(data: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return (str(data),) if isinstance(data, str | Path) else tuple(str(name) for name in data)


def _all_of(data: str | Sequence[str]) -> tuple[str, ...]:
    """Every file of a source to be judged on: a folder's test files, else its validation files, else all."""
    sources = find_sources(_as_names(data))
    return sources.test or sources.validation or sources.train


def read_report_facts(folder: str | Path) -> dict[str, Any]:
    """run.json of a run folder."""
    return dict(json.loads((Path(folder) / "run.json").read_text(encoding="utf-8")))
