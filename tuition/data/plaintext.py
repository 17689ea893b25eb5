"""Plain text as rows: its paragraphs, or its lines where no line between them is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from tuition.data.catalogue import finding
from tuition.data.jsonfiles import MAX_ROW_BYTES
from tuition.data.jsontext import Row, not_utf8, row_from_value
from tuition.errors import Origin

PLAIN_SUFFIXES = (".txt", ".md")


def read_plain(open_text: Callable[[], BinaryIO], source: str) -> Iterator[Row]:
    """One row a paragraph, `{"text": …}`, at the line where it begins.

    Args:
        open_text: opens the decompressed file behind its byte-order mark; called twice.
    """
    with open_text() as stream:
        by_line = not _has_paragraphs(stream)
    first, lines = 0, list[bytes]()
    with open_text() as stream:
        for number, line in enumerate(_lines(stream), 1):
            if lines and (by_line or not line.strip()):
                yield _row(lines, Origin(source, first))
                lines = []
            if line.strip():
                first = first if lines else number
                lines.append(line)
    if lines:
        yield _row(lines, Origin(source, first))


def _has_paragraphs(stream: BinaryIO) -> bool:
    """Whether an empty line stands between two that are not."""
    seen = empty = False
    for line in _lines(stream):
        if line.strip() and seen and empty:
            return True
        empty = not line.strip()
        seen = seen or not empty
    return False


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(MAX_ROW_BYTES + 1):
        yield line


def _row(lines: list[bytes], origin: Origin) -> Row:
    content = b"".join(lines).rstrip(b"\r\n")
    if len(content) > MAX_ROW_BYTES:
        return Row(origin, None, finding("D058", origin, f"the row is longer than {MAX_ROW_BYTES >> 20} MiB"))
    try:
        return row_from_value({"text": content.decode("utf-8")}, origin)
    except UnicodeDecodeError as error:
        return Row(origin, None, finding("D051", origin, not_utf8(error.object[error.start], error.start)))
