"""Checkpoints: everything that fixes the next step, in safetensors and JSON, each folder with a manifest.

No pickle is written or read. A checkpoint is complete only when its manifest says so and agrees with every
byte, and it is used only by the run that wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tuition import files
from tuition.errors import UserError
from tuition.foreign import OBJECT_BYTES, read_text
from tuition.train.damage import refuses_damage
from tuition.train.distributed import ALONE, Ranks
from tuition.train.journal import Position
from tuition.train.randomness import RandomState, random_state, restore_random_state
from tuition.train.storage import put, put_state, whole, whole_state
from tuition.train.tensorfile import tensor_pieces

FORMAT = "tuition checkpoint 2"
_NAME = re.compile(r"step-(\d+)")


@dataclass(slots=True)
class Progress:
    """How far a run is: what a resume needs beside tensors.

    Attributes:
        step: updates done, those that were skipped among them.
        tokens: real tokens seen.
        learned_tokens: learned tokens seen.
        seconds: time spent training, over all sittings.
        best_step: the update after which the figure that chooses was best; None before the first evaluation.
        best_value: that figure there.
        best_eval_loss: held-out loss there, nats a token; None where it was not measured.
        next_best: [update, figure] of the next best that are kept, the better first.
        evaluations_without_gain: how many came since the best one.
        stopped_early: they were too many, and no update follows.
        skipped: updates left out because the loss or the gradient was not finite.
        skipped_in_a_row: how many of them came last, one behind the other.
        evaluation_is_due: the run was stopped while it scored the held-out examples of this step.
    """

    step: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_value: float | None = None
    best_eval_loss: float | None = None
    next_best: list[list[float]] = field(default_factory=list)
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    skipped: int = 0
    skipped_in_a_row: int = 0
    evaluation_is_due: bool = False

    @property
    def best_steps(self) -> tuple[int, ...]:
        """The updates whose checkpoints are kept for their figure, the best first."""
        best = () if self.best_step is None else (self.best_step,)
        return (*best, *(int(step) for step, _ in self.next_best))


@dataclass(frozen=True, slots=True)
class Identity:
    """What a checkpoint must agree with before it is used.

    Attributes:
        fingerprint: one hash over data, template, tokenizer, model and recipe.
        order: step → SHA-256 of the order in which the examples of its epoch come.
    """

    fingerprint: str
    order: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one step, in memory of its own: training may go on while it is written."""

    step: int
    best_steps: tuple[int, ...]
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    random: RandomState
    state: dict[str, Any]

    @property
    def bytes(self) -> int:
        """What its tensors take, in memory and on disk."""
        return sum(t.numel() * t.element_size() for t in (*self.weights.values(), *self.optimizer.values()))


def take_snapshot(
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: Identity,
    journal: Position,
    ranks: Ranks = ALONE,
) -> Snapshot:
    """Copy all that fixes the next step into memory of its own.

    All ranks take part, because each may hold a part; the copy is of use on the first alone.

    Raises:
        UserError: a weight is NaN or infinite; such weights are never saved.
    """
    weights = {name: _kept(whole(p), ranks) for name, p in parameters.items()}
    moments = {name: _kept(value, ranks) for name, value in whole_state(optimizer, parameters).items()}
    random = random_state()
    others = ranks.all_of(random.tensors)[1:]
    broken = next((name for name, w in weights.items() if not torch.isfinite(w).all()), None)
    if broken is not None:
        raise UserError(
            f"{broken} holds NaN or infinite numbers after step {progress.step}, and is not saved; "
            "older checkpoints stand",
            next_step="Lower learning_rate, or set dtype: float32, and start a new run",
        )
    state = {
        "format": FORMAT,
        **asdict(progress),
        "fingerprint": identity.fingerprint,
        "order": identity.order(progress.step + 1),
        "journal": asdict(journal),
        "ranks": ranks.world,
    }
    return Snapshot(
        progress.step,
        progress.best_steps,
        weights,
        moments,
        RandomState({**random.tensors, **_by_rank(others)}, random.values),
        {**state, "random": random.values},
    )


