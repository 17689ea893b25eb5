"""What a model is judged on: rows with answers, every one of them read or named with the reason."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuition.conversation import Conversation
from tuition.data import PYTHON, Ledger, Reading, read_all
from tuition.errors import UserError
from tuition.evaluate.choices import Choice, read_choices
from tuition.evaluate.generate import Question, question_of
from tuition.evaluate.measures import Metric
from tuition.render.codes import finding
from tuition.render.spans import BadMarkers, unmark


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


def read_test_set(
    sources: Sequence[str],
    *,
    given: Sequence[Any] = (),
    limit: int | None,
    metrics: Sequence[Metric] = (),
    span_markers: tuple[str, str] | None = None,
    only: Container[tuple[str, int]] | None = None,
    mapping: Mapping[str, str] | None = None,
) -> TestSet:
    """Read what is to be scored.

    Args:
        given: rows from Python, beside those of the sources.
        metrics: where one of them chooses, rows are read as multiple choice.
        span_markers: taken out of the text, for a model that learned spans; whole answers are scored.
        only: file and line of the rows that are meant; None: all.
        mapping: which column is what; None: found in each row.

    Raises:
        UserError: no row can be.
    """
    if any(metric.choice for metric in metrics):
        if only is not None:
            raise UserError(
                "choices are not found among rows that a run held out",
                where="--metric",
                next_step="Name the rows: --data FILE",
            )
        ledger = Ledger()
        asked = list(read_choices(sources, ledger, given))
        conversations = [conversation for conversation, _ in asked]
        choices = [choice for _, choice in asked][:limit]
    else:
        reading = Reading(sources, rows=given, only=only, mapping=mapping)
        ledger = reading.ledger
        read = reading if span_markers is None else _unmarked(reading, span_markers, ledger)
        conversations, choices = list(read), []
    questions = [q for q in map(question_of, conversations) if q is not None][:limit]
    if not conversations:
        reasons = ", ".join(ledger.counts_by_code()) or "there are no rows"
        raise UserError(
            f"no row can be scored ({reasons})",
            where=", ".join(sources) or PYTHON,
            next_step="`tuition check` shows every finding",
        )
    rows = rows_of(sources, questions, given) if reads_rows(metrics) else None
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


def rows_of(
    sources: Sequence[str], questions: Sequence[Question], given: Sequence[Any] = ()
) -> list[Mapping[str, Any]]:
    """The row of each question as it stands in its file, or as it was given."""
    places = {(q.conversation.origin.file, q.conversation.origin.line) for q in questions}
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in read_all(sources, given):
        place = (row.origin.file, row.origin.line)
        if place in places and row.value is not None:
            found.setdefault(place, row.value)
    return [found.get((q.conversation.origin.file, q.conversation.origin.line), {}) for q in questions]
