"""Which rank takes which examples of a step: a pure function, by the work that they make and not by their number."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NEAR = 1.01  # of the mean: what is nearer is left as it is
_SWAPS_A_RANK = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What an example of n tokens costs: `linear` × n + `quadratic` × n².

    Attributes:
        linear: of a token in the matrix products.
        quadratic: of a pair of tokens in attention.
    """

    linear: float = 1.0
    quadratic: float = 0.0

    def of(self, length: int) -> float:
        """The work of one example."""
        return self.linear * length + self.quadratic * length * length


def work_of_model(width: int, inner: int, layers: int, vocabulary: int) -> Work:
    """Multiplications of a dense decoder, forward: a token's in the weights, and a pair's in attention.

    Args:
        width: of the hidden states.
        inner: of the feed-forward layers, three matrices of them.
    """
    return Work(
        linear=float(layers * (4 * width * width + 3 * width * inner) + width * vocabulary),
        quadratic=float(layers * width),
    )


def shares(lengths: Sequence[int], ranks: int, work: Work) -> list[list[int]]:
    """Places of the examples that each rank takes, each place once, in the order given within a rank.

    The longest first, each to the rank that has the least to do so far (Graham 1969); then the busiest rank swaps
    an example with another's while that leaves the busier of the two with less, or until it is within 1 % of the mean.

    Args:
        lengths: tokens of each example.
    """
    costs = np.array([work.of(length) for length in lengths], dtype=np.float64)
    rank_of = np.zeros(len(lengths), dtype=np.int64)
    waiting = [(0.0, rank) for rank in range(ranks)]
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        done, rank = heapq.heappop(waiting)
        rank_of[place] = rank
        heapq.heappush(waiting, (done + costs[place], rank))
    _swap(costs, rank_of, ranks)
    return [np.flatnonzero(rank_of == rank).tolist() for rank in range(ranks)]


def _swap(costs: npt.NDArray[np.float64], rank_of: npt.NDArray[np.int64], ranks: int) -> None:
    """Swap examples of the busiest rank for others' while that helps; `rank_of` is changed."""
    loads = np.bincount(rank_of, weights=costs, minlength=ranks)
    for _ in range(_SWAPS_A_RANK * ranks):
        busiest = int(loads.argmax())
        if loads[busiest] <= _NEAR * loads.mean():
            return
        mine, others = np.flatnonzero(rank_of == busiest), np.flatnonzero(rank_of != busiest)
        if not len(others):
            return
        less = costs[mine][:, None] - costs[others][None]
        busier = np.maximum(loads[busiest] - less, loads[rank_of[others]][None] + less)
        a, b = np.unravel_index(int(busier.argmin()), busier.shape)
        if busier[a, b] >= loads[busiest]:
            return
        one, two, other = int(mine[a]), int(others[b]), int(rank_of[others[b]])
        loads[busiest] -= less[a, b]
        loads[other] += less[a, b]
        rank_of[one], rank_of[two] = other, busiest
