"""Many ranks that train as one: what they share, what they agree on, and how a model is laid over them.

torchrun starts the ranks, `torch.distributed` carries what they say, FSDP2 shards. A rank sees only the
examples that it takes; everything that decides what happens next is a sum over all ranks, or said by the first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from tuition.batch import Pack
from tuition.batch.balance import Work, shares
from tuition.conversation import Rendered
from tuition.errors import UserError

# An evaluation, answers to samples, or a checkpoint on a slow disk: others wait so long. A rank that dies is
# noticed at once by its closed connections, and torchrun stops the rest.
_PATIENCE = timedelta(minutes=60)
Layout = Literal["ddp", "fsdp", "hsdp"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: which this one is; 0 is the first, which alone writes.
        world: how many there are.
        local_rank, local_world: the same on this machine.
        layout: ddp: each holds the whole model; fsdp: each holds a part; hsdp: a part on each machine.
        group: the process group that they speak in; None: the default one, in which training speaks.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    layout: Layout = "ddp"
    group: Any = None

    @property
    def many(self) -> bool:
        """More than one."""
        return self.world > 1

    @property
    def first(self) -> bool:
        """This one writes."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """No rank holds the whole model, so that each forward pass needs them all."""
        return self.many and self.layout != "ddp"

    @property
    def parts(self) -> int:
        """Into how many parts the model is split."""
        if not self.sharded:
            return 1
        return self.local_world if self.layout == "hsdp" else self.world

    # --- what they agree on ---

    def join(self, device: torch.device) -> None:
        """Meet the others. Flags and objects travel over gloo, gradients on CUDA over NCCL."""
        if not self.many or dist.is_initialized():
            return
        if device.type == "cuda":
            torch.cuda.set_device(self.local_rank)
        # ranks that torchrun starts again meet at the same store, where the addresses of the dead still stand
        store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore(f"start-{restarts}", store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=world,
            timeout=_PATIENCE,
            device_id=torch.device("cuda", self.local_rank) if device.type == "cuda" else None,
        )

    def device_of(self, kind: torch.device) -> torch.device:
        """The device of this rank."""
        return torch.device("cuda", self.local_rank) if self.many and kind.type == "cuda" else kind

    def apart(self) -> Ranks:
        """The same ranks in a group of its own, so that a thread may speak while training does. All call this."""
        return replace(self, group=dist.new_group(backend="gloo", timeout=_PATIENCE)) if self.many else self

    def sums(self, *values: float) -> list[float]:
        """Each value added up over all ranks, in float64; the same on all."""
        if not self.many:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(together, group=self.group)
        return [float(value) for value in together]

    def largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        if not self.many:
            return value
        together = torch.tensor(value)
        dist.all_reduce(together, op=dist.ReduceOp.MAX, group=self.group)
        return int(together)

    def any(self, flag: bool) -> bool:
        """Whether one of them says yes."""
        return bool(self.largest(int(flag)))

    def told(self, value: Any) -> Any:
        """What the first rank says, on all of them."""
        if not self.many:
            return value
        said = [value]
        dist.broadcast_object_list(said, group=self.group)
        return said[0]

    def all_of(self, value: Any) -> list[Any]:
        """What each rank says, in their order."""
        if not self.many:
            return [value]
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, value, group=self.group)
        return said

    def each(self, act: Callable[[], T]) -> list[T]:
        """What some work gave on each rank, in their order. Where it failed on one, it failed on all.

        Raises:
            OSError: on another rank, naming it.
        """
        if not self.many:
            return [act()]
        fault: BaseException | None = None
        given: tuple[T | None, tuple[int | None, str] | None]
        try:
            given = (act(), None)
        except BaseException as error:  # the others wait to be told, whatever it is
            fault, given = error, (None, (getattr(error, "errno", None), str(error)))
        said = self.all_of(given)
        if fault is not None:
            raise fault
        for rank, (_, trouble) in enumerate(said):
            if trouble is not None:
                raise OSError(trouble[0], f"on rank {rank}: {trouble[1]}")
        return [value for value, _ in said]

    def refuse_different(self, what: str, values: dict[str, str]) -> None:
        """Go on only where all ranks have the same values.

        Raises:
            UserError: on every rank, naming what differs and where.
        """
        said = self.all_of(values)
        for key, value in said[0].items():
            other = next((rank for rank, theirs in enumerate(said) if theirs.get(key) != value), None)
            if other is not None:
                raise UserError(
                    f"rank {other} has another {what} than the first ({key})",
                    next_step="Give all machines the same files, packages and recipe",
                )

    # --- a step shared out ---

    def share(self, examples: Sequence[Rendered], work: Work) -> list[Rendered]:
        """The examples that this rank takes, so that all have about the same work."""
        if not self.many:
            return list(examples)
        places = shares([work.of(example) for example in examples], self.world)[self.rank]
        return [examples[place] for place in places]

    def even(self, packs: Sequence[Pack], spare: Callable[[], Pack]) -> list[Pack]:
        """As many passes on every rank, where a pass needs them all: what is missing is run and counts nothing.

        Args:
            spare: makes what to run where this rank has nothing more of its own.
        """
        if not self.sharded:
            return list(packs)
        missing = self.largest(len(packs)) - len(packs)
        if not missing:
            return list(packs)
        idle = spare()
        return [*packs, *[replace(idle, weights=np.zeros_like(idle.weights))] * missing]

    def add_up(self, slots: Sequence[tuple[Any, str]]) -> None:
        """Sum gradients over the ranks in float32, where each rank holds them whole. Who has none adds nothing.

        Args:
            slots: where each gradient is kept: (object, name of its attribute), in the same order on all ranks.
        """
        if not self.many or self.sharded:
            return
        found = [getattr(owner, name) for owner, name in slots]
        present = torch.tensor([gradient is not None for gradient in found], dtype=torch.int32)
        dist.all_reduce(present)
        waiting = []
        for (owner, name), gradient, holders in zip(slots, found, present.tolist(), strict=True):
            if holders:
                total = torch.zeros_like(owner, dtype=torch.float32) if gradient is None else gradient.float()
                setattr(owner, name, total)
                waiting.append(dist.all_reduce(total, async_op=True))
        for handle in waiting:
            handle.wait()

    def norm(self, norms: list[Tensor]) -> float:
        """The norm of all gradients together, after `add_up`; the same on all ranks.

        Args:
            norms: of what this rank holds of them, each of no dimension.
        """
        mine = float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
        if not self.sharded:
            return mine
        return math.sqrt(self.sums(mine * mine)[0] * self.parts / self.world)


ALONE = Ranks()


def join_ranks(device: torch.device, layout: Layout) -> Ranks:
    """The ranks that torchrun started, come together; or one alone.

    Args:
        device: the kind that they compute on.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    ranks = Ranks(
        rank=int(os.environ["RANK"]),
        world=world,
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        local_world=int(os.environ.get("LOCAL_WORLD_SIZE", world)),
        layout=layout,
    )
    ranks.join(device)
    return ranks


def shard(root: nn.Module, model: Any, ranks: Ranks, device: torch.device, dtype: torch.dtype) -> None:
    """Lay a model over the ranks with FSDP2, layer by layer; `root` is what a forward pass calls.

    Weights that learn stay float32, each rank's part of them; they travel and compute in `dtype`, and gradients
    are summed in float32.

    Raises:
        UserError: the model does not say what its layers are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise UserError(
            f"{type(model).__name__} does not say what its layers are, so it cannot be sharded",
            where="parallel",
            next_step="Set parallel: ddp",
        )
    machines = ranks.world // ranks.local_world
    shape: tuple[int, ...] = (ranks.world,)
    words: tuple[str, ...] = ("shard",)
    if ranks.layout == "hsdp":
        shape, words = (machines, ranks.local_world), ("replicate", "shard")
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=words)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in (*layers, root):
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        # a plain sum: the loss is divided by the whole step's weight, over all ranks, and by nothing else
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
