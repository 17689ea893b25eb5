"""Each demonstration before and after training: what was learned, what was not, and what looks wrong.

Nothing is dropped here: a row is shown with its place in the file, and a person decides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tuition.conversation import Conversation, Message
from tuition.data import LearnedFrom, near_pairs, prompt_key
from tuition.errors import Origin
from tuition.evaluate.generate import question_of
from tuition.evaluate.heldout import ExampleMarks
from tuition.evaluate.marks import Placed

LEARNED = 0.9  # a row is learned where its loss fell to less than this share of what it was
_ROWS_FOR_OUTLIERS = 10
_ROWS_SHOWN = 10
_MADS = 3.0 * 1.4826  # three standard deviations, were the losses normal
_LEAST_NATS = 0.5  # nor is a row an outlier for less than this
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RowMarks:
    """One demonstration.

    Attributes:
        file: where it stands.
        line: its line there.
        prompt: what is asked.
        expected: the last answer.
        before: loss of the base model, nats a token.
        after: loss of the tuned model.
        token_accuracy: share of its learned tokens that the tuned model finds most likely.
        learned: the loss fell by more than a tenth.
        held_out: the run did not learn from its prompt.
        suspicions: why the row looks wrong; empty where it does not.
    """

    file: str
    line: int
    prompt: str
    expected: str
    before: float
    after: float
    token_accuracy: float
    learned: bool
    suspicions: tuple[str, ...] = ()
    held_out: bool = False


def row_marks(
    conversations: Sequence[Conversation],
    base: Sequence[Placed],
    tuned: Sequence[Placed],
    learned_from: LearnedFrom | None = None,
) -> list[RowMarks]:
    """Every row that both models read, in the order of the file.

    Args:
        learned_from: the prompts that the run learned from; None where nothing says it.
    """
    before, after = _by_row(base), _by_row(tuned)
    shown = {_place(c): c for c in reversed(conversations)}
    fresh = {p for p, c in shown.items() if learned_from is not None and prompt_key(c) not in learned_from}
    losses = {place: marks.loss for place, marks in after.items()}
    suspicions = suspicions_of([c for place, c in shown.items() if place in after], losses, fresh)
    rows = []
    for place in after.keys() & before.keys() & shown.keys():
        question, old, new = question_of(shown[place]), before[place], after[place]
        rows.append(
            RowMarks(
                *place,
                prompt=question.prompt if question else "",
                expected=question.expected if question else shown[place].messages[-1].content,
                before=old.loss,
                after=new.loss,
                token_accuracy=(new.hits or 0) / new.tokens,
                learned=new.loss < LEARNED * old.loss,
                suspicions=tuple(suspicions.get(place, ())),
                held_out=place in fresh,
            )
        )
    order = {place: n for n, place in enumerate(map(_place, conversations))}
    return sorted(rows, key=lambda row: order[row.file, row.line])


def suspicions_of(
    conversations: Sequence[Conversation], losses: Mapping[Place, float], held_out: Container[Place] = ()
) -> dict[Place, list[str]]:
    """Why rows look wrong: a loss far above the others', or another answer to nearly the same question.

    Args:
        held_out: rows that were not learned from, whose losses are compared with one another only.
    """
    found: dict[Place, list[str]] = defaultdict(list)
    sides = [{p: loss for p, loss in losses.items() if (p in held_out) is side} for side in (False, True)]
    for place, reason in [*_outliers(sides[0]), *_outliers(sides[1]), *_contradictions(conversations)]:
        if reason not in found[place]:
            found[place].append(reason)
    return dict(found)


def _outliers(losses: Mapping[Place, float]) -> list[tuple[Place, str]]:
    if len(losses) < _ROWS_FOR_OUTLIERS:
        return []
    middle = median(losses.values())
    spread = max(_LEAST_NATS, _MADS * median(abs(loss - middle) for loss in losses.values()))
    return [
        (place, f"its loss after training is {loss:.2f}, the median is {middle:.2f}")
        for place, loss in losses.items()
        if loss > middle + spread
    ]


def _contradictions(conversations: Sequence[Conversation]) -> list[tuple[Place, str]]:
    """Rows that ask the same, or nearly the same, and expect different answers; both of each pair."""
    asked: dict[str, list[tuple[Conversation, str]]] = defaultdict(list)
    prompts: dict[Origin, tuple[Conversation, str]] = {}
    bare: list[Conversation] = []
    for conversation in conversations:
        question = question_of(conversation)
        if question is not None:
            entry = (conversation, _plain(question.expected))
            asked[_plain(question.prompt)].append(entry)
            prompts[conversation.origin] = entry
            bare.append(Conversation((Message("user", question.prompt),), conversation.origin))
    pairs = [
        (one, other)
        for same in asked.values()
        for one in same
        for other in [next((o for o in same if o[1] != one[1]), None)]
        if other is not None
    ]
    for origin, earlier, _ in near_pairs(bare):
        one, other = prompts[origin], prompts[earlier]
        if one[1] != other[1]:
            pairs += [(one, other), (other, one)]
    return [
        (_place(one[0]), f"{other[0].origin} asks nearly the same and answers otherwise")
        for one, other in pairs
    ]


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def _place(conversation: Conversation) -> Place:
    return (conversation.origin.file, conversation.origin.line)


def _by_row(placed: Sequence[Placed]) -> dict[Place, ExampleMarks]:
    """The marks of each row, its examples together."""
    rows: dict[Place, list[ExampleMarks]] = defaultdict(list)
    for example in placed:
        rows[example.place[:2]].append(example.marks)
    return {
        place: ExampleMarks(
            sum(m.nats for m in marks),
            sum(m.weight for m in marks),
            sum(m.tokens for m in marks),
            sum(m.hits or 0 for m in marks),
        )
        for place, marks in rows.items()
    }


def worst_rows(rows: Sequence[RowMarks]) -> list[tuple[RowMarks, str]]:
    """What a person looks at first: rows that were not learned, then rows that look wrong, each with the reason."""
    missed = [row for row in rows if not row.learned and not row.held_out]
    wrong = [row for row in rows if row.suspicions]
    return [
        *((row, "not learned") for row in sorted(missed, key=_least_learned)[:_ROWS_SHOWN]),
        *((row, "; ".join(row.suspicions)) for row in sorted(wrong, key=_least_learned)[:_ROWS_SHOWN]),
    ]


def _least_learned(row: RowMarks) -> float:
    return -row.after


def summary_of(rows: Sequence[RowMarks]) -> dict[str, Any]:
    """How many rows were learned, were not, were held out, and look wrong; and the worst of them."""
    return {
        "rows": len(rows),
        "held_out": sum(row.held_out for row in rows),
        "not_learned": sum(not row.learned and not row.held_out for row in rows),
        "suspicious": sum(bool(row.suspicions) for row in rows),
        "worst": [{**asdict(row), "reason": reason} for row, reason in worst_rows(rows)],
    }
