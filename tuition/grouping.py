"""Neighbours are put together up to a bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def groups_within(sizes: Iterable[int], bound: int, *, most: int | None = None) -> Iterator[list[int]]:
    """Places of neighbours whose sizes sum to the bound at most; a larger one is in a group of its own.

    Args:
        most: in a group; None: no limit.
    """
    group: list[int] = []
    taken = 0
    for place, size in enumerate(sizes):
        if group and (taken + size > bound or len(group) == most):
            yield group
            group, taken = [], 0
        group.append(place)
        taken += size
    if group:
        yield group
