"""A mapping that the user gives: which column holds the question, the answer and the rest.

It becomes one more shape, which goes before all others: `{"prompt": "question_text", "completion": "reply"}`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from tuition.conversation import Conversation
from tuition.data.catalogue import quote, refused
from tuition.data.formats import FORMATS, Format
from tuition.data.rowfields import ROW_KEYS
from tuition.errors import Origin, UserError

# What a mapping may name, and the shape that each way of saying question and answer is read as.
_LEARNED: dict[str, frozenset[str]] = {
    "messages": frozenset({"messages"}),
    "prompt completion": frozenset({"prompt", "completion"}),
    "text": frozenset({"text"}),
}
_BESIDE = ("system", "tools", "group", "id", "weight")
NAMES = ("prompt", "completion", "messages", "text", *_BESIDE)
_EXAMPLE = '{"prompt": "question_text", "completion": "reply"}'


def mapped_format(mapping: Mapping[str, str]) -> Format:
    """The shape of rows whose columns the mapping names.

    Args:
        mapping: what a column is (one of `NAMES`) → the column's name. It needs prompt and completion, or
            messages, or text. Columns that it does not name are not read, but for id, group and weight.

    Raises:
        UserError: it names something else, or not both question and answer, or two ways of saying them.
    """
    _require_names(mapping)
    shape = FORMATS[_shape_named(mapping.keys())]
    columns = frozenset(mapping.values())
    needed = {name: column for name, column in mapping.items() if name not in _BESIDE}

    def convert(row: Mapping[str, Any], origin: Origin) -> list[Conversation]:
        for name, column in needed.items():
            if column not in row:
                raise refused(
                    "D016", origin, f"there is no column {quote(column)}, {_meant(name, column, row)}"
                )
        own = {key: row[key] for key in ROW_KEYS & row.keys() - columns}
        named = {name: row[column] for name, column in mapping.items() if column in row}
        return shape.convert({**own, **named}, origin)

    describe = ", ".join(f"{name} from {column}" for name, column in mapping.items())
    return Format(f"mapped: {describe}", columns, lambda row: True, convert, columns | ROW_KEYS)


def _meant(name: str, column: str, row: Mapping[str, Any]) -> str:
    """What the missing column was to be, and what there is instead."""
    keys = [str(key)[:40] for key in list(row)[:12]]
    near = difflib.get_close_matches(column, keys, n=1)
    there = (
        f"the nearest is {quote(near[0])}" if near else f"the row has {', '.join(map(quote, keys)) or 'none'}"
    )
    return f"which the mapping gives as {name}; {there}"


def _require_names(mapping: Mapping[str, str]) -> None:
    for name, column in mapping.items():
        if name not in NAMES:
            near = difflib.get_close_matches(str(name), NAMES, n=1)
            step = f"Did you mean {near[0]}?" if near else f"A mapping may name {', '.join(NAMES)}."
            raise UserError(f"{quote(name)} is nothing that a column can be", where="mapping", next_step=step)
        if not isinstance(column, str) or not column:
            raise UserError(
                f"{name} must name a column, and is {quote(column)}",
                where="mapping",
                next_step=f"Write it as {_EXAMPLE}.",
            )


def _shape_named(names: Iterable[str]) -> str:
    """The shape that the mapping describes: exactly one way of saying what is asked and answered."""
    given = set(names) - set(_BESIDE)
    for shape, needed in _LEARNED.items():
        if given == needed:
            return shape
    shown = " and ".join(sorted(given)) or "neither"
    raise UserError(
        f"a mapping names prompt and completion, or messages, or text; this one names {shown}",
        where="mapping",
        next_step=f"Write it as {_EXAMPLE}.",
    )
