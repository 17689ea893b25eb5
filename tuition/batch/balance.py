"""Which rank takes which examples of a step: a pure function, by the work that they make and not by their number."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


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

    The longest first, each to the rank that has the least to do so far: at most a third over the best there is
    (Graham 1969), and far less where a rank takes several.

    Args:
        lengths: tokens of each example.
    """
    taken: list[list[int]] = [[] for _ in range(ranks)]
    waiting = [(0.0, rank) for rank in range(ranks)]
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        done, rank = heapq.heappop(waiting)
        taken[rank].append(place)
        heapq.heappush(waiting, (done + work.of(lengths[place]), rank))
    return [sorted(places) for places in taken]
