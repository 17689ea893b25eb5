"""One row of JSON: from bytes to an object, or to a finding that says what to mend.

Stricter than Python's reader where that loses something silently (duplicate keys, NaN, deep nesting), and
more talkative where people err (trailing commas, single quotes, rows that are cut off).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuition.counting import counted
from tuition.data.catalogue import RowError, finding, quote, refused
from tuition.errors import Finding, Origin

MAX_DEPTH = 64  # demonstrations nest below 20; OASST trees of 30 turns reach 60


@dataclass(slots=True)
class Row:
    """One row of a source: an object, or the finding why it is none.

    Attributes:
        origin: its place; line 0 where the finding is about the whole file and no row stands behind it.
        value: the fields; None if the row, or the file, was refused.
        finding: why it was refused, or an info about the file.
        text: the row as it stands in a file of JSON; None where it is not text.
    """

    origin: Origin
    value: Mapping[str, Any] | None
    finding: Finding | None = None
    text: str | None = None


def about_file(code: str, source: str, message: str, line: int = 0, fix: str | None = None) -> Row:
    """A verdict on a whole file. `line` says where in the file, in words."""
    where = f"line {line}: " if line else ""
    return Row(Origin(source, 0), None, finding(code, Origin(source, 0), where + message, fix))


def row_from_bytes(line: bytes, source: str, number: int) -> Row:
    """Read one line of a JSON Lines file."""
    origin = Origin(source, number)
    if b"\0" in line:
        return _refused(
            "D052",
            origin,
            f"{line.count(0):,} of {counted(len(line), 'byte is', 'bytes are')} NUL",
        )
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return _refused("D051", origin, not_utf8(error.object[error.start], error.start))
    return row_from_text(text, origin)


def row_from_text(text: str, origin: Origin) -> Row:
    """Read the JSON of one row, wherever it stood."""
    try:
        value = parse(text, origin)
    except RowError as refusal:
        return Row(origin, None, refusal.reason, text)
    row = row_from_value(value, origin)
    row.text = text
    return row


def row_from_value(value: object, origin: Origin) -> Row:
    """A row from a parsed value; its `id` becomes the origin's."""
    if not isinstance(value, dict):
        return _refused(
            "D056", origin, f"the row is {KINDS.get(type(value), 'not an object')}: {quote(value)}"
        )
    row_id = value.get("id")
    if isinstance(row_id, str | int):
        origin = Origin(origin.file, origin.line, str(row_id)[:200])
    return Row(origin, value)


def parse(text: str, origin: Origin, *, code: str = "D054", what: str = "") -> Any:
    """The value of a JSON text.

    Args:
        code: the finding of invalid grammar.
        what: which text it is, before the complaint, where it is not the row itself.

    Raises:
        RowError: `code`, D055 duplicate key, D057 nesting.
    """
    try:
        if text.count("[") + text.count("{") > MAX_DEPTH and _nests_too_deep(text):
            raise RecursionError
        return _decode(text)
    except json.JSONDecodeError as error:
        message, step = _explain(text, error)
        raise refused(code, origin, what + message, step) from None
    except _DuplicateKeyError as error:
        raise refused(
            "D055", origin, f"{what}the key {quote(str(error))} stands twice in one object"
        ) from None
    except RecursionError:
        raise refused("D057", origin, f"{what}objects and lists nest more than {MAX_DEPTH} deep") from None
    except _ConstantError as error:
        raise refused(
            code, origin, f"{what}{error} is not JSON; write null, or leave the field out"
        ) from None
    except ValueError:  # Python reads no longer integers, because reading them takes quadratic time
        raise refused(code, origin, f"{what}a number has thousands of digits") from None


def not_utf8(byte: int, position: int) -> str:
    """The message of D051."""
    return f"byte 0x{byte:02x} at position {position} is not UTF-8"


def _refused(code: str, origin: Origin, message: str) -> Row:
    return Row(origin, None, finding(code, origin, message))


_BLANKS = " \t\n\r"  # JSON's, which are fewer than Python's


def _decode(text: str) -> Any:
    """As `JSONDecoder.decode`, which spends a tenth of its time on two patterns for the blanks."""
    begin = 0 if text[:1] == "{" else len(text) - len(text.lstrip(_BLANKS))
    value, end = _DECODER.raw_decode(text, begin)
    if text[end:].strip(_BLANKS):
        raise json.JSONDecodeError(
            "Extra data", text, end + len(text[end:]) - len(text[end:].lstrip(_BLANKS))
        )
    return value


class _DuplicateKeyError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKeyError(next(name for name in names if names.count(name) > 1))
    return value


class _ConstantError(ValueError):
    pass


def _constant(name: str) -> Any:
    raise _ConstantError(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)

KINDS: dict[type, str] = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    dict: "an object",
}

# A string, a string that is not closed on its line (group 1), or one of JSON's brackets and commas.
TOKENS = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|("[^\n]*)|[\[\]{},]')


def _nests_too_deep(text: str) -> bool:
    """Whether lists and objects nest more than MAX_DEPTH deep, without recursion and no further than that."""
    depth = 0
    for token in TOKENS.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token[0] in "]}":
            depth -= 1
    return False


# --- what to say about invalid JSON ---


def _explain(text: str, error: json.JSONDecodeError) -> tuple[str, str | None]:
    """The message and, where the cause is known, the next step."""
    cause, step = next(_causes(text, error), ("", None))
    if not text[error.pos :].strip():  # Python complains of the line feed that follows
        end = json.JSONDecodeError(error.msg, text, len(text[: error.pos].rstrip()))
        return f"the row ends too early, at {_place(end)}: {cause}", step
    return f"{error.msg.removesuffix(' at')} at {_place(error)}{cause and ': ' + cause}", step


def _place(error: json.JSONDecodeError) -> str:
    return f"column {error.colno}" if error.lineno == 1 else f"its line {error.lineno}, column {error.colno}"


def _causes(text: str, error: json.JSONDecodeError) -> Iterator[tuple[str, str]]:
    """The likely causes, the surest first."""
    here, before = text[error.pos : error.pos + 1], text[: error.pos].rstrip()
    rest = text[error.pos :].strip()
    if text.strip() in "[]{}":
        yield "a value is spread over several lines", "Write each row on one line: jq -c . FILE > rows.jsonl"
    if error.msg == "Extra data" and rest == ",":
        yield "a comma follows the object", "Remove the commas at the ends of the lines, or make it an array."
    if error.msg == "Extra data":
        yield "something follows the object on its line", "Write one object per line."
    if before.endswith(",") and here in "]}":
        yield "a comma stands before the closing bracket", "Remove that comma."
    if here == "'":
        yield "single quotes are not JSON's", "Write the file with json.dumps; str() of a dict is not JSON."
    if rest.startswith(("True", "False", "None")):
        yield "a word of Python's", "Write true, false or null: json.dumps does."
    if not rest or error.msg.startswith("Unterminated string"):
        yield "the row is cut off", "Write the row again; its end is missing."
    if error.msg.startswith("Invalid control character"):
        yield "a raw line break or tab stands inside a text", "Write it as \\n or \\t: json.dumps does."
    if error.msg.startswith("Invalid \\escape"):
        yield "a lone backslash", "Write a backslash twice: json.dumps does."
