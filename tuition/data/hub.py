"""Data sets of the Hugging Face hub: which names may be theirs, their splits, rows and revisions."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tuition.data.datafiles import COMPRESSIONS, SUFFIXES, data_suffix
from tuition.data.jsontext import Row, row_from_value
from tuition.errors import Origin, UserError

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.+-]+){0,2}")


def may_be_hub_name(spec: str) -> bool:
    """True for `owner/name` and `name`, with `:config:split`, unless the local disk is clearly meant."""
    path = Path(spec)
    if not _HUB_NAME.fullmatch(spec) or data_suffix(path) in (
        *SUFFIXES,
        *COMPRESSIONS,
        ".txt",
        ".zip",
        ".db",
        ".sqlite",
        ".sqlite3",
    ):
        return False
    if len(path.parts) > 1:
        return not path.parent.is_dir()
    return not difflib.get_close_matches(spec, [entry.name for entry in Path().iterdir()], n=1, cutoff=0.8)


def hub_splits(spec: str) -> list[str]:
    """The splits of a data set as `name:split`; the name itself where it names one.

    Raises:
        UserError: the hub does not answer.
    """
    name, _, split = _parts(spec)
    if split:
        return [spec]
    import datasets

    return [f"{name}:{split}" for split in _ask(spec, lambda: datasets.get_dataset_split_names(name))]


def hub_rows(source: str) -> Iterator[Row]:
    """The rows of a split, streamed, by position from 1.

    Raises:
        UserError: the hub does not answer.
    """
    import datasets

    name, config, split = _parts(source)

    def load() -> Any:
        return datasets.load_dataset(name, config, split=split or "train", streaming=True)

    rows = iter(_ask(source, load))
    number = 0
    while (value := _ask(source, lambda: next(rows, None))) is not None:
        number += 1
        yield row_from_value(value, Origin(source, number))


def hub_count(source: str) -> int:
    """How many rows a split has, by what the hub knows of it.

    Raises:
        UserError: the hub does not answer, or does not know.
    """
    import datasets

    name, config, split = _parts(source)
    info = _ask(source, lambda: datasets.load_dataset_builder(name, config).info)
    known = (info.splits or {}).get(split or "train")
    if known is None or not known.num_examples:
        raise UserError(
            "the hub does not say how many rows it has",
            where=source,
            next_step="Name a downloaded file of it",
        )
    return int(known.num_examples)


def hub_sha256(source: str) -> str:
    """The SHA-256 of a data set's name and revision.

    Raises:
        UserError: the hub does not answer.
    """
    import huggingface_hub

    revision = _ask(source, lambda: huggingface_hub.dataset_info(_parts(source)[0]).sha)
    return hashlib.sha256(f"{source}@{revision}".encode()).hexdigest()


def _parts(source: str) -> tuple[str, str | None, str | None]:
    """Name, config and split of `name`, `name:split` and `name:config:split`."""
    name, *rest = source.split(":")
    return name, rest[0] if len(rest) == 2 else None, rest[-1] if rest else None


def _ask(source: str, question: Callable[[], Any]) -> Any:
    """The hub's answer; its many exceptions (network, permission, names, damaged files) as one.

    Raises:
        UserError: the hub did not answer, or not with data.
    """
    try:
        return question()
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
        raise UserError(
            f"there is no such file, and the hub gives no such data set ({reason})",
            where=source,
            next_step="Check the spelling, the network and your login, or give a folder of downloaded files.",
        ) from error
