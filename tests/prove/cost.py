"""What safety costs: memory over many steps, and the time of a step with checkpoints beside one without.

Measured and printed, never asserted by the suite: a busy machine proves nothing about time.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import make_model, write_jsonl
from tests.prove.interruptions import rows
from tuition.screen import Watcher

# --- memory ---


@dataclass(frozen=True)
class Soaked:
    """Bytes of this process at steps of one run."""

    steps: int
    seen: Mapping[int, int]

    def sentence(self) -> str:
        """Growth after the warm-up, which is the first quarter, and how far single looks lie off that line."""
        late = {step: seen for step, seen in self.seen.items() if step > self.steps / 4}
        growth = slope(late)
        middle = statistics.mean(late.values()) - growth * statistics.mean(late)
        spread = statistics.pstdev([seen - growth * step - middle for step, seen in late.items()])
        return (
            f"Memory over {self.steps:,} steps with a checkpoint every ten: {growth * 1000 / 1e6:+.2f} MB per 1,000 "
            f"steps after the first quarter, by least squares over {len(late)} looks that scatter by {spread / 1e6:.2f} MB."
        )


class Memory(Watcher):
    """Notes the memory of this process at steps."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen: dict[int, int] = {}

    def step(self, report: Any) -> None:
        if report.step % self.every == 0:
            gc.collect()
            self.seen[report.step] = resident_bytes()


def soak(steps: int) -> Soaked:
    """Train so many steps with a checkpoint every ten, and look at memory a hundred times."""
    import tuition

    with tempfile.TemporaryDirectory() as folder:
        root, memory = Path(folder), Memory(every=max(1, steps // 100))
        model, data = make_model(root / "model"), write_jsonl(root / "data.jsonl", rows())
        tuition.train(
            model=str(model), data=str(data), output_dir=str(root / "run"), max_steps=steps, samples=0,
            val_split=0.2, save_every_steps=10, eval_every_steps=100, batch_size=8, watcher=memory,
        )  # fmt: skip
    return Soaked(steps, memory.seen)


def slope(points: Mapping[int, int]) -> float:
    """Least squares: growth a step."""
    mean_x, mean_y = statistics.mean(points), statistics.mean(points.values())
    above = sum((x - mean_x) * (y - mean_y) for x, y in points.items())
    return above / sum((x - mean_x) ** 2 for x in points)


def resident_bytes() -> int:
    """Memory of this process that is not shared with files."""
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


# --- time ---

_STEPS = 100


class Clock(Watcher):
    """Wall and CPU seconds of the loop, its threads included."""

    def __init__(self) -> None:
        self.began = self.ended = (0.0, 0.0)

    def begin(self, steps: int, step: int) -> None:
        self.began = (time.perf_counter(), time.process_time())

    def end(self) -> None:
        self.ended = (time.perf_counter(), time.process_time())

    @property
    def seconds(self) -> tuple[float, float]:
        """Wall, CPU."""
        return self.ended[0] - self.began[0], self.ended[1] - self.began[1]


@dataclass(frozen=True)
class StepCost:
    """(wall, CPU) seconds of runs that lie one behind the other: with the default cadence, and without."""

    pairs: list[tuple[tuple[float, float], tuple[float, float]]]

    def sentence(self) -> str:
        """The median of the pairs."""
        wall, cpu = (
            100 * statistics.median(saving[n] / plain[n] - 1 for saving, plain in self.pairs) for n in (0, 1)
        )
        each = statistics.median(plain[1] for _, plain in self.pairs) / _STEPS
        return (
            f"A step with the default cadence, ten checkpoints in {_STEPS} steps, took {cpu:+.1f} % of the processor's "
            f"time and {wall:+.1f} % of the wall's beside one with a single checkpoint at the end ({1000 * each:.0f} ms "
            f"a step; the median of {len(self.pairs)} pairs of runs, taken in turn on a shared machine)."
        )


def step_cost(*, pairs: int) -> StepCost:
    """So many pairs of the same run with ten checkpoints and with one."""
    import tuition

    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = make_model(root / "model", hidden_size=96, intermediate_size=256, num_hidden_layers=4)
        data = write_jsonl(root / "data.jsonl", rows())

        def run(name: str, **more: Any) -> tuple[float, float]:
            clock = Clock()
            tuition.train(
                model=str(model), data=str(data), output_dir=str(root / name), max_steps=_STEPS, samples=0,
                val_split=0.0, batch_size=32, watcher=clock, **more,
            )  # fmt: skip
            return clock.seconds

        for pair in range(pairs):
            first, second = (
                lambda n=pair: run(f"with-{n}"),
                lambda n=pair: run(f"without-{n}", save_every_steps=_STEPS),
            )
            if pair % 2:  # whatever the machine does meanwhile falls on both alike
                plain, saving = second(), first()
            else:
                saving, plain = first(), second()
            found.append((saving, plain))
    return StepCost(found)
