"""What a model's name means where it names a run: the run itself, or the run as it was at one of its checkpoints.

A checkpoint's folder (`RUN/checkpoints/step-120`) is a name like any other, and `--checkpoint` makes it from
the words that people say: `step-120`, `epoch-2`, `best`, `last`.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from tuition.errors import UserError
from tuition.train.checkpoint import load_weights, owner_of
from tuition.train.fingerprint import fingerprint_of
from tuition.train.folder import RunFolder
from tuition.train.parts import Stored
from tuition.train.shelf import checkpoint_steps

WORDS = "step-120, epoch-2, best or last"
_STEP = re.compile(r"(?:step-)?(\d{1,12})")
_EPOCH = re.compile(r"epoch-(\d{1,9})")


def run_of(name: str) -> RunFolder:
    """The folder of the run that `name` means, whole or at a checkpoint; for any other name, a folder without a run."""
    path = Path(name)
    is_checkpoint = path.parent.name == "checkpoints" and RunFolder(path.parent.parent).holds_a_run()
    return RunFolder(path.parent.parent if is_checkpoint else path)


def step_of(name: str) -> int | None:
    """The step whose checkpoint `name` means; None for everything else."""
    run, path = run_of(name), Path(name)
    if run.path == path or (match := _STEP.fullmatch(path.name)) is None:
        return None
    return int(match[1])


def at_checkpoint(name: str, checkpoint: str) -> str:
    """The name of a run as it was at a checkpoint: the checkpoint's folder.

    Args:
        checkpoint: `step-120` (or `120`), `epoch-2` for what stood at that epoch's end, `best` by the run's own
            `best_by`, or `last`.

    Raises:
        UserError: `name` is no run, or one without the model that a checkpoint is laid over, or the run kept no
            such checkpoint; those that it kept are named.
    """
    run = run_of(name)
    facts = run.read_facts()
    run.kept_model()
    step = _step_named(checkpoint, facts)
    kept = sorted(checkpoint_steps(run.checkpoints))
    if step not in kept:
        there = ", ".join(f"step-{each}" for each in kept) or "none"
        raise UserError(
            f"no checkpoint of {checkpoint}{'' if step is None else f' (step {step})'} was kept; there are: {there}",
            where=str(run.checkpoints),
            next_step="Name one of those; with keep_every_epoch: true a run keeps one of every epoch",
        )
    return str(run.checkpoints / f"step-{step}")


def _step_named(checkpoint: str, facts: dict[str, Any]) -> int | None:
    """The step that a word means in a run; None where the run never came there.

    Raises:
        UserError: it is none of the words.
    """
    result = facts.get("result") or {}
    if checkpoint in ("best", "last"):
        step = result.get("best_step" if checkpoint == "best" else "step")
        return None if step is None else int(step)
    if match := _STEP.fullmatch(checkpoint):
        return int(match[1])
    if match := _EPOCH.fullmatch(checkpoint):
        return int(match[1]) * int(facts["plan"]["steps_per_epoch"])
    raise UserError(f"'{checkpoint}' names no checkpoint", where="--checkpoint", next_step=f"Say {WORDS}")


def lay_over(model: Any, name: str, *, pissa: bool) -> None:
    """Put the weights that learned, as they were at the checkpoint that `name` means, into the model of its run.

    Args:
        model: the run's model, or its base with the run's adapter over it.
        pissa: the adapter was written with its start beside it, in twice the rank; what learned is the first half.

    Raises:
        UserError: the checkpoint is another run's, damaged, or does not fit.
    """
    folder, run = Path(name), run_of(name)
    if owner_of(folder) not in (None, fingerprint_of(run.read_facts()["hashes"])):  # None: damage, said below
        raise UserError(
            "the checkpoint belongs to another run", where=name, next_step="Name one that this run wrote"
        )
    there = dict(model.named_parameters())
    load_weights(folder, {n: _learned(n, there[n], pissa) for n in _names_in(folder) if n in there})


def _names_in(folder: Path) -> set[str]:
    """The weights that a checkpoint holds; none where it cannot be read, for which `load_weights` gives the reason."""
    try:
        return set(Stored(folder, "weights").shapes)
    except Exception:  # damage ends in exceptions of several libraries
        return set()


def _learned(name: str, parameter: Any, pissa: bool) -> Any:
    """The part of a parameter that learned: all of it, or the first half of the ranks."""
    tensor = parameter.data
    if pissa and ".lora_A." in name:
        return tensor[: len(tensor) // 2]
    return tensor[:, : tensor.shape[1] // 2] if pissa and ".lora_B." in name else tensor


def refuse_mistyped_run(name: str) -> None:
    """Refuse a folder that is not there where runs lie beside it, before the hub is asked for such a name.

    Raises:
        UserError: naming runs that are called nearly so.
    """
    path = Path(name)
    beside = path.parent
    if path.exists() or beside == Path() or not beside.is_dir():
        return
    runs = sorted(child.name for child in beside.iterdir() if RunFolder(child).holds_a_run())
    if not runs:
        return
    near = difflib.get_close_matches(path.name, runs, n=3, cutoff=0.4) or runs[:3]
    raise UserError(
        "there is no such folder",
        where=name,
        next_step=f"Runs there are {', '.join(str(beside / run) for run in near)}",
    )
