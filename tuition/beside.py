"""Several runs beside each other: their curves in one picture, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.board import RunLine, run_line
from tuition.curves import read_curves
from tuition.evaluate.report.charts import Chart
from tuition.evaluate.report.facts import series
from tuition.evaluate.report.machine import settings
from tuition.evaluate.report.overlaid import overlaid
from tuition.recipe import Recipe

MOST_BESIDE_EACH_OTHER = 6


@dataclass(frozen=True, slots=True)
class Beside:
    """Several runs beside each other.

    Attributes:
        charts: held-out loss and training loss, a line for each run.
        different: settings in which they differ: the name, and the value in each.
    """

    lines: list[RunLine]
    charts: list[Chart]
    different: list[tuple[str, list[str]]]


def beside(folders: Sequence[Path]) -> Beside:
    """Compare runs by their curves and by the settings in which they differ."""
    runs = [read_curves(folder) for folder in folders]
    held_out = [series(run.held_out, "eval_loss") for run in runs]
    training = [series(run.training, "loss") for run in runs]
    names = [folder.name for folder in folders]
    charts = [
        overlaid("held-out-loss", "Held-out loss by step", held_out, names, _kind, dots=True),
        overlaid("training-loss", "Training loss by step, smoothed", training, names, _kind),
    ]
    return Beside(
        lines=[run_line(folder) for folder in folders],
        charts=[chart for chart in charts if chart is not None],
        different=_different([dict(settings(run.recipe)) for run in runs]),
    )


def _kind(place: int) -> str:
    """The class of a run's line."""
    return f"line-{place}"


def _different(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    keys = [key for key in Recipe.model_fields if any(key in recipe for recipe in recipes)]
    rows = [(key, [str(recipe.get(key, "–")) for recipe in recipes]) for key in keys if key != "output_dir"]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
