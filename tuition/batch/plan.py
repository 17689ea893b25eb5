"""Which examples make a step: a pure function of (seed, epoch, step), never the state of an iterator."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    """

    examples: int
    batch_size: int
    steps: int
    seed: int

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
        order = epoch_order(self.examples, self.seed, epoch)
        return order[place * self.batch_size : (place + 1) * self.batch_size]


def make_plan(*, examples: int, batch_size: int, epochs: float, max_steps: int | None, seed: int) -> Plan:
    """A plan over `examples` rows: `max_steps` updates, or `epochs` passes rounded up to whole updates."""
    steps = max_steps or max(1, math.ceil(epochs * math.ceil(examples / batch_size) - 1e-9))
    return Plan(examples=examples, batch_size=batch_size, steps=steps, seed=seed)


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The shuffled order of one epoch: (examples,) int64, each position once.

    PCG64 is fixed by NumPy's compatibility policy, and the shuffle is an argsort of its raw words, so
    that the order does not depend on how a release of NumPy implements `permutation`.
    """
    words = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(examples)
    return np.argsort(words, kind="stable")
