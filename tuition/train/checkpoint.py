"""Checkpoints: everything that fixes the next step, in safetensors and JSON, each folder with a manifest.

No pickle is written or read. A checkpoint is complete only when its manifest says so and agrees with every
byte, and it is used only by the run that wrote it.
"""

from __future__ import annotations

import json
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
from tuition.train.parts import Part, Stored, part_pieces, parts_to_write, put_weight, remember
from tuition.train.randomness import RandomState, random_state, restore_random_state
from tuition.train.storage import remembered
from tuition.train.tensorfile import tensor_pieces

FORMAT = "tuition checkpoint 2"


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
    """What one rank writes of a run at one step, in memory of its own: training may go on meanwhile.

    Attributes:
        weights, optimizer: this rank's parts of them.
        random, state: of all ranks; the first writes them.
        writers: the ranks that write the checkpoint together, each its parts.
    """

    step: int
    best_steps: tuple[int, ...]
    weights: dict[str, Part]
    optimizer: dict[str, Part]
    random: RandomState
    state: dict[str, Any]
    writers: Ranks = ALONE

    @property
    def bytes(self) -> int:
        """What its tensors take, in memory and on disk."""
        parts = (*self.weights.values(), *self.optimizer.values())
        return sum(part.values.numel() * part.values.element_size() for part in parts)


def take_snapshot(
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: Identity,
    journal: Position,
    ranks: Ranks = ALONE,
    writers: Ranks | None = None,
) -> Snapshot:
    """Copy all that fixes the next step into memory of its own: on each rank what it will write.

    All ranks take part.

    Args:
        writers: as the snapshot's; None: they speak as training does.

    Raises:
        UserError: a weight is NaN or infinite; such weights are never saved.
    """
    weights = parts_to_write(parameters, ranks)
    moments = parts_to_write(remembered(optimizer, parameters), ranks)
    random = random_state()
    broken = [name for name, part in weights.items() if not torch.isfinite(part.values).all()]
    said = ranks.all_of((random.tensors, broken))
    _refuse_broken([name for _, names in said for name in names], progress.step)
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
        RandomState(_by_rank([tensors for tensors, _ in said]), random.values),
        {**state, "random": random.values},
        (writers or ranks) if ranks.sharded else ALONE,
    )


def _refuse_broken(names: Sequence[str], step: int) -> None:
    if names:
        raise UserError(
            f"{names[0]} holds NaN or infinite numbers after step {step}, and is not saved; "
            "older checkpoints stand",
            next_step="Lower learning_rate, or set dtype: float32, and start a new run",
        )


