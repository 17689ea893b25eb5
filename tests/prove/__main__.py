"""`make prove`: every proof, one table, and docs/reliability.md with what came out.

Settings: KILLS (300), FRESH (20 of them), MINUTES for the kills (no limit), STEPS of the soak (2000), EVERY so-manieth disk operation (1: all).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.prove import cost, damage, interruptions, operations
from tests.prove.faultydisk import MODES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- table: written by `make prove` -->", "<!-- end of the table -->"


def main() -> int:
    """Run the proofs, print and write the table; exit 1 when a fault was not survived."""
    rows: list[tuple[str, int, int]] = []
    kills = int(os.environ.get("KILLS", "300"))
    fresh, minutes = int(os.environ.get("FRESH", "20")), float(os.environ.get("MINUTES", "1e9"))
    # first: it forks, and nothing here has run a backward pass yet
    tally = interruptions.prove(kills, fresh=fresh, minutes=minutes, tell=say)
    for instant, times in tally.kills.items():
        rows.append((f"SIGKILL {instant}", times, times))
    runs = len(tally.different)
    rows.append(
        ("runs ended after kills: weights bitwise, journal line by line", tally.runs, tally.runs - runs)
    )
    for mode, (tried, wrong) in operations.prove(every=int(os.environ.get("EVERY", "1"))).items():
        rows.append((f"disk operation, {mode}: {MODES[mode]}", tried, tried - len(wrong)))
        say("\n".join(wrong))
    with tempfile.TemporaryDirectory() as folder:
        for kind, tried in damage.prove(Path(folder)).items():
            lost = sum(line.startswith(kind) for line in damage.missed)
            rows.append((f"file of the newest checkpoint {kind}", tried, tried - lost))
    soaked = cost.soak(int(os.environ.get("STEPS", "2000")))
    cost_of_step = cost.step_cost(200)
    table = as_table(rows, soaked, cost_of_step)
    print(table)
    write(table)
    return 1 if any(tried != survived for _, tried, survived in rows) else 0


def say(text: str) -> None:
    """Progress, to stderr."""
    if text:
        print(text, file=sys.stderr, flush=True)


def as_table(rows: list[tuple[str, int, int]], soaked: dict[str, Any], cost_of_step: dict[str, Any]) -> str:
    """The table and the two measurements, in Markdown."""
    settings = " ".join(
        f"{k}={os.environ[k]}" for k in ("KILLS", "FRESH", "MINUTES", "STEPS", "EVERY") if k in os.environ
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = ["| fault | tried | survived |", "|---|--:|--:|"]
    lines += [f"| {name} | {tried:,} | {survived:,} |" for name, tried, survived in rows]
    return "\n".join(
        [
            *lines,
            "",
            f"Memory over {soaked['steps']:,} steps with a checkpoint every ten: "
            f"{soaked['mb_per_1000_steps']:+.2f} MB per 1,000 steps.",
            "",
            f"{cost_of_step['steps']} steps with the default cadence took {cost_of_step['with']:.2f} s, with one "
            f"checkpoint at the end {cost_of_step['without']:.2f} s: {cost_of_step['percent']:+.1f} % a step "
            "(the best of three each; the machine was shared).",
            "",
            f"Command: `{settings + ' ' if settings else ''}make prove`, {datetime.now(UTC):%Y-%m-%d}, commit {commit}.",
        ]
    )


def write(table: str) -> None:
    """Put the table into the page, between its marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
