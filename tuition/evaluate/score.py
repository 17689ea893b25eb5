"""One model, or two, on the same held-out rows: every row scored or named with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import files
from tuition.conversation import Conversation, Rendered
from tuition.data import Ledger, Reading, read_rows, split_share
from tuition.errors import UserError
from tuition.evaluate.answers import answer_all
from tuition.evaluate.choices import Choice, choose, read_choices
from tuition.evaluate.compare import Answer, Comparison, compare
from tuition.evaluate.generate import Question, question_of
from tuition.evaluate.heldout import (
    ExampleMarks,
    HeldOut,
    bytes_of_each,
    score_examples,
    totals,
    with_intervals,
)
from tuition.evaluate.load import Answerer
from tuition.evaluate.measures import Metric
from tuition.interval import Score, interval, ratio
from tuition.render.codes import finding
from tuition.render.corpus import settle
from tuition.render.spans import BadMarkers, unmark
from tuition.render.tokens import Tokens
from tuition.train.folder import RunFolder
from tuition.train.model import LoadedModel
from tuition.train.selfcheck import choose_path

if TYPE_CHECKING:
    from tuition.evaluate.demonstrations import RowMarks
    from tuition.evaluate.forgetting import Forgetting
    from tuition.evaluate.gate import Judged
    from tuition.evaluate.judge import Verdicts
    from tuition.evaluate.overlap import Overlap

Progress = Callable[[str, int, int], None]
_PACK_TOKENS = 4096


@dataclass(slots=True)
class TestSet:
    """What a model is judged on.

    Attributes:
        conversations: the rows that can be read.
        questions: those among them that have a prompt and an answer.
        ledger: what became of each row.
        choices: the choices of each question, where a metric asks for them.
        rows: each question's row as it stands in its file, for metrics that read it.
    """

    __test__ = False  # pytest: this is no test

    conversations: list[Conversation]
    questions: list[Question]
    ledger: Ledger
    choices: list[Choice] = field(default_factory=list)
    rows: list[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """What one model scored.

    Attributes:
        held_out: its loss over the answers in the data.
        examples: the same, example by example, each with its place, prompt and bytes.
        answers: for each metric its answers: written, or chosen among the choices.
    """

    held_out: HeldOut
    examples: list[Placed]
    answers: dict[str, list[str]]

    @property
    def scored(self) -> list[tuple[str, int, int]]:
        """The places of the examples."""
        return [example.place for example in self.examples]


@dataclass(frozen=True, slots=True)
class Placed:
    """The marks of one example: where it stands, what is asked there, and the bytes of what is learned."""

    place: tuple[str, int, int]
    prompt: str
    text_bytes: int
    marks: ExampleMarks


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one model on one source.

    Attributes:
        model: what the user called it.
        metric: how answers were scored, the first of the metrics; `loss` where they were not.
        held_out: loss over the answers in the data; None where there are no such rows.
        score: the first metric over all prompts.
        comparison: the first metric against the baseline, on the same prompts.
        base_held_out: the baseline's loss.
        rows_in: rows read.
        rejected: rows that could not be scored, with code and reason.
        scores: metric → score, for every metric.
        comparisons: the comparison of every metric.
        corpus: metric → model or baseline → score of all answers together, where that is not the mean.
        differences: `loss` and `bits_per_byte` → tuned minus base by prompt; loss only where both models
            see the same tokens.
        forgetting: what training took away on general text.
        demonstrations: each demonstration before and after.
        judge: what a judge preferred.
        gate: each condition, and whether it holds.
        overlap: rows that the run was trained on; None where nothing says what that was.
    """

    model: str
    metric: str = "loss"
    held_out: HeldOut | None = None
    score: Score | None = None
    comparison: Comparison | None = None
    base_held_out: HeldOut | None = None
    rows_in: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Score] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    corpus: dict[str, dict[str, float]] = field(default_factory=dict)
    differences: dict[str, Score] = field(default_factory=dict)
    forgetting: Forgetting | None = None
    demonstrations: list[RowMarks] | None = None
    judge: Verdicts | None = None
    gate: list[Judged] = field(default_factory=list)
    overlap: Overlap | None = None

    @property
    def passed(self) -> bool:
        """Every condition holds, and no more was forgotten than may be."""
        return all(judged.met for judged in self.gate) and not (self.forgetting and self.forgetting.exceeded)

    def to_json(self) -> dict[str, Any]:
        """The object that `evaluate --json` prints."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        if self.forgetting is not None:
            found["forgetting"] = self.forgetting.to_json()
        if self.overlap is not None:
            found["overlap"] = self.overlap.to_json()
        return found


def read_test_set(
    sources: Sequence[str],
    *,
    limit: int | None,
    metrics: Sequence[Metric] = (),
    span_markers: tuple[str, str] | None = None,
) -> TestSet:
    """Read what is to be scored.

    Args:
        metrics: where one of them chooses, rows are read as multiple choice.
        span_markers: taken out of the text, for a model that learned spans; whole answers are scored.

    Raises:
        UserError: no row can be.
    """
    if any(metric.choice for metric in metrics):
        ledger = Ledger()
        asked = list(read_choices(sources, ledger))
        conversations = [conversation for conversation, _ in asked]
        choices = [choice for _, choice in asked][:limit]
    else:
        reading = Reading(sources)
        ledger = reading.ledger
        read = reading if span_markers is None else _unmarked(reading, span_markers, ledger)
        conversations, choices = list(read), []
    questions = [q for q in map(question_of, conversations) if q is not None][:limit]
    if not conversations:
        reasons = ", ".join(ledger.counts_by_code()) or "there are no rows"
        raise UserError(
            f"no row can be scored ({reasons})",
            where=", ".join(sources),
            next_step="`tuition check` shows every finding",
        )
    rows = rows_of(sources, questions) if reads_rows(metrics) else None
    return TestSet(conversations, questions, ledger, choices, rows)


def _unmarked(
    conversations: Iterable[Conversation], markers: tuple[str, str], ledger: Ledger
) -> Iterator[Conversation]:
    for conversation in conversations:
        try:
            yield unmark(conversation, markers)[0]
        except BadMarkers as reason:
            ledger.reject(conversation.origin, finding("R025", conversation.origin, str(reason)))


def reads_rows(metrics: Sequence[Metric]) -> bool:
    """Whether a metric asks for the row as it stands in its file."""
    return any(":" in metric.name for metric in metrics)


def rows_of(sources: Sequence[str], questions: Sequence[Question]) -> list[Mapping[str, Any]]:
    """The row of each question as it stands in its file."""
    places = {(q.conversation.origin.file, q.conversation.origin.line) for q in questions}
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for source in sources:
        for row in read_rows(split_share(source)[0]):
            place = (row.origin.file, row.origin.line)
            if place in places and row.value is not None:
                found.setdefault(place, row.value)
    return [found.get((q.conversation.origin.file, q.conversation.origin.line), {}) for q in questions]


def examine(
    answerer: Answerer,
    test_set: TestSet,
    *,
    metrics: Sequence[Metric],
    max_new_tokens: int,
    on_progress: Progress,
    answers_folder: Path | None = None,
) -> Marks:
    """Loss of one model over the answers in the data and, as the metrics ask, its own answers to the prompts.

    Raises:
        UserError: its template or context takes none of the rows.
    """
    examples = rendered(answerer, test_set)
    choose_path(answerer.loaded, examples)
    placed = place_marks(
        answerer.loaded,
        answerer.renderer.tokens,
        examples,
        lambda done: on_progress(f"scoring {answerer.shown}", done, len(examples)),
    )
    held_out = summed(placed)
    total = len(test_set.questions)
    answers: dict[str, list[str]] = {}
    if any(metric.choice is None for metric in metrics):
        written = answer_all(
            answerer,
            [(q.messages, q.conversation.tools) for q in test_set.questions],
            answers_folder,
            max_new_tokens=max_new_tokens,
            on_answer=lambda done: on_progress(f"answering {answerer.shown}", done, total),
        )
        answers = {m.name: [given.text for given in written] for m in metrics if m.choice is None}
    asked = list(zip(test_set.conversations, test_set.choices, strict=False))
    answers |= {m.name: choose(answerer, asked, m.choice) for m in metrics if m.choice is not None}
    return Marks(held_out, placed, answers)


def place_marks(
    loaded: LoadedModel,
    tokens: Tokens,
    examples: Sequence[Rendered],
    on_scored: Callable[[int], None] = lambda done: None,
) -> list[Placed]:
    """The marks of each example of a model, token accuracy among them, with its place.

    Args:
        on_scored: told how many examples are scored so far.
    """
    marks = score_examples(loaded, examples, packing=(None, _PACK_TOKENS), accuracy=True, on_scored=on_scored)
    sizes = bytes_of_each(examples, tokens)
    return [
        Placed((e.origin.file, e.origin.line, e.part), e.prompt_key or str(e.origin), size, mark)
        for e, size, mark in zip(examples, sizes, marks, strict=True)
    ]


def summed(placed: Sequence[Placed]) -> HeldOut:
    """The figures of all examples together, with their intervals over prompts."""
    marks, sizes = [p.marks for p in placed], [p.text_bytes for p in placed]
    return with_intervals(totals(marks, sum(sizes)), marks, [p.prompt for p in placed], sizes)


def differences(base: Sequence[Placed], tuned: Sequence[Placed]) -> dict[str, Score]:
    """Tuned minus base, paired by example, with intervals over prompts; examples stand in the same order."""
    gained = [after.marks.nats - before.marks.nats for before, after in zip(base, tuned, strict=True)]
    prompts = [p.prompt for p in tuned]
    found = {}
    if [p.marks.tokens for p in base] == [p.marks.tokens for p in tuned]:
        found["loss"] = ratio(gained, [p.marks.weight for p in tuned], groups=prompts)
    sizes = [float(p.text_bytes) for p in tuned]
    if sum(sizes):
        found["bits_per_byte"] = ratio([nats / math.log(2) for nats in gained], sizes, groups=prompts)
    return found


def rendered(answerer: Answerer, test_set: TestSet) -> list[Rendered]:
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
    name: str, tuned: Marks, base: Marks | None, test_set: TestSet, *, metrics: Sequence[Metric]
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
    comparisons = (
        []
        if base is None
        else [compare(answers_of(test_set, base, tuned, m.name), m, rows=test_set.rows) for m in metrics]
    )
    scores = {c.metric: c.tuned for c in comparisons} or {m.name: _score(m, tuned, test_set) for m in metrics}
    return Evaluation(
        model=name,
        metric=metrics[0].name if metrics else "loss",
        held_out=tuned.held_out,
        score=next(iter(scores.values()), None),
        comparison=next(iter(comparisons), None),
        base_held_out=None if base is None else base.held_out,
        rows_in=test_set.ledger.rows_in,
        rejected=[entry.to_json() for entry in test_set.ledger.rejected],
        scores=scores,
        comparisons=comparisons,
        corpus={m.name: _corpus(m, tuned, base, test_set) for m in metrics if m.corpus is not None},
        differences={} if base is None else differences(base.examples, tuned.examples),
    )


def _score(metric: Metric, marks: Marks, test_set: TestSet) -> Score:
    rows = test_set.rows or [{}] * len(test_set.questions)
    values = [
        metric.measure(given, question.expected, row)
        for given, question, row in zip(marks.answers[metric.name], test_set.questions, rows, strict=True)
    ]
    prompts = [question.prompt for question in test_set.questions]
    return interval(values, lowest=metric.lowest, highest=metric.highest, groups=prompts, seed=0)


def _corpus(metric: Metric, tuned: Marks, base: Marks | None, test_set: TestSet) -> dict[str, float]:
    expected = [question.expected for question in test_set.questions]
    if metric.corpus is None:
        return {}
    found = {"tuned": metric.corpus(tuned.answers[metric.name], expected)}
    return found if base is None else {"base": metric.corpus(base.answers[metric.name], expected), **found}


def record(name: str, tuned: Marks, base: Marks | None, test_set: TestSet) -> None:
    """The answers of both models belong in the folder of the run, as its samples."""
    folder = RunFolder(Path(name))
    if not folder.holds_a_run() or base is None or not tuned.answers:
        return
    first = next(iter(tuned.answers))
    pairs = zip(test_set.questions, base.answers[first], tuned.answers[first], strict=True)
    rows = [
        {
            "prompt": question.prompt,
            "expected": question.expected,
            "base": before,
            "tuned": after,
            "file": question.conversation.origin.file,
            "line": question.conversation.origin.line,
        }
        for question, before, after in pairs
    ]
    files.write_jsonl(folder.samples, rows)


def answers_of(test_set: TestSet, base: Marks, tuned: Marks, metric: str) -> list[Answer]:
    """What both models answered to each prompt, by the answers of one metric."""
    pairs = zip(test_set.questions, base.answers[metric], tuned.answers[metric], strict=True)
    return [
        Answer(question.prompt, question.expected, before, after, str(question.conversation.origin))
        for question, before, after in pairs
    ]
