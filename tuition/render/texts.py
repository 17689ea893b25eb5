"""What a template writes of one turn: the text before it, and the text through it. Nothing here tokenises."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuition.render.template import TemplateRefusal
from tuition.render.writer import Writer


def turn_texts(
    writer: Writer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], position: int
) -> tuple[str, str]:
    """The text before a turn, and through it."""
    write = _answer_texts if messages[position]["role"] == "assistant" else _context_texts
    return write(writer, messages, tools, position)


def text_through(
    writer: Writer, tools: Sequence[Mapping[str, Any]], position: int, messages: Sequence[Mapping[str, Any]]
) -> str:
    """The text through a turn alone."""
    return turn_texts(writer, messages, tools, position)[1]


def plain_text_through(before: str, position: int, messages: Sequence[Mapping[str, Any]]) -> str:
    """The text through a turn that no template writes."""
    return before + str(messages[position]["content"])


def _answer_texts(
    writer: Writer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], position: int
) -> tuple[str, str]:
    """The prompt that serving feeds before an assistant turn, and the text through that turn."""
    return (
        writer.first(messages, tools, position, add_generation_prompt=True),
        writer.first(messages, tools, position + 1, add_generation_prompt=False),
    )


def _context_texts(
    writer: Writer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], position: int
) -> tuple[str, str]:
    """The text before a message of another role, and the text through it.

    A template may write a message differently once more follow, or refuse a conversation that ends with
    it. Then it is found as what changes in the text when its content does.
    """
    try:
        before = writer.text(messages[:position], tools, add_generation_prompt=False) if position else ""
        full = writer.text(messages[: position + 1], tools, add_generation_prompt=False)
        if full.startswith(before):
            return before, full
    except TemplateRefusal:
        pass
    return _changed_span(writer, messages, tools, position)


def _changed_span(
    writer: Writer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], position: int
) -> tuple[str, str]:
    """The text before and through the content of a message, found by writing another in its place."""
    content = messages[position]["content"].strip()
    edge = next(sign for sign in "zqj" if not content.startswith(sign) and not content.endswith(sign))
    for end in range(position + 1, len(messages) + 1):
        other = [*messages[:end]]
        other[position] = {**messages[position], "content": edge * 3}
        try:
            full = writer.text(messages[:end], tools, add_generation_prompt=False)
            changed = writer.text(other, tools, add_generation_prompt=False)
        except TemplateRefusal:
            if end == len(messages):
                raise
            continue
        start = shared_start(full, changed)
        behind = shared_start(full[start:][::-1], changed[start:][::-1])
        return full[:start], full[: len(full) - behind]
    raise AssertionError("a message stands before the end of its conversation")


_OPENED = re.compile(r"<(\w+)>\s*")


class Thoughtful(NamedTuple):
    """An answer with its thought.

    Attributes:
        text: the prompt, the thought, the answer, and what the template writes behind it.
        answer: what the row says behind the thought.
    """

    text: str
    answer: str


def with_thought(prompt: str, text: str, answer: Mapping[str, Any]) -> Thoughtful | None:
    """The text through an answer whose thought the prompt opens and the finished turn does not have.

    Templates such as DeepSeek-R1's end their prompt with `<think>` and write finished answers without the
    thought. A model that is served goes on from the prompt: what it writes is the rest of the thought, then
    the answer, as the row has them.

    Args:
        prompt: what serving feeds before the answer.
        text: what the template writes through the finished answer.

    Returns:
        None where the row has no thought, or the difference between the two texts is another one.
    """
    begin = shared_start(prompt, text)
    opening, finished = prompt[begin:], text[begin:]
    tag = _OPENED.fullmatch(opening)
    if tag is None:
        return None
    closing = f"</{tag[1]}>"
    content, reasoning = str(answer["content"]), str(answer.get("reasoning_content") or "")
    if reasoning.strip() and closing not in content:
        content = f"{opening}{reasoning.strip()}\n{closing}\n\n{content}"
    if closing not in content or not content.startswith(opening.rstrip()):
        return None
    said = content.rpartition(closing)[2]
    written = next((part for part in (said, said.lstrip(), said.strip()) if finished.startswith(part)), None)
    if not said.strip() or written is None:
        return None
    known = opening if content.startswith(opening) else opening.rstrip()
    return Thoughtful(prompt + content[len(known) :] + finished[len(written) :], said)


def shared_start(a: str, b: str) -> int:
    """How many characters two texts share from their beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
