"""Damage every file of a checkpoint in every way a disk, a copy or a hand can, and see that it is noticed.

Each file is cut to 0, 1, half and all but one of its bytes, has a bit flipped at several places, is deleted, and
is swapped with each other file. The damaged checkpoint must be named and the one before it used.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import torch

from tests.prove import operations
from tuition.train.checkpoint import Progress, load_checkpoint, take_snapshot, write_snapshot
from tuition.train.journal import Position
from tuition.train.shelf import find_checkpoint

missed: list[str] = []


def prove(root: Path) -> Counter[str]:
    """Damage → times tried; those that were not noticed are in `missed`."""
    missed.clear()
    tried: Counter[str] = Counter()
    expected = write_two(root / "checkpoints")
    newest = root / "checkpoints" / "step-4"
    shutil.copytree(newest, root / "whole")
    for kind, what, damage in damages(newest):
        tried[kind] += 1
        damage()
        found = find_checkpoint(root / "checkpoints", operations.IDENTITY.fingerprint)
        if (
            found.folder != newest.with_name("step-2")
            or not found.sentences
            or not loads(found.folder, expected)
        ):
            missed.append(f"{kind}: {what}")
        shutil.rmtree(newest)
        shutil.copytree(root / "whole", newest)
    if find_checkpoint(root / "checkpoints", operations.IDENTITY.fingerprint).folder != newest:
        missed.append("a whole checkpoint was passed over")
    return tried


def write_two(root: Path) -> torch.Tensor:
    """Checkpoints of steps 2 and 4; the weights of step 2."""
    model, optimizer = operations.make_learner()
    expected = torch.empty(0)
    for step in (2, 4):
        operations.take_step(model, optimizer)
        progress = Progress(step=step)
        parameters = operations.parameters(model)
        write_snapshot(root, take_snapshot(parameters, optimizer, progress, operations.IDENTITY, Position()))
        expected = model.weight.detach().clone() if step == 2 else expected
    return expected


def loads(folder: Path, expected: torch.Tensor) -> bool:
    """The checkpoint before gives the weights that it was given."""
    model, optimizer = operations.make_learner()
    load_checkpoint(folder, operations.parameters(model), optimizer, operations.IDENTITY)
    return torch.equal(model.weight, expected)


def damages(folder: Path) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Kind, file, and the function that does it."""
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for size in (0, 1, len(content) // 2, len(content) - 1):
            yield (
                "cut short",
                f"{name} to {size} bytes",
                lambda p=path, c=content, n=size: p.write_bytes(c[:n]),
            )
        yield "made longer", name, lambda p=path, c=content: p.write_bytes(c + b"\0")
        yield "bit flipped", name, lambda p=path: operations.flip(p)
        yield "deleted", name, lambda p=path: p.unlink()
    for one, other in combinations(names, 2):
        yield "swapped", f"{one} and {other}", lambda a=folder / one, b=folder / other: swap(a, b)


def swap(one: Path, other: Path) -> None:
    """Exchange two files."""
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


def main() -> int:
    """Print what was tried; exit 1 when something was not noticed."""
    with tempfile.TemporaryDirectory() as folder:
        tried = prove(Path(folder))
    for kind, times in tried.items():
        print(f"{kind}: {times} tried")
    print("\n".join(missed) or "all noticed, and the checkpoint before was used")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
