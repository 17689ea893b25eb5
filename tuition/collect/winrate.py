"""Who won: a win rate with its interval, and how many judgements are still needed. Pure functions of verdicts.

Judgements of one prompt are no independent evidence, so intervals are made over prompts: with five judgements
a prompt, an interval that takes them for independent covers the truth in 79 of 100 cases, not in 95.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tuition.interval import NORMAL_QUANTILE, Score, score

Winner = Literal["a", "b", "not decided"]

# What a verdict is worth to A. Both bad says nothing about who is better, so it counts as a tie.
WORTH: dict[str, float] = {"a_much": 1.0, "a": 1.0, "tie": 0.5, "both_bad": 0.5, "b": 0.0, "b_much": 0.0}
_POWER_QUANTILE = 0.8416212335729143  # of 80 %
_NEVER = 0.005  # a rate this close to one half needs tens of thousands of judgements


@dataclass(frozen=True, slots=True)
class WinRate:
    """Verdicts about two models.

    Attributes:
        score: (wins + ½ ties) ÷ judgements of A, with a 95 % interval over prompts; None without judgements.
        counts: verdict → how often.
        winner: `not decided` where the interval reaches one half.
        needed: decided judgements that are still missing until a rate like this one would be seen to differ
            from one half in 80 of 100 such tests; 0 where they are there, None where no number would do.
    """

    score: Score | None
    counts: dict[str, int]
    winner: Winner
    needed: int | None

    @property
    def decided(self) -> int:
        """Judgements that prefer one of the two."""
        return sum(n for verdict, n in self.counts.items() if WORTH[verdict] != 0.5)


def win_rate(verdicts: Sequence[tuple[int, str]], *, seed: int = 0) -> WinRate:
    """The win rate of A.

    Args:
        verdicts: the prompt of each judgement and its verdict, a key of `WORTH`.
    """
    return _win_rate(tuple(verdicts), seed)


@lru_cache(maxsize=64)  # pages ask again and again, and resampling takes its time
def _win_rate(verdicts: tuple[tuple[int, str], ...], seed: int) -> WinRate:
    counts = dict.fromkeys(WORTH, 0) | Counter(verdict for _, verdict in verdicts)
    if not verdicts:
        return WinRate(None, counts, "not decided", None)
    mean = score([WORTH[v] for _, v in verdicts], groups=[prompt for prompt, _ in verdicts], seed=seed)
    winner: Winner = "a" if mean.low > 0.5 else "b" if mean.high < 0.5 else "not decided"
    decided = [WORTH[v] for _, v in verdicts if WORTH[v] != 0.5]
    wanted = judgements_for(sum(decided) / len(decided)) if decided else None
    return WinRate(mean, counts, winner, None if wanted is None else max(0, wanted - len(decided)))


def judgements_for(rate: float) -> int | None:
    """Decided judgements, one a prompt, at which a true rate is told from one half in 80 of 100 tests at 95 %.

    60 % needs 194, 55 % needs 783; None where it is one half, or as good as.
    """
    distance = abs(rate - 0.5)
    if distance < _NEVER:
        return None
    spread = NORMAL_QUANTILE * 0.5 + _POWER_QUANTILE * math.sqrt(rate * (1 - rate))
    return math.ceil((spread / distance) ** 2)
