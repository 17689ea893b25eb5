"""Before step 1: the largest step that the run will take is really taken, so that time and memory are known.

Where it does not fit, forward passes get smaller, then activations are computed twice, and then what is kept of
them waits in the CPU's memory. None changes the result.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from tuition.batch import UNBOUNDED, Pack, Plan, Weigh, largest_group, largest_in_order, make_packs
from tuition.batch.prepared import lengths_of
from tuition.conversation import Rendered
from tuition.errors import UserError
from tuition.train.learner import Learner
from tuition.train.loss import step_loss, token_losses, token_mean
from tuition.train.memory import (
    checkpoint_activations,
    is_out_of_memory,
    memory_left,
    peak_memory,
)
from tuition.train.model import LoadedModel, evaluating
from tuition.train.trunk import over_trunks

_SHARE_FOR_US = 0.9  # of the memory that is left: others on the machine need some too
# Updates that are searched for shared prefixes: comparing the tokens of a whole plan would take long.
_UPDATES_LOOKED_AT = 16


def tokens_at_once(kind: str) -> int:
    """What `micro_batch_tokens: auto` means on a kind of device: the tokens of the pass that is tried first.

    Many on a GPU: between short passes it stands idle, and gradients of several passes are summed in float32.
    """
    return 32768 if kind == "cuda" else 4096


@dataclass(frozen=True, slots=True)
class Trial:
    """The largest pass of the run, forward and backward, measured.

    Attributes:
        tokens: of the examples in that pass.
        tokens_per_second: of the examples, measured on a second, warm pass. Where prefixes are shared, on the largest
            pass that shares one, scaled to what its whole update shares.
        peak_bytes: the most memory in use on the device so far, what the optimizer will take counted in; on the
            CPU, of the process.
        token_budget: most tokens in a pass that fits.
        checkpointing: activations are computed twice.
        offloading: what is kept of them waits in the CPU's memory.
    """

    tokens: int
    tokens_per_second: float
    peak_bytes: int
    token_budget: int
    checkpointing: bool
    offloading: bool = False


def try_largest_step(
    learner: Learner,
    train: Sequence[Rendered],
    validation: Sequence[Rendered],
    plan: Plan,
    weigh: Weigh,
    packing: tuple[int | None, int],
    *,
    checkpointing: str,
) -> Trial:
    """Run the pass with the most tokens of the whole plan, one that shares prefixes, and the largest of an evaluation.

    Room is left for what the optimizer will take at its first step.

    Args:
        packing: most examples in a pack (None: no limit), most tokens in a pack.
        checkpointing: `on`, `off`, or `auto`: only when one example alone does not fit.

    Raises:
        UserError: one example does not fit even so.
    """
    most, budget = packing if learner.packed else (1, packing[1])
    on = checkpointing == "on"
    if on:
        _checkpoint(learner)
    lengths = lengths_of(train)
    ballast = _ballast(learner)
    while True:
        if len(lengths) and lengths.max() > budget // learner.lanes:
            learner.lanes = 1
        tried, update = _largest_passes(learner, train, lengths, plan, weigh, (most, budget))
        adds_up = _adds_up(lengths, plan, (most and most * learner.lanes, budget))
        seconds = [_seconds(learner, passes, adds_up) for passes in tried]
        fits = None not in seconds and _scores(learner, validation, (most, budget))
        if not learner.ranks.any(not fits) and seconds[-1] is not None:
            tokens, computed = sum(pack.tokens for pack in tried[-1]), _tokens_of(tried[-1])
            speed = computed / seconds[-1] * sum(pack.tokens for pack in update) / _tokens_of(update)
            peak = peak_memory(learner.device) + (_to_come(learner) if ballast is None else 0)
            return Trial(tokens, speed, peak, budget, on, learner.offloads)
        if any(len(pack.lengths) > 1 for passes in tried for pack in passes) or learner.lanes > 1:
            budget = max(1, max(_tokens_of(passes) for passes in tried) // 2)
        elif checkpointing == "auto" and not on:
            on = True
            _checkpoint(learner)
        elif on and learner.device.type == "cuda" and not learner.offloads:
            learner.offloads = True
        else:
            raise UserError(
                f"one example of {max(map(_tokens_of, tried)):,} tokens does not fit into memory",
                where="max_length",
                next_step="Lower max_length, set method: lora, or take a smaller model",
            )


def _checkpoint(learner: Learner) -> None:
    """Compute activations twice from here on, in every lane."""
    checkpoint_activations(learner.model)
    for replica in learner.replicas:
        checkpoint_activations(replica.model)


def _to_come(learner: Learner) -> int:
    """Bytes that the optimizer has not taken yet."""
    return 0 if learner.optimizer.state else learner.moment_bytes


def _ballast(learner: Learner) -> torch.Tensor | None:
    """Stands on a GPU for what the optimizer will take; a CPU gives memory only to what is written.

    Raises:
        UserError: that alone does not fit.
    """
    if learner.device.type != "cuda":
        return None
    torch.cuda.empty_cache()  # what loading left behind is in pieces that so large a block does not fit
    try:
        return torch.empty(_to_come(learner), dtype=torch.uint8, device=learner.device)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the optimizer's {_to_come(learner) / 1e9:.1f} GB do not fit beside the model",
            where="optimizer",
            next_step="Set masters: split, optimizer: adamw_8bit, or method: lora",
        ) from error


def _largest_passes(
    learner: Learner,
    train: Sequence[Rendered],
    lengths: npt.NDArray[np.int64],
    plan: Plan,
    weigh: Weigh,
    packing: tuple[int | None, int],
) -> tuple[list[list[Pack]], list[Pack]]:
    """What is tried: the plan's largest passes with nothing shared, then, of the first updates, the largest that share.

    Returns:
        each of the two (or one) as passes that run at once; and all passes of the update that the last stands for.
    """
    most, budget = packing
    lanes = learner.lanes
    group = largest_group(lengths, plan, max_examples=most and most * lanes, token_budget=budget)
    lay = partial(make_packs, weigh=weigh, max_examples=most, token_budget=budget, lanes=lanes)
    tried = [lay([train[i] for i in group])[:lanes]]
    if not learner.shares:
        return tried, tried[0]
    shared: list[tuple[list[Pack], list[Pack]]] = []
    for step in range(1, min(plan.steps, _UPDATES_LOOKED_AT) + 1):
        batch = [train[i] for i in plan.examples_of(step)]
        packs = lay(batch, share_prefixes=True, share_trunks=learner.trunks)
        rounds = [packs[first : first + lanes] for first in range(0, len(packs), lanes)]
        shared += [(passes, packs) for passes in rounds if any(pack.shared_tokens for pack in passes)]
    if not shared:
        return tried, tried[0]
    largest, update = max(shared, key=lambda found: _tokens_of(found[0]))
    return [*tried, largest], update


def _tokens_of(passes: Sequence[Pack]) -> int:
    """Those that are really computed."""
    trunks = {pack.trunk: len(pack.trunk) for pack in passes if pack.trunk}
    return sum(len(pack.ids) for pack in passes) + sum(trunks.values())


def _adds_up(lengths: npt.NDArray[np.int64], plan: Plan, at_once: tuple[int | None, int]) -> bool:
    """Whether any update takes passes one after the other, so that gradients wait for others and become float32 sums.

    Args:
        at_once: most examples and most tokens of passes that are run at the same time.
    """
    most, tokens = at_once
    updates = (lengths[plan.examples_of(step)] for step in range(1, plan.steps + 1))
    return any(len(update) > (most or len(update)) or update.sum() > tokens for update in updates)


def _seconds(learner: Learner, passes: Sequence[Pack], adds_up: bool) -> float | None:
    """How long passes that run at once take, the second time they do; None: memory does not suffice.

    Args:
        adds_up: the second adds its gradients to the first's, as in an update of several.
    """
    left = memory_left(learner.device)
    if left is not None:
        left -= _to_come(learner)
    # parts of weights have no storage of their own to tell from what is kept, so shards are only tried
    left = None if learner.ranks.sharded else left
    if left is not None and sum(_expected_bytes(learner, pack) for pack in passes) > _SHARE_FOR_US * left:
        return None  # a system that promises more memory than it has kills instead of refusing
    seconds = 0.0

    def run() -> None:
        nonlocal seconds
        for _ in range(2):
            if not adds_up:
                learner.masters.forget_gradients()
            started = time.perf_counter()
            over_trunks(learner.as_lanes(), _forward_and_backward, passes)
            learner.masters.norms()
            if learner.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started

    return seconds if _fits(learner, run) else None


def _forward_and_backward(lane: LoadedModel, pack: Pack) -> None:
    step_loss(lane, pack, pack.weight).backward()


def _scores(learner: Learner, examples: Sequence[Rendered], packing: tuple[int | None, int]) -> bool:
    """Whether the largest pack of an evaluation fits too."""
    if not examples:
        return True
    group = largest_in_order(lengths_of(examples), max_examples=packing[0], token_budget=packing[1])
    largest = make_packs([examples[i] for i in group], token_mean, max_examples=None, token_budget=UNBOUNDED)[
        0
    ]

    def run() -> None:
        with evaluating(learner.model):
            token_losses(learner, largest)

    return _fits(learner, run)


def _fits(learner: Learner, run: Callable[[], None]) -> bool:
    """Whether memory suffices to run this; no gradient stays."""
    try:
        run()
        return True
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        learner.masters.forget_gradients()
    gc.collect()
    if learner.device.type == "cuda":
        torch.cuda.empty_cache()
    return False


def _expected_bytes(learner: Learner, pack: Pack) -> float:
    """What a pass will keep for its backward, counted on its first eighth; a quarter more for what it works with."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in learner.model.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    few = first_tokens(pack, max(1, len(pack.ids) // 8))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        step_loss(learner, few, 1.0)
    return 1.25 * sum(kept.values()) * pack.held_tokens / len(few.ids)


def first_tokens(pack: Pack, tokens: int) -> Pack:
    """The beginning of a pack, as a pack; its trunk is left out."""
    ends = np.minimum(np.cumsum(pack.lengths), tokens)
    lengths = np.diff(ends, prepend=0)
    inside = pack.keep < tokens
    return Pack(
        ids=pack.ids[:tokens],
        positions=pack.positions[:tokens],
        lengths=tuple(int(n) for n in lengths if n),
        parents=pack.parents[: np.count_nonzero(lengths)],
        keep=pack.keep[inside],
        targets=pack.targets[inside],
        weights=pack.weights[inside],
        rows=np.arange(np.count_nonzero(inside)),
        tokens=tokens + pack.shared_tokens,
        shared_tokens=pack.shared_tokens,
    )
