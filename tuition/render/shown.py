"""Rows as the proof looks at them: which of their answers are learned, which examples hold what of them.

Serves the proof alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tuition.conversation import Conversation, Message, Rendered
from tuition.grouping import groups_within
from tuition.render.renderer import Outcome

# Every learned turn of a long row has all that stands before it: memory would grow with rows × turns × tokens.
_IDS_AT_ONCE = 1 << 24


@dataclass(slots=True)
class Row:
    """One chat, and which of its learned answers were found behind what serving feeds.

    Attributes:
        learned: places of the answers that are learned and that something precedes.
        found: those that stand in an example as they are served.
        unlike: those that were found behind their prompt only, and whether at least their ids are as written.
        seen: for each example by identity, which of its tokens belong to turns that were found.
    """

    outcome: Outcome
    learned: list[int]
    found: set[int] = field(default_factory=set)
    unlike: dict[int, bool] = field(default_factory=dict)
    seen: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def conversation(self) -> Conversation:
        """What was rendered of it."""
        return self.outcome.conversation

    def has(self, *codes: str) -> bool:
        """Whether it has one of these findings."""
        return any(found.code in codes for found in self.outcome.findings)

    def as_read(self, place: int) -> Message:
        """The message there with the span markers that it had."""
        return (self.outcome.source or self.conversation).messages[place]

    def seen_of(self, example: Rendered) -> npt.NDArray[np.bool_]:
        """Which of its tokens belong to turns that were found."""
        return self.seen.setdefault(id(example), np.zeros(len(example), dtype=np.bool_))

    def where(self, place: int) -> str:
        """The place, for people."""
        return f"{self.conversation.origin} (message {place + 1})"


@dataclass(frozen=True, slots=True)
class Shown:
    """A chat, or a part of one, and the examples that hold it: several where the template rewrites history.

    Attributes:
        places: where its messages stand in the row.
    """

    row: Row
    conversation: Conversation
    examples: tuple[Rendered, ...]
    places: list[int]

    @property
    def positions(self) -> list[int]:
        """Where the learned answers stand in it."""
        return [n for n, place in enumerate(self.places) if place in self.row.learned]


def at_once(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows in their order, as many as are compared in bounded memory, or a longer one by itself."""
    ids = (len(row.learned) * max(map(len, row.outcome.examples)) for row in rows)
    return ([rows[place] for place in group] for group in groups_within(ids, _IDS_AT_ONCE))


def parts_of(row: Row) -> Iterator[Shown]:
    """The examples of a row by what they hold of it."""
    outcome = row.outcome
    for part in {id(part): part for part in outcome.shown}.values():
        pairs = zip(outcome.examples, outcome.shown, strict=True)
        examples = tuple(example for example, shown in pairs if shown is part)
        yield Shown(row, part, examples, list(_places(part.messages, row.conversation.messages)))


def _places(messages: Sequence[Message], of: Sequence[Message]) -> Iterator[int]:
    """Where each message stands among those of the row, of which they are some in their order."""
    place = -1
    for message in messages:
        place = next(n for n in range(place + 1, len(of)) if of[n] is message)
        yield place
