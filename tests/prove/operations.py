"""Fail every single disk operation of a run's life, one after the other, in every way a disk can fail.

The life: a run is begun, its journal written, checkpoints saved, published, read back and rotated, a sitting
resumed with a torn journal and half-written leftovers, a model published. After each fault, the newest
checkpoint must be the one last acknowledged or the one being written, the journal must go with it, and going on
from there must end with the same weights to the bit. Never neither.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.prove.faultydisk import MODES, FaultyDisk, PowerCut, Unsynced, can_happen, memory_folder
from tuition import files
from tuition.errors import UserError
from tuition.train.checkpoint import Identity, Progress, load_checkpoint
from tuition.train.folder import RunFolder
from tuition.train.journal import Journal, Position
from tuition.train.saving import Saver
from tuition.train.shelf import checkpoint_steps, find_checkpoint, sweep

STEPS = 7
IDENTITY = Identity("f" * 64, lambda step: "o" * 64)


@dataclass
class Life:
    """A run with a real model, optimizer, journal and saver, without the rest of the house.

    Attributes:
        acknowledged: the step of the last checkpoint that the saver said is written.
        attempted: the step of the last one that it was asked to write.
    """

    folder: Path
    acknowledged: int = 0
    attempted: int = 0
    weights: dict[int, torch.Tensor] = field(default_factory=dict)

    def live(self, *, save_at: tuple[int, ...] = (1, 2, 4, 5, 6, 7)) -> torch.Tensor:
        """Take the steps that are still to take; the weights at the end."""
        run = RunFolder(self.folder)
        model, optimizer = make_learner()
        begin(run)
        sweep(run.checkpoints)
        found = find_checkpoint(run.checkpoints, IDENTITY.fingerprint)
        progress, position = Progress(), Position()
        if found.folder is not None:
            progress, position = load_checkpoint(found.folder, parameters(model), optimizer, IDENTITY)
        self.acknowledged = self.attempted = progress.step
        self.weights[progress.step] = model.weight.detach().clone()
        journal = Journal(run.metrics, position)
        saver = Saver(
            run.checkpoints,
            IDENTITY,
            journal,
            keep=2,
            saved_step=progress.step or None,
            damaged=found.damaged,
        )
        while progress.step < STEPS:
            take_step(model, optimizer)
            progress.step += 1
            progress.best_step = min(progress.step, 2)
            self.weights[progress.step] = model.weight.detach().clone()
            journal.write({"step": progress.step, "loss": 1.0 / progress.step})
            if progress.step in save_at:
                self.attempted = progress.step
                saver.save(parameters(model), optimizer, progress)
                saver.wait()
                self.acknowledged = progress.step
        publish_model(run, model)
        run.update_facts(status="finished")
        return model.weight.detach().clone()


def begin(run: RunFolder) -> None:
    """What a first sitting writes before its first step."""
    files.make_folder(run.path)
    if not run.holds_a_run():
        files.write_text(run.recipe, "model: m\n")
        files.write_json(run.facts, {"status": "running"})


def publish_model(run: RunFolder, model: torch.nn.Module) -> None:
    """A folder in which one file is written here and one by another library, published."""
    if run.model.exists():
        files.remove_folder(run.model)
    temporary = files.fresh_folder(run.path / ".model.tmp")
    sums = {"weights": files.write_new(temporary / "weights", [model.weight.detach().numpy().tobytes()])}
    (temporary / "config.json").write_text("{}")
    files.publish_folder(temporary, run.model, sums)


def make_learner() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    """The same tiny model each time."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 6, bias=False)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return dict(model.named_parameters())


def take_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A step that draws random numbers, so that a wrong state shows."""
    optimizer.zero_grad()
    model(torch.randn(3, 6)).square().mean().backward()
    optimizer.step()


@contextmanager
def on(disk: FaultyDisk) -> Iterator[None]:
    """All writes go to this disk."""
    before, files.disk = files.disk, disk
    try:
        yield
    finally:
        files.disk = before
        disk.let_go()


def lives(root: Path) -> dict[str, Path]:
    """Where a life begins: in an empty folder, and in one that a kill left behind in the middle."""
    left = root / "left"
    Life(left).live(save_at=(1, 2, 4))
    files.remove_folder(left / "model")
    shutil.copytree(left / "checkpoints" / "step-4", left / "checkpoints" / ".step-5.tmp")
    shutil.copytree(left / "checkpoints" / "step-1", left / "checkpoints" / ".step-0.removed") if (
        left / "checkpoints" / "step-1"
    ).exists() else None
    with (left / "metrics.jsonl").open("a") as journal:
        journal.write('{"step": 8, "lo')
    (root / "empty").mkdir()
    return {"empty": root / "empty", "left": left}


def count(start: Path, folder: Path) -> list[tuple[str, Path]]:
    """The operations of a life on a healthy disk."""
    shutil.copytree(start, folder)
    disk = FaultyDisk(folder)
    with on(disk):
        Life(folder).live()
    return disk.seen


def survives(start: Path, scratch: Path, mode: str, at: int, expected: torch.Tensor) -> str:
    """Live with the fault, look at what is left, go on without it; what is wrong, or nothing."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    shutil.copytree(start, scratch / "run")
    disk, life = FaultyDisk(scratch / "run", at=at, mode=mode), Life(scratch / "run")
    life.acknowledged = life.attempted = max(checkpoint_steps(scratch / "run" / "checkpoints"), default=0)
    error: BaseException | None = None
    with on(disk):
        try:
            life.live()
        except (OSError, UserError, PowerCut) as stop:
            error = stop
        folder = disk.after(scratch / "found")
    if error is None and mode not in ("EIO", "silent tear", "ENOSPC"):
        return "the machine stopped and nobody noticed"
    problem = look(folder, life)
    return problem or end(folder, expected)


