"""Several runs beside each other: their curves in one picture, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.board import RunLine, run_line
from tuition.curves import read_curves
from tuition.evaluate.report.axes import Axis, axis_over, labelled_ticks, spans_much
from tuition.evaluate.report.charts import Chart, dot, path, smoothed, smoothing_window
from tuition.evaluate.report.facts import Point, series
from tuition.evaluate.report.machine import settings
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
    training = [_smooth(series(run.training, "loss")) for run in runs]
    names = [folder.name for folder in folders]
    charts = [
        _lines_chart("held-out-loss", "Held-out loss by step", names, held_out, dots=True),
        _lines_chart("training-loss", "Training loss by step, smoothed", names, training),
    ]
    return Beside(
        lines=[run_line(folder) for folder in folders],
        charts=[chart for chart in charts if chart is not None],
        different=_different([dict(settings(run.recipe)) for run in runs]),
    )


def _smooth(line: list[Point]) -> list[Point]:
    window = smoothing_window(line)
    return line if window < 2 else smoothed(line, window, axis_over([value for _, value in line]))


def _lines_chart(
    key: str, title: str, names: Sequence[str], lines: Sequence[Sequence[Point]], *, dots: bool = False
) -> Chart | None:
    points = [point for line in lines for point in line]
    if len(points) < 2:
        return None
    values = [value for _, value in points]
    across = Axis(0.0, max(step for step, _ in points) or 1.0)
    upright = axis_over(values, log=spans_much(values))
    drawn = [(n, name, line) for n, (name, line) in enumerate(zip(names, lines, strict=True)) if line]
    return Chart(
        key=key,
        title=title + (" (logarithmic scale)" if upright.log else ""),
        description=" ".join(
            f"{name}: from {line[0][1]:.4g} to {line[-1][1]:.4g}." for _, name, line in drawn
        ),
        x_ticks=labelled_ticks(across),
        y_ticks=labelled_ticks(upright),
        lines=[(f"line-{n}", path(line, across, upright)) for n, _, line in drawn],
        dots=[dot(point, across, upright) for _, _, line in drawn for point in line]
        if dots and len(points) < 80
        else [],
        legend=[(f"line-{n}", name) for n, name, _ in drawn],
    )


def _different(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    keys = [key for key in Recipe.model_fields if any(key in recipe for recipe in recipes)]
    rows = [(key, [str(recipe.get(key, "–")) for recipe in recipes]) for key in keys if key != "output_dir"]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
