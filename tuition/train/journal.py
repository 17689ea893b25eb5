"""The journal of a run: what happened, one line a step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuition import files


class Journal:
    """metrics.jsonl: a line a logged step and a line an evaluation, each step once.

    Args:
        path: the file; lines after `last_step` are cut off, because a resume takes those steps again.
        last_step: the step the run continues from; 0 for a new run.
    """

    def __init__(self, path: Path, *, last_step: int) -> None:
        self.path = path
        kept = [line for line in read_journal(path) if line["step"] <= last_step] if path.exists() else []
        files.write_jsonl(path, kept)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. NaN is written as null: JSON has none."""
        clean = {k: None if isinstance(v, float) and v != v else v for k, v in line.items()}
        files.append_line(self.path, json.dumps(clean, ensure_ascii=False))


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; a last line that a crash tore is left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
