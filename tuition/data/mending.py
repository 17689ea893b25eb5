"""Mended copies of rows: only mends that cannot change what was meant, and none in silence.

A new mend is one function and one row of `MENDS`. Duplicates are never removed here, unknown words never guessed,
and a row that cannot be read stays out of the copy with the finding that says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.data.catalogue import RowError, finding, quote
from tuition.data.checks import final_answer
from tuition.data.datafiles import data_suffix, open_data
from tuition.data.formats import FORMATS, NO_INPUT, detect
from tuition.data.jsontext import TOKENS, Row, parse, row_from_text
from tuition.data.messages import ROLE_NAMES
from tuition.data.sources import read_rows
from tuition.errors import Finding, Origin
from tuition.utf8 import encodable

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mend:
    """One thing that was mended.

    Attributes:
        code: the finding that it answers, a key of `CODES`.
        origin: the row; line 0 where the whole file was mended.
        done: what was done, a sentence without its full stop.
    """

    code: str
    origin: Origin
    done: str

    def __str__(self) -> str:
        place = str(self.origin) if self.origin.line else self.origin.file
        return f"{place} ({self.code}): {self.done}"

    def to_json(self) -> dict[str, object]:
        """The object that `check --fix --json` prints for a mend."""
        return {"code": self.code, "file": self.origin.file, "line": self.origin.line, "done": self.done}


@dataclass(frozen=True, slots=True)
class FixedRow:
    """A row of the mended copy, or why there is none.

    Attributes:
        origin: its place in the source; line 0 where the entry is about the whole file.
        value: the fields; None where the row cannot be read, or there is no row.
        line: the line to write, without its line feed; exactly as it stands in the source where that is one
            line of JSON and nothing was mended. None where `value` is.
        mends: what was mended, in order.
        finding: why the row, or the file, cannot be read.
    """

    origin: Origin
    value: Fields | None = None
    line: str | None = None
    mends: tuple[Mend, ...] = ()
    finding: Finding | None = None


def fixed_rows(source: str) -> Iterator[FixedRow]:
    """Every row of a file, mended where that is safe, to be written as JSON Lines.

    Entries about the whole file (line 0) come between the rows. Rows that have `value` None are not in the
    copy: count them and say so.

    Raises:
        UserError: as `read_rows`.
    """
    for row in read_rows(source):
        if row.origin.line == 0 and row.finding is not None:
            yield _about_file(row.finding)
        else:
            yield _fixed(row)
    yield from _line_ends(source)


def _about_file(verdict: Finding) -> FixedRow:
    done = _FILE_MENDS.get(verdict.code)
    if done is None:
        return FixedRow(verdict.origin, finding=verdict)
    return FixedRow(verdict.origin, mends=(Mend(verdict.code, verdict.origin, done),))


_FILE_MENDS = {
    "D053": "left the byte-order mark out",
    "D060": "wrote one object per line",
}


def _line_ends(source: str) -> Iterator[FixedRow]:
    """The mend of a text file whose lines end as on Windows; the rows are written with line feeds anyway."""
    path = Path(source)
    if not path.is_file() or data_suffix(path) not in (".jsonl", ".ndjson", ".json"):
        return
    try:
        with open_data(path) as stream:
            windows = any(line.endswith(b"\r\n") for line in iter(lambda: stream.readline(1 << 20), b""))
    except (EOFError, OSError):  # a damaged archive; `read_rows` said so
        return
    if windows:
        origin = Origin(source, 0)
        yield FixedRow(origin, mends=(Mend("D067", origin, "wrote line feeds for the line ends of Windows"),))


def _fixed(row: Row) -> FixedRow:
    row, mends = _readable(row)
    if row.value is None:
        return FixedRow(row.origin, finding=row.finding)
    value: Fields = row.value
    for mend in MENDS.values():
        value, done = mend(value, row.origin)
        mends += done
    try:
        line = _line_of(row, value, bool(mends))
    except (TypeError, ValueError) as error:  # dates and bytes of Parquet, numbers beyond all bounds
        reason = finding("D003", row.origin, f"the row holds what JSON cannot write: {quote(str(error))}")
        return FixedRow(row.origin, finding=reason)
    return FixedRow(row.origin, value, line, tuple(mends))


def _line_of(row: Row, value: Fields, mended: bool) -> str:
    if row.text is not None and not mended and "\n" not in row.text.strip():
        return row.text.strip()
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # half a character has no UTF-8 form; escaped, it stays as it was and `check` still reports it
    return line if encodable(line) else json.dumps(value, allow_nan=False)


# --- rows that cannot be read ---


def _readable(row: Row) -> tuple[Row, list[Mend]]:
    """The row without commas that JSON does not allow, if it can be read then."""
    if row.value is not None or row.text is None or row.finding is None or row.finding.code != "D054":
        return row, []
    text = _without_last_commas(row.text)
    mended = row_from_text(text, row.origin)
    if mended.value is None:
        return row, []
    commas = len(row.text) - len(text)
    done = "removed the comma" if commas == 1 else f"removed {commas} commas"
    return mended, [Mend("D054", mended.origin, f"{done} with nothing behind")]


_CLOSING = re.compile(r"\s*(?:[\]}]|\Z)")


def _without_last_commas(text: str) -> str:
    """The text without commas before a closing bracket or at its end; those inside strings stay."""
    kept, begin = [], 0
    for token in TOKENS.finditer(text):
        if token[0] == "," and _CLOSING.match(text, token.end()):
            kept.append(text[begin : token.start()])
            begin = token.end()
    return "".join([*kept, text[begin:]])


# --- rows that can be read ---


def empty_input(row: Fields, origin: Origin) -> tuple[Fields, list[Mend]]:
    """D040: `<noinput>` and its like become the empty text, as which they are read."""
    written = row.get("input")
    if not isinstance(written, str) or not written or written not in NO_INPUT:
        return row, []
    return {**row, "input": ""}, [Mend("D040", origin, f"wrote the input {quote(written)} as an empty text")]


def known_roles(row: Fields, origin: Origin) -> tuple[Fields, list[Mend]]:
    """D006: a role that differs from a known one by case, or by blanks around it, becomes that one."""
    mends: list[Mend] = []

    def mended(turn: Fields, position: int) -> Fields:
        key = "role" if turn.get("role") is not None else "from"
        name = turn.get(key)
        known = name.strip().lower() if isinstance(name, str) else ""
        known = _OTHER_NAMES.get(known, known)
        if name in ROLE_NAMES or known not in ROLE_NAMES:
            return turn
        mends.append(
            Mend("D006", origin, f"wrote the role {quote(name)} of turn {position} as {quote(known)}")
        )
        return {**turn, key: known}

    return _with_turns(row, mended), mends


_OTHER_NAMES = {"ai": "assistant"}


def arguments_as_objects(row: Fields, origin: Origin) -> tuple[Fields, list[Mend]]:
    """D049: the arguments of tool calls that are JSON text become the object that they spell."""
    mends: list[Mend] = []

    def mended(turn: Fields, position: int) -> Fields:
        calls = turn.get("tool_calls")
        if not isinstance(calls, list):
            return turn
        read = [_call_with_object(call, origin) for call in calls]
        changed = sum(new is not old for new, old in zip(read, calls, strict=True))
        if not changed:
            return turn
        what = "arguments" if changed == 1 else f"arguments of {changed} calls"
        mends.append(Mend("D049", origin, f"wrote the {what} in turn {position} as an object"))
        return {**turn, "tool_calls": read}

    return _with_turns(row, mended), mends


def _call_with_object(call: Any, origin: Origin) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        read = parse(function["arguments"], origin)
        read = parse(read, origin) if isinstance(read, str) else read  # written as text twice
    except RowError:
        return call
    return {**call, "function": {**function, "arguments": read}} if isinstance(read, dict) else call


def no_turns_after_the_answer(row: Fields, origin: Origin) -> tuple[Fields, list[Mend]]:
    """D021: turns behind the last one that can be learned are cut off, as reading does."""
    field = next((key for key in ("messages", "conversations") if isinstance(row.get(key), list)), None)
    if field is None or detect(row) is not FORMATS[field]:
        return row, []
    try:
        (conversation,) = FORMATS[field].convert(row, origin)
    except RowError:
        return row, []
    final = final_answer(conversation)
    behind = len(conversation.messages) - 1 - final
    if final < 0 or not behind:
        return row, []
    turns = "the turn" if behind == 1 else f"the {behind} turns"
    return {**row, field: row[field][:-behind]}, [
        Mend("D021", origin, f"removed {turns} after the final answer")
    ]


def _with_turns(row: Fields, mend: Callable[[Fields, int], Fields]) -> Fields:
    """The row with each turn of its message lists mended; the same row if nothing changed."""
    changed = {}
    for key in ("messages", "conversations", "prompt", "completion"):
        turns = row.get(key)
        if isinstance(turns, list):
            mended = [mend(t, n) if isinstance(t, Mapping) else t for n, t in enumerate(turns, 1)]
            if any(new is not old for new, old in zip(mended, turns, strict=True)):
                changed[key] = mended
    return {**row, **changed} if changed else row


MENDS: dict[str, Callable[[Fields, Origin], tuple[Fields, list[Mend]]]] = {
    "empty input": empty_input,
    "known roles": known_roles,
    "arguments as objects": arguments_as_objects,
    "no turns after the answer": no_turns_after_the_answer,
}
