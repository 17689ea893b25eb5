"""Tables: CSV, TSV, Parquet and Arrow, row by row.

CSV cells are text and nothing else: an empty cell is the empty text, and `nan` is the word.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tuition.counting import counted
from tuition.data.catalogue import finding, quote
from tuition.data.formats import alike, detect
from tuition.data.jsonfiles import MAX_ROW_BYTES
from tuition.data.jsontext import Row, about_file, not_utf8, row_from_value
from tuition.data.remote import RemoteFile
from tuition.errors import Origin

_ROWS_AT_ONCE = 256


# --- CSV and TSV ---


def read_table(
    open_text: Callable[[], BinaryIO], source: str, delimiter: str, columns: Collection[str] = ()
) -> Iterator[Row]:
    """The rows of a CSV or TSV file, each under the names of the first line.

    Args:
        open_text: opens the decompressed file behind its byte-order mark.
        columns: names by which the first line is known to be a header, besides those of the shapes.
    """
    with open_text() as stream:
        records = _records(_LineFeed(stream), source, delimiter)
        header = next((record for record in records if record.cells != []), None)
        if header is None:
            return
        if wrong := _header_complaint(header.cells, delimiter):
            complaint, step = wrong
            yield about_file("D064", source, complaint, header.line, step)
            return
        if not _names_columns(header.cells, columns):
            complaint = "the first line names no columns of a known shape; is it a row?"
            yield about_file("D064", source, complaint, header.line)
        for record in records:
            if record.cells != []:
                yield _table_row(record, header.cells, source)


def _names_columns(names: Sequence[str], columns: Collection[str]) -> bool:
    """Whether the first line is seen to be a header: by the names of shapes, also misspelled, or by the user's."""
    known = set(columns) & set(names) or alike(tuple(name[:40] for name in names[:12]))
    return bool(known) or detect(dict.fromkeys(names, "")) is not None


def _header_complaint(names: list[str] | str, delimiter: str) -> tuple[str, str] | None:
    """What is wrong with the line of column names, and what to do; None if nothing is."""
    if isinstance(names, str):
        return f"the header cannot be read: {names}", "Mend the first line."
    if any(not name.strip() for name in names):
        number = [bool(name.strip()) for name in names].index(False) + 1
        return f"column {number} of the header has no name", "Name it, or remove the column."
    if len(set(names)) < len(names):
        twice = quote(next(n for n in names if names.count(n) > 1))
        return f"the header names {twice} twice", "Rename one of the two columns, or remove it."
    if len(names) == 1 and (other := next((d for d in ",;\t|" if d in names[0] and d != delimiter), None)):
        one = f"the header is one column, {quote(names[0])}; the delimiter seems to be {other!r}"
        return one, "Write the file with commas, or with tabs as .tsv."
    return None


class _Record:
    """One record: its first line, its cells, or the complaint that stands for them."""

    __slots__ = ("cells", "code", "line")

    def __init__(self, line: int, cells: list[str] | str, code: str = "D065") -> None:
        self.line, self.cells, self.code = line, cells, code


