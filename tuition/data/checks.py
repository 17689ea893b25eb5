"""What is looked at in each conversation, whatever shape it was read from.

A check is one function from a conversation to findings, and one row of `CHECKS`. Findings of severity
`error` reject the conversation; the others keep it. Checks see a conversation at a time; what needs
several rows (duplicates, ids, unused columns, the language of the rest) is in `across`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tuition.conversation import Conversation, Message
from tuition.counting import counted
from tuition.data.catalogue import finding, quote
from tuition.data.formats import NO_INPUT
from tuition.data.privacy import personal_data
from tuition.data.wording import endless_answers, leftover_markup, useless_answers
from tuition.errors import Finding, Origin
from tuition.utf8 import encodable


def final_answer(conversation: Conversation) -> int:
    """The position of the last turn that can be learned; -1 if there is none."""
    messages = conversation.messages
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].role == "assistant" or messages[position].weight:
            return position
    return -1


# --- is there something to learn ---


def something_to_learn(conversation: Conversation) -> Iterator[Finding]:
    """D004 no assistant turn; D009 the row's weight, or those of all answers, are 0."""
    if conversation.weight == 0:
        yield finding("D009", conversation.origin, "the row has weight 0")
        return
    for message in conversation.messages:
        if message.weight or (message.weight is None and message.role == "assistant"):
            return
    if final_answer(conversation) >= 0:
        yield finding("D009", conversation.origin, "every answer has weight 0")
    else:
        roles = ", ".join(message.role for message in conversation.messages[:8])
        yield finding("D004", conversation.origin, f"no assistant turn; the roles are {roles}")


def empty_turns(conversation: Conversation) -> Iterator[Finding]:
    """D005 a learned answer of nothing but blanks, without tool calls; D020 an empty question; D078 no system text."""
    for position, message in enumerate(conversation.messages, 1):
        if message.content and not message.content.isspace():
            continue
        if message.role == "user":
            yield finding("D020", conversation.origin, f"the user's turn {position} is empty")
        elif message.role == "system":
            yield finding("D078", conversation.origin, f"the system turn {position} is empty")
        elif message.role == "assistant" and message.weight != 0 and not message.tool_calls:
            yield finding("D005", conversation.origin, f"the answer in turn {position} is empty")


# --- order of the turns ---


def turns_after_final_answer(conversation: Conversation) -> Iterator[Finding]:
    """D021. `reading` cuts these turns off."""
    final = final_answer(conversation)
    count = len(conversation.messages) - 1 - final
    if final >= 0 and count:
        turns = (
            "turn after the final answer is" if count == 1 else f"{count} turns after the final answer are"
        )
        yield finding("D021", conversation.origin, f"the last {turns} set aside")


def order_of_roles(conversation: Conversation) -> Iterator[Finding]:
    """D022, D023, D024."""
    messages, origin = conversation.messages, conversation.origin
    before, spoken = "", False
    for position, message in enumerate(messages, 1):
        role = message.role
        if role in ("system", "developer"):
            if spoken or before == role:
                yield finding("D024", origin, f"turn {position} of {len(messages)} is a {role} turn")
        elif role == before and role != "tool":
            yield finding("D022", origin, f"turns {position - 1} and {position} are both {role} turns")
        elif role == "assistant" and message.weight != 0 and not spoken and not conversation.plain:
            yield finding("D023", origin, "the assistant speaks before any user")
        before, spoken = role, spoken or role not in ("system", "developer")


# --- tools ---


def tool_calls(conversation: Conversation) -> Iterator[Finding]:
    """D025, D026, D027, D029."""
    names = [tool.get("function", tool).get("name") for tool in conversation.tools if _names_function(tool)]
    declared: set[object] = {name for name in names if isinstance(name, str)}
    if place := _null_in(conversation.tools):
        yield finding("D027", conversation.origin, f"the tools have {place}: null")
    open_calls: list[object] = []
    unanswered = 0  # calls of the latest turn with calls that no result has followed
    for position, message in enumerate(conversation.messages, 1):
        if message.role == "tool":
            unanswered = max(0, unanswered - 1)
        elif unanswered:
            calls = "a call is" if unanswered == 1 else f"{unanswered} calls are"
            message_ = f"{calls} not answered before turn {position}, a turn of the {message.role}"
            yield finding("D029", conversation.origin, message_)
            unanswered = 0
        for call in message.tool_calls:
            yield from _call_findings(call["function"], declared, position, conversation.origin)
        if message.tool_calls:
            open_calls = [call.get("id") for call in message.tool_calls]
            unanswered = len(open_calls)
        elif message.role == "tool":
            if not _answers_one(message, open_calls):
                shown = quote(message.tool_call_id or message.name or "without an id")
                yield finding(
                    "D026",
                    conversation.origin,
                    f"the tool result in turn {position}, {shown}, answers no call",
                )
        else:
            open_calls = []


def _answers_one(result: Message, open_calls: Sequence[object]) -> bool:
    """Whether a tool's turn answers one of these calls; where ids are missing, any call will do."""
    if result.tool_call_id is None or None in open_calls:
        return bool(open_calls)
    return result.tool_call_id in open_calls


def _null_in(value: object) -> str:
    """Where a declaration holds a null that Arrow filled in; empty if nowhere. Schemas use null for values only."""
    pairs = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    for key, inner in pairs:
        if inner is None and isinstance(value, Mapping) and key not in ("default", "const", "example"):
            return quote(str(key))
        if inner is not None and key != "enum" and (deeper := _null_in(inner)):
            return f"{quote(str(key))} → {deeper}" if isinstance(value, Mapping) else deeper
    return ""


