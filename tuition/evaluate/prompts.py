"""Prompts to be answered, from any shape of row: up to the last answer where there is one, else as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuition.conversation import Conversation, Message
from tuition.data import read_rows
from tuition.data.catalogue import RowError
from tuition.data.formats import detect
from tuition.errors import Finding, Origin
from tuition.evaluate.generate import Question

_BARE = ("prompt", "question", "instruction", "input", "text")


def read_prompts(sources: Sequence[str]) -> Iterator[Question | Finding]:
    """Each row as a question, or the finding that says why it is none."""
    for source in sources:
        for row in read_rows(source):
            if row.finding is not None:
                yield row.finding
            elif row.value is not None:
                yield from _questions(dict(row.value), row.origin)


def _questions(value: dict[str, object], origin: Origin) -> Iterator[Question | Finding]:
    shape = detect(value)
    bare = next((value[key] for key in _BARE if isinstance(value.get(key), str)), None)
    if shape is None and bare is not None:
        conversation = Conversation((Message("user", str(bare)),), origin)
        yield Question(conversation.messages, "", conversation)
        return
    if shape is None:
        yield Finding("D001", "error", origin, "no prompt in it", 'Write rows such as {"prompt": "…"}')
        return
    try:
        conversations = shape.convert(value, origin)
    except RowError as refusal:
        yield refusal.reason
        return
    yield from (_question(conversation) for conversation in conversations)


def _question(conversation: Conversation) -> Question:
    """The conversation before its last answer; all of it where a user speaks last."""
    messages = conversation.messages
    if messages[-1].role != "assistant" or len(messages) == 1:
        return Question(messages, "", conversation)
    return Question(messages[:-1], messages[-1].content, conversation)
