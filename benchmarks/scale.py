"""Memory and the second start as the rows grow: `python -m benchmarks.scale [--rows 10000 1000000]`.

Rows are generated; each size is prepared in a process of its own, which reads, checks, renders, compares every
prompt with serving and writes, as a run does before step 1. A second process then finds what the first wrote.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import of_this_machine, write_result
from tuition.machine import hardware, versions

WORDS = (
    "the",
    "a",
    "of",
    "to",
    "in",
    "is",
    "it",
    "you",
    "that",
    "he",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
)

ONE_START = """
import json, resource, sys, time
from pathlib import Path
from tuition import starter
from tuition.api import make_renderer
from tuition.batch.corpus import prepare_corpus
from tuition.data import find_sources
from tuition.recipe import DataSettings, RenderSettings

data, root = sys.argv[1:]
renderer = make_renderer(starter.model_path("starter"), max_length=512)
wall, processor = time.perf_counter(), time.process_time()
corpus = prepare_corpus(
    find_sources([data]), renderer, data=DataSettings(data=(data,)), render=RenderSettings(max_length=512),
    seed=0, root=Path(root),
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "examples": len(corpus.train) + len(corpus.validation), "tokens": corpus.tokens,
    "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor,
    "peak_mb": peak / (1 << 20 if sys.platform == "darwin" else 1 << 10),
}))
"""


def main() -> None:
    """Two starts over each number of rows: print and write what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    sizes = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            data = write_rows(Path(folder) / "rows.jsonl", rows)
            first, second = (one_start(data, Path(folder) / "prepared") for _ in range(2))
        sizes[rows] = {"first start": first, "second start": second}
        for name, figures in sizes[rows].items():
            print(
                f"{rows:>9,} rows, {name:12}  {figures['seconds']:8.2f} s  peak {figures['peak_mb']:5.0f} MB",
                flush=True,
            )
    result = {
        "what": "rows to prepared data, every prompt compared with serving; then found again",
        "note": options.note,
        "rows": sizes,
        "hardware": hardware("cpu"),
        "versions": versions(),
    }
    write_result(of_this_machine("scale"), result)


def write_rows(path: Path, rows: int) -> Path:
    """Two-turn conversations with an id each, one a line."""
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            turns = [
                {"role": role, "content": " ".join(chance.choices(WORDS, k=12))}
                for role in ("user", "assistant")
            ]
            stream.write(json.dumps({"id": f"row-{number}", "messages": turns}) + "\n")
    return path


def one_start(data: Path, root: Path) -> dict[str, Any]:
    """What a process of its own measured."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_START, str(data), str(root)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
