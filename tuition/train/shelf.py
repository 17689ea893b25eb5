"""The checkpoints of a run: which stay, and which one a resume goes on from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition import files
from tuition.train.checkpoint import FORMAT, Progress, Snapshot, faults_of, read_state
from tuition.train.distributed import ALONE, Ranks

_NAME = re.compile(r"step-(\d+)")


def rotate(
    root: Path,
    snapshot: Snapshot,
    *,
    keep: int,
    damaged: frozenset[int],
    stays: Callable[[int, int], bool] = lambda step, newest: False,
) -> None:
    """Remove all but the `keep` newest checkpoints and the best ones, counted by step and never by time.

    Args:
        stays: whether the checkpoint of a step stays for another reason, when this one is the newest.
        snapshot: what was just written and verified.
        damaged: steps whose checkpoint a resume passed over; they never count as kept. What belongs to
            another run is left alone.
    """
    newest, owner = snapshot.step, snapshot.state["fingerprint"]
    ours = [s for s in checkpoint_steps(root) if read_state(root / f"step-{s}").get("fingerprint") == owner]
    whole = sorted((step for step in ours if step < newest and step not in damaged), reverse=True)
    kept = {newest, *snapshot.best_steps, *whole[: keep - 1], *(s for s in whole if stays(s, newest))}
    for step in {*ours, *damaged} - kept:
        if (root / f"step-{step}").is_dir():
            files.remove_folder(root / f"step-{step}")
    sweep(root)


def sweep(root: Path) -> None:
    """Remove what killed sittings left half-written or half-removed."""
    if root.is_dir():
        for left in sorted((*root.glob(".step-*.tmp"), *root.glob(".step-*.removed"))):
            files.remove_tree(left)


@dataclass(frozen=True, slots=True)
class Found:
    """What `find_checkpoint` found.

    Attributes:
        folder: the newest checkpoint that is whole and this run's; None: there is none.
        sentences: one for each newer one that was passed over, with the reason.
        damaged: the steps of those that are damaged.
    """

    folder: Path | None
    sentences: tuple[str, ...]
    damaged: frozenset[int]


def find_checkpoint(root: Path, fingerprint: str, ranks: Ranks = ALONE) -> Found:
    """The newest whole checkpoint of this run, by step; damaged, partial and foreign ones are named.

    All ranks look, each at some of the files, and find the same.
    """
    sentences: list[str] = []
    damaged: set[int] = set()
    for step in sorted(ranks.told(checkpoint_steps(root)), reverse=True):
        folder = root / f"step-{step}"
        faults = faults_of(folder, ranks) or ranks.told(_state_faults(read_state(folder), step))
        if faults:
            damaged.add(step)
            sentences.append(f"{folder} is damaged and passed over: {'; '.join(faults)}")
            continue
        owner = str(read_state(folder)["fingerprint"])
        if owner == fingerprint:
            return Found(folder, tuple(sentences), frozenset(damaged))
        sentences.append(
            f"{folder} belongs to another run and is passed over "
            f"(fingerprint {owner[:12]}, here {fingerprint[:12]})"
        )
    return Found(None, tuple(sentences), frozenset(damaged))


def checkpoint_steps(root: Path) -> list[int]:
    """The steps that have a checkpoint folder, in no order."""
    if not root.is_dir():
        return []
    return [
        int(match[1])
        for entry in root.iterdir()
        if (match := _NAME.fullmatch(entry.name)) and entry.is_dir() and not entry.is_symlink()
    ]


def _state_faults(state: Mapping[str, Any], step: int) -> list[str]:
    if state.get("format") != FORMAT:
        return [f"state.json is not of this format ({FORMAT})"]
    wanted = {*Progress.__dataclass_fields__, "fingerprint", "order", "journal", "random"}
    if wanted - state.keys():
        return [f"state.json lacks {', '.join(sorted(wanted - state.keys()))}"]
    return [] if state["step"] == step else [f"state.json is of step {state['step']}"]