def _names_function(tool: Mapping[str, Any]) -> bool:
    return isinstance(tool.get("function", tool), Mapping)


def _call_findings(
    function: Mapping[str, Any], declared: set[object], position: int, origin: Origin
) -> Iterator[Finding]:
    name = function["name"]
    if name not in declared:
        among = f"; declared: {', '.join(sorted(map(quote, declared))[:8])}" if declared else ""
        yield finding(
            "D025", origin, f"turn {position} calls {quote(name)}, which the row does not declare{among}"
        )
    nulls = [key for key, value in function["arguments"].items() if value is None]
    if nulls:
        yield finding(
            "D027", origin, f"the call of {quote(name)} in turn {position} has {quote(str(nulls[0]))}: null"
        )


# --- the text itself ---

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffd]")
_HARMLESS = bytes([9, 10, 13, *range(32, 127)])
_MARKER = re.compile(
    r"<\|[a-zA-Z][\w ]{1,30}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<｜[^｜\n]{1,30}｜>"
)


def half_characters(conversation: Conversation) -> Iterator[Finding]:
    """D015: text that has no UTF-8 form, in any field that is rendered."""
    for position, message in enumerate(conversation.messages, 1):
        text = message.content
        if message.reasoning or message.tool_calls:
            calls = json.dumps(message.tool_calls, ensure_ascii=False, default=str)
            text = f"{text} {message.reasoning} {calls}"
        if not text.isascii() and not encodable(text):
            yield finding("D015", conversation.origin, f"the text of turn {position} holds a lone surrogate")
    tools = json.dumps(conversation.tools, ensure_ascii=False, default=str) if conversation.tools else ""
    if not tools.isascii() and not encodable(tools):
        yield finding("D015", conversation.origin, "the tools hold a lone surrogate")


def control_characters(conversation: Conversation) -> Iterator[Finding]:
    """D031."""
    for position, message in enumerate(conversation.messages, 1):
        text = message.content
        # bytes.translate takes a fifth of the pattern's time, and nearly no text has such a character
        if text.isascii() and not text.encode("ascii").translate(None, _HARMLESS):
            continue
        if found := _CONTROL.search(text):
            shown = f"U+{ord(found[0]):04X} at character {found.start() + 1}"
            yield finding("D031", conversation.origin, f"turn {position} holds {shown}")


def chat_markers(conversation: Conversation) -> Iterator[Finding]:
    """D036."""
    for position, message in enumerate(conversation.messages, 1):
        if found := _marker_in(message.content):
            yield finding("D036", conversation.origin, f"turn {position} holds {quote(found)}")


def _marker_in(text: str) -> str | None:
    # plain searches first: they take a fifth of the pattern's time, and nearly no text has a marker
    if "|>" in text or "s>" in text or "INST]" in text or "_turn>" in text or "｜>" in text:
        found = _MARKER.search(text)
        return found[0] if found else None
    return None


# What UTF-8 looks like when it is read as Latin-1 or Windows-1252: a lead byte's letter before a continuation's.
_WRONGLY_DECODED = re.compile("[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u02dc\u2013-\u2122]|\ufffd")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\u202a-\u202e\u2066-\u2069]")


def damaged_characters(conversation: Conversation) -> Iterator[Finding]:
    """D072, D073."""
    for position, message in enumerate(conversation.messages, 1):
        text = message.content
        if text.isascii():
            continue
        if found := _WRONGLY_DECODED.search(text):
            around = quote(text[max(0, found.start() - 10) : found.end() + 10])
            yield finding("D072", conversation.origin, f"turn {position} holds {around}")
        if found := _INVISIBLE.search(text):
            shown = f"U+{ord(found[0]):04X} at character {found.start() + 1}"
            yield finding("D073", conversation.origin, f"turn {position} holds {shown}")


CHECKS: dict[str, Callable[[Conversation], Iterator[Finding]]] = {
    "something to learn": something_to_learn,
    "empty turns": empty_turns,
    "half characters": half_characters,
    "turns after the final answer": turns_after_final_answer,
    "order of roles": order_of_roles,
    "tool calls": tool_calls,
    "control characters": control_characters,
    "damaged characters": damaged_characters,
    "chat markers": chat_markers,
    "useless answers": useless_answers,
    "leftover markup": leftover_markup,
    "endless answers": endless_answers,
}


# Those that cost more than all of `CHECKS` together: looked at where `Reading(..., deep=True)` asks for it.
DEEP_CHECKS: dict[str, Callable[[Conversation], Iterator[Finding]]] = {
    "personal data and keys": personal_data,
}


# --- what can only be seen in the row, before it is a conversation ---


def placeholder_input(row: Mapping[str, Any], origin: Origin) -> Iterator[Finding]:
    """D040: Alpaca's ways to say that there is no input."""
    if (written := row.get("input")) and isinstance(written, str) and written in NO_INPUT:
        yield finding("D040", origin, f"the input {quote(written)} is read as no input")


def several_references(row: Mapping[str, Any], origin: Origin) -> Iterator[Finding]:
    """D041: instances with more than one accepted output."""
    instances = row.get("Instances")
    if not isinstance(instances, list):
        return
    outputs = [instance.get("output") for instance in instances if isinstance(instance, Mapping)]
    several = sum(isinstance(output, list) and len(output) > 1 for output in outputs)
    if several:
        yield finding(
            "D041",
            origin,
            f"{counted(several, 'instance has', 'instances have')} several outputs; the first is learned",
        )


ROW_CHECKS: dict[str, Callable[[Mapping[str, Any], Origin], Iterator[Finding]]] = {
    "placeholder input": placeholder_input,
    "several references": several_references,
}
