"""What becomes of an example that is longer than max_length, by the rule that the recipe names.

Whatever the rule, nothing gets an end that it does not have, and a finding says what was left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tuition.conversation import Conversation, Message
from tuition.counting import counted
from tuition.errors import UserError
from tuition.render.assemble import Part, Placed
from tuition.render.draft import Draft

TooLong = Literal["drop", "cut", "cut_turns", "split", "refuse"]
Redraft = Callable[[Conversation], Sequence[Part]]


@dataclass(frozen=True, slots=True)
class LongRow:
    """A conversation of which an example is too long.

    Attributes:
        draft: the conversation, which takes the findings.
        source: the conversation as it was read, span markers included.
        max_length: tokens.
        way_to_longer: how a next step begins that would keep it whole.
        redraft: the examples of another conversation; none where it cannot be rendered.
    """

    draft: Draft
    source: Conversation
    max_length: int
    way_to_longer: str
    redraft: Redraft

    def says(self, part: Part) -> str:
        """How long an example is."""
        return f"{len(part):,} tokens are more than max_length {self.max_length:,}"


def _refuse(row: LongRow, part: Part) -> list[Part]:
    raise UserError(
        row.says(part),
        where=str(row.source.origin),
        next_step=f"{row.way_to_longer}, or set too_long: drop, cut, cut_turns or split",
    )


def _drop(row: LongRow, part: Part) -> list[Part]:
    row.draft.note("R014", row.says(part))
    return []


def _cut(row: LongRow, part: Part) -> list[Part]:
    """The first max_length tokens; the turn that is cut gets no end."""
    turns = [turn for turn in part.turns if part.supervised[turn.start : row.max_length].any()]
    kept = Part(
        part.ids[: row.max_length],
        part.supervised[: row.max_length],
        tuple(_cut_turn(turn, row.max_length) for turn in turns),
    )
    row.draft.note(
        "R015", f"{row.says(part)}; cut there, with no stop token after the cut; {_lost(part, [kept])}"
    )
    return [kept]


def _cut_turn(turn: Placed, length: int) -> Placed:
    if turn.end <= length:
        return turn
    return replace(turn, end=length, stop=None, open_ends=turn.open_ends + 1)


def _cut_turns(row: LongRow, part: Part) -> list[Part]:
    """The example up to the last learned turn that ends within max_length."""
    kept = _prefix(row, part)
    if kept is None:
        first = part.turns[0]
        place = f"message {first.position + 1}, the first that is learned, ends at token {first.end:,}"
        row.draft.note("R021", f"{row.says(part)}; {place}; {_lost(part, [])}")
        return []
    row.draft.note(
        "R021",
        f"{row.says(part)}; cut after message {kept.turns[-1].position + 1}; {_lost(part, [kept])}",
    )
    return [kept]


def _prefix(row: LongRow, part: Part) -> Part | None:
    """The longest beginning of whole turns that fits and has a learned token."""
    fitting = [number for number, turn in enumerate(part.turns, 1) if turn.end <= row.max_length]
    kept = part.through(fitting[-1]) if fitting else None
    return kept if kept is not None and kept.supervised.any() else None


def _split(row: LongRow, part: Part) -> list[Part]:
    """Several examples, each as served, that together learn every turn once."""
    return _windows(row, part) if row.source.plain else _Splitting(row, part).parts()


def _windows(row: LongRow, part: Part) -> list[Part]:
    """Running text in windows. One token stands in two of them, for the first of an example is never learned."""
    windows = []
    for start in range(0, len(part) - 1, row.max_length - 1):
        end = min(start + row.max_length, len(part))
        supervised = part.supervised[start:end].copy()
        supervised[0] = 0
        turn = replace(part.turns[-1], start=0, end=end - start)
        if end < len(part):
            turn = replace(turn, stop=None, open_ends=turn.open_ends + 1)
        windows.append(Part(part.ids[start:end], supervised, (turn,)))
    row.draft.note("R022", f"{row.says(part)}; the text became {len(windows)} windows")
    return windows


class _Splitting:
    """One example on its way to several.

    The first is its beginning. Each later one begins with the system message, goes on with the newest
    exchanges that fit before the first turn that is not learned yet, and is rendered anew.
    """

    def __init__(self, row: LongRow, part: Part) -> None:
        self._row = row
        self._part = part
        self._messages = row.source.messages
        self._head = _head(self._messages)
        self._exchanges = _exchanges(self._messages, self._head)
        self._set_aside: list[str] = []

    def parts(self) -> list[Part]:
        """The examples; none where no turn fits, with findings for what is left out."""
        parts = list(self._made())
        row, part = self._row, self._part
        if self._set_aside or _learned(parts) < part.learned_tokens:
            row.draft.note("R023", f"{row.says(part)}; {'; '.join([*self._set_aside, _lost(part, parts)])}")
        if parts and (len(parts) > 1 or not self._set_aside):
            examples = f"{len(parts)} examples" if len(parts) > 1 else "one example"
            row.draft.note(
                "R022",
                f"{row.says(part)}; it became {examples} of {sum(map(len, parts)):,} tokens together, "
                "as served; what is not its beginning begins with a later message",
            )
        return parts

    def _made(self) -> Iterator[Part]:
        turns = self._part.turns
        first = _prefix(self._row, self._part)
        number = 0
        if first is not None:
            number = len(first.turns)
            yield first
        start = 0
        while number < len(turns):
            start, fitting = self._newest_that_fit(start, turns[number].position)
            if fitting is None:
                number += 1
                continue
            fitting = self._with_next_turns(start, fitting, turns[number:])
            number += len(fitting.turns)
            yield fitting

    def _with_next_turns(self, start: int, part: Part, turns: Sequence[Placed]) -> Part:
        """The example with the turns behind its first one, as long as they fit."""
        while len(part.turns) < len(turns):
            now, following = turns[len(part.turns) - 1 : len(part.turns) + 1]
            if len(part) + following.end - now.end > self._row.max_length:
                break
            positions = [turn.position for turn in turns[: len(part.turns) + 1]]
            longer = self._rendered(start, positions)
            if longer is None or len(longer) > self._row.max_length:
                break
            part = longer
        return part

    def _newest_that_fit(self, earliest: int, position: int) -> tuple[int, Part | None]:
        """The exchange to begin with, so that as many as can stand before the turn, and the example."""
        last = max((n for n, start in enumerate(self._exchanges) if start <= position), default=earliest)
        tried: dict[int, Part | None] = {}

        def fits(start: int) -> bool:
            if start not in tried:
                tried[start] = self._rendered(start, [position])
            part = tried[start]
            return part is not None and len(part) <= self._row.max_length

        low = high = min(earliest, last)
        step = 1
        while high < last and not fits(high):  # most often an exchange or two decide
            low, high, step = high + 1, min(high + step, last), 2 * step
        start = bisect_left(range(last + 1), True, lo=low, hi=high + 1, key=fits)
        if start <= last:
            return start, tried[start]
        shortest = tried.get(last)
        why = "cannot be rendered" if shortest is None else f"has {len(shortest):,} tokens"
        self._set_aside.append(
            f"message {position + 1} is set aside, for it {why} even with the shortest history"
        )
        return earliest, None

    def _rendered(self, start: int, positions: Sequence[int]) -> Part | None:
        """The conversation from an exchange to the last of the positions, of which only these are learned.

        None where the template refuses it, or would write it as several examples.
        """
        begin, end = self._exchanges[start], positions[-1] + 1
        kept = [*range(self._head), *range(begin, end)]
        messages = [
            self._messages[n] if n in positions else replace(self._messages[n], weight=0.0) for n in kept
        ]
        parts = self._row.redraft(replace(self._row.source, messages=tuple(messages)))
        if len(parts) != 1 or len(parts[0].turns) != len(positions):
            return None
        turns = zip(parts[0].turns, positions, strict=True)
        return replace(
            parts[0],
            turns=tuple(replace(turn, position=position) for turn, position in turns),
            context=tuple(kept[:-1]),
        )


TOO_LONG: dict[TooLong, Callable[[LongRow, Part], list[Part]]] = {
    "refuse": _refuse,
    "drop": _drop,
    "cut": _cut,
    "cut_turns": _cut_turns,
    "split": _split,
}


def _head(messages: Sequence[Message]) -> int:
    """How many messages open the conversation before anybody speaks."""
    return next((n for n, m in enumerate(messages) if m.role not in ("system", "developer")), len(messages))


def _exchanges(messages: Sequence[Message], head: int) -> list[int]:
    """Where exchanges begin: at what opens the conversation, then at each user message behind another role."""
    later = range(head + 1, len(messages))
    return [head, *(n for n in later if messages[n].role == "user" and messages[n - 1].role != "user")]


def _learned(parts: Sequence[Part]) -> int:
    return sum(part.learned_tokens for part in parts)


def _lost(part: Part, kept: Sequence[Part]) -> str:
    """What of an example is in none of those that were made of it."""
    are = counted(part.learned_tokens, "learned token is", "learned tokens are")
    return f"{part.learned_tokens - _learned(kept):,} of {are} left out"


def settle_losses(draft: Draft, kept: Sequence[Part], last: int) -> None:
    """Say what a row lost as a whole: all of it, or messages that stand in none of its examples.

    Args:
        last: place of the last learned message.
    """
    if kept and any(finding.code in ("R022", "R023") for finding in draft.findings):
        shown = {position for part in kept for position in part.messages}
        unseen = [str(position + 1) for position in range(last + 1) if position not in shown]
        if unseen:
            draft.note("R023", f"messages {', '.join(unseen)} stand in no example")
    if kept:
        return
    losses = [finding for finding in draft.findings if finding.code in ("R021", "R023")]
    if losses:
        draft.findings[:] = [finding for finding in draft.findings if finding not in losses]
        draft.note("R020", "; ".join(finding.message for finding in losses))
