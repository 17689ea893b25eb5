"""The fields that a row of any shape may have: id, group, weight and a system text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuition.conversation import Conversation, Message
from tuition.data.messages import read_text, read_weight
from tuition.errors import Origin

ROW_KEYS = frozenset({"id", "group", "group_id", "weight"})
SYSTEM_KEYS = ("system", "system_prompt")


def conversation(
    row: Mapping[str, Any],
    messages: tuple[Message, ...],
    origin: Origin,
    *,
    tools: tuple[Mapping[str, Any], ...] = (),
    plain: bool = False,
    group: str | None = None,
) -> Conversation:
    """A conversation with what the row says about itself; a group that the row names goes before `group`."""
    named = row.get("group", row.get("group_id"))
    if named is not None and named != "":
        group = str(named)
    weight = read_weight(row.get("weight"), origin, "the row's weight")
    return Conversation(messages, origin, tools, plain, group, 1.0 if weight is None else weight)


def system_turn(row: Mapping[str, Any], origin: Origin) -> tuple[Message, ...]:
    """The turn of a system text that stands beside the messages; none if it is empty."""
    for key in SYSTEM_KEYS:
        if key in row and (text := _system_text(row[key], origin, key)):
            return (Message("system", text),)
    return ()


def _system_text(value: object, origin: Origin, key: str) -> str:
    """Claude's rows may write the system text as a list of text parts."""
    if isinstance(value, list) and all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in value
    ):
        return "".join(read_text(part.get("text"), origin, key) for part in value)
    return read_text(value, origin, key)
