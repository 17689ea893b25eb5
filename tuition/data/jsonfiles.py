"""JSON Lines and JSON arrays, row by row, in bounded memory and with a verdict on each row.

One bad row never ends the reading: lines are read apart from each other, and the rows of an array are
found by their brackets before they are parsed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import BinaryIO

from tuition.counting import counted
from tuition.data.catalogue import finding
from tuition.data.jsontext import TOKENS, Row, about_file, not_utf8, row_from_bytes, row_from_text
from tuition.errors import Origin

MAX_ROW_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


def read_json(open_text: Callable[[], BinaryIO], source: str, suffix: str) -> Iterator[Row]:
    """The rows of a file of JSON, whichever of the layouts it has.

    Args:
        open_text: opens the decompressed file behind its byte-order mark; called more than once.
        suffix: what the file's name says about its layout.
    """
    layout = _layout(open_text, suffix)
    with open_text() as stream:
        if layout == "array" and suffix != ".json":
            yield about_file("D060", source, "the file holds one JSON array; its elements are read as rows")
        if layout == "lines" and suffix == ".json":
            yield about_file("D060", source, "the file holds one object per line; each line is read as a row")
        yield from LAYOUTS[layout](stream, source)


def read_lines(stream: BinaryIO, source: str) -> Iterator[Row]:
    """One row a line. Blank lines are no rows."""
    number = 0
    while line := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            _skip_line(stream, line)
            yield _too_long(Origin(source, number))
        elif not line.isspace():
            yield row_from_bytes(line, source, number)


def read_array(stream: BinaryIO, source: str) -> Iterator[Row]:
    """The elements of one JSON array, each with its first line; by position if all stand on one line."""
    window = _Window(stream)
    window.skip_blank()
    window.position += 1  # the opening bracket, which decided for this layout
    by_line = "\n" in window.text.strip()
    rows = 0
    while window.skip_blank() not in ("]", ""):
        if window.text[window.position] == ",":
            window.position += 1
            continue
        rows += 1
        row = _element(window, Origin(source, window.line if by_line else rows))
        yield row
        if row.finding and row.finding.code == "D058":  # where the next element begins is not known
            yield about_file("D061", source, "the elements after it are not read", window.line)
            return
    yield from _end_of_array(window, source)


def read_whole(stream: BinaryIO, source: str) -> Iterator[Row]:
    """One object that is the whole file, such as a Natural Instructions task."""
    yield row_from_bytes(stream.read(MAX_ROW_BYTES), source, 1)


LAYOUTS: dict[str, Callable[[BinaryIO, str], Iterator[Row]]] = {
    "lines": read_lines,
    "array": read_array,
    "whole": read_whole,
}


# --- which layout ---


def _layout(open_text: Callable[[], BinaryIO], suffix: str) -> str:
    """Lines, array or whole, by what stands in the file; the name decides nothing."""
    with open_text() as stream:
        first = _first_line(stream)
        if first.startswith(b"["):
            # [1, 2] and then more lines is JSON Lines with a bad row; an array goes on or ends with its line
            return "lines" if _is_json(first) and _first_line(stream) else "array"
        if first.startswith(b"{") and not _is_json(first):
            whole = first + stream.read(MAX_ROW_BYTES + 1 - len(first))
            # the second line of an object over several lines never begins an object at its margin
            spread = first.strip() == b"{" or b"\n{" not in whole[:_CHUNK_BYTES]
            return "whole" if spread and len(whole) <= MAX_ROW_BYTES and _is_json(whole) else "lines"
        if first.startswith(b"{") and suffix == ".json" and not _first_line(stream):
            return "whole"
        return "lines"


def _first_line(stream: BinaryIO) -> bytes:
    """The next line that is not blank, without its indentation; empty at the end."""
    while line := stream.readline(MAX_ROW_BYTES + 1):
        if not line.isspace():
            return line.lstrip()
    return b""


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


# --- lines ---


def _skip_line(stream: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(_CHUNK_BYTES)


def _too_long(origin: Origin) -> Row:
    return Row(origin, None, finding("D058", origin, f"the row is longer than {MAX_ROW_BYTES >> 20} MiB"))


# --- arrays ---


class _Window:
    """The part of the file's text that is being read.

    Bytes that are not UTF-8 become lone surrogates, so that one bad byte spoils one row only.

    Attributes:
        text: what was read and is not yet done with.
        position: where in `text` the reading stands.
        line: the line of `position`, from 1; kept by `skip_blank`.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._undecoded = b""
        self._counted = 0
        self.text, self.position, self.line, self.ended = "", 0, 1, False
        self.grow()

    def grow(self) -> None:
        """Read as much again as the window holds, at least one chunk."""
        chunk = self._undecoded + self._stream.read(max(_CHUNK_BYTES, len(self.text) - self.position))
        self.ended = len(chunk) == len(self._undecoded)
        whole = len(chunk) if self.ended else _whole_characters(chunk)
        self._undecoded = chunk[whole:]
        self._count_lines()
        self.text = self.text[self.position :] + chunk[:whole].decode("utf-8", "surrogateescape")
        self.position = self._counted = 0

    def skip_blank(self) -> str:
        """Go to the next character that is not blank and return it; empty at the end of the file."""
        while True:
            remaining = len(self.text) - self.position
            if remaining and not (character := self.text[self.position]).isspace():
                self._count_lines()
                return character
            if remaining:
                self.position += 1
            elif self.ended:
                self._count_lines()
                return ""
            else:
                self.grow()

    def _count_lines(self) -> None:
        self.line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position


