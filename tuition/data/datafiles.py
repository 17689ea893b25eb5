"""One data file: what it is by its name and its first bytes, how it is opened, and its rows."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from tuition.data.jsonfiles import read_json
from tuition.data.jsontext import Row, about_file
from tuition.data.plaintext import PLAIN_SUFFIXES, read_plain
from tuition.data.remote import RemoteFile, is_remote
from tuition.data.tables import read_arrow, read_parquet, read_table
from tuition.errors import UserError

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", *TABLE_SUFFIXES)
COMPRESSIONS = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"
_MOST_INFLATED = 200
_INFLATED_FREELY = 256 << 20
_BUFFER_BYTES = 1 << 18  # Python's own 4 to 8 KiB ask the system once for every few rows

Place = Path | RemoteFile
"""Where a file lies: on this machine, or elsewhere."""


def place_of(source: str) -> Place:
    """The place that a source names."""
    return RemoteFile(source) if is_remote(source) else Path(source)


def size_of(place: Place) -> int | None:
    """Bytes of the file; None where its server does not say."""
    return place.size() if isinstance(place, RemoteFile) else place.stat().st_size


def data_suffix(path: Place) -> str:
    """The suffix that says the format: that before `.gz` or `.zst`."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix


def is_data_name(path: Place) -> bool:
    """Whether a file of that name is read. Tables compress themselves, so theirs take no `.gz`."""
    suffix = data_suffix(path)
    return suffix in SUFFIXES and not (suffix in TABLE_SUFFIXES and path.name.lower().endswith(COMPRESSIONS))


def is_plain_name(path: Place) -> bool:
    """Whether a file of that name is plain text, which is read where general text is asked for."""
    return data_suffix(path) in PLAIN_SUFFIXES


def open_data(path: Place) -> BinaryIO:
    """The file's bytes, decompressed; a bomb ends with an error of zlib."""
    name = path.name.lower()
    if name.endswith(".gz"):
        packed: Any = path.open() if isinstance(path, RemoteFile) else path
        return io.BufferedReader(_Inflated(cast(BinaryIO, gzip.open(packed, "rb")), size_of(path)))
    if name.endswith(".zst"):
        import pyarrow

        # Arrow refuses windows above 128 MiB, so that a file cannot ask for all of the memory
        packed = path.open() if isinstance(path, RemoteFile) else str(path)
        return io.BufferedReader(_Inflated(pyarrow.input_stream(packed, compression="zstd"), size_of(path)))
    return path.open() if isinstance(path, RemoteFile) else path.open("rb", buffering=_BUFFER_BYTES)


class _Inflated(io.RawIOBase):
    """A decompressed stream that ends with an error where it grows as no text does."""

    def __init__(self, stream: BinaryIO, packed_bytes: int | None) -> None:
        self._stream = stream
        # what was decompressed before the damage is given out, so gzip is asked for no more than it has
        self._some = getattr(stream, "read1", stream.read)
        self._left = max(_INFLATED_FREELY, (packed_bytes or 0) * _MOST_INFLATED)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._some(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise zlib.error(
                f"it grows to more than {_MOST_INFLATED} times its size, as no text does; decompress it yourself"
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def file_rows(path: Place, source: str, columns: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a file, by its suffix, unless its first bytes say that it is something else.

    Args:
        columns: see `read_rows`.

    Raises:
        UserError: the file may not be read.
    """
    try:
        yield from _rows(path, source, columns)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield about_file("D062", source, str(error))
    except OSError as error:
        if error.errno is None and path.name.lower().endswith(".zst"):  # Arrow's complaint, not the disk's
            yield about_file("D062", source, str(error))
            return
        step = "Check the file's permissions and the disk."
        raise UserError(error.strerror or str(error), where=source, next_step=step) from error


def _rows(path: Place, source: str, columns: Collection[str]) -> Iterator[Row]:
    suffix = data_suffix(path)
    with open_data(path) as stream:
        head = stream.read(512)
    if kind := _foreign_kind(head, suffix):
        yield about_file("D059", source, f"the file is {kind}")
        return
    if suffix in TABLE_SUFFIXES:
        yield from (read_parquet if suffix == ".parquet" else read_arrow)(path, source)
        return
    marked = head.startswith(BOM)
    if marked:
        yield about_file("D053", source, "the file begins with a byte-order mark, which is skipped")

    def open_text() -> BinaryIO:
        stream = open_data(path)
        stream.read(len(BOM) if marked else 0)
        return stream

    if suffix in (".csv", ".tsv"):
        yield from read_table(open_text, source, "\t" if suffix == ".tsv" else ",", columns)
    elif suffix in PLAIN_SUFFIXES:
        yield from read_plain(open_text, source)
    else:
        yield from read_json(open_text, source, suffix)


_SIGNATURES: dict[bytes, str] = {
    b"version https://git-lfs": "a Git-LFS pointer, not the data (git lfs pull fetches it)",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "XML",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "compressed with gzip (its name must end in .gz)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd (its name must end in .zst)",
    b"PAR1": "Parquet (its name must end in .parquet)",
    b"ARROW1": "an Arrow file (its name must end in .arrow)",
    b"FEA1": "a Feather file of version 1 (pandas.read_feather opens it)",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF document",
    b"\xff\xfe": "UTF-16 text (iconv -f utf-16 -t utf-8 converts it)",
    b"\xfe\xff": "UTF-16 text (iconv -f utf-16 -t utf-8 converts it)",
    **{bytes([0x80, protocol]): "a Python pickle, which could run code" for protocol in range(2, 6)},
}
_AT_HOME: dict[bytes, tuple[str, ...]] = {b"PAR1": (".parquet",), b"ARROW1": (".arrow", ".feather")}


def _foreign_kind(head: bytes, suffix: str) -> str | None:
    """What the first bytes say the file is, if that is not what its suffix says."""
    start = head.lstrip().lower()
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature.lower()) and suffix not in _AT_HOME.get(signature, ()):
            return kind
    return None
