"""Nothing vanishes: every message, thought, tool and call of a row is in what the template wrote of it.

Whether a text is there cannot be told by looking for it: `Be kind` is in `Be kind to me`. So each field
gets a sentinel, a word that occurs nowhere else, and the template shows which of them it writes. One
probe serves all rows of the same shape whose text is exactly the probe's with their words put in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from tuition.render.template import TemplateRefusal
from tuition.render.writer import Writer

Complaint = tuple[str, str]  # a code of codes.py and what to say
Shown = Sequence[tuple[int, str]]  # the last message of a text and the text, the longest first

_SENTINEL = re.compile(r"zq(\d+)qz")
_SHAPES_KEPT = 512
_WIDER = 8
_PLAIN_KEYS = {"role", "content", "reasoning_content"}


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a row that holds text.

    Attributes:
        position: the message; -1 for a tool.
        kind: content, reasoning, call or tool.
        text: what stands there, or a name to call it by.
    """

    position: int
    kind: str
    text: str

    @property
    def is_blank(self) -> bool:
        """White space and nothing else, which a sentinel would make a text."""
        return bool(self.text) and not self.text.strip()


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What the template writes of one shape of conversation: literal texts, and the fields between them."""

    literals: tuple[str, ...]
    order: tuple[int, ...]

    def filled(self, texts: Sequence[str]) -> str:
        """The text of a conversation of this shape, if the template only puts words in."""
        parts = [self.literals[0]]
        for field_number, literal in zip(self.order, self.literals[1:], strict=True):
            parts += texts[field_number], literal
        return "".join(parts)


class Presence:
    """Compares what a template was given with what it wrote."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._skeletons: dict[Any, Skeleton | None] = {}

    def missing(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        shown: Shown,
        learned: Collection[int],
    ) -> list[Complaint]:
        """What the template left out of the texts that it wrote.

        Args:
            messages: as the template saw them, whole.
            tools: likewise.
            shown: the last text of each example of the row; between them they hold every learned turn.
            learned: positions of the learned messages.
        """
        end, text = shown[0]
        messages = messages[: end + 1]
        if not tools and self._is_as_its_shape(messages, text):
            return []
        probe = _Probe(messages, tools, text)
        found, trimmed = self._found(probe, shown)
        texts = [text for _, text in shown]
        return list(dict.fromkeys(_complaints(probe.fields, found, trimmed, texts, learned)))

    def _is_as_its_shape(self, messages: Sequence[Mapping[str, Any]], text: str) -> bool:
        """True when the text is the shape's own with the row's words in it, so that nothing can be missing."""
        if not all(message.keys() <= _PLAIN_KEYS for message in messages):
            return False
        shape = tuple(
            (m["role"], bool(m["content"]), bool(m.get("reasoning_content")), "reasoning_content" in m)
            for m in messages
        )
        if shape not in self._skeletons:
            if len(self._skeletons) >= _SHAPES_KEPT:
                self._skeletons.pop(next(iter(self._skeletons)))
            self._skeletons[shape] = self._skeleton(messages)
        skeleton = self._skeletons[shape]
        if skeleton is None:
            return False
        fields = [m[key] for m in messages for key in ("content", "reasoning_content") if m.get(key)]
        return skeleton.filled(fields) == text

    def _skeleton(self, messages: Sequence[Mapping[str, Any]]) -> Skeleton | None:
        """What the template writes of sentinels in place of the texts; None where it loses or repeats one."""
        numbers = count()
        probes = [
            {key: f"zq{next(numbers)}qz" if value and key != "role" else value for key, value in m.items()}
            for m in messages
        ]
        how_many = next(numbers)
        try:
            text = self._writer.text(probes, [], add_generation_prompt=False)
        except TemplateRefusal:
            return None
        split = _SENTINEL.split(text)
        order = tuple(map(int, split[1::2]))
        return Skeleton(tuple(split[::2]), order) if sorted(order) == list(range(how_many)) else None

    def _found(self, probe: _Probe, shown: Shown) -> tuple[set[int], set[int]]:
        """Numbers of the fields whose sentinel the template writes in any of the texts, and of those it trims."""
        found: set[int] = set()
        trimmed: set[int] = set()
        for end, text in shown:
            wanted = {n for n, f in enumerate(probe.fields) if f.position <= end} - found
            if not wanted:
                continue
            try:
                written = self._writer.text(
                    probe.messages[: end + 1], probe.tools, add_generation_prompt=False
                )
            except TemplateRefusal:  # it reads what a sentinel spoils; then the words themselves must do
                found |= {n for n in wanted if _is_in(probe.fields[n].text, text)}
                continue
            there = wanted & {int(number) for number in probe.sentinel.findall(written)}
            trimmed |= {n for n in there & probe.edged.keys() if probe.is_trimmed(n, written)}
            found |= there | {n for n in wanted & probe.unmarked if _is_in(probe.fields[n].text, text)}
        return found, trimmed


