"""What a run folder holds, read so that nothing in it can break the report.

Rows stay as they were written; a number is taken from one with `number`, a nested value with `inside`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tuition.counting import counted
from tuition.errors import UserError
from tuition.foreign import OBJECT_BYTES, lines_of, require_readable
from tuition.recipe import parse_yaml
from tuition.recipe.yamltext import LARGEST_BYTES
from tuition.train.folder import RunFolder

SHOWN_REJECTED = 20

Row = dict[str, Any]
Point = tuple[float, float]


@dataclass
class Ledger:
    """What became of the rows, in numbers: the file itself may have a million lines.

    Attributes:
        fates: rows by fate.
        reasons: rows by fate and code.
        sentences: the first reason given for a fate and code.
        rejected: the first rejected rows.
    """

    fates: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    sentences: dict[tuple[str, str], str] = field(default_factory=dict)
    rejected: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count one row."""
        fate = str(row.get("fate"))
        self.fates[fate] += 1
        if row.get("code") or row.get("reason"):
            why = (fate, str(row.get("code") or "–"))
            self.reasons[why] += 1
            self.sentences.setdefault(why, str(row.get("reason") or ""))
        if fate == "rejected" and len(self.rejected) < SHOWN_REJECTED:
            self.rejected.append(row)


@dataclass(frozen=True)
class Run:
    """What a run folder holds; empty where a file is missing.

    Attributes:
        training: one row a step, in order, the last one where a resumed run wrote a step twice.
        held_out: one row an evaluation, likewise.
        evaluation: all of `evaluation.json`, the comparisons among it.
        unreadable: a sentence for each file that is there and could not be read whole.
    """

    folder: Path
    facts: Row
    recipe: Row
    training: list[Row]
    held_out: list[Row]
    ledger: Ledger
    findings: list[Row]
    samples: list[Row]
    comparisons: list[Row]
    evaluation: Row
    example: Row
    unreadable: list[str]

    @property
    def held_out_questions(self) -> bool:
        """The run is known to have learned from none of the questions that were evaluated."""
        return number(self.evaluation, "overlap", "trained_on") == 0

    @property
    def objective(self) -> str:
        """In brackets what a learned token costs, where that is not -log p and so no figure to lay beside others."""
        costs = {
            "dft": self.recipe.get("token_loss") == "dft",
            "smoothed": bool(self.recipe.get("label_smoothing")),
        }
        named = " and ".join(name for name, chosen in costs.items() if chosen)
        return f" ({named})" if named else ""

    @property
    def proofs(self) -> list[Row]:
        """The checks of the run upon itself."""
        return mappings(self.facts.get("proof"))


def read_run(folder: Path) -> Run:
    """Read the files of a run folder.

    Raises:
        UserError: the folder does not exist or holds neither a recipe nor a run.
    """
    at = RunFolder(folder)
    if not any(path.is_file() for path in (at.recipe, at.facts, at.metrics)):
        raise UserError(
            "there is no run here", where=str(folder), next_step="Give the folder that train made."
        )
    unreadable: list[str] = []
    training, held_out = read_metrics(read_rows(at.metrics, unreadable))
    ledger = Ledger()
    for row in read_rows(at.ledger, unreadable):
        ledger.add(row)
    evaluation = read_object(at.evaluation, json.loads, unreadable)
    return Run(
        folder=folder,
        facts=read_object(at.facts, json.loads, unreadable),
        recipe=read_object(at.recipe, parse_yaml, unreadable),
        training=training,
        held_out=held_out,
        ledger=ledger,
        findings=list(read_rows(at.findings, unreadable)),
        samples=list(read_rows(at.samples, unreadable)),
        comparisons=mappings(evaluation.get("comparisons")),
        evaluation=evaluation,
        example=read_object(at.example, json.loads, unreadable),
        unreadable=unreadable,
    )


def read_metrics(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows, each by ascending step."""
    training: dict[float, Row] = {}
    held_out: dict[float, Row] = {}
    for row in rows:
        step = number(row, "step")
        if step is not None and "loss" in row:
            training[step] = row
        if step is not None and any(key.startswith("eval_") for key in row):
            held_out[step] = row
    return [training[step] for step in sorted(training)], [held_out[step] for step in sorted(held_out)]


def read_rows(path: Path, unreadable: list[str]) -> Iterator[Row]:
    """The objects of a JSON Lines file, one at a time; lines that are none are counted and noted."""
    torn = 0
    try:
        for line in lines_of(path):
            row = parse_row(line.decode("utf-8", "surrogateescape"))
            if row is not None:
                yield row
            elif line.strip():
                torn += 1
    except FileNotFoundError:
        return
    except (UserError, OSError):  # what was read of it before stays
        unreadable.append(f"{path.name} could not be read whole.")
    if torn:
        unreadable.append(f"{counted(torn, 'line')} of {path.name} could not be read.")


def parse_row(line: str) -> Row | None:
    """The object on one line, or None if there is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_object(path: Path, parse: Callable[[str], Any], unreadable: list[str]) -> Row:
    """The mapping in a file; empty if the file is missing, or broken, which is noted."""
    try:
        most_bytes = LARGEST_BYTES if parse is parse_yaml else OBJECT_BYTES
        require_readable(path, most_bytes, "Remove it")
        # surrogates carry bytes that are not UTF-8 as far as `visible`, which shows them
        value = parse(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        return {}
    except (UserError, OSError, ValueError, RecursionError, yaml.YAMLError):
        value = None
    if isinstance(value, dict):
        return value
    unreadable.append(f"{path.name} could not be read.")
    return {}


# --- Reaching into what was read


def inside(value: object, *keys: str) -> Any:
    """The value under nested keys, or None as soon as one is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def number(value: object, *keys: str) -> float | None:
    """The number under nested keys, or None if nothing to compute with stands there."""
    return finite(inside(value, *keys))


def finite(value: object) -> float | None:
    """A number to draw and compute with, or None for anything else: NaN, null, text, absurdly large."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e100:
        return None
    return float(value)


def listed(value: object) -> list[Any]:
    """A list from data, or an empty one if something else stands there."""
    return value if isinstance(value, list) else []


def mappings(value: object) -> list[Row]:
    """The mappings in a list from data."""
    return [item for item in listed(value) if isinstance(item, dict)]


def series(rows: Sequence[Row], key: str) -> list[Point]:
    """(step, value) where the value is a number."""
    pairs = ((float(row["step"]), number(row, key)) for row in rows)
    return [(step, value) for step, value in pairs if value is not None]


def lowest_point(line: Sequence[Point]) -> Point:
    """The point with the lowest value, the first of equals."""
    return min(line, key=lambda point: point[1])


def place(row: Row) -> str:
    """`file:line` of a row, or as much of it as there is."""
    line = number(row, "line")
    return str(row.get("file") or "") + (f":{line:.0f}" if line else "")
