"""What rows ask, from any shape: the conversation up to its last answer where there is one, else as it is.

Rows without an answer are no demonstrations, and are prompts all the same: they wait for people or models to
answer them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuition.conversation import Conversation, Message
from tuition.data.catalogue import RowError
from tuition.data.checks import half_characters
from tuition.data.formats import detect
from tuition.data.sources import read_rows, split_share
from tuition.errors import Finding, Origin

_BARE = ("prompt", "question", "instruction", "input", "text")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question.

    Attributes:
        messages: what comes before the answer.
        expected: the answer that the row holds; empty where it holds none.
        conversation: the whole of it.
        row: the row as it stands in its file.
    """

    messages: tuple[Message, ...]
    expected: str
    conversation: Conversation
    row: Mapping[str, Any]


def read_asked(sources: Sequence[str]) -> Iterator[Asked | Finding]:
    """Each row as a question, or the finding that says why it is none.

    Raises:
        UserError: a file is missing or may not be read.
    """
    for source in sources:
        for row in read_rows(split_share(source)[0]):
            if row.finding is not None:
                yield row.finding
            elif row.value is not None:
                yield from map(_writable, _questions(row.value, row.origin))


def _questions(value: Mapping[str, Any], origin: Origin) -> Iterator[Asked | Finding]:
    shape = detect(value)
    bare = next((value[key] for key in _BARE if isinstance(value.get(key), str)), None)
    if shape is None and bare is not None:
        conversation = Conversation((Message("user", bare),), origin)
        yield Asked(conversation.messages, "", conversation, value)
        return
    if shape is None:
        yield Finding("D001", "error", origin, "no prompt in it", 'Write rows such as {"prompt": "…"}')
        return
    try:
        conversations = shape.convert(value, origin)
    except RowError as refusal:
        yield refusal.reason
        return
    yield from (_question(conversation, value) for conversation in conversations)


def _writable(asked: Asked | Finding) -> Asked | Finding:
    """The question, unless half a character is in it: no tokenizer reads that, and nothing can write it down."""
    found = () if isinstance(asked, Finding) else half_characters(asked.conversation)
    return next(iter(found), asked)


def _question(conversation: Conversation, value: Mapping[str, Any]) -> Asked:
    """The conversation before its last answer; all of it where a user speaks last."""
    messages = conversation.messages
    if messages[-1].role != "assistant" or len(messages) == 1:
        return Asked(messages, "", conversation, value)
    return Asked(messages[:-1], messages[-1].content, conversation, value)
