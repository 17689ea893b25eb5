"""The texts of a conversation, for checks that look at what is said and not at who says it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tuition.conversation import Conversation, Message


def text_of(message: Message) -> str:
    """All text of a turn: reasoning, content and tool calls."""
    if not message.reasoning and not message.tool_calls:
        return message.content
    calls = json.dumps(message.tool_calls, ensure_ascii=False, default=str) if message.tool_calls else ""
    return "\n".join(part for part in (message.reasoning, message.content, calls) if part)


def spoken(conversation: Conversation) -> Iterator[str]:
    """The texts of the turns. System turns are left aside: a data set often gives one to all of its rows."""
    for message in conversation.messages:
        if message.role not in ("system", "developer"):
            yield text_of(message)