def _by_rank(ranks: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The generators of all ranks; those of the first by their bare names."""
    others = {f"rank-{n}/{name}": t for n, tensors in enumerate(ranks) if n for name, t in tensors.items()}
    return {**ranks[0], **others}


def write_snapshot(root: Path, snapshot: Snapshot, *, go_on: Callable[[], None] = lambda: None) -> Path:
    """Write `root/step-N`, publish it, and read it back; where several write, all call this.

    Each writes its parts; when all have, the first publishes, and each reads some of it back.

    Args:
        go_on: called between pieces; what it raises ends the writing.

    Raises:
        OSError: disk full, no permission, or the disk gave back something else, here or on another rank; older
            checkpoints stand.
    """
    writers = snapshot.writers
    final, temporary = root / f"step-{snapshot.step}", root / f".step-{snapshot.step}.tmp"
    try:
        writers.each(lambda: _make_room(root, temporary) if writers.first else None)
        said = writers.each(lambda: _write_files(temporary, snapshot, go_on))
        sums = {name: entry for each in said for name, entry in each.items()}
        writers.each(lambda: _publish(temporary, final, snapshot, sums) if writers.first else None)
    except OSError:
        if writers.first:
            _give_back_space(temporary)
        raise
    faults = faults_of(final, writers)
    if faults:
        raise OSError(f"{final} was written but does not read back: {'; '.join(faults)}")
    return final


def _make_room(root: Path, temporary: Path) -> None:
    files.make_folder(root)
    files.fresh_folder(temporary)


def _write_files(temporary: Path, snapshot: Snapshot, go_on: Callable[[], None]) -> dict[str, files.Sum]:
    """This rank's files, and what the manifest will say of them."""
    writers, sums = snapshot.writers, {}
    number = f"-{writers.rank + 1:05}-of-{writers.world:05}" if writers.many else ""
    for kind, parts in (("weights", snapshot.weights), ("optimizer", snapshot.optimizer)):
        file = f"{kind}{number}.safetensors"
        pieces = part_pieces(parts, sharded=writers.many)
        sums[file] = files.write_new(temporary / file, _watched(pieces, go_on))
    if writers.first:
        pieces = _watched(tensor_pieces(snapshot.random.tensors), go_on)
        sums["random.safetensors"] = files.write_new(temporary / "random.safetensors", pieces)
        sums["state.json"] = files.write_new(temporary / "state.json", [files.json_bytes(snapshot.state)])
    return sums


def _publish(temporary: Path, final: Path, snapshot: Snapshot, sums: Mapping[str, files.Sum]) -> None:
    if final.is_dir():  # damaged, or of another run: a resume passed it over and came here again
        _clear(final, str(snapshot.state["fingerprint"]))
    files.publish_folder(temporary, final, sums)


def faults_of(folder: Path, ranks: Ranks) -> list[str]:
    """What is wrong with a checkpoint; the ranks read it together, each some of its files."""
    said = ranks.each(lambda: files.manifest_faults(folder, share=(ranks.rank, ranks.world)))
    return list(dict.fromkeys(fault for faults in said for fault in faults))


def _watched(pieces: Any, go_on: Callable[[], None]) -> Any:
    for piece in pieces:
        go_on()
        yield piece


def _clear(folder: Path, fingerprint: str) -> None:
    """Make room under this name. What another run wrote is not ours to remove."""
    owner = read_state(folder).get("fingerprint")
    if owner in (None, fingerprint):
        files.remove_folder(folder)
    else:
        files.rename_folder(folder, folder.with_name(f"{folder.name}-of-{str(owner)[:12]}"))


def _give_back_space(temporary: Path) -> None:
    try:
        files.remove_tree(temporary)
    except OSError:
        return  # the fault that is reported came first; the next save removes what is left


# --- reading ---


def owner_of(folder: Path) -> str | None:
    """The fingerprint of the run that wrote a checkpoint; None where it does not say."""
    owner = read_state(folder).get("fingerprint")
    return owner if isinstance(owner, str) else None


def read_state(folder: Path) -> dict[str, Any]:
    """What state.json says; nothing where it cannot be read."""
    try:
        state = json.loads(read_text(folder / "state.json", OBJECT_BYTES, "Remove it"))
    except (UserError, OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


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
    state = read_state(folder)
    progress = Progress(**{name: state[name] for name in Progress.__dataclass_fields__})
    order = identity.order(progress.step + 1)
    if state["order"] != order:
        raise UserError(
            f"the examples would come in another order (it was {state['order'][:12]} and is {order[:12]})",
            where=str(folder),
            next_step="Resume with the version of NumPy that the run began with; run.json names it",
        )
    _put_weights(folder, parameters)
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
    _put_weights(folder, parameters)


def _put_weights(folder: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    weights = Stored(folder, "weights")
    if weights.shapes != {name: tuple(p.shape) for name, p in parameters.items()}:
        raise _misfit(folder)
    for name, parameter in parameters.items():
        put_weight(parameter, weights, name)


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


def _restore_optimizer(
    folder: Path, optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> None:
    optimizer.state.clear()
    stored = Stored(folder, "optimizer")
    for key in stored.shapes:
        if not remember(optimizer, parameters, stored, key):
            raise _misfit(folder)