def look(folder: Path, life: Life) -> str:
    """What is wrong with the folder that was left."""
    run = RunFolder(folder)
    facts = run.facts.read_text() if run.facts.exists() else '{"status": "running"}'
    if json.loads(facts).get("status") not in ("running", "finished"):
        return "run.json is neither the old nor the new"
    if run.model.exists() and files.manifest_faults(run.model):
        return "a published model is not whole"
    found = find_checkpoint(run.checkpoints, IDENTITY.fingerprint)
    step = int(found.folder.name.removeprefix("step-")) if found.folder else 0
    if not life.acknowledged <= step <= life.attempted:
        return f"step {step} is found, {life.acknowledged} was acknowledged, {life.attempted} attempted"
    if found.folder is None:
        return ""
    model, optimizer = make_learner()
    progress, position = load_checkpoint(found.folder, parameters(model), optimizer, IDENTITY)
    if step in life.weights and not torch.equal(model.weight, life.weights[step]):
        return f"the weights of step {step} are others"
    Journal(run.metrics, position)  # refuses where the lines of the steps before are not there
    steps = steps_in(run.metrics)
    return "" if steps == list(range(1, progress.step + 1)) else f"the journal has steps {steps}"


def steps_in(journal: Path) -> list[int]:
    """The steps of a journal whose every line is whole."""
    return [json.loads(line)["step"] for line in journal.read_text(encoding="utf-8").splitlines()]


def end(folder: Path, expected: torch.Tensor) -> str:
    """Go on without faults; what is wrong at the end."""
    if not torch.equal(Life(folder).live(), expected):
        return "the run ends with other weights"
    steps = steps_in(RunFolder(folder).metrics)
    left = [p.name for p in (folder / "checkpoints").iterdir() if p.name.startswith(".")]
    if steps != list(range(1, STEPS + 1)):
        return f"the journal ends with steps {steps}"
    return f"left behind: {left}" if left else ""


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def publish_without_sync(temporary: Path, final: Path, sums: Any = None) -> None:
    """`files.publish_folder` as it must not be: the folder above is not synced after the rename."""
    entries = {name: dict(entry) for name, entry in (sums or {}).items()}
    files.write_new(temporary / files.MANIFEST, [files.json_bytes({"files": entries})])
    files.disk.sync_path(temporary)
    files.disk.replace(temporary, final)


def prove(
    *, every: int = 1, beginnings: tuple[str, ...] = ("empty", "left"), modes: tuple[str, ...] = tuple(MODES)
) -> dict[str, tuple[int, list[str]]]:
    """Mode → times tried, and what went wrong.

    Args:
        every: try only every so many operations, 1: all.
    """
    tried: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory(dir=memory_folder()) as name, unsynced():
        root = Path(name)
        expected = Life(root / "whole").live()
        starts = lives(root)
        for beginning, start in ((b, starts[b]) for b in beginnings):
            operations = count(start, root / f"count-{beginning}")
            for mode in modes:
                for at, (operation, path) in enumerate(operations, start=1):
                    if at % every or not can_happen(mode, operation, path):
                        continue
                    tried[mode] += 1
                    try:
                        problem = survives(start, root / "scratch", mode, at, expected)
                    except Exception as error:
                        problem = f"{type(error).__name__}: {error}"
                    if problem:
                        wrong[mode].append(
                            f"{beginning}, operation {at} ({operation} {path.name}): {problem}"
                        )
    return {mode: (tried[mode], wrong[mode]) for mode in modes}


@contextmanager
def unsynced() -> Iterator[None]:
    """Beginnings and endings of lives need not wait for a real disk."""
    before, files.disk = files.disk, Unsynced()
    try:
        yield
    finally:
        files.disk = before


def main() -> int:
    """Print a line a mode; exit 1 when a fault was not survived."""
    beginnings = tuple(os.environ.get("BEGINNINGS", "empty,left").split(","))
    results: dict[str, Any] = prove(every=int(os.environ.get("EVERY", "1")), beginnings=beginnings)
    for mode, (tried, wrong) in results.items():
        print(f"{mode}: {tried - len(wrong)} of {tried} survived")
        for line in wrong[:20]:
            print(f"  {line}")
    return 1 if any(wrong for _, wrong in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
