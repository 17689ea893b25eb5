"""Opening prepared data: found by its name, and used only where it is what was written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tuition import files
from tuition.batch.prepared.key import PreparedKey
from tuition.batch.prepared.layout import FACTS, FORMAT, NO_EXAMPLES, SIDES, Entry, damaged, fault_of
from tuition.batch.prepared.sides import PreparedSide
from tuition.errors import UserError


class Prepared:
    """A prepared folder, opened.

    Attributes:
        folder: where it lies.
        name: see `PreparedKey.name`.
        train: examples that are learned from.
        validation: examples that are held out.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], manifest: Mapping[str, Entry]) -> None:
        self.folder = folder
        self.name = str(facts["name"])
        self.train, self.validation = (
            PreparedSide(folder / side, facts["sides"].get(side, NO_EXAMPLES)) for side in SIDES
        )
        self._manifest = manifest

    @property
    def at_hand(self) -> PreparedSide:
        """See `Corpus`."""
        return self.train

    @property
    def stand_ins(self) -> PreparedSide:
        """See `Corpus`."""
        return self.train

    def __repr__(self) -> str:
        return f"Prepared({str(self.folder)!r})"

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        """The JSON objects of `<name>.jsonl`, one by one. Raises as `record_file`."""
        with self.record_file(name).open(encoding="ascii") as lines:
            try:
                yield from map(json.loads, lines)
            except (ValueError, RecursionError) as error:
                raise damaged(self.folder, f"{name}.jsonl cannot be read ({error})") from None

    def copy_records(self, name: str, to: Path) -> None:
        """Write these records as `to`. Raises as `record_file`."""
        files.copy(self.record_file(name), to)

    def record_file(self, name: str) -> Path:
        """The file of these records, after its SHA-256 was seen to be right.

        Raises:
            UserError: the file is damaged.
            KeyError: no records of that name were written.
        """
        file = f"{name}.jsonl"
        if fault := fault_of(self.folder, file, self._manifest[file], hashed=True):
            raise damaged(self.folder, fault)
        return self.folder / file


def find_prepared(root: Path, key: PreparedKey) -> Prepared | None:
    """The prepared data of that key, opened; None where there is none.

    Raises:
        UserError: it is there and damaged, or is not what its name says.
    """
    folder = root / key.name
    if not folder.exists():
        return None
    prepared = open_prepared(folder)
    if prepared.name != key.name:
        raise UserError(
            f"holds prepared data of another name, {prepared.name}",
            where=str(folder),
            next_step="Remove the folder; the data is then prepared again",
        )
    return prepared


def open_prepared(folder: Path, *, verify: Literal["quick", "full"] = "quick") -> Prepared:
    """Open prepared data.

    Args:
        verify: quick: all files are there in full length and the facts have their SHA-256; each block of
            examples follows when it is first touched. full: every file is hashed now.

    Raises:
        UserError: naming every file that is damaged or missing, or another version's format.
    """
    manifest = _read_manifest(folder)
    faults = [
        fault
        for name, entry in manifest.items()
        if (fault := fault_of(folder, name, entry, hashed=verify == "full" or name == FACTS))
    ]
    if faults:
        raise damaged(folder, "; ".join(faults))
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["format"] == FORMAT:
            return Prepared(folder, facts, manifest)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise damaged(folder, f"{FACTS} cannot be read ({error})") from None
    raise UserError(
        f"was prepared by another version of tuition (format {facts['format']}, here it is {FORMAT})",
        where=str(folder),
        next_step="Prepare the data again",
    )


def _read_manifest(folder: Path) -> dict[str, Entry]:
    """What the folder must hold. Files beside these are left alone: `datasets` keeps its caches there."""
    try:
        listed = json.loads((folder / files.MANIFEST).read_text(encoding="utf-8"))["files"]
        manifest = {str(k): Entry(str(v["sha256"]), int(v["bytes"])) for k, v in listed.items()}
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise UserError(
                "there is no prepared data", where=str(folder), next_step="`tuition prepare` writes it"
            ) from None
        raise damaged(folder, f"{files.MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(folder, f"{files.MANIFEST} cannot be read ({error})") from None
    outside = next((name for name in manifest if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if outside is not None:
        raise damaged(folder, f"{files.MANIFEST} names a file outside of it, {outside[:80]!r}")
    if FACTS not in manifest:
        raise UserError(
            f"is not prepared data: {files.MANIFEST} lists no {FACTS}",
            where=str(folder),
            next_step="Name a folder that `tuition prepare` wrote",
        )
    return manifest
