"""Which characters of a turn are learned, where not the whole of it is.

Markers are taken out of the text before a template sees it. Where their places end up in what the template
writes is shown by writing it again with signs that no text holds, and taken only if that changes nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tuition.conversation import Conversation, Message
from tuition.render.content import CUT_MARKS, strings_in
from tuition.render.template import TemplateRefusal
from tuition.render.texts import shared_start
from tuition.render.tokens import Ids, Tokens

SPAN_MARKERS = ("<learn>", "</learn>")
_LONGEST_CHARACTER_TOKENS = 8

Write = Callable[[Sequence[Mapping[str, Any]]], str]


class Range(NamedTuple):
    """Characters from `start` up to `end`, which is not among them."""

    start: int
    end: int


class BadMarkers(Exception):
    """The markers of a text do not pair up; the text says which and where."""


class NotLocated(Exception):
    """The template changes the text so that the place of a border cannot be told; the text names the border."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What stood between markers in one message, in characters of its text without them."""

    content: tuple[Range, ...] = ()
    reasoning: tuple[Range, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning)


def unmark(conversation: Conversation, markers: tuple[str, str]) -> tuple[Conversation, tuple[Marked, ...]]:
    """The conversation without its markers, and what they enclosed, message by message.

    Raises:
        BadMarkers: one is missing its partner, or they are nested.
    """
    messages: list[Message] = []
    marked: list[Marked] = []
    for position, message in enumerate(conversation.messages):
        content, inside = _unmark_text(message.content, markers, f"message {position + 1}")
        reasoning = message.reasoning
        thought: tuple[Range, ...] = ()
        if reasoning is not None:
            reasoning, thought = _unmark_text(reasoning, markers, f"the reasoning of message {position + 1}")
        marked.append(Marked(inside, thought))
        changed = content != message.content or reasoning != message.reasoning
        messages.append(replace(message, content=content, reasoning=reasoning) if changed else message)
    return replace(conversation, messages=tuple(messages)), tuple(marked)


def _unmark_text(text: str, markers: tuple[str, str], where: str) -> tuple[str, tuple[Range, ...]]:
    opening, closing = markers
    ranges: list[Range] = []
    plain: list[str] = []
    length, read, opened = 0, 0, None
    for match in re.finditer(f"{re.escape(opening)}|{re.escape(closing)}", text):
        plain.append(text[read : match.start()])
        length, read = length + match.start() - read, match.end()
        place = f"at character {match.start() + 1} of {where}"
        if match.group() == opening:
            if opened is not None:
                raise BadMarkers(f"{opening} {place} stands inside another span")
            opened = (length, place)
        elif opened is None:
            raise BadMarkers(f"{closing} {place} closes a span that was never opened")
        else:
            ranges.append(Range(opened[0], length))
            opened = None
    if opened is not None:
        raise BadMarkers(f"{opening} {opened[1]} is never closed")
    return "".join([*plain, text[read:]]), tuple(ranges)


