"""How many rows a source holds and how long they are, guessed from its first rows and its size: nothing large is read whole."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tuition.data.datafiles import data_suffix, place_of, size_of
from tuition.data.hub import hub_count, may_be_hub_name
from tuition.data.jsontext import Row
from tuition.data.remote import local_name
from tuition.data.sources import read_rows, split_share
from tuition.data.storefiles import is_store_name
from tuition.errors import UserError

_ROWS_LOOKED_AT = 1000
_JSON = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True)
class Extent:
    """What a source holds.

    Attributes:
        rows: those that are learned in an epoch: all, times the share behind the source's name.
        bytes: of these rows as JSON.
    """

    rows: float
    bytes: float


def extent_of(source: str) -> Extent:
    """Rows of a source and their bytes: counted where it is short or says how many it has, else by its size.

    Raises:
        UserError: it is not there, holds no rows, or nobody says how large it is.
    """
    name, share = split_share(source)
    name = local_name(name)
    readable = (row for row in read_rows(name) if row.value is not None)
    first = list(islice(readable, _ROWS_LOOKED_AT))
    if not first:
        raise UserError("holds no rows that can be read", where=name, next_step="`tuition check` says why")
    texts = [json.dumps(row.value, ensure_ascii=False, default=str) for row in first]
    rows = len(first) if len(first) < _ROWS_LOOKED_AT else _count(name, first)
    mean = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / len(texts)
    return Extent(share * rows, share * rows * mean)


def _count(name: str, first: list[Row]) -> float:
    """How many rows a source has, of which these are the first."""
    place = place_of(name)
    if is_store_name(name):
        return sum(row.value is not None for row in read_rows(name))
    if isinstance(place, Path) and not place.exists() and may_be_hub_name(name):
        return hub_count(name)
    if data_suffix(place) == ".parquet":
        return _rows_of_parquet(name)
    size = size_of(place)
    if size is None:
        raise UserError(
            "the server does not say how large it is",
            where=name,
            next_step="Name a local file of about the same size",
        )
    return size * len(first) / _bytes_as_stored(place.name, first)


def _rows_of_parquet(name: str) -> int:
    import pyarrow.parquet

    place = place_of(name)
    if isinstance(place, Path):
        return int(pyarrow.parquet.read_metadata(place).num_rows)
    with place.open() as stream:
        return int(pyarrow.parquet.read_metadata(stream).num_rows)


def _bytes_as_stored(file_name: str, rows: list[Row]) -> int:
    """What these rows take in a file of that name."""
    as_json = data_suffix(Path(file_name)) in _JSON
    texts = [row.text or json.dumps(row.value, default=str) if as_json else _cells(row) for row in rows]
    content = "\n".join([*texts, ""]).encode("utf-8", "surrogatepass")
    if file_name.lower().endswith(".gz"):
        return len(gzip.compress(content))
    if file_name.lower().endswith(".zst"):
        import pyarrow

        return len(pyarrow.compress(content, codec="zstd", asbytes=True))
    return len(content)


def _cells(row: Row) -> str:
    """The values of a row, as a table stores them."""
    values = (row.value or {}).values()
    return ",".join(value if isinstance(value, str) else json.dumps(value, default=str) for value in values)
