"""Claude's content blocks: thoughts, calls and results stand as parts of a turn's content.

A turn is rewritten only where that loses no order: thoughts, then text, then calls; results, then text. Any
other turn is left as it is, and `messages` refuses the part it cannot read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ORDER = {"assistant": ("thinking", "text", "tool_use"), "user": ("tool_result", "text")}
_OF_CLAUDE = {"thinking", "tool_use", "tool_result"}


def without_blocks(turns: list[Any]) -> list[Any]:
    """The turns with Claude's blocks written as reasoning, tool calls and turns of the tool."""
    if not any(isinstance(turn, Mapping) and isinstance(turn.get("content"), list) for turn in turns):
        return turns
    return [rewritten for turn in turns for rewritten in _rewritten(turn)]


def _rewritten(turn: Any) -> Iterator[Any]:
    blocks = turn.get("content") if isinstance(turn, Mapping) else None
    if not isinstance(blocks, list) or not _can_be_rewritten(str(turn.get("role")), blocks):
        yield turn
        return
    of = {kind: [b for b in blocks if b["type"] == kind] for kind in (*_OF_CLAUDE, "text")}
    for result in of["tool_result"]:
        yield {
            "role": "tool",
            "tool_call_id": result.get("tool_use_id"),
            "content": result.get("content", ""),
        }
    if not of["tool_result"] or of["text"]:
        calls = [_call(block) for block in of["tool_use"]]
        thoughts = {"reasoning_content": of["thinking"][0].get("thinking")} if of["thinking"] else {}
        yield {**turn, **thoughts, "content": of["text"], **({"tool_calls": calls} if calls else {})}


def _can_be_rewritten(role: str, blocks: list[Any]) -> bool:
    """Whether the blocks are of Claude's kinds, in the order in which reading them again would give them."""
    kinds = [str(block.get("type")) if isinstance(block, Mapping) else None for block in blocks]
    order = _ORDER.get(role, ())
    if not _OF_CLAUDE.intersection(kinds) or not set(kinds) <= set(order) or kinds.count("thinking") > 1:
        return False
    places = [order.index(str(kind)) for kind in kinds]
    return places == sorted(places)


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block.get("name"), "arguments": block.get("input")}
    return {"id": block.get("id"), "type": "function", "function": function}
