"""Axes: where a value lies on a picture, and the round values written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuition.evaluate.report.words import short


@dataclass(frozen=True)
class Axis:
    """Places values from `low` to `high` on 0 to 100, evenly or by their logarithm."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, in percent of the axis."""
        if self.log:
            return 100 * math.log(value / self.low) / math.log(self.high / self.low)
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values on the axis, some `about` of them."""
        if self.log:
            return log_ticks(self.low, self.high, about)
        step = round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 × a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def log_ticks(low: float, high: float, about: int) -> list[float]:
    """Powers of ten within the range, with their 2- and 5-fold where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 2, 5)
    if len(powers) > about + 1:
        powers = powers[:: math.ceil(len(powers) / about)]
    values = (factor * 10.0**power for power in powers for factor in factors)
    return [value for value in values if low <= value <= high]


def axis_over(values: Sequence[float], *, log: bool = False) -> Axis:
    """The axis that holds all values, with a little air or a round end, and never empty."""
    low, high = min(values), max(values)
    if log:
        return Axis(low * 0.9, high * 1.1, log=True)
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        air = abs(high) * 0.5 or 1.0
        return Axis(low - air, high + air)
    low = 0.0 if 0 < low < 0.5 * high else low
    step = round_step((high - low) / 5)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def spans_much(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis suits: all positive, and the bulk spans more than a factor of 6."""
    if min(values) <= 0:
        return False
    low, high = np.percentile(values, [2, 98])
    return bool(high > 6 * low)


@dataclass(frozen=True)
class Tick:
    """A label at a place, in percent of the axis."""

    at: float
    label: str


def labelled_ticks(axis: Axis, about: int = 5) -> list[Tick]:
    """The ticks of an axis with their labels."""
    return [Tick(round(axis.place(value), 2), short(value)) for value in axis.ticks(about)]
