"""Content stays content: nothing that a row holds can be read as a control token.

The spelling of a control token inside content is cut in two by a mark that is taken out again when the
text is tokenised, each side on its own. Nothing here renders or tokenises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Unicode promises never to assign these, so content has no use for them.
CUT_MARKS = tuple(chr(point) for point in range(0xFDD0, 0xFDF0))
_NEVER_CUT = ("role",)  # the template compares it; it is one of five words


class CannotCut(Exception):
    """The content holds control tokens that no mark can keep apart from real ones; the text says why."""


@dataclass(frozen=True, slots=True)
class Written:
    """Messages and tools as the template sees them.

    Attributes:
        mark: the mark inside every spelling of a control token; empty where content has none.
        spelled: those spellings, in the order they appear.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    mark: str = ""
    spelled: tuple[str, ...] = ()


class Guard:
    """Knows which spellings content must not hold, and cuts them.

    Args:
        special: spellings of the tokens flagged special; no content may hold them.
        markup: spellings of tokens that the template writes and the model may answer with, such as
            `<tool_call>`: content of an assistant turn keeps them, all other content may not forge them.
        normalise: what the tokenizer does to a text before it looks for such tokens; None: nothing.
    """

    def __init__(
        self,
        special: Sequence[str],
        markup: Sequence[str] = (),
        *,
        normalise: Callable[[str], str] | None = None,
    ) -> None:
        self._normalise = normalise
        self._special = tuple(sorted(special, key=len, reverse=True))
        self._all = tuple(sorted({*special, *markup}, key=len, reverse=True))

    def protect(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Written:
        """The same messages and tools with every forged control token cut.

        Raises:
            CannotCut: no mark is left that the content does not hold itself, or normalising makes the token.
        """
        texts = _texts_of(messages, tools)
        joined = "\0".join(texts)
        if self._normalise and self._hidden_in(joined):
            raise CannotCut("the tokenizer makes control tokens of other signs in the content")
        halves = self._halves(texts) if self._maybe_halved.search(joined + "\0") else ()
        if not halves and not self._pattern.search(joined):
            return Written([dict(m) for m in messages], [dict(t) for t in tools])
        spelled = [*self._spelled(messages, tools), *halves]
        if not spelled:
            return Written([dict(m) for m in messages], [dict(t) for t in tools])
        mark = next((mark for mark in CUT_MARKS if mark not in joined), None)
        if mark is None:
            raise CannotCut("content holds every mark that could keep its control tokens from real ones")
        return Written(
            [self._cut_message(message, mark, halves) for message in messages],
            [_cut(dict(tool), self._all, mark, halves) for tool in tools],
            mark,
            tuple(dict.fromkeys(spelled)),
        )

    def _hidden_in(self, text: str) -> bool:
        """True when normalising makes spellings that the text does not hold, from full-width signs for example."""
        assert self._normalise is not None
        return len(self._pattern.findall(self._normalise(text))) > len(self._pattern.findall(text))

    def _spelled(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        found: list[str] = []
        for message in messages:
            pattern = self._special_pattern if message["role"] == "assistant" else self._pattern
            found += pattern.findall("\0".join(strings_in(message)))
        return found + self._pattern.findall("\0".join(strings_in(tools)))

    def _cut_message(self, message: Mapping[str, Any], mark: str, halves: Sequence[str]) -> dict[str, Any]:
        spellings = self._special if message["role"] == "assistant" else self._all
        return {
            key: value if key in _NEVER_CUT else _cut(value, spellings, mark, halves)
            for key, value in message.items()
        }

    def _halves(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Spellings whose first part ends one field and whose rest begins another: side by side they forge."""
        return tuple(
            spelling
            for spelling in self._all
            if any(
                any(text.endswith(spelling[:at]) for text in texts)
                and any(text.startswith(spelling[at:]) for text in texts)
                for at in range(1, len(spelling))
            )
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _any_of(self._all)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return _any_of(self._special)

    @cached_property
    def _maybe_halved(self) -> re.Pattern[str]:
        """A field that ends as a control token begins. Two signs at least, or the pattern meets every `<`."""
        starts = {s[:at] for s in self._all for at in range(1, len(s))}
        return re.compile(f"(?:{_any_of(sorted(starts, key=len, reverse=True)).pattern})\0")


def _texts_of(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a row holds; the names of a message's own fields are ours."""
    texts: list[str] = []
    for message in messages:
        for value in message.values():
            if isinstance(value, str):
                texts.append(value)
            else:
                texts += strings_in(value)
    return [*texts, *strings_in(tools)] if tools else texts


def _any_of(spellings: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, spellings)) or r"(?!)")


def _cut(value: Any, spellings: Sequence[str], mark: str, halves: Sequence[str]) -> Any:
    """The same strings, lists and mappings (keys too) with a mark inside each spelling of a control token."""
    if isinstance(value, str):
        return _cut_text(value, spellings, mark, halves)
    if isinstance(value, Mapping):
        return {
            _cut(key, spellings, mark, halves): _cut(item, spellings, mark, halves)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_cut(item, spellings, mark, halves) for item in value]
    return value


def _cut_text(text: str, spellings: Sequence[str], mark: str, halves: Sequence[str]) -> str:
    for spelling in spellings:
        text = text.replace(spelling, spelling[0] + mark + spelling[1:])
    if any(text.endswith(spelling[:at]) for spelling in halves for at in range(1, len(spelling))):
        text += mark
    return text


def mark_survives(mark: str, text: str) -> bool:
    """False when a template wrote the mark as an escape, which would stay in the text as words."""
    return mark.encode("ascii", "backslashreplace").decode() not in text


def strings_in(value: Any) -> Iterable[str]:
    """Every string in nested lists and mappings, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings_in(key)
            yield from strings_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_in(item)
