"""From the message lists of the field to Messages: roles, contents, tool calls, weights.

Content is never changed: leading spaces, trailing newlines and everything between stay as they are.
"""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Mapping
from typing import Any, cast

from tuition.conversation import Message, Role
from tuition.data.blocks import without_blocks
from tuition.data.catalogue import quote, refused
from tuition.data.jsontext import KINDS, parse
from tuition.errors import Origin

ROLE_NAMES: dict[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_CONTENT_KEYS = ("content", "value", "text")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_YES_OR_NO = ("train", "loss")
_TURN_KEYS = frozenset(
    {
        "role",
        "from",
        "weight",
        *_YES_OR_NO,
        "train_detail",
        "name",
        "tool_calls",
        "function_call",
        "tool_call_id",
    }
    | {*_CONTENT_KEYS, *_REASONING_KEYS}
)


def read_messages(value: object, origin: Origin, field: str = "messages") -> tuple[Message, ...]:
    """The turns of a list of messages, or of the same as a JSON string.

    Raises:
        RowError: a turn cannot be read (D003, D006–D008, D010, D011), or there is none (D013).
    """
    turns = without_blocks(read_list(value, origin, field))
    if not turns:
        raise refused("D013", origin, f"{field} is empty")
    return tuple([_message(turn, position, origin) for position, turn in enumerate(turns, 1)])


def unused_fields(turn: object) -> set[str]:
    """The filled fields of a turn that are not read: unknown ones, and a second text or reasoning."""
    if not isinstance(turn, Mapping) or len(turn) == 2:
        return set()
    unused = {str(key) for key, value in turn.items() if value and key not in _TURN_KEYS}
    for keys in (_CONTENT_KEYS, _REASONING_KEYS):
        filled = [key for key in keys if turn.get(key)]
        unused |= {key for key in filled[1:] if turn[key] != turn[filled[0]]}
    return unused


def read_list(value: object, origin: Origin, field: str) -> list[Any]:
    """A list, or one that a table cell holds as JSON.

    Raises:
        RowError: D003, it is neither; D054, the JSON is invalid.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse(value, origin)
    if not isinstance(value, list | tuple):
        message = f"{field} must be a list, and is {_kind(value)}: {quote(value)}"
        raise refused("D003", origin, message, f"Write {field} as a list, [...], in the source.")
    return list(value)


def read_text(value: object, origin: Origin, field: str) -> str:
    """A text; null is the empty text.

    Raises:
        RowError: D003, it is something else.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise refused("D003", origin, f"{field} must be text, and is {_kind(value)}: {quote(value)}")


# A row's weight is multiplied with a turn's, and the product is summed in single precision.
_MOST_WEIGHT = 1e15


def read_weight(value: object, origin: Origin, field: str) -> float | None:
    """A weight; None if there is none. Text is read as a number, for tables.

    Raises:
        RowError: D010, not a finite number of 0 or more, or one that single precision would lose or overflow.
    """
    if value is None or value == "":
        return None
    try:
        weight = float(cast(Any, value)) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        weight = math.nan
    if not (weight == 0 or 1 / _MOST_WEIGHT <= weight <= _MOST_WEIGHT):  # NaN compares false
        raise refused("D010", origin, f"{field} is {quote(value)}")
    return weight


def read_tools(row: Mapping[str, Any], origin: Origin) -> tuple[Mapping[str, Any], ...]:
    """The tools that a row declares, as `{"type": "function", "function": {…}}`.

    Raises:
        RowError: D012, they are no list of objects.
    """
    declared = row.get("tools") or row.get("functions")
    if not declared:
        return ()
    if isinstance(declared, str):
        declared = parse(declared, origin) if declared.strip() else []
    if not isinstance(declared, list | tuple) or not all(isinstance(tool, Mapping) for tool in declared):
        raise refused("D012", origin, f"tools must be a list of objects, and is {quote(declared)}")
    return tuple(_tool(tool) for tool in declared)


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bare functions (ShareGPT, Claude, OpenAI's old `functions`) are wrapped as templates expect them."""
    if "function" in tool or "name" not in tool:
        return tool
    function = dict(tool)
    if "input_schema" in function and "parameters" not in function:
        function["parameters"] = function.pop("input_schema")
    return {"type": "function", "function": function}


# --- one message ---


def _message(turn: object, position: int, origin: Origin) -> Message:
    if not isinstance(turn, Mapping):
        raise refused("D007", origin, f"turn {position} is {_kind(turn)}, not an object: {quote(turn)}")
    name = turn.get("role") if turn.get("role") is not None else turn.get("from")
    role = ROLE_NAMES.get(name) if isinstance(name, str) else None
    if role is None:
        message = f"turn {position} has the role {quote(name)}{_nearest_role(name)}"
        raise refused("D006", origin, message, _role_fix(name, origin))
    content = turn.get("content")
    if len(turn) == 2 and type(content) is str:  # nearly every message
        return Message(role, content)
    calls = _tool_calls(turn, name, position, origin)
    return Message(
        role,
        "" if name == "function_call" else _content(turn, bool(calls), position, origin),
        tool_calls=calls,
        reasoning=_reasoning(turn, position, origin),
        weight=_weight(turn, position, origin),
        name=_optional_text(turn, "name", origin),
        tool_call_id=_optional_text(turn, "tool_call_id", origin),
    )


def _weight(turn: Mapping[str, Any], position: int, origin: Origin) -> float | None:
    """OpenAI's `weight`, or Axolotl's `train` and ms-swift's `loss`: false is context, true is learned whoever speaks."""
    if turn.get("train_detail"):
        step = "Put markers around what is to be learned, and set train_on: spans."
        raise refused("D010", origin, f"turn {position} has train_detail, which is not read", step)
    marks = {name: turn[name] for name in ("weight", *_YES_OR_NO) if turn.get(name) is not None}
    if len(marks) > 1:
        step = "Leave one of them."
        raise refused("D010", origin, f"turn {position} has {' and '.join(marks)}", step)
    name, marked = next(iter(marks.items()), ("weight", None))
    if name in _YES_OR_NO and not isinstance(marked, bool):
        raise refused("D010", origin, f"{name} of turn {position} is {quote(marked)}", "Write true or false.")
    return read_weight(marked, origin, f"the weight of turn {position}")


def _nearest_role(name: object) -> str:
    near = difflib.get_close_matches(str(name)[:40].lower(), ROLE_NAMES, n=1)
    return f"; the nearest is {near[0]}" if near else ""


def _role_fix(name: object, origin: Origin) -> str | None:
    """The next step for a role that `--fix` mends: one that differs from a known one by case or blanks."""
    known = isinstance(name, str) and name.strip().lower() in ROLE_NAMES
    command = f"tuition check {shlex.quote(origin.file)} --fix mended.jsonl"
    return f"Write it in lower case: {command} does." if known else None


def _content(turn: Mapping[str, Any], has_calls: bool, position: int, origin: Origin) -> str:
    """The text of a turn: a string, null, or a list of text parts, which are joined as they stand."""
    keys = [key for key in _CONTENT_KEYS if key in turn]
    key = next((key for key in keys if turn[key] is not None), keys[0] if keys else None)
    if key is None and not has_calls:
        raise refused("D007", origin, f"turn {position} has no content; it has {_names(turn)}")
    content = turn.get(key) if key else None
    if not isinstance(content, list):
        return read_text(content, origin, f"the content of turn {position}")
    return "".join([_part(part, position, origin) for part in content])


def _part(part: object, position: int, origin: Origin) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return cast(str, part["text"])
    raise refused("D008", origin, f"turn {position} has a part of type {quote(kind)}")


def _reasoning(turn: Mapping[str, Any], position: int, origin: Origin) -> str | None:
    value = next((turn[key] for key in _REASONING_KEYS if turn.get(key)), None)
    return None if value is None else read_text(value, origin, f"the reasoning of turn {position}")


def _optional_text(turn: Mapping[str, Any], key: str, origin: Origin) -> str | None:
    value = turn.get(key)
    return None if value is None else read_text(value, origin, key)


# --- tool calls ---


def _tool_calls(
    turn: Mapping[str, Any], name: object, position: int, origin: Origin
) -> tuple[Mapping[str, Any], ...]:
    """The calls of a turn, whether OpenAI's list, its old single `function_call`, or ShareGPT's text."""
    calls = turn.get("tool_calls")
    if not calls and turn.get("function_call"):
        calls = [turn["function_call"]]
    if name == "function_call":
        calls = _json(turn.get("value", turn.get("content")), position, origin)
        calls = calls if isinstance(calls, list) else [calls]
    if not calls:
        return ()
    if not isinstance(calls, list):
        raise refused("D011", origin, f"the tool calls of turn {position} are {_kind(calls)}, not a list")
    return tuple([_tool_call(call, position, origin) for call in calls])


def _tool_call(call: object, position: int, origin: Origin) -> Mapping[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if (
        not isinstance(call, Mapping)
        or not isinstance(function, Mapping)
        or not isinstance(name, str)
        or not name
    ):
        raise refused("D011", origin, f"turn {position} calls a tool without a name: {quote(call)}")
    arguments = _json(function.get("arguments", function.get("parameters")), position, origin)
    if not isinstance(arguments, Mapping):
        raise refused(
            "D011", origin, f"the arguments of {quote(name)} in turn {position} are {_kind(arguments)}"
        )
    read = {"type": "function", "function": {"name": name, "arguments": dict(arguments)}}
    return {"id": call["id"], **read} if isinstance(call.get("id"), str) else read


def _json(value: object, position: int, origin: Origin) -> object:
    """A value that may stand as a JSON string; nothing is an empty object.

    Raises:
        RowError: D011, the string is no JSON; D055, D057 as in any JSON.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if not isinstance(value, str):
        return value
    if value.strip()[0] not in "{[":
        raise refused("D011", origin, f"the call in turn {position} is no JSON object: {quote(value)}")
    return parse(value, origin, code="D011", what=f"the call in turn {position}: ")


def _kind(value: object) -> str:
    return KINDS.get(type(value), type(value).__name__)


def _names(turn: Mapping[str, Any]) -> str:
    return ", ".join(quote(str(key), 30) for key in list(turn)[:8]) or "no fields"
