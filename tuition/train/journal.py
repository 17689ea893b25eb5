"""The run folder: where things lie in it, and the journal of what happened, one line a step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition import files
from tuition.errors import UserError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths within one run folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def facts(self) -> Path:
        return self.path / "run.json"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def findings(self) -> Path:
        return self.path / "findings.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def example(self) -> Path:
        return self.path / "example.json"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def holds_a_run(self) -> bool:
        """True when a run was begun here. run.json is the last thing that beginning one writes."""
        return self.facts.exists()

    def read_facts(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            facts = json.loads(self.facts.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                "is not a run folder: it has no run.json",
                where=str(self.path),
                next_step="Name the folder that `tuition train` wrote",
            ) from None
        except ValueError as error:
            raise UserError(
                f"cannot be read ({error})", where=str(self.facts), next_step="Start a new run"
            ) from None
        return dict(facts)

    def update_facts(self, **changes: Any) -> None:
        """Lay `changes` over run.json."""
        facts = self.read_facts() if self.facts.exists() else {}
        files.write_json(self.facts, {**facts, **changes})


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
