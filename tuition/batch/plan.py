"""Which examples make a step: a pure function of (seed, epoch, step), never the state of an iterator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Plan:
    """The order of a whole run.

    Attributes:
        examples: training examples.
        batch_size: examples of one update; an epoch's last update takes what is left.
        steps: updates in all.
        seed: fixes the order.
        groups: int64 numbers of the examples' groups as bytes, to keep groups together; None: no groups.
    """

    examples: int
    batch_size: int
    steps: int
    seed: int
    groups: bytes | None = field(default=None, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        """Updates that see every example once."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def epochs(self) -> float:
        """Passes over the examples, as planned."""
        whole, rest = divmod(self.steps, self.steps_per_epoch)
        return whole + rest * self.batch_size / self.examples

    def epoch_of(self, step: int) -> float:
        """Passes over the examples that are done after update `step` (counted from 1)."""
        whole, rest = divmod(step, self.steps_per_epoch)
        return whole + rest * self.batch_size / self.examples

    def examples_of(self, step: int) -> npt.NDArray[np.int64]:
        """Positions of the examples of update `step`, counted from 1: (examples,) int64."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        order = epoch_order(self.examples, self.seed, epoch, self.groups)
        return order[place * self.batch_size : (place + 1) * self.batch_size]


def make_plan(
    *,
    examples: int,
    batch_size: int,
    epochs: float,
    max_steps: int | None,
    seed: int,
    keys: Sequence[str] | None = None,
) -> Plan:
    """A plan over `examples` rows: `max_steps` updates, or `epochs` passes rounded up to whole updates.

    Args:
        keys: of each example; those with the same key follow one another in the order. None: no matter.
    """
    steps = max_steps or max(1, math.ceil(epochs * math.ceil(examples / batch_size) - 1e-9))
    number_of: dict[str, int] = {}
    groups = None
    if keys is not None:
        numbers = [number_of.setdefault(key, len(number_of)) for key in keys]
        groups = np.array(numbers, dtype=np.int64).tobytes()
    return Plan(examples=examples, batch_size=batch_size, steps=steps, seed=seed, groups=groups)


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int, groups: bytes | None = None) -> npt.NDArray[np.int64]:
    """The shuffled order of one epoch: (examples,) int64, each position once; groups are shuffled as a whole.

    PCG64 is fixed by NumPy's compatibility policy, and the shuffle is an argsort of its raw words, so
    that the order does not depend on how a release of NumPy implements `permutation`.
    """
    words = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(examples)
    if groups is None:
        return np.argsort(words, kind="stable")
    _, first, group = np.unique(np.frombuffer(groups, np.int64), return_index=True, return_inverse=True)
    return np.lexsort((words, words[first][group]))  # a group stands where its first example's word puts it
