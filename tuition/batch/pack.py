"""From the examples of a step to flat token rows: no padding, nothing after the last learned token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuition.batch.plan import Plan
from tuition.conversation import Rendered

Weigh = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""How an objective weighs the tokens of one example: `supervised` in, loss weights out."""


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """One forward pass: segments side by side in one row.

    Attributes:
        ids: (tokens,) int64, the segments' tokens; each segment ends before its last learned token,
            which is only ever a target.
        positions: (tokens,) int64, counted from 0 within each segment.
        lengths: tokens of each segment, in order.
        keep: (learned,) int64, flat positions whose next token is learned.
        targets: (learned,) int64, those next tokens.
        weights: (learned,) float32, their loss weights.
    """

    ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    lengths: tuple[int, ...]
    keep: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    @property
    def weight(self) -> float:
        """Sum of the loss weights, in float64."""
        return float(self.weights.sum(dtype=np.float64))


def make_packs(
    examples: Sequence[Rendered], weigh: Weigh, *, max_examples: int | None, token_budget: int
) -> list[Pack]:
    """Lay the examples of one step into packs, in the order given.

    Args:
        examples: each with at least one learned token.
        weigh: the objective's token weights.
        max_examples: most examples in a pack; None: as many as the budget allows.
        token_budget: most tokens in a pack; a single longer example gets a pack of its own.
    """
    groups = _groups([len(example) for example in examples], max_examples, token_budget)
    return [_lay_flat([examples[place] for place in group], weigh) for group in groups]


def largest_group(
    lengths: npt.NDArray[np.int64], plan: Plan, *, max_examples: int | None, token_budget: int
) -> list[int]:
    """Positions of the examples of the pack with the most tokens that a plan will ever make.

    Args:
        lengths: (examples,) tokens of each example.
    """
    largest: list[int] = []
    most = -1
    for step in range(1, plan.steps + 1):
        chosen = plan.examples_of(step)
        for group in _groups(lengths[chosen].tolist(), max_examples, token_budget):
            tokens = int(lengths[chosen[group]].sum())
            if tokens > most:
                largest, most = [int(i) for i in chosen[group]], tokens
    return largest


def largest_in_order(
    lengths: npt.NDArray[np.int64], *, max_examples: int | None, token_budget: int
) -> list[int]:
    """Positions of the examples of the pack with the most tokens, where all are packed in the order given."""
    groups = _groups(lengths.tolist(), max_examples, token_budget)
    return max(groups, key=lambda group: int(lengths[group].sum()))


def _groups(lengths: Sequence[int], max_examples: int | None, token_budget: int) -> Iterator[list[int]]:
    group: list[int] = []
    tokens = 0
    for place, length in enumerate(lengths):
        full = bool(group) and tokens + length > token_budget
        if full or (max_examples is not None and len(group) == max_examples):
            yield group
            group, tokens = [], 0
        group.append(place)
        tokens += length
    if group:
        yield group


def _lay_flat(examples: Sequence[Rendered], weigh: Weigh) -> Pack:
    lengths, keep, start = [], [], 0
    for example in examples:
        learned = np.flatnonzero(example.supervised)
        keep.append(start + learned - 1)  # a token is predicted at the position before it
        lengths.append(int(learned[-1]))
        start += lengths[-1]
    return Pack(
        ids=np.concatenate([e.ids[:n] for e, n in zip(examples, lengths, strict=True)]).astype(np.int64),
        positions=np.concatenate([np.arange(n, dtype=np.int64) for n in lengths]),
        lengths=tuple(lengths),
        keep=np.concatenate(keep).astype(np.int64),
        targets=np.concatenate([e.ids[np.flatnonzero(e.supervised)] for e in examples]).astype(np.int64),
        weights=np.concatenate([weigh(e.supervised)[np.flatnonzero(e.supervised)] for e in examples]),
    )
