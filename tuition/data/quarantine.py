"""Rejected rows set aside with their reasons, so that they can be mended and read again."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuition.data.datafiles import TABLE_SUFFIXES, open_data, place_of
from tuition.data.ledger import Entry, Ledger
from tuition.data.sources import read_rows
from tuition.utf8 import encodable


def rejected_rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Each rejected row with its place, code, reason, and the row itself.

    `row` holds the value where the row could be parsed, else `text` holds the line as it stands, bytes
    that are not UTF-8 written as \\xNN.
    """
    by_file: dict[str, dict[int, Entry]] = defaultdict(dict)
    for entry in ledger.rejected:
        by_file[entry.origin.file][entry.origin.line] = entry
    for file, entries in by_file.items():
        unparsed = dict(entries)
        for row in read_rows(file):
            if row.origin.line in unparsed and row.value is not None:
                yield {**unparsed.pop(row.origin.line).to_json(), "row": row.value}
        for line, text in _lines_of(file, set(unparsed)):
            yield {**unparsed.pop(line).to_json(), "text": text}
        for entry in unparsed.values():
            yield entry.to_json()


def rejected_lines(ledger: Ledger) -> Iterator[bytes]:
    """`rejected_rows` as JSON Lines, whatever the rows hold."""
    for row in rejected_rows(ledger):
        yield _line(row).encode("utf-8")


def _line(row: dict[str, Any]) -> str:
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        if not encodable(line):  # escaped, half a character stays as it was
            line = json.dumps(row, allow_nan=False)
    except (TypeError, ValueError):  # dates and bytes of Parquet, and its NaN
        line = json.dumps({**row, "row": None, "text": repr(row.get("row"))})
    return line + "\n"


def _lines_of(file: str, wanted: set[int]) -> Iterator[tuple[int, str]]:
    """Lines of a text file by number; none where the file is no text."""
    place = place_of(file)
    missing = isinstance(place, Path) and not place.is_file()
    if not wanted or missing or place.name.lower().endswith(TABLE_SUFFIXES):
        return
    # a damaged archive ends early, here as in `read_rows`, which said so
    with contextlib.suppress(EOFError, OSError, zlib.error), open_data(place) as stream:
        for number, line in enumerate(stream, start=1):
            if number in wanted:
                yield number, line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
