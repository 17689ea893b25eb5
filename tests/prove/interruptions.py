"""Kill real training processes at random instants, resume until they finish, compare with a run left alone.

Half of the runs get SIGINT, half SIGKILL. Weights must be equal to the bit and the journal must show each
step once. Run: make prove (KILLS=50 for more).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import make_model, write_jsonl

STEPS = 300


def main() -> int:
    """Print a line an interruption and a verdict; exit 1 on any difference."""
    kills = int(os.environ.get("KILLS", "10"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model, data = make_model(root / "model"), write_jsonl(root / "data.jsonl", rows())
        start(model, data, root / "whole").wait()
        expected = outcome(root / "whole")
        different = sum(not survives(model, data, root / f"cut-{n}", expected, n) for n in range(kills))
    print(f"{kills} interrupted runs, {different} differ from the run left alone")
    return 1 if different else 0


def survives(model: Path, data: Path, run: Path, expected: tuple[Any, ...], seed: int) -> bool:
    """Interrupt one run at random until it is done; True when it ends as if it had been left alone."""
    chance = random.Random(seed)
    kind = signal.SIGINT if seed % 2 else signal.SIGKILL
    interruptions = 0
    while not (run / "model").exists():
        process = start(model, data, run)
        wait_until(lambda process=process: process.poll() is not None or (run / "metrics.jsonl").exists())
        time.sleep(chance.uniform(0.0, 1.5))
        if interruptions < 3 and process.poll() is None:
            process.send_signal(kind)
            interruptions += 1
        process.wait()
    same = outcome(run) == expected
    print(f"run {seed}: {interruptions} × {kind.name}, {'identical' if same else 'DIFFERENT'}", flush=True)
    return same


def start(model: Path, data: Path, run: Path) -> subprocess.Popen[bytes]:
    """A training process: a new run, or a resume where there is one."""
    new = [
        f"--set=model={model}", f"--set=data={data}", f"--output-dir={run}", f"--max-steps={STEPS}", "--dropout=0.1",
        "--learning-rate=1e-3", "--save-every-steps=5", "--samples=0", "--val-split=0.2", "--batch-size=8",
    ]  # fmt: skip
    words = [str(run), "--resume"] if (run / "run.json").exists() else new
    command = [sys.executable, "-m", "tuition", "train", *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def outcome(run: Path) -> tuple[Any, ...]:
    """What must be equal: the weights' bytes and the journal without its clock."""
    journal = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in line.items() if "second" not in k} for line in journal]
    return (run / "model" / "model.safetensors").read_bytes(), figures


def rows() -> list[dict[str, str]]:
    """Eighty short demonstrations."""
    return [
        {"prompt": f"What is {i}?", "completion": " ".join(["it is"] * (1 + i % 7)) + f" {i}"}
        for i in range(80)
    ]


def wait_until(condition: Any) -> None:
    """Return as soon as the condition holds; give up after a minute."""
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
