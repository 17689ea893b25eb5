"""The journal of a run: what happened, one line a step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuition import files
from tuition.errors import UserError


class Journal:
    """metrics.jsonl: a line a logged step and a line an evaluation, each step once.

    Args:
        path: the file; lines after `last_step` are cut off, because a resume takes those steps again.
        last_step: the step the run continues from; 0 for a new run.
    """

    def __init__(self, path: Path, *, last_step: int) -> None:
        self.path = path
        kept = [raw for raw, line in _lines(path) if line["step"] <= last_step] if path.exists() else []
        files.write_bytes(path, (raw + b"\n" for raw in kept))

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. NaN is written as null: JSON has none."""
        clean = {k: None if isinstance(v, float) and v != v else v for k, v in line.items()}
        files.append_line(self.path, json.dumps(clean, ensure_ascii=False))


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; a last line that a crash tore is left out.

    Raises:
        UserError: another line is damaged.
    """
    for _, line in _lines(path):
        yield line


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line as it is written, and what it says."""
    written = path.read_bytes().split(b"\n")
    for number, raw in enumerate(written, start=1):
        try:
            line = json.loads(raw)
            told = isinstance(line, dict) and isinstance(line.get("step"), int)
        except (ValueError, RecursionError):
            told = False
        if told:
            yield raw, line
        elif any(later.strip() for later in written[number:]):
            raise UserError(
                "is no line of a journal",
                where=f"{path}:{number}",
                next_step="Remove that line, and resume",
            )
