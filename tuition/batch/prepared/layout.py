"""How prepared data lies on disk: its files, its columns, and what is said of a damaged one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tuition import files
from tuition.data import Side
from tuition.errors import UserError

NOT_LEARNED = -100
"""The label of a token that is context only: what PyTorch's cross-entropy ignores, and every trainer writes."""

FORMAT = 2
FACTS = "facts.json"
ARROW = "data-00000-of-00001.arrow"
LENGTHS = "lengths.u32"  # of each example in order, little-endian
SIDES: tuple[Side, ...] = ("train", "validation")

SCHEMA = pa.schema([
    ("input_ids", pa.list_(pa.int32())),
    ("labels", pa.list_(pa.int32())),
    ("weights", pa.list_(pa.float32())),  # of the learned tokens; a single one where all weigh the same
    ("part", pa.int32()),
    ("line", pa.int64()),
    ("file", pa.binary()),  # text as bytes: names and ids may hold lone surrogates, which Arrow's strings refuse
    ("row_id", pa.binary()),
    ("group", pa.binary()),
    ("prompt_key", pa.binary()),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block of examples lies in its file, and the hash that it must have."""

    start: int
    bytes: int
    examples: int
    sha256: str


NO_EXAMPLES: dict[str, Any] = {
    "tokens": 0, "learned_tokens": 0, "lengths": (), "sha256": hashlib.sha256().hexdigest(),
    "lengths_sha256": hashlib.sha256().hexdigest(), "shortest_at": -1, "blocks": (),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """What the manifest says of one file."""

    sha256: str
    bytes: int


def fault_of(folder: Path, name: str, entry: Entry, *, hashed: bool) -> str | None:
    """What is wrong with one file, as a sentence without its full stop."""
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != entry.bytes:
        return f"{name} has {path.stat().st_size:,} bytes instead of {entry.bytes:,}"
    if hashed and files.sha256(path) != entry.sha256:
        return f"{name} does not have the SHA-256 that {files.MANIFEST} says"
    return None


def damaged(folder: Path, what: str) -> UserError:
    """What is said of a prepared folder that is not as it was written."""
    return UserError(
        f"the prepared data is damaged: {what}",
        where=str(folder),
        next_step="Remove the folder; the data is then prepared again",
    )
