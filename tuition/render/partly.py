"""Where only part of a turn is learned: whether it is that part, token by token.

Serves the proof alone. Places are counted in characters without white space, which templates trim and some
tokenizers spell otherwise; what the tokens write is asked of the tokenizer, group by group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tuition.conversation import Message
from tuition.render.tokens import Ids, Tokens

_LONGEST_CHARACTER_TOKENS = 8


class Asked(NamedTuple):
    """What of a message is to be learned.

    Attributes:
        thought, content: the texts, without markers.
        thought_ranges, content_ranges: characters of them that are learned, white space not counted. What follows
            the content is learned where its end is.
    """

    thought: str
    content: str
    thought_ranges: tuple[tuple[int, int], ...] = ()
    content_ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def behind_the_thought(cls, message: Message) -> Asked:
        """All of a message but its thought."""
        end = len(squeezed(message.content)) + 1
        return cls(message.reasoning or "", message.content, (), ((0, end),))

    @classmethod
    def between_markers(cls, message: Message, markers: re.Pattern[str], *, thinks: bool) -> Asked:
        """What stands between markers, which the pattern matches whole with the text as its group.

        Args:
            thinks: whether the thought may be learned.
        """
        thought, in_thought = _unmarked(message.reasoning or "", markers)
        content, in_content = _unmarked(message.content, markers)
        return cls(thought, content, in_thought if thinks else (), in_content)


class Partly:
    """Compares what is learned of turns with what is asked.

    Args:
        tokens: the tokenizer.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def is_as_asked(
        self, ids: Ids, learned: npt.NDArray[np.bool_], asked: Asked, *, begins: bool = False
    ) -> bool:
        """Whether just those tokens are learned that write a character that is asked for, wholly or in part.

        Control tokens aside, and white space at a border: the end of a turn is looked at elsewhere. Where the
        vocabulary does not know a character of the turn, its places cannot be told, nor where nothing is said
        behind a thought those of what the template writes there.

        Args:
            ids: (tokens,) int32, the turn, which may be cut.
            learned: (tokens,) bool.
            begins: nothing precedes the first token, so that it is not learned.
        """
        unknown = self._tokens.tokenizer.unk_token_id
        if unknown not in self._tokens.special_ids and unknown in ids.tolist():
            return True
        pieces = list(self._pieces(ids))
        ranges, untold = self._ranges("".join(text or "" for _, _, text in pieces), asked)
        at = 0
        for begin, end, text in pieces:
            here = range(at, at + len(text or ""))
            at = here.stop
            if text is None or (begins and not begin) or here.start >= untold:
                continue
            if (expected := _is_asked(here, ranges, whole=end - begin > 1)) is None:
                continue
            if bool((learned[begin:end] != expected).any()):
                return False
        return True

    def _ranges(self, text: str, asked: Asked) -> tuple[list[tuple[int, int]], int]:
        """The characters of a turn that are asked for, and where one cannot tell any more.

        The end of the turn belongs to the content.
        """
        thought, content = (self._as_spelled(part) for part in (asked.thought, asked.content))
        at = text.rfind(content) if content else -1
        begin = text.find(thought, 0, at if at >= 0 else len(text)) if thought else -1
        if at < 0:
            after = begin + len(thought) if begin >= 0 else 0
            at = _place_of_cut(text, content, after) if content else after
        ranges = [(begin + start, begin + stop) for start, stop in asked.thought_ranges if begin >= 0]
        if asked.thought_ranges and not thought:  # white space that may stand anywhere before the content
            ranges += [(place, place) for place in range(at + 1)]
        for start, stop in asked.content_ranges:
            ranges.append((at + start, len(text) + 1 if stop > len(squeezed(asked.content)) else at + stop))
        return ranges, len(text) + 1 if content else at

    def _as_spelled(self, text: str) -> str:
        """A text as its tokens write it: some vocabularies do not know all characters."""
        return squeezed(self._tokens.decode(self._tokens.encode([text])[0])) if text else ""

    def _pieces(self, ids: Ids) -> Iterator[tuple[int, int, str | None]]:
        """Groups of tokens that write whole characters, with what they write; None: a control token."""
        begin = 0
        for end in range(1, len(ids) + 1):
            text = self._tokens.text_of(ids[begin:end].tolist())
            if "\ufffd" in text and end - begin < _LONGEST_CHARACTER_TOKENS and end < len(ids):
                continue
            is_control = any(token in self._tokens.special_ids for token in ids[begin:end].tolist())
            yield begin, end, None if is_control else squeezed(text)
            begin = end


def _is_asked(here: range, ranges: Sequence[tuple[int, int]], *, whole: bool) -> bool | None:
    """Whether characters are asked for; None where that cannot be told.

    Args:
        here: the characters of some tokens; none, where they are white space.
        whole: they are of several tokens, of which each writes part of a character.
    """
    if not here and any(here.start in border for border in ranges):
        return None
    inside = any(start < here.stop and stop > here.start for start, stop in ranges)
    if inside and whole and not any(start <= here.start and stop >= here.stop for start, stop in ranges):
        return None
    return inside


def _place_of_cut(text: str, content: str, after: int) -> int:
    """Where the beginning of the content stands at the end of a text that is cut."""
    return next((n for n in range(after, len(text)) if content.startswith(text[n:])), len(text))


def _unmarked(text: str, markers: re.Pattern[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A text without markers, and what stood between them."""
    pieces = markers.split(text)
    lengths = [0, *accumulate(len(squeezed(piece)) for piece in pieces)]
    return "".join(pieces), tuple(pairwise(lengths))[1::2]


def squeezed(text: str) -> str:
    """A text without white space."""
    return "".join(text.split())
