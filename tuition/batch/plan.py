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
        files: where data streams, the examples of each file in order; None: all examples are shuffled together.
        together: so many files, in a shuffled order, are shuffled together.
    """

    examples: int
    batch_size: int
    steps: int
    seed: int
    groups: bytes | None = field(default=None, repr=False)
    files: tuple[int, ...] | None = field(default=None, repr=False)
    together: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Updates that see every example once."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def epochs(self) -> float:
        """Passes over the examples, as planned."""
        return self.epoch_of(self.steps)

    def epoch_of(self, step: int) -> float:
        """Passes over the examples that are done after update `step` (counted from 1)."""
        whole, rest = divmod(step, self.steps_per_epoch)
        return whole + rest * self.batch_size / self.examples

    def examples_of(self, step: int) -> npt.NDArray[np.int64]:
        """Positions of the examples of update `step`, counted from 1: (examples,) int64."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        start, stop = place * self.batch_size, min((place + 1) * self.batch_size, self.examples)
        if self.files is None:
            return epoch_order(self.examples, self.seed, epoch, self.groups)[start:stop]
        windows = self._windows(epoch)
        pieces = [
            window_order(self.files, window.files, self.seed, epoch)[
                max(0, start - window.start) : stop - window.start
            ]
            for window in windows
            if window.start < stop and start < window.stop
        ]
        return np.concatenate(pieces)

    def files_of(self, step: int) -> tuple[list[int], list[int]]:
        """Where data streams: the files that update `step` takes examples of, and those that come after them."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        start, stop = place * self.batch_size, (place + 1) * self.batch_size
        windows = self._windows(epoch)
        now = [window for window in windows if window.start < stop and start < window.stop]
        return [number for window in now for number in window.files], self._files_after(epoch, stop)

    def _files_after(self, epoch: int, stop: int) -> list[int]:
        """The files of the first window behind that place of an epoch; none where the run ends before it."""
        after = [window for window in self._windows(epoch) if window.start >= stop]
        if not after:
            epoch, after = epoch + 1, list(self._windows(epoch + 1))
        first_step = epoch * self.steps_per_epoch + after[0].start // self.batch_size + 1
        return list(after[0].files) if first_step <= self.steps else []

    def order_around(self, step: int) -> npt.NDArray[np.int64]:
        """The order that update `step` is a part of: of its epoch, or of the files it takes examples of."""
        epoch, place = divmod(min(step, self.steps) - 1, self.steps_per_epoch)
        if self.files is None:
            return epoch_order(self.examples, self.seed, epoch, self.groups)
        first = place * self.batch_size
        window = next(window for window in self._windows(epoch) if window.start <= first < window.stop)
        return window_order(self.files, window.files, self.seed, epoch)

    def _windows(self, epoch: int) -> tuple[Window, ...]:
        assert self.files is not None
        return file_windows(self.files, self.together, self.seed, epoch)


def make_plan(
    *,
    examples: int,
    batch_size: int,
    epochs: float,
    max_steps: int | None,
    seed: int,
    keys: Sequence[str] | None = None,
    files: tuple[int, ...] | None = None,
    together: int = 1,
) -> Plan:
    """A plan over `examples` rows: `max_steps` updates, or `epochs` passes rounded up to whole updates.

    Args:
        keys: of each example; those with the same key follow one another in the order. None: no matter.
        files, together: see `Plan`.
    """
    steps = max_steps or max(1, math.ceil(epochs * math.ceil(examples / batch_size) - 1e-9))
    number_of: dict[str, int] = {}
    groups = None
    if keys is not None:
        numbers = [number_of.setdefault(key, len(number_of)) for key in keys]
        groups = np.array(numbers, dtype=np.int64).tobytes()
    return Plan(examples, batch_size, steps, seed, groups, files, together)


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int, groups: bytes | None = None) -> npt.NDArray[np.int64]:
    """The shuffled order of one epoch: (examples,) int64, each position once; groups are shuffled as a whole.

    PCG64 is fixed by NumPy's compatibility policy, and the shuffle is an argsort of its raw words, so
    that the order does not depend on how a release of NumPy implements `permutation`.
    """
    words = _words(examples, seed, epoch)
    if groups is None:
        return np.argsort(words, kind="stable")
    _, first, group = np.unique(np.frombuffer(groups, np.int64), return_index=True, return_inverse=True)
    return np.lexsort((words, words[first][group]))  # a group stands where its first example's word puts it


@dataclass(frozen=True, slots=True)
class Window:
    """Files whose examples are shuffled together, and where their examples stand in the epoch."""

    files: tuple[int, ...]
    start: int
    stop: int


@lru_cache(maxsize=4)
def file_windows(files: tuple[int, ...], together: int, seed: int, epoch: int) -> tuple[Window, ...]:
    """The files of one epoch in a shuffled order, `together` at a time; each file once.

    Args:
        files: examples of each.
    """
    order = np.argsort(_words(len(files), seed, epoch), kind="stable").tolist()
    windows, start = [], 0
    for first in range(0, len(files), together):
        chosen = tuple(order[first : first + together])
        stop = start + sum(files[number] for number in chosen)
        windows.append(Window(chosen, start, stop))
        start = stop
    return tuple(windows)


@lru_cache(maxsize=4)
def window_order(
    files: tuple[int, ...], chosen: tuple[int, ...], seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """The shuffled order of some files' examples: (examples,) int64, positions among the examples of all files."""
    starts = np.concatenate([[0], np.cumsum(files)])
    places = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in chosen])
    return places[np.argsort(_words(len(places), seed, epoch, *chosen), kind="stable")]


def _words(count: int, *seeds: int) -> npt.NDArray[np.uint64]:
    """Raw words of PCG64, whose order is a shuffle, see `epoch_order`."""
    return np.random.PCG64(np.random.SeedSequence(seeds)).random_raw(count)
