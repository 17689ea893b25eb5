"""How sure a figure is: every mean over prompts comes with its 95 % interval.

Rows that share a prompt are no independent evidence, so intervals are made over prompts, whatever the
number of rows. Which interval, in this order:

1. all prompts score the same: the Wilson bound on what was not seen;
2. scores are 0 or 1 and each prompt stands once: the Wilson score interval, at any number of prompts;
3. fewer than 30 prompts: Student's t, because a bootstrap of few prompts is too narrow;
4. otherwise: the percentile bootstrap over prompts.

Below five prompts an interval would say more about its formula than about the model: none is shown, and
nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tuition.errors import UserError

RESAMPLES = 2_000
NORMAL_QUANTILE = 1.959963984540054  # of 97.5 %: two-sided 95 %
FEW_PROMPTS = 30
LEAST_PROMPTS = 5

# 97.5 % quantiles of Student's t with 1, 2, … 28 degrees of freedom.
_STUDENT = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
    2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484,
)  # fmt: skip

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A mean with its 95 % interval.

    Attributes:
        value: the mean; 0 to 1 for every metric of `METRICS`, −1 to 1 for a difference of two.
        low: lower end of the interval.
        high: upper end of the interval.
        count: number of rows.
        prompts: number of different prompts among them, over which the interval is made.
        method: `wilson`, `t`, `bootstrap`, or `unseen` where all prompts score the same.
    """

    value: float
    low: float
    high: float
    count: int
    prompts: int = 0
    method: str = "bootstrap"

    @property
    def few(self) -> bool:
        """Fewer than 30 prompts: the interval itself is uncertain."""
        return self.prompts < FEW_PROMPTS

    @property
    def enough(self) -> bool:
        """At least 5 prompts: there is an interval to show. Where prompts were not counted, each row is one."""
        return (self.prompts or self.count) >= LEAST_PROMPTS

    @property
    def side(self) -> Literal[-1, 0, 1]:
        """Of a difference: −1 or 1 where its interval lies below or above zero, 0 where that is not decided."""
        alike = self.few and self.low == self.high
        if not self.enough or alike or self.low <= 0 <= self.high:
            return 0
        return 1 if self.low > 0 else -1


def score(values: Sequence[float], *, groups: Sequence[Hashable] | None = None, seed: int = 0) -> Score:
    """Mean of one metric over rows, with a 95 % interval over prompts.

    Args:
        values: one score a row, each within 0 to 1.
        groups: what each row's prompt is; None: every row is a prompt of its own.

    Raises:
        UserError: there is no row.
    """
    return interval(values, lowest=0.0, highest=1.0, groups=groups, seed=seed)


def interval(
    values: Sequence[float],
    *,
    lowest: float,
    highest: float,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """`score` for values within `lowest` to `highest`, which paired differences need as −1 to 1."""
    return ratio(values, [1.0] * len(values), lowest=lowest, highest=highest, groups=groups, seed=seed)


def ratio(
    values: Sequence[float],
    sizes: Sequence[float],
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Score:
    """Σ values ÷ Σ sizes, such as nats over tokens, with a 95 % interval over prompts.

    Args:
        values: one a row.
        sizes: what each row counts, above 0 in sum.

    Raises:
        UserError: there is no row.
    """
    if not len(values):
        raise UserError("there is no prompt to score", next_step="Hold out some rows with val_split.")
    sums, weights = _by_prompt(values, sizes, groups)
    mean, prompts = float(sums.sum() / weights.sum()), len(sums)
    low, high, method = _ends(sums, weights, lowest, highest, seed, zero_or_one=_zero_or_one(values, sizes))
    return Score(mean, low, high, len(values), prompts, method)


def _by_prompt(
    values: Sequence[float], sizes: Sequence[float], groups: Sequence[Hashable] | None
) -> tuple[Floats, Floats]:
    places: dict[Hashable, int] = {}
    row_groups: Sequence[Hashable] = range(len(values)) if groups is None else groups
    numbers = np.array([places.setdefault(group, len(places)) for group in row_groups])
    sums: Floats = np.bincount(numbers, weights=values).astype(np.float64)
    return sums, np.bincount(numbers, weights=sizes).astype(np.float64)


def _zero_or_one(values: Sequence[float], sizes: Sequence[float]) -> bool:
    return set(values) <= {0.0, 1.0} and set(sizes) == {1.0}


def _ends(
    sums: Floats, weights: Floats, lowest: float, highest: float, seed: int, *, zero_or_one: bool
) -> tuple[float, float, str]:
    mean, prompts = float(sums.sum() / weights.sum()), len(sums)
    if prompts == 1 or np.all(sums == sums[0] / weights[0] * weights):  # of one, rounding says nothing
        return (*interval_of_one_value(mean, prompts, lowest, highest), "unseen")
    if zero_or_one and lowest == 0.0 and np.all(weights == 1.0):
        return (*wilson(int(sums.sum()), prompts), "wilson")
    if prompts < FEW_PROMPTS:
        return (*_student(sums, weights, lowest, highest), "t")
    return (*bootstrap(sums, seed, weights=weights), "bootstrap")


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson, 1927): close to its promise at any count and any rate."""
    squared = NORMAL_QUANTILE**2
    rate = successes / count
    centre = rate + squared / (2 * count)
    spread = NORMAL_QUANTILE * math.sqrt(rate * (1 - rate) / count + squared / (4 * count**2))
    return (centre - spread) / (1 + squared / count), (centre + spread) / (1 + squared / count)


def _student(sums: Floats, weights: Floats, lowest: float, highest: float) -> tuple[float, float]:
    """Mean ± t × standard error of a ratio, by its linearisation (Cochran, 1977, §6.3), within the range."""
    prompts, mean = len(sums), sums.sum() / weights.sum()
    residuals = (sums - mean * weights) / weights.mean()
    error = math.sqrt(float(residuals @ residuals) / (prompts - 1) / prompts)
    spread = _STUDENT[prompts - 2] * error
    return max(lowest, float(mean - spread)), min(highest, float(mean + spread))


def bootstrap(prompts: Floats, seed: int, *, weights: Floats | None = None) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the means of `RESAMPLES` resamples of `prompts`."""
    generator = np.random.default_rng(seed)
    count = len(prompts)
    weights = np.ones(count) if weights is None else weights
    at_once = max(1, 1_000_000 // count)  # so that memory stays flat, however many prompts there are
    means = []
    for done in range(0, RESAMPLES, at_once):
        drawn = generator.integers(0, count, (min(at_once, RESAMPLES - done), count))
        means.append(prompts[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def interval_of_one_value(value: float, count: int, lowest: float, highest: float) -> tuple[float, float]:
    """Interval where all prompts score the same.

    Some other score was seen 0 times in `count`, so its rate is at most the Wilson bound z² / (count + z²);
    in the worst case all of it lies at an end of the range. For 0 and 1 this is the Wilson interval itself.
    A figure without a range has no such bound: its interval is the value alone.
    """
    if math.isinf(lowest) or math.isinf(highest):
        return value, value
    unseen = NORMAL_QUANTILE**2 / (count + NORMAL_QUANTILE**2)
    return value - unseen * (value - lowest), value + unseen * (highest - value)
