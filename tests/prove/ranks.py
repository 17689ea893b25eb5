"""Kill a rank of a run of many with SIGKILL, again and again; torchrun starts all anew, and the run ends as if nothing
had been.

Run: python -m tests.prove.ranks (KILLS=50, RANKS=2). What is compared: the weights to the bit, and each step's loss.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_RESTARTS = 8  # torchrun's, a run


def start(place: Path, name: str, *, ranks: int, steps: int, **settings: Any) -> subprocess.Popen[str]:
    """`tuition train` of the model and the data in a folder, in so many processes."""
    chosen = {
        "model": "model", "data": "data.jsonl", "output_dir": name, "batch_size": 8, "max_steps": steps,
        "learning_rate": 3e-3, "val_split": 0.2, "samples": 0, "save_every_steps": 2, "keep": "last",
        "eval_every_steps": 6, "dropout": 0.1, **settings,
    }  # fmt: skip
    pairs = [f"--set={key}={json.dumps(value)}" for key, value in chosen.items()]
    return subprocess.Popen(
        [*(sys.executable, "-m", "tuition", "train", f"--processes={ranks}", f"--restarts={_RESTARTS}"), *pairs],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.DEVNULL, stderr=(place / f"{name}.log").open("w"), start_new_session=True,
    )  # fmt: skip


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the ranks: the children of torchrun, which is the command's only child."""
    (torchrun,) = _children(process.pid)
    return _children(torchrun)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in listed.split()]


def waited_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Return when the condition holds.

    Raises:
        AssertionError: the process ended before, or it took too long.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended with {process.poll()}"
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def outcome(run: Path) -> tuple[list[Any], dict[str, Any]]:
    """The figures of each step, and the weights."""
    from safetensors.torch import load_file

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    figures = [(line["step"], line.get("loss"), line.get("eval_loss")) for line in lines]
    return figures, load_file(run / "model" / "model.safetensors")


def same(one: tuple[list[Any], dict[str, Any]], other: tuple[list[Any], dict[str, Any]]) -> bool:
    """To the bit."""
    return one[0] == other[0] and all(bool((one[1][name] == other[1][name]).all()) for name in one[1])


def main() -> int:
    """Print how many kills a run survived; exit 1 where one did not end, or ended differently."""
    from tests.conftest import make_model, write_jsonl

    kills, ranks = int(os.environ.get("KILLS", "50")), int(os.environ.get("RANKS", "2"))
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_model(place / "model")
        write_jsonl(
            place / "data.jsonl",
            [{"prompt": f"What is {i}?", "completion": f"It is {i}." * (1 + i % 5)} for i in range(60)],
        )
        calm = start(place, "calm", ranks=ranks, steps=24)
        assert calm.wait() == 0
        whole, done, runs, different = outcome(place / "calm"), 0, 0, 0
        while done < kills:
            name = f"run-{runs}"
            run, left = start(place, name, ranks=ranks, steps=24), min(_RESTARTS - 1, kills - done)
            for _ in range(left):
                done += _strike(run, place / name, chance)
            code, runs = run.wait(), runs + 1
            different += code != 0 or not same(whole, outcome(place / name))
            print(f"{done} kills, {runs} runs, {different} different", file=sys.stderr, flush=True)
    print(f"| SIGKILL of a random rank of {ranks} | {done} | {done if not different else done - different} |")
    return 1 if different else 0


def _strike(run: subprocess.Popen[str], folder: Path, chance: random.Random) -> bool:
    """Kill a rank at a random instant after the run has begun; False where the run had ended."""
    try:
        waited_for(lambda: (folder / "run.json").exists() and len(children_of(run)) > 0, run)
        time.sleep(chance.uniform(0, 12))
        os.kill(chance.choice(children_of(run)), signal.SIGKILL)
    except (AssertionError, OSError, ValueError, IndexError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
