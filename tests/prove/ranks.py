"""Kill a rank of a run of many with SIGKILL, again and again, or freeze it with SIGSTOP; torchrun starts all anew, and
the run ends as if nothing had been.

What is compared: the weights to the bit, and each step's loss. `PARTS=ranks make prove` runs it.
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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.prove.page import Result

ROOT = Path(__file__).resolve().parents[2]
_RESTARTS = 8  # torchrun's, a run
_SECONDS_BETWEEN_BEATS = 10.0
_SECONDS_OF_A_START = 5.0
LONGEST_RUN_SECONDS = 900.0


def start(place: Path, name: str, *, ranks: int, steps: int, **settings: Any) -> subprocess.Popen[str]:
    """`tuition train` of the model and the data in a folder, in so many processes."""
    pairs = [
        f"--set={key}={json.dumps(value)}" for key, value in settings_of(name, steps, **settings).items()
    ]
    return subprocess.Popen(
        [*(sys.executable, "-m", "tuition", "train", f"--processes={ranks}", f"--restarts={_RESTARTS}"), *pairs],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.DEVNULL, stderr=(place / f"{name}.log").open("w"), start_new_session=True,
    )  # fmt: skip


def settings_of(name: str, steps: int, **settings: Any) -> dict[str, Any]:
    """The recipe of such a run."""
    return {
        "model": "model", "data": "data.jsonl", "output_dir": name, "batch_size": 8, "max_steps": steps,
        "learning_rate": 3e-3, "val_split": 0.2, "samples": 0, "save_every_steps": 2, "keep": "last",
        "eval_every_steps": 6, "dropout": 0.1, **settings,
    }  # fmt: skip


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


def prove(
    kills: int, freezes: int, *, ranks: int, layout: str, seed: int, tell: Callable[[str], None]
) -> Result:
    """Kill and freeze ranks of runs until enough were, and compare each run with one that was left alone."""
    from tests.conftest import make_model, write_jsonl

    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_model(place / "model")
        write_jsonl(
            place / "data.jsonl",
            [{"prompt": f"What is {i}?", "completion": f"It is {i}." * (1 + i % 5)} for i in range(60)],
        )
        how = {"ranks": ranks, "steps": 24, "parallel": layout}
        calm = start(place, "calm", **how)
        assert calm.wait() == 0
        whole, runs, different = outcome(place / "calm"), 0, 0
        wanted, done = [signal.SIGKILL] * kills + [signal.SIGSTOP] * freezes, 0
        while done < len(wanted):
            struck, code = strike(place, f"run-{runs}", wanted[done : done + _RESTARTS - 1], chance, **how)
            done, runs = done + struck, runs + 1
            different += code != 0 or not same(whole, outcome(place / f"run-{runs - 1}"))
            tell(f"{done} of {len(wanted)} ranks struck, {runs} runs, {different} different")
    return Result(
        [
            (f"SIGKILL of a random rank of {ranks}, parallel: {layout}", kills, 0 if different else kills),
            (f"a random rank of {ranks} frozen, parallel: {layout}", freezes, 0 if different else freezes),
            (f"those runs ended by themselves, weights bitwise ({layout})", runs, runs - different),
        ]
    )


def same_losses(steps: int, *, tell: Callable[[str], None]) -> Result:
    """Losses of many ranks beside those of one process, each layout and method."""
    from tests.conftest import make_model
    from tests.train import ranks as worker

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = str(make_model(place / "model", tie_word_embeddings=True))
        alone = {
            method: worker.one_alone(model, method, place / method, steps)[1] for method in ("full", "lora")
        }
        checkpoints = {method: str(place / method / "step-4") for method in alone}
        for count in (2, 4):
            (place / str(count)).mkdir()
            found = worker.by_ranks(
                count, place / str(count), model=model, steps=steps, checkpoints=checkpoints
            )
            for name, losses in found["losses"].items():
                method = name.partition("-")[2]
                near = sum(abs(a - b) < 1e-4 for a, b in zip(losses, alone[method], strict=True))
                rows.append((f"losses of {count} ranks, {name}: within 1e-4 of one process", steps, near))
            tell(f"losses of {count} ranks compared")
    return Result(rows)


def strike(
    place: Path, name: str, signals: Sequence[signal.Signals], chance: random.Random, **how: Any
) -> tuple[int, int]:
    """Send these signals to random ranks of a run, each after the start that the one before led to.

    Args:
        how: as `start` takes it.

    Returns:
        how many reached a rank before the run ended, and its exit code.
    """
    beats = {"heartbeat_seconds": _SECONDS_BETWEEN_BEATS} if signal.SIGSTOP in signals else {}
    run, done = start(place, name, **beats, **how), 0
    try:
        for number in signals:
            # a run that was just begun is short, one that starts again takes long to, and only what trains is watched
            in_training = done == 0 or number == signal.SIGSTOP or chance.random() < 0.5
            done += _strike(run, place / name, number, chance, in_training=in_training)
        return done, run.wait(LONGEST_RUN_SECONDS)
    finally:
        _end(run)


def _end(run: subprocess.Popen[str]) -> None:
    """Leave no rank behind, whatever ended the proof."""
    if run.poll() is None:
        with suppress(OSError, ValueError):  # torchrun gives each rank a group of its own
            for rank in children_of(run):
                os.killpg(rank, signal.SIGKILL)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def _strike(
    run: subprocess.Popen[str],
    folder: Path,
    number: signal.Signals,
    chance: random.Random,
    *,
    in_training: bool,
) -> bool:
    """Strike a rank at a random instant: behind a save, or of the next seconds; False where the run had ended."""
    checkpoints = folder / "checkpoints"
    try:
        waited_for(lambda: (folder / "run.json").exists() and len(children_of(run)) > 0, run)
        if in_training:
            # a new one: what a start sweeps away is no sign of training, and before it nothing watches for the frozen
            there = {path.name for path in checkpoints.glob("step-*")}
            waited_for(lambda: bool({path.name for path in checkpoints.glob("step-*")} - there), run)
        if number == signal.SIGKILL:  # whoever is frozen must still be watched, so without delay
            time.sleep(chance.uniform(0, 0.3 if in_training else _SECONDS_OF_A_START))
        ranks = children_of(run)
        os.kill(chance.choice(ranks), number)
        waited_for(lambda: not set(ranks) & set(children_of(run)), run)  # all of them are started again
    except (AssertionError, OSError, ValueError, IndexError):
        return False
    return True