class _Probe:
    """A row with a sentinel in each of its fields.

    Attributes:
        fields: the fields by number.
        unmarked: numbers of the fields that can hold no sentinel: numbers, truth values, null and white space.
        edged: number → text of the fields that begin or end with white space. It is much wider here, so that
            what the template itself writes beside the field is not taken for it.
    """

    def __init__(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], text: str
    ) -> None:
        self.fields: list[Field] = []
        self.unmarked: set[int] = set()
        self.edged: dict[int, str] = {}
        salt = next(str(n) for n in range(10**6) if f"zq{n}z" not in text)
        self._start = f"zq{salt}z"
        self.sentinel = re.compile(rf"{self._start}(\d+)qz")
        self.messages = [self._message(position, message) for position, message in enumerate(messages)]
        self.tools = [self._tool(tool) for tool in tools]

    def _message(self, position: int, message: Mapping[str, Any]) -> dict[str, Any]:
        probe = dict(message)
        content = Field(position, "content", message["content"])
        probe["content"] = self._mark(content)
        if content.is_blank:
            self._leave(content)
        if message.get("reasoning_content"):
            probe["reasoning_content"] = self._mark(
                Field(position, "reasoning", message["reasoning_content"])
            )
        if message.get("tool_calls"):
            probe["tool_calls"] = [self._call(position, call) for call in message["tool_calls"]]
        return probe

    def _call(self, position: int, call: Mapping[str, Any]) -> dict[str, Any]:
        function = dict(call.get("function", call))
        function["name"] = self._mark(Field(position, "call", str(function.get("name", ""))))
        function["arguments"] = self._value(position, function.get("arguments", {}))
        return {**call, "function": function} if "function" in call else function

    def _value(self, position: int, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                self._mark(Field(position, "call", str(key))): self._value(position, item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._value(position, item) for item in value]
        if isinstance(value, str):
            return self._mark(Field(position, "call", value))
        self._leave(Field(position, "call", json.dumps(value)))
        return value

    def _tool(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        function = dict(tool.get("function", tool))
        function["name"] = self._mark(Field(-1, "tool", str(function.get("name", ""))))
        return {**tool, "function": function} if "function" in tool else function

    def _leave(self, field: Field) -> None:
        """A field that is looked for by its own text."""
        self.unmarked.add(len(self.fields))
        self.fields.append(field)

    def _mark(self, field: Field) -> str:
        """The text with a sentinel in its middle, where no template looks for the beginning or end of something."""
        core = field.text.strip()
        if not core:
            return field.text
        number, middle = len(self.fields), len(core) // 2
        self.fields.append(field)
        marked = f"{core[:middle]}{self._start}{number}qz{core[middle:]}"
        if len(core) == len(field.text):
            return marked
        before, _, behind = field.text.partition(core)
        if field.kind not in ("content", "reasoning"):
            return before + marked + behind
        self.edged[number] = before * _WIDER + marked + behind * _WIDER
        return self.edged[number]

    def is_trimmed(self, number: int, written: str) -> bool:
        """Whether the field is in what the template wrote without the white space around it."""
        return self.edged[number] not in written and self.edged[number].strip() in written


def _is_in(value: str, text: str) -> bool:
    """True when a value is written, as it is or as Python or JSON would."""
    python = {"true": "True", "false": "False", "null": "None"}.get(value, value)
    return any(form in text for form in (value, python, json.dumps(value)[1:-1]))


def _complaints(
    fields: Sequence[Field],
    found: set[int],
    trimmed: set[int],
    texts: Sequence[str],
    learned: Collection[int],
) -> Iterator[Complaint]:
    for number, field in enumerate(fields):
        if field.is_blank:
            if number not in found:
                yield "R003", f"the template trims message {field.position + 1}, which is white space"
        elif number not in found:
            yield _left_out(field, is_learned=field.position in learned)
        elif number in trimmed:
            whose = "the reasoning of " if field.kind == "reasoning" else ""
            yield "R003", f"the template trims white space off {whose}message {field.position + 1}"
        elif field.kind == "content" and not any(field.text in text for text in texts):
            if any(field.text.strip() in text for text in texts):
                yield "R003", f"the template trims white space off message {field.position + 1}"
            else:
                yield _left_out(field, is_learned=field.position in learned, what="part of ")


def _left_out(field: Field, *, is_learned: bool, what: str = "") -> Complaint:
    number = field.position + 1
    if field.kind == "tool":
        return "R005", f"the template does not show the model the tool {field.text!r}"
    if field.kind == "reasoning":
        return "R006", f"the template leaves out {what}the reasoning of message {number}"
    if field.kind == "call":
        code = "R017" if is_learned else "R004"
        return code, f"the template leaves {field.text[:60]!r} out of a tool call of message {number}"
    code = "R016" if is_learned else "R004"
    return code, f"the template leaves out {what}message {number}"
