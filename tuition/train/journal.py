"""The journal of a run, metrics.jsonl: what happened, one line a step. It is read as any file of a run is, in the report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition import files
from tuition.errors import UserError


@dataclass(frozen=True, slots=True)
class Position:
    """Where a journal stood when a checkpoint was taken.

    Attributes:
        bytes: its length.
        sha256: of those bytes.
    """

    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()


class Journal:
    """metrics.jsonl: a line a logged step and a line an evaluation, each step once.

    A checkpoint knows the journal's length and hash at its step. A resume cuts the journal there, because the
    steps behind are taken again; so no line is ever twice, and none is missing.

    Args:
        path: the file.
        position: where to go on; the beginning for a new run.

    Raises:
        UserError: the file does not begin with the bytes that it had at `position`.
    """

    def __init__(self, path: Path, position: Position = Position()) -> None:
        self.path = path
        self._digest, self._bytes = hashlib.sha256(), 0
        if position.bytes == 0 or not path.exists():
            files.write_bytes(path, b"")
            return
        self._read_up_to(position)
        files.truncate(path, position.bytes)

    def _read_up_to(self, position: Position) -> None:
        with self.path.open("rb") as stream:
            while piece := stream.read(max(0, min(1 << 20, position.bytes - self._bytes))):
                self._digest.update(piece)
                self._bytes += len(piece)
        if self.position != position:
            found = self._digest.hexdigest()
            raise UserError(
                f"does not begin with the {position.bytes:,} bytes that were written before the checkpoint "
                f"(SHA-256 was {position.sha256[:12]} and is {found[:12]})",
                where=str(self.path),
                next_step="Put the file back, or remove it to go on without the figures of earlier steps",
            )

    @property
    def position(self) -> Position:
        """Where it stands now."""
        return Position(self._bytes, self._digest.hexdigest())

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. NaN is written as null: JSON has none."""
        clean = {
            k: None if isinstance(v, float) and not abs(v) < float("inf") else v for k, v in line.items()
        }
        text = json.dumps(clean, ensure_ascii=False, allow_nan=False)
        files.append_line(self.path, text)
        written = (text + "\n").encode("utf-8")
        self._digest.update(written)
        self._bytes += len(written)


class NoJournal(Journal):
    """The journal of a rank that writes none: there is one a run, and the first rank writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def position(self) -> Position:
        return Position()

    def write(self, line: dict[str, Any]) -> None:
        """Nothing."""
