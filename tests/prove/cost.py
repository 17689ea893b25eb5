"""What safety costs: memory over many steps, and the time of a step with checkpoints beside one without.

Measured and printed, never asserted by the suite: a busy machine proves nothing about time.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import make_model, write_jsonl
from tests.prove.interruptions import rows
from tuition.screen import Watcher


class Memory(Watcher):
    """Notes the memory of this process at steps."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen: dict[int, int] = {}

    def step(self, report: Any) -> None:
        if report.step % self.every == 0:
            gc.collect()
            self.seen[report.step] = resident_bytes()


def soak(steps: int) -> dict[str, float]:
    """Train so many steps with a checkpoint every ten; MB of growth per 1,000 steps over the last three quarters."""
    import tuition

    with tempfile.TemporaryDirectory() as folder:
        root, memory = Path(folder), Memory(every=max(1, steps // 40))
        model, data = make_model(root / "model"), write_jsonl(root / "data.jsonl", rows())
        tuition.train(
            model=str(model), data=str(data), output_dir=str(root / "run"), max_steps=steps, samples=0,
            val_split=0.2, save_every_steps=10, eval_every_steps=100, batch_size=8, watcher=memory,
        )  # fmt: skip
    late = {step: seen for step, seen in memory.seen.items() if step > steps / 4}
    return {"steps": steps, "mb_per_1000_steps": slope(late) * 1000 / 1e6}


def slope(points: dict[int, int]) -> float:
    """Least squares: growth a step."""
    mean_x, mean_y = sum(points) / len(points), sum(points.values()) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points.items()) / sum(
        (x - mean_x) ** 2 for x in points
    )


def resident_bytes() -> int:
    """Memory of this process that is not shared with files."""
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def step_cost(steps: int) -> dict[str, float]:
    """Seconds of the loop with the default cadence (ten checkpoints a run) and with none but the last."""
    import time

    import tuition

    class Clock(Watcher):
        began = ended = 0.0

        def begin(self, steps: int, step: int) -> None:
            self.began = time.perf_counter()

        def end(self) -> None:
            self.ended = time.perf_counter()

        def step(self, report: Any) -> None:
            self.ended = time.perf_counter()

    seconds: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = make_model(root / "model", hidden_size=192, intermediate_size=512, num_hidden_layers=4)
        data = write_jsonl(root / "data.jsonl", rows())
        for turn in range(6):
            kind = "with" if turn % 2 else "without"
            clock = Clock()
            tuition.train(
                model=str(model), data=str(data), output_dir=str(root / f"run-{turn}"), max_steps=steps, samples=0,
                val_split=0.0, batch_size=32, watcher=clock,
                **({} if kind == "with" else {"save_every_steps": steps}),
            )  # fmt: skip
            last = [
                json.loads(line) for line in (root / f"run-{turn}" / "metrics.jsonl").read_text().splitlines()
            ]
            assert len(last) == steps
            seconds[kind].append(clock.ended - clock.began)
    best = {kind: min(values) for kind, values in seconds.items()}
    return {"steps": steps, **best, "percent": 100 * (best["with"] / best["without"] - 1)}


def main() -> int:
    """Print both."""
    print(json.dumps({"soak": soak(int(os.environ.get("STEPS", "2000"))), "cost": step_cost(200)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
