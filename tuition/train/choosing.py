"""Which checkpoint is the best by the figures taken so far, and when no better one is waited for.

All of it is part of `Progress`, so that a resumed run chooses and stops as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuition.train.checkpoint import Progress

LOWER_IS_BETTER = frozenset({"loss", "bits_per_byte"})


@dataclass(frozen=True, slots=True)
class Choosing:
    """How checkpoints are told apart.

    Attributes:
        by: the figure that decides.
        best_kept: how many of the best stay.
        patience: evaluations in a row without a gain after which the run stops; None: it does not.
    """

    by: str = "loss"
    best_kept: int = 1
    patience: int | None = None

    def is_better(self, one: float, other: float) -> bool:
        """Whether the first figure is truly better than the second."""
        return one < other if self.by in LOWER_IS_BETTER else one > other


def note_figures(progress: Progress, figures: Mapping[str, float], choosing: Choosing) -> bool:
    """Rank this step by its figures, and count evaluations that brought no gain.

    Returns:
        whether its checkpoint is among the best that are kept.
    """
    value = figures.get(choosing.by)
    if value is None:
        return False
    gained = math.isfinite(value) and (
        progress.best_value is None or choosing.is_better(value, progress.best_value)
    )
    progress.evaluations_without_gain = 0 if gained else progress.evaluations_without_gain + 1
    if choosing.patience is not None and progress.evaluations_without_gain >= choosing.patience:
        progress.stopped_early = True
    if gained:
        progress.best_eval_loss = figures.get("loss")
    return math.isfinite(value) and _rank(progress, value, choosing)


def _rank(progress: Progress, value: float, choosing: Choosing) -> bool:
    """Put this step where it belongs among the best; of equals the first stays before."""
    sign = 1 if choosing.by in LOWER_IS_BETTER else -1
    entries = [*progress.next_best, [progress.step, value]]
    if progress.best_step is not None and progress.best_value is not None:
        entries.append([progress.best_step, progress.best_value])
    entries = sorted(entries, key=lambda entry: (sign * entry[1], entry[0]))[: choosing.best_kept]
    progress.best_step, progress.best_value = int(entries[0][0]), entries[0][1]
    progress.next_best = entries[1:]  # a new list: a checkpoint that is being written holds the old one
    return any(step == progress.step for step, _ in entries)
