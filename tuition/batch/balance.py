"""Which rank takes which examples of a step: a pure function, by the work that they make and not by their number."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuition.conversation import Rendered

# What a token costs in a layer beside its products, for each value of the width, in multiplications: norms, gates,
# softmax. Measured on a CPU with 6 layers of 256 and 30 of 576; it was the same.
_BETWEEN_PRODUCTS = 3000
_NEAR = 1.01  # of the mean: what is nearer is left as it is
_SWAPS_A_RANK = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What an example of n tokens costs, m of them learned: `linear` × n + `quadratic` × n² + `learned` × m.

    Attributes:
        linear: of a token in the layers.
        quadratic: of a pair of tokens in attention.
        learned: of a learned token in the head.
    """

    linear: float = 1.0
    quadratic: float = 0.0
    learned: float = 0.0

    def of(self, example: Rendered) -> float:
        """The work of one example."""
        tokens = len(example)
        return self.linear * tokens + self.quadratic * tokens * tokens + self.learned * example.learned_tokens


BY_LENGTH = Work()
"""What is known before a model is: a token costs a token."""


def work_of_model(width: int, layers: int, body: int, head: int) -> Work:
    """Multiplications of a decoder, forward, and what takes as long as one.

    Args:
        width: of the hidden states.
        body: weights of all layers, each of which a token is multiplied with.
        head: weights that a learned token is multiplied with.
    """
    return Work(
        linear=float(body + _BETWEEN_PRODUCTS * layers * width),
        quadratic=float(layers * width),
        learned=float(head),
    )


def shares(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Places of the examples that each rank takes, each place once, in the order given within a rank.

    The costliest first, each to the rank that has the least to do so far (Graham 1969); then the busiest rank swaps
    an example with another's while that leaves the busier of the two with less, or until it is within 1 % of the mean.

    Args:
        costs: of each example.
    """
    rank_of = np.zeros(len(costs), dtype=np.int64)
    waiting = [(0.0, rank) for rank in range(ranks)]
    for place in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        done, rank = heapq.heappop(waiting)
        rank_of[place] = rank
        heapq.heappush(waiting, (done + costs[place], rank))
    _swap(np.array(costs, dtype=np.float64), rank_of, ranks)
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
