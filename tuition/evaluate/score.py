"""One model, or two, on the same held-out rows: every row scored or named with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tuition import files
from tuition.conversation import Conversation, Rendered
from tuition.data import Ledger, Reading
from tuition.errors import UserError
from tuition.evaluate.compare import Answer, Comparison, compare
from tuition.evaluate.generate import Question, generate, question_of
from tuition.evaluate.heldout import HeldOut, held_out_loss, learned_bytes
from tuition.evaluate.load import Answerer
from tuition.evaluate.metrics import METRICS, Score, score
from tuition.evaluate.report import write_report
from tuition.render.corpus import settle
from tuition.train.folder import RunFolder
from tuition.train.selfcheck import choose_path

Progress = Callable[[str, int, int], None]
_PACK_TOKENS = 4096
_BATCH = 64


@dataclass(slots=True)
class TestSet:
    """What a model is judged on.

    Attributes:
        conversations: the rows that can be read.
        questions: those among them that have a prompt and an answer.
        ledger: what became of each row.
    """

    __test__ = False  # pytest: this is no test

    conversations: list[Conversation]
    questions: list[Question]
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Marks:
    """What one model scored: its loss over the answers, and its own answers where they were asked for."""

    held_out: HeldOut
    answers: list[str]
    scored: frozenset[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one model on one source.

    Attributes:
        model: what the user called it.
        metric: how answers were scored; `loss` where they were not.
        held_out: loss over the answers in the data.
        score: the metric over all prompts.
        comparison: against the baseline, on the same prompts.
        base_held_out: the baseline's loss.
        rows_in: rows read.
        rejected: rows that could not be scored, with code and reason.
    """

    model: str
    metric: str
    held_out: HeldOut
    score: Score | None = None
    comparison: Comparison | None = None
    base_held_out: HeldOut | None = None
    rows_in: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The object that `evaluate --json` prints."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_test_set(sources: Sequence[str], *, limit: int | None) -> TestSet:
    """Read what is to be scored.

    Raises:
        UserError: no row can be.
    """
    reading = Reading(sources)
    conversations = list(reading)
    questions = [q for q in map(question_of, conversations) if q is not None][:limit]
    if not conversations:
        reasons = ", ".join(reading.ledger.counts_by_code()) or "there are no rows"
        raise UserError(
            f"no row can be scored ({reasons})",
            where=", ".join(sources),
            next_step="`tuition check` shows every finding",
        )
    return TestSet(conversations, questions, reading.ledger)


def examine(
    answerer: Answerer, test_set: TestSet, *, answer: bool, max_new_tokens: int, on_progress: Progress
) -> Marks:
    """Loss of one model over the answers in the data and, if asked, its own answers to the prompts.

    Raises:
        UserError: its template or context takes none of the rows.
    """
    examples = _rendered(answerer, test_set)
    choose_path(answerer.loaded, examples)
    text_bytes = learned_bytes(examples, answerer.renderer.tokens)
    held_out = held_out_loss(answerer.loaded, examples, text_bytes=text_bytes, packing=(None, _PACK_TOKENS))
    scored = frozenset((e.origin.file, e.origin.line, e.part) for e in examples)
    if not answer:
        return Marks(held_out, [], scored)
    total = len(test_set.questions)
    answers = generate(
        answerer.loaded.model,
        answerer.renderer,
        [(q.messages, q.conversation.tools) for q in test_set.questions],
        max_new_tokens=max_new_tokens,
        batch_size=_BATCH,
        on_answer=lambda done: on_progress(answerer.name, done, total),
    )
    return Marks(held_out, [given.text for given in answers], scored)


def _rendered(answerer: Answerer, test_set: TestSet) -> list[Rendered]:
    """The examples of all rows; a row is settled in the ledger when the first model renders it."""
    outcomes = list(answerer.renderer.render(test_set.conversations))
    if any(row["fate"] == "open" for row in test_set.ledger.to_rows()):
        for outcome in outcomes:
            settle(test_set.ledger, outcome, side="validation")
    examples = [example for outcome in outcomes for example in outcome.examples]
    if not examples:
        rejection = outcomes[0].rejection
        raise UserError(
            f"no row can be scored: {rejection.message if rejection else 'nothing is learned'}",
            where=answerer.name,
            next_step="`tuition check DATA --model MODEL` shows every finding",
        )
    return examples


def evaluation_of(
    name: str, tuned: Marks, base: Marks | None, test_set: TestSet, *, metric: str | None
) -> Evaluation:
    """Put the marks of one model, or of two, together.

    Raises:
        UserError: the two models scored different rows, so nothing may be compared.
    """
    if base is not None and base.scored != tuned.scored:
        raise UserError(
            f"the baseline scores {len(base.scored)} examples and the model {len(tuned.scored)}: not the same rows",
            where=name,
            next_step="Compare models that read the rows alike, or remove the rows that only one can read",
        )
    comparison, marked = None, None
    if metric is not None and base is not None:
        comparison = compare(_answers(test_set, base, tuned), metric)
        marked = comparison.tuned
    elif metric is not None:
        pairs = zip(tuned.answers, test_set.questions, strict=True)
        marked = score([METRICS[metric](given, question.expected) for given, question in pairs])
    return Evaluation(
        model=name,
        metric=metric or "loss",
        held_out=tuned.held_out,
        score=marked,
        comparison=comparison,
        base_held_out=None if base is None else base.held_out,
        rows_in=test_set.ledger.rows_in,
        rejected=[entry.to_json() for entry in test_set.ledger.rejected],
    )


def record(name: str, evaluation: Evaluation, tuned: Marks, base: Marks, test_set: TestSet) -> None:
    """A comparison of a run belongs in its folder and its report."""
    folder = RunFolder(Path(name))
    if not folder.holds_a_run() or evaluation.comparison is None:
        return
    files.write_json(folder.evaluation, {"comparisons": [evaluation.comparison.to_json()]})
    rows = [
        {
            "prompt": question.prompt,
            "expected": question.expected,
            "base": before,
            "tuned": after,
            "file": question.conversation.origin.file,
            "line": question.conversation.origin.line,
        }
        for question, before, after in zip(test_set.questions, base.answers, tuned.answers, strict=True)
    ]
    files.write_jsonl(folder.samples, rows)
    write_report(folder.path)


def _answers(test_set: TestSet, base: Marks, tuned: Marks) -> list[Answer]:
    return [
        Answer(question.prompt, question.expected, before, after, str(question.conversation.origin))
        for question, before, after in zip(test_set.questions, base.answers, tuned.answers, strict=True)
    ]