class _LineFeed:
    """Lines of text for the csv reader, which can be given back.

    Bytes that are not UTF-8 become lone surrogates, so that one bad byte spoils one row only.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._given_back: deque[str] = deque()
        self._taken: list[str] = []
        self._lines_before = 0

    def __iter__(self) -> _LineFeed:
        return self

    def __next__(self) -> str:
        if self._given_back:
            line = self._given_back.popleft()
        else:
            line = self._stream.readline(MAX_ROW_BYTES + 1).decode("utf-8", "surrogateescape")
        if not line:
            raise StopIteration
        self._taken.append(line)
        return line

    def begin_record(self) -> int:
        """Forget the lines of the record before; the number of the line to come, from 1."""
        self._lines_before += len(self._taken)
        self._taken.clear()
        return self._lines_before + 1

    def give_back_all_but_first(self) -> None:
        """The record could not be read: its first line is lost, the others are read again."""
        self._given_back.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]


def _records(feed: _LineFeed, source: str, delimiter: str) -> Iterator[_Record]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))  # answers may pass Python's 128 KiB
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        line = feed.begin_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            feed.give_back_all_but_first()
            yield _Record(line, str(error))
        else:
            yield _Record(line, cells)


def _table_row(record: _Record, header: list[str] | str, source: str) -> Row:
    origin, cells = Origin(source, record.line), record.cells
    if isinstance(cells, str):
        return Row(origin, None, finding("D065", origin, cells))
    if len(cells) != len(header):
        return Row(
            origin,
            None,
            finding(
                "D063", origin, f"{counted(len(cells), 'cell')} under {counted(len(header), 'column name')}"
            ),
        )
    text = "".join(cells)
    if not text.isascii() and (bad := next((c for c in text if "\udc80" <= c <= "\udcff"), None)):
        return Row(origin, None, finding("D051", origin, not_utf8(ord(bad) - 0xDC00, text.index(bad))))
    if "\0" in text:
        return Row(
            origin,
            None,
            finding("D052", origin, counted(text.count(chr(0)), "character is NUL", "characters are NUL")),
        )
    return row_from_value(dict(zip(header, cells, strict=True)), origin)


# --- Parquet and Arrow ---


def read_parquet(path: Path | RemoteFile, source: str) -> Iterator[Row]:
    """The rows of a Parquet file, by position from 1."""
    import pyarrow.parquet

    def batches() -> Iterator[Any]:
        content = path.open() if isinstance(path, RemoteFile) else path
        with pyarrow.parquet.ParquetFile(content) as file:
            yield from file.iter_batches(batch_size=_ROWS_AT_ONCE)

    yield from _numbered(batches(), source)


def read_arrow(path: Path | RemoteFile, source: str) -> Iterator[Row]:
    """The rows of an Arrow file, in either of its layouts (Feather and `datasets`), by position from 1."""
    import pyarrow.ipc

    def batches() -> Iterator[Any]:
        remote = isinstance(path, RemoteFile)
        with pyarrow.PythonFile(path.open()) if remote else pyarrow.memory_map(str(path)) as stream:
            named = stream.read(6) == b"ARROW1"
            stream.seek(0)
            if not named:
                yield from map(_sound, pyarrow.ipc.open_stream(stream))
                return
            file = pyarrow.ipc.open_file(stream)
            for number in range(file.num_record_batches):
                yield _sound(file.get_batch(number))

    yield from _numbered(batches(), source)


def _sound(batch: Any) -> Any:
    """The batch, proved to point nowhere outside its file: Arrow trusts the offsets that a file holds."""
    batch.validate(full=True)
    return batch


def _numbered(batches: Iterator[Any], source: str) -> Iterator[Row]:
    """The rows of all batches; damage ends them with a verdict on the file."""
    import pyarrow

    number = 0
    try:
        for batch in batches:
            for value in _python_rows(batch):
                number += 1
                yield _columnar_row(value, Origin(source, number))
    # ValueError: columns of one name, or dates beyond Python's
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        yield about_file("D066", source, f"after row {number}: {quote(str(error), 200)}")


def _python_rows(batch: Any) -> Iterator[Any]:
    """The batch as dictionaries, a few at a time; a text that is not UTF-8 spoils its own row only."""
    for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
        piece = batch.slice(start, _ROWS_AT_ONCE)
        try:
            yield from piece.to_pylist()
        except UnicodeDecodeError:
            for position in range(piece.num_rows):
                try:
                    yield piece.slice(position, 1).to_pylist()[0]
                except UnicodeDecodeError as error:
                    yield error


def _columnar_row(value: Any, origin: Origin) -> Row:
    if isinstance(value, UnicodeDecodeError):
        message = not_utf8(value.object[value.start], value.start)
        return Row(origin, None, finding("D051", origin, message))
    return row_from_value(value, origin)