def _whole_characters(chunk: bytes) -> int:
    """How many bytes of the chunk end with a whole UTF-8 character."""
    for back in range(1, min(4, len(chunk)) + 1):
        byte = chunk[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(chunk) - back if needed > back else len(chunk)
        if byte < 0x80:
            break
    return len(chunk)


def _element(window: _Window, origin: Origin) -> Row:
    """The element at the window's position, which moves behind it."""
    end = _element_end(window)
    if end - window.position > MAX_ROW_BYTES:
        window.position = end
        return _too_long(origin)
    text = window.text[window.position : end].rstrip()
    window.position = end
    escaped = next((c for c in text if "\udc80" <= c <= "\udcff"), None) if not text.isascii() else None
    if escaped:
        message = not_utf8(ord(escaped) - 0xDC00, text.index(escaped))
        return Row(origin, None, finding("D051", origin, message))
    if "\0" in text:
        return Row(
            origin,
            None,
            finding("D052", origin, counted(text.count(chr(0)), "character is NUL", "characters are NUL")),
        )
    return row_from_text(text, origin)


def _element_end(window: _Window) -> int:
    """Where the element ends, found by its brackets and without parsing.

    A string that is not closed on its line is taken to end there, and with it the element if the next line
    begins a new one: so a forgotten quote costs one row, not the file.
    """
    depth, scanned = 0, 0
    while True:
        for token in TOKENS.finditer(window.text, window.position + scanned):
            if token.lastindex:
                if token.end() == len(window.text) and not window.ended:
                    break  # the string may go on in the next chunk
                if window.text[token.end() : token.end() + 200].lstrip()[:1] in ("{", "]"):
                    return token.end()
            kind = token[0]
            if depth == 0 and kind in (",", "]"):
                return token.start()
            depth += (kind in ("[", "{")) - (kind in ("]", "}"))
            if depth == 0 and kind in ("]", "}"):
                return token.end()
            scanned = token.end() - window.position
        if window.ended or len(window.text) - window.position > MAX_ROW_BYTES:
            return len(window.text)
        window.grow()


def _end_of_array(window: _Window, source: str) -> Iterator[Row]:
    """Complain about an array that is not closed, and about text behind its end."""
    if window.position >= len(window.text):
        yield about_file(
            "D061", source, "the file ends inside its array: the closing ] is missing", window.line
        )
        return
    window.position += 1
    if window.skip_blank():
        yield about_file("D061", source, "text after the end of the array is not read", window.line)
