"""How far people agree where several decided about the same thing. Pure functions of what they said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tuition.interval import Score, ratio


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement over the items that at least two people decided.

    Attributes:
        share: of all pairs of decisions about one item, how many are the same, with its interval over items;
            None where no item was decided twice.
        alpha: Krippendorff's alpha for names: 1 full agreement, 0 what chance gives; None where all decisions
            are the same, or none can be compared.
        items: how many items were decided twice or more.
    """

    share: Score | None
    alpha: float | None
    items: int


def agreement(decisions: Mapping[Any, Sequence[str]]) -> Agreement:
    """Agreement of decisions.

    Args:
        decisions: item → what each person said about it.
    """
    shared = {item: said for item, said in decisions.items() if len(said) > 1}
    if not shared:
        return Agreement(None, None, 0)
    alike = [float(sum(a == b for a, b in combinations(said, 2))) for said in shared.values()]
    pairs = [len(said) * (len(said) - 1) / 2 for said in shared.values()]
    share = ratio(alike, pairs, lowest=0.0, highest=1.0)
    return Agreement(share, _alpha(list(shared.values())), len(shared))


def _alpha(items: Sequence[Sequence[str]]) -> float | None:
    """1 − observed ÷ expected disagreement (Krippendorff, 2011, nominal data)."""
    totals = Counter(value for said in items for value in said)
    count = sum(totals.values())
    observed = sum(_disagreeing(Counter(said)) / (len(said) - 1) for said in items)
    expected = _disagreeing(totals) / (count - 1)
    return None if expected == 0 else 1.0 - observed / expected


def _disagreeing(counts: Counter[str]) -> int:
    """Ordered pairs of different values."""
    total = sum(counts.values())
    return total * total - sum(n * n for n in counts.values())