def _by_rank(others: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The generators of all ranks but the first."""
    return {f"rank-{n}/{name}": t for n, tensors in enumerate(others, 1) for name, t in tensors.items()}


def write_snapshot(root: Path, snapshot: Snapshot, *, go_on: Callable[[], None] = lambda: None) -> Path:
    """Write `root/step-N`, publish it, and read it back.

    Args:
        go_on: called between pieces; what it raises ends the writing.

    Raises:
        OSError: disk full, no permission, or the disk gave back something else; older checkpoints stand.
    """
    files.make_folder(root)
    final, temporary = root / f"step-{snapshot.step}", root / f".step-{snapshot.step}.tmp"
    files.fresh_folder(temporary)
    try:
        sums = {}
        for name, tensors in (
            ("weights", snapshot.weights),
            ("optimizer", snapshot.optimizer),
            ("random", snapshot.random.tensors),
        ):
            file = f"{name}.safetensors"
            sums[file] = files.write_new(temporary / file, _watched(tensor_pieces(tensors), go_on))
        sums["state.json"] = files.write_new(temporary / "state.json", [files.json_bytes(snapshot.state)])
        if final.is_dir():  # damaged, or of another run: a resume passed it over and came here again
            _clear(final, str(snapshot.state["fingerprint"]))
        files.publish_folder(temporary, final, sums)
    except OSError:
        _give_back_space(temporary)
        raise
    faults = files.manifest_faults(final)
    if faults:
        raise OSError(f"{final} was written but does not read back: {'; '.join(faults)}")
    return final


def _watched(pieces: Any, go_on: Callable[[], None]) -> Any:
    for piece in pieces:
        go_on()
        yield piece


def _clear(folder: Path, fingerprint: str) -> None:
    """Make room under this name. What another run wrote is not ours to remove."""
    owner = _read_state(folder).get("fingerprint")
    if owner in (None, fingerprint):
        files.remove_folder(folder)
    else:
        files.rename_folder(folder, folder.with_name(f"{folder.name}-of-{str(owner)[:12]}"))


def _give_back_space(temporary: Path) -> None:
    try:
        files.remove_tree(temporary)
    except OSError:
        return  # the fault that is reported came first; the next save removes what is left


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
    ours = [s for s in checkpoint_steps(root) if _read_state(root / f"step-{s}").get("fingerprint") == owner]
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


# --- finding and reading ---


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


def find_checkpoint(root: Path, fingerprint: str) -> Found:
    """The newest whole checkpoint of this run, by step; damaged, partial and foreign ones are named."""
    sentences: list[str] = []
    damaged: set[int] = set()
    for step in sorted(checkpoint_steps(root), reverse=True):
        folder = root / f"step-{step}"
        faults = files.manifest_faults(folder) or _state_faults(_read_state(folder), step)
        if faults:
            damaged.add(step)
            sentences.append(f"{folder} is damaged and passed over: {'; '.join(faults)}")
            continue
        owner = str(_read_state(folder)["fingerprint"])
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


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads(read_text(folder / "state.json", OBJECT_BYTES, "Remove it"))
    except (UserError, OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _state_faults(state: Mapping[str, Any], step: int) -> list[str]:
    if state.get("format") != FORMAT:
        return [f"state.json is not of this format ({FORMAT})"]
    wanted = {*Progress.__dataclass_fields__, "fingerprint", "order", "journal", "random"}
    if wanted - state.keys():
        return [f"state.json lacks {', '.join(sorted(wanted - state.keys()))}"]
    return [] if state["step"] == step else [f"state.json is of step {state['step']}"]


@refuses_damage
def load_checkpoint(
    folder: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    identity: Identity,
    rank: int = 0,
) -> tuple[Progress, Position]:
    """Put weights, optimizer and random numbers back as they were after that step.

    Args:
        folder: as `find_checkpoint` found it.
        rank: whose random numbers go on. One that the run did not have then goes on from numbers of its own.

    Raises:
        UserError: it does not fit this model, or the examples would come in another order.
    """
    state = _read_state(folder)
    progress = Progress(**{name: state[name] for name in Progress.__dataclass_fields__})
    order = identity.order(progress.step + 1)
    if state["order"] != order:
        raise UserError(
            f"the examples would come in another order (it was {state['order'][:12]} and is {order[:12]})",
            where=str(folder),
            next_step="Resume with the version of NumPy that the run began with; run.json names it",
        )
    load_weights(folder, parameters)
    _restore_optimizer(folder, optimizer, parameters)
    restore_random_state(RandomState(_random_of(folder, rank), state["random"]))
    if rank >= state.get("ranks", 1):
        torch.manual_seed(progress.step << 16 | rank)
    return progress, Position(**state["journal"])


@refuses_damage
def load_weights(folder: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Copy a checkpoint's weights into the parameters that learn.

    Raises:
        UserError: the checkpoint is damaged, or names or shapes differ.
    """
    faults = files.manifest_faults(folder)
    if faults:
        raise UserError(
            f"the checkpoint is damaged: {'; '.join(faults)}",
            where=str(folder),
            next_step="Resume the run: it goes on from the newest whole one; or set keep: last",
        )
    weights = load_file(folder / "weights.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != {name: tuple(p.shape) for name, p in parameters.items()}:
        raise _misfit(folder)
    for name, parameter in parameters.items():
        put(parameter, weights[name])


def _random_of(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    """The generators of a rank; those of the first where it had none."""
    stored, own = load_file(folder / "random.safetensors"), f"rank-{rank}/"
    first = {name: tensor for name, tensor in stored.items() if "/" not in name}
    return {n.removeprefix(own): t for n, t in stored.items() if n.startswith(own)} or first


def _misfit(folder: Path) -> UserError:
    return UserError(
        "the checkpoint does not fit this model",
        where=str(folder),
        next_step="Resume with the run's own recipe",
    )


def _kept(tensor: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """A copy on the CPU; nothing on ranks that only took part in gathering it."""
    if not ranks.first:
        return torch.empty(0)
    return tensor.detach().to("cpu", copy=True).contiguous()


def _restore_optimizer(
    folder: Path, optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> None:
    optimizer.state.clear()
    for name, tensor in load_file(folder / "optimizer.safetensors").items():
        if not put_state(optimizer, parameters, name, tensor):
            raise _misfit(folder)
