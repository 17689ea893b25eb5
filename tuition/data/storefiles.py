"""A store of collected demonstrations as one more source: `team.db`, or `team.db@120` as it stood at event 120.

A run names the state it began with, so that people may go on writing while it trains, and a resume learns
from the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuition.collect import Store
from tuition.collect.accepted import accepted_sha256, latest_event, read_accepted
from tuition.data.catalogue import finding
from tuition.data.jsontext import Row, about_file
from tuition.errors import Origin

STORE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_AT = re.compile(r"(.+)@(\d{1,15})")


def is_store_name(source: str) -> bool:
    """Whether a source names a store, by its suffix."""
    return store_path(source)[0].suffix.lower() in STORE_SUFFIXES


def store_path(source: str) -> tuple[Path, int | None]:
    """The file of a store, and the event whose state is meant; None: the newest."""
    named = _AT.fullmatch(source)
    if named is None or Path(named[1]).suffix.lower() not in STORE_SUFFIXES:
        return Path(source), None
    return Path(named[1]), int(named[2])


def pinned(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with the newest event behind each store that names none and is there."""
    return tuple(_pinned(name) for name in names)


def _pinned(name: str) -> str:
    bare, mark, share = name.partition("#")
    path, at = store_path(bare)
    if not is_store_name(bare) or at is not None or not path.is_file():
        return name
    with Store(path, read_only=True) as store:
        return f"{bare}@{latest_event(store)}{mark}{share}"


def store_rows(source: str) -> Iterator[Row]:
    """Each accepted demonstration as a row, its line the demonstration's number.

    Raises:
        UserError: there is no such store, or the file is none.
    """
    path, at = store_path(source)
    count = 0
    with Store(path, read_only=True) as store:
        for one in read_accepted(store, at=at):
            count += 1
            number = one.demonstration_id
            origin = Origin(source, number, f"demonstration-{number}")
            if one.refusal is None:
                yield Row(origin, {**one.row, "id": origin.row_id, "group": one.group})
            else:
                yield Row(origin, None, finding("D068", origin, one.refusal))
    if not count:
        yield about_file("D050", source, "no demonstration is accepted yet")


def store_sha256(source: str) -> str:
    """The SHA-256 of the rows that `store_rows` gives.

    Raises:
        UserError: there is no such store, or the file is none.
    """
    path, at = store_path(source)
    with Store(path, read_only=True) as store:
        return accepted_sha256(store, at=at)
