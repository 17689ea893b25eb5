"""What the proofs gave, kept part by part, and the table of docs/reliability.md that is made of it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuition import files

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "reliability.md"
_RESULTS = _ROOT / "benchmarks" / "results" / "prove.json"
_BEGIN, _END = "<!-- table: written by `make prove` -->", "<!-- end of the table -->"
SETTINGS = (
    "SCALE",
    "KILLS",
    "RANKS",
    "LAYOUT",
    "UPDATES",
    "SEED",
    "FRESH",
    "MINUTES",
    "EVERY",
    "STEPS",
    "INPUTS",
    "REQUESTS",
    "POSTS",
    "ROWS",
)


@dataclass
class Result:
    """What one part gave.

    Attributes:
        rows: a fault, how often it was tried, how often survived.
        notes: figures that are no such row, as sentences.
    """

    rows: list[tuple[str, int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def survived(self) -> bool:
        """Nothing was lost."""
        return all(tried == survived for _, tried, survived in self.rows)


def keep(part: str, result: Result, *, some: str = "") -> None:
    """Keep what a part gave, with its date, commit and command, in the place of what it gave before.

    Args:
        some: the setting that chose some of its rows; the others stay as they were. MORE in the environment adds
            the numbers to those of the runs before.
    """
    with _alone():
        _keep(part, result, some)


def _keep(part: str, result: Result, some: str) -> None:
    kept = json.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {}
    given = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    chosen = [] if os.environ.get("PROVE_ALL") else [f"PARTS={part}"]  # all of them, part by part
    command = " ".join([*given, *([some] if some else []), *chosen, "make prove"])
    run = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": _commit(), "command": command}
    more = bool(os.environ.get("MORE"))
    nothing: dict[str, list[Any]] = {"rows": [], "notes": [], "runs": []}
    before = kept.get(part, nothing) if some or more else nothing
    rows = {name: (tried, survived) for name, tried, survived in before["rows"]}
    for name, *numbers in result.rows:
        tried, survived = rows.get(name, (0, 0)) if more else (0, 0)
        rows[name] = (tried + numbers[0], survived + numbers[1])
    kept[part] = {
        "rows": [(name, *numbers) for name, numbers in rows.items()],
        "notes": [*before["notes"], *result.notes],
        "runs": [*before["runs"], run],
    }
    files.write_text(_RESULTS, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def _alone() -> Iterator[None]:
    """Parts that end at the same time write one after the other."""
    with Path(__file__).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _commit() -> str:
    """The commit that was run, and whether anything but what is written here differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=_ROOT)
        return done.stdout.strip()

    written = [f":!{path.relative_to(_ROOT)}" for path in (_PAGE, _RESULTS)]
    return git("rev-parse", "--short", "HEAD") + (
        "-dirty" if git("status", "--short", "--", ".", *written) else ""
    )


def table(parts: list[str]) -> str:
    """The parts in this order as one table in Markdown, with their notes and when each was run."""
    kept = json.loads(_RESULTS.read_text(encoding="utf-8"))
    found = [kept[part] for part in parts if part in kept]
    lines = ["| fault | tried | survived |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {tried:,} | {survived:,} |" for part in found for name, tried, survived in part["rows"]
    ]
    for part in found:
        lines += ["", *part["notes"]] if part["notes"] else []
    lines += ["", "Run, on two cores:", ""]
    lines += [f"- {run}: {', '.join(names)}" for run, names in _runs(kept, parts).items()]
    return "\n".join(lines)


def _runs(kept: dict[str, Any], parts: list[str]) -> dict[str, list[str]]:
    """Command, date and commit → the parts that were run so."""
    found: dict[str, list[str]] = {}
    for part in (part for part in parts if part in kept):
        for run in kept[part]["runs"]:
            names = found.setdefault(f"`{run['command']}`, {run['date']}, commit {run['commit']}", [])
            names += [] if part in names else [part]
    return found


def write(parts: list[str]) -> str:
    """Put the table of these parts into the page, between its marks; the table."""
    with _alone():
        text = table(parts)
        before, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
        _, _, after = rest.partition(_END)
        files.write_text(_PAGE, f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")
    return text
