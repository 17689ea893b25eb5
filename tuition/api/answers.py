"""Verbs that ask a model: answer, generate, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import starter
from tuition.collecting import note_losses
from tuition.conversation import Message
from tuition.data import find_sources
from tuition.door import Rows, as_names, names_or_rows
from tuition.errors import Origin, UserError
from tuition.utf8 import encodable

if TYPE_CHECKING:
    from tuition.evaluate.generate import Generated, Question
    from tuition.evaluate.judge import Judge
    from tuition.evaluate.load import Answerer
    from tuition.evaluate.measures import Metric
    from tuition.evaluate.score import Evaluation


ANSWER_TOKENS = 256


def answer(
    answerer: Answerer, prompt: str | Sequence[Mapping[str, Any]], *, max_new_tokens: int = ANSWER_TOKENS
) -> Generated:
    """One answer to a prompt or to a list of messages, decoded greedily.

    Raises:
        UserError: the prompt is no text, leaves no room, or its messages cannot be read.
    """
    from tuition.evaluate.generate import generate, room_for_answer

    messages = [Message("user", prompt)] if isinstance(prompt, str) else _messages(prompt)
    model, renderer = answerer.loaded.model, answerer.renderer
    if not all(encodable(message.content) for message in messages):
        raise UserError("the prompt is not valid UTF-8", next_step="Give it as UTF-8 text")
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

    step = 'Give one text, or a list of messages: [{"role": "user", "content": "…"}]'
    if not isinstance(prompt, Sequence):
        raise UserError(f"a prompt is no {type(prompt).__name__}", where="prompt", next_step=step)
    try:
        (conversation,) = FORMATS["messages"].convert({"messages": list(prompt)}, Origin("<python>", 1))
    except RowError as refusal:
        raise UserError(refusal.reason.message, where="messages", next_step=step) from None
    return list(conversation.messages)


def load(name: str, *, device: str = "auto", trust_remote_code: str | None = None) -> Answerer:
    """A model that answers: a run folder, an adapter, a model folder or a hub name.

    Args:
        trust_remote_code: the model's own code that may run, as the recipe's setting of that name; a run's
            recipe trusts nothing here, for the folder may be a stranger's.
    """
    from tuition.evaluate.load import load_answerer

    return load_answerer(model_named(name), device=device, trusted=trust_remote_code)


def model_named(name: str) -> str:
    """The folder or hub name that a user's word for a model means.

    Raises:
        UserError: it is no folder, and stands where runs are.
    """
    from tuition.train.naming import refuse_mistyped_run

    refuse_mistyped_run(name)
    return starter.model_path(name)


def at_checkpoint(run: str | Path, checkpoint: str) -> str:
    """The name of a run as it was at a checkpoint, for every verb that takes a model.

    Args:
        checkpoint: `step-120`, `epoch-2`, `best` or `last`.

    Raises:
        UserError: there is no such run, or it kept no such checkpoint.
    """
    from tuition.train.naming import at_checkpoint as folder_of

    return folder_of(model_named(str(run)), checkpoint)


def generate_file(
    name: str,
    data: str,
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    device: str = "auto",
    trust_remote_code: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Answer the prompt of every row of a file; a row that gets none gives an object with its `error`."""
    from tuition.evaluate.generate import Question, generate
    from tuition.evaluate.prompts import read_prompts

    read = list(read_prompts(all_of(data)))
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
        if isinstance(item, Question):
            yield _answered(item, next(answers))
        else:
            yield _unanswered(item.origin, item.code, item.message)


def _answered(question: Question, given: Generated) -> dict[str, Any]:
    origin = question.conversation.origin
    if given.tokens == 0 and not given.stopped:
        return _unanswered(
            origin, "R014", "the prompt fills the model's context, which leaves no room to answer"
        )
    return {
        "file": origin.file, "line": origin.line, "prompt": question.prompt, "expected": question.expected,
        "answer": given.text, "stopped": given.stopped,
    }  # fmt: skip


def _unanswered(origin: Origin, code: str, reason: str) -> dict[str, Any]:
    return {"file": origin.file, "line": origin.line, "error": code, "reason": reason}


def evaluate(
    model: str,
    data: str | Path | Sequence[str | Path] | Rows = (),
    *,
    baseline: str | None = None,
    metric: str | Sequence[str] | None = "exact_match",
    general: str | Sequence[str] = (),
    rows: str | Sequence[str] = (),
    require: str | Sequence[str] = (),
    require_certain: bool = False,
    most_forgotten: float = 0.05,
    judge: Judge | None = None,
    max_new_tokens: int = ANSWER_TOKENS,
    limit: int | None = None,
    device: str = "auto",
    trust_remote_code: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Evaluation:
    """Score a model on held-out rows: loss over their answers, and metrics over its own answers.

    Args:
        model: a run folder, an adapter, a model folder or a hub name.
        data: files of rows with the answers expected, or rows themselves, as `train` takes them; where none are
            given, and no `general` or `rows`: those that a run held out.
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
    from tuition.evaluate.whole import Wishes, evaluate_all

    names, given = names_or_rows(data)
    conditions = read_conditions([require] if isinstance(require, str) else require)
    wishes = Wishes(
        data=all_of(names) if names else (),
        given=tuple(given or ()),
        metrics=_metrics_named(metric or ()),
        baseline=None if baseline is None else model_named(baseline),
        general=find_general(as_names(starter.general_path(general))),
        rows=all_of(rows) if rows else (),
        conditions=tuple(conditions),
        certain=require_certain,
        most_forgotten=most_forgotten,
        judge=judge,
        max_new_tokens=max_new_tokens,
        limit=limit,
        device=device,
        trusted=trust_remote_code,
    )
    found = evaluate_all(model_named(model), wishes, on_progress)
    note_losses(found.demonstrations or (), model)
    return found


def _metrics_named(names: str | Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of answers; `loss` names none of them."""
    from tuition.evaluate.measures import find_metrics, split_names

    several = [part for text in as_names(names) for part in split_names(text)]
    return tuple(find_metrics([name for name in several if name != "loss"]))


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
    return command(model_named(model), names, python=python or sys.executable)


def all_of(data: str | Sequence[str]) -> tuple[str, ...]:
    """Every file of a source to be judged on: a folder's test files, else its validation files, else all."""
    return find_sources(as_names(data)).held_out()