class Locator:
    """Finds places of a message's fields in what the template writes of one turn.

    Args:
        write: gives the text through the turn, for messages as the template sees them.
        messages: those messages.
        position: the turn's place among them.
        prompt: the text before the turn.
        text: the text through it.
        mark: the cut mark in the texts; places are counted as if it were not there.
    """

    def __init__(
        self,
        write: Write,
        messages: Sequence[Mapping[str, Any]],
        position: int,
        prompt: str,
        text: str,
        mark: str = "",
    ) -> None:
        self._write = write
        self._messages = messages
        self._position = position
        self._prompt, self._text = prompt, text
        self._mark = mark
        held = "\0".join(strings_in(messages)) + text
        self._sign = next((sign for sign in CUT_MARKS if sign not in held), "")

    @property
    def completion_length(self) -> int:
        """Characters of the turn."""
        return len(self._plain(self._text[len(self._prompt) :]))

    def ranges(self, marked: Marked) -> tuple[Range, ...]:
        """What the markers enclosed, in characters of the turn. One that reaches the turn's end has its stop, too.

        Raises:
            NotLocated: the template changes the text.
        """
        found: list[Range] = []
        message = self._messages[self._position]
        for key, spans in (("content", marked.content), ("reasoning_content", marked.reasoning)):
            if not spans:
                continue
            whole = len(self._plain(str(message[key])))
            *places, end = self._places(key, [*(border for span in spans for border in span), whole]) or [0]
            if not places:
                raise NotLocated(f"the template leaves out message {self._position + 1}")
            found += [Range(a, b) for a, b in zip(places[::2], places[1::2], strict=True)]
            if key == "content" and places[-1] == end and not message.get("tool_calls"):
                found[-1] = Range(found[-1].start, self.completion_length + 1)
        return tuple(sorted(span for span in found if span.start < span.end))

    def answer(self) -> tuple[Range, ...] | None:
        """What follows the reasoning, in characters of the turn; None where the template writes no reasoning.

        Raises:
            NotLocated: the answer does not stand behind the reasoning, or the template changes the text.
        """
        thought = self._places("reasoning_content", [0])
        if not thought:
            return None
        if self._messages[self._position]["content"].strip():
            starts = self._places("content", [0])
        else:
            starts = self._place_of_empty_content()
        if not starts or starts[0] < thought[0]:
            raise NotLocated(f"the answer does not follow the reasoning in message {self._position + 1}")
        return (Range(starts[0], self.completion_length + 1),)

    def _places(self, key: str, borders: Sequence[int]) -> list[int]:
        """Where places of a field stand in the turn; none where the field is not written.

        A template may trim the field; then a place in the white space at its ends is where the text begins or ends.
        """
        field = str(self._messages[self._position][key])
        plain = self._plain(field)
        begin, end = len(plain) - len(plain.lstrip()), len(plain.rstrip())
        trimmed = [min(max(border, begin), max(begin, end)) for border in borders]
        for chosen in (borders, trimmed):
            written = self._written_with(key, self._signed(field, chosen))
            if written is None or written.replace(self._sign, "") != self._text:
                continue
            pieces = self._plain(written[len(self._prompt) :]).split(self._sign)
            if len(pieces) == 1:
                return []
            if len(pieces) == len(borders) + 1 and written.startswith(self._prompt):
                return list(accumulate(len(piece) for piece in pieces[:-1]))
        raise NotLocated(f"the template changes message {self._position + 1}")

    def _place_of_empty_content(self) -> list[int]:
        """Where content would stand, if there were any: what stands before it is the same then."""
        written = self._written_with("content", self._sign)
        if written is None or self._sign not in written:
            return []
        before = written[: written.index(self._sign)]
        is_same = len(before) >= len(self._prompt) and self._text.startswith(before)
        return [len(self._plain(before[len(self._prompt) :]))] if is_same else []

    def _written_with(self, key: str, value: str) -> str | None:
        if not self._sign:
            return None
        messages = [*self._messages]
        messages[self._position] = {**messages[self._position], key: value}
        try:
            return self._write(messages)
        except TemplateRefusal:
            return None

    def _signed(self, field: str, borders: Sequence[int]) -> str:
        """The field with a sign at each place, counted without cut marks."""
        signed: list[str] = []
        waiting = list(borders)
        count = 0
        for character in field:
            while waiting and waiting[0] == count and character != self._mark:
                signed.append(self._sign)
                waiting.pop(0)
            signed.append(character)
            count += character != self._mark
        return "".join([*signed, self._sign * len(waiting)])

    def _plain(self, text: str) -> str:
        return text.replace(self._mark, "") if self._mark else text


def chosen_tokens(
    tokens: Tokens, ids: Ids, text: str, ranges: Sequence[Range]
) -> npt.NDArray[np.bool_] | None:
    """Which tokens of a turn show a character of the ranges, wholly or in part.

    Each token is decoded and must be the next piece of the text, so nothing rests on a tokenizer's own offsets.

    Args:
        ids: (tokens,) int32; what follows the text (an EOS that no template wrote) stands behind its end.
        text: what they spell, and perhaps more behind it.
        ranges: in characters of `text`.

    Returns:
        (tokens,) bool; None where the tokens do not spell the text.
    """
    shown = _characters_of(tokens, ids, text)
    if shown is None:
        return None
    return np.array(
        [any(start < span.end and end > span.start for span in ranges) for start, end in shown],
        dtype=np.bool_,
    )


def _characters_of(tokens: Tokens, ids: Ids, text: str) -> list[Range] | None:
    """The characters that each token shows, wholly or in part; a token that shows none goes with the next."""
    shown: list[Range] = []
    group: list[int] = []
    at = 0
    for token in ids.tolist():
        if at == len(text) and not group:
            shown.append(Range(at, at + 1))
            continue
        group.append(token)
        piece = tokens.text_of(group)
        if not text.startswith(piece, at) and piece.startswith(" ") and text.startswith(piece[1:], at):
            piece = piece[1:]  # SentencePiece puts a space behind a control token
        if text.startswith(piece, at):
            shown += _shares(tokens, group, text, at, len(piece))
            at += len(piece)
            group = []
        elif len(group) == _LONGEST_CHARACTER_TOKENS:
            return None
    return None if group else shown


def _shares(tokens: Tokens, group: Sequence[int], text: str, at: int, length: int) -> list[Range]:
    """The characters of each token of a group that together spells whole ones."""
    if len(group) == 1:
        return [Range(at, at + max(length, 1))]
    shares, complete = [], 0
    for size in range(1, len(group) + 1):
        piece = tokens.text_of(group[:size])
        whole = length if size == len(group) else shared_start(piece, text[at : at + length])
        is_partial = size < len(group) and len(piece) > whole
        shares.append(Range(at + complete, at + max(whole + is_partial, complete + 1)))
        complete = whole
    return shares
