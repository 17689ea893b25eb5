"""What the benchmarks do with figures: their median and range, and a file of them beside the others."""

from __future__ import annotations

import json
import platform
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def of_this_machine(name: str) -> str:
    """The name of a result that holds for this kind of processor."""
    return f"{name}-{platform.machine()}"


def write_result(name: str, result: Any, table: str | None = None) -> None:
    """Write NAME.json into the folder of results, and NAME.md where there is a table for people."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if table is not None:
        (RESULTS / f"{name}.md").write_text(table, encoding="utf-8")
