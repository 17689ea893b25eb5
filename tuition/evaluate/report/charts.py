"""Pictures as inline SVG: the loss curve, the small curves beside it and the histogram of lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tuition.counting import counted
from tuition.evaluate.report.axes import Axis, Tick, axis_over, labelled_ticks, spans_much
from tuition.evaluate.report.comparison import METRIC_NAMES
from tuition.evaluate.report.facts import (
    Point,
    Row,
    Run,
    finite,
    inside,
    listed,
    lowest_point,
    number,
    series,
)
from tuition.evaluate.report.words import share, short, whole

SHOWN_EVALUATIONS = 40
_LOSS_KEYS = frozenset(
    {"eval_loss", "eval_bits_per_byte", "eval_token_accuracy", "eval_tokens", "eval_seconds"}
)
SHOWN_DOTS = 60  # more run into each other; the line says it all then


@dataclass(frozen=True)
class Chart:
    """One picture, in a square of 100 × 100 that the page stretches.

    Attributes:
        key: unique on the page, for the ids of title and description.
        lines: (kind, SVG path) from back to front.
        dots: (x, y, what it says).
        bars: (x, y, width, height, what it says).
        legend: (kind, words).
        marker: an upright line with a label.
    """

    key: str
    title: str
    description: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[tuple[str, str]] = field(default_factory=list)
    dots: list[tuple[float, float, str]] = field(default_factory=list)
    bars: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    marker: Tick | None = None


# --- Loss by step


def loss_chart(run: Run) -> Chart | None:
    """Training loss, raw and smoothed, with the held-out points."""
    training, held_out = series(run.training, "loss"), series(run.held_out, "eval_loss")
    if len(training) < 2 and len(held_out) < 2:
        return None
    points = [*training, *held_out]
    losses = [loss for _, loss in points]
    across = Axis(0.0, max(step for step, _ in points) or 1.0)
    upright = axis_over(losses, log=spans_much(losses))
    lines, legend = [], []
    if training:
        lines += step_lines(training, across, upright)
        legend += step_legend(training, upright, f"training{run.objective}")
    if held_out:
        lines.append(("held", path(held_out, across, upright)))
        legend.append(("held", "held out"))
    return Chart(
        key="loss",
        title="Loss by step" + (" (logarithmic scale)" if upright.log else ""),
        description=loss_description(training, held_out),
        x_ticks=labelled_ticks(across),
        y_ticks=labelled_ticks(upright),
        lines=lines,
        dots=[dot(point, across, upright) for point in held_out] if len(held_out) <= SHOWN_DOTS else [],
        legend=legend,
        marker=best_step_marker(run, across),
    )


def step_legend(line: Sequence[Point], upright: Axis, name: str) -> list[tuple[str, str]]:
    """What `step_lines` draws for the training loss, in words."""
    window = smoothing_window(line)
    if window < 2:
        return [("smooth", name)]
    mean = "geometric mean" if upright.log else "mean"
    return [("raw", f"{name}, each step"), ("smooth", f"{name}, {mean} over {window} steps")]


def loss_description(training: Sequence[Point], held_out: Sequence[Point]) -> str:
    """The curve in words, for those who do not see it."""
    parts = []
    for name, line in (("Training", training), ("Held-out", held_out)):
        if line:
            first, last = (f"{short(value)} at step {short(step)}" for step, value in (line[0], line[-1]))
            parts.append(f"{name} loss {first}, {last}.")
    if held_out:
        step, lowest = lowest_point(held_out)
        parts.append(f"Lowest held-out loss {short(lowest)} at step {short(step)}.")
    return " ".join(parts)


def dot(point: Point, across: Axis, upright: Axis) -> tuple[float, float, str]:
    """A held-out point and what it says when pointed at."""
    step, value = point
    x, y = round(across.place(step), 2), round(100 - upright.place(value), 2)
    return x, y, f"step {short(step)}: {short(value)}"


def best_step_marker(run: Run, across: Axis) -> Tick | None:
    """The step whose weights were kept, if the run says so."""
    step = number(run.facts, "result", "best_step")
    if step is None or not across.low <= step <= across.high:
        return None
    return Tick(round(across.place(step), 2), f"best: step {short(step)}")


# --- Small curves, and the held-out numbers as a table


def small_multiples(run: Run) -> list[Chart]:
    """Learning rate, gradient norm and held-out accuracy by step."""
    charts = [
        small_chart("rate", "Learning rate", series(run.training, "learning_rate")),
        small_chart("norm", "Gradient norm", series(run.training, "grad_norm"), noisy=True),
        small_chart("accuracy", "Held-out token accuracy", series(run.held_out, "eval_token_accuracy")),
        *(small_chart(f"metric-{i}", title, line) for i, (title, line) in enumerate(answer_metrics(run))),
    ]
    return [chart for chart in charts if chart]


def answer_metrics(run: Run) -> list[tuple[str, list[Point]]]:
    """Metrics of the model's own answers that were measured while it learned, by step."""
    keys = {key for row in run.held_out for key in row if key.startswith("eval_")} - _LOSS_KEYS
    names = ((key, key.removeprefix("eval_")) for key in sorted(keys))
    return [(f"Held out: {METRIC_NAMES.get(name, name)}", series(run.held_out, key)) for key, name in names]


def small_chart(key: str, title: str, line: Sequence[Point], *, noisy: bool = False) -> Chart | None:
    """One line by step, smoothed and by its logarithm only where it is noisy; None for under two points."""
    if len(line) < 2:
        return None
    values = [value for _, value in line]
    across = Axis(0.0, line[-1][0] or 1.0)
    upright = axis_over(values, log=noisy and spans_much(values))
    return Chart(
        key=key,
        title=title,
        description=f"{title} from {short(values[0])} to {short(values[-1])}, at most {short(max(values))}.",
        x_ticks=labelled_ticks(across, about=3),
        y_ticks=labelled_ticks(upright, about=3),
        lines=step_lines(line, across, upright) if noisy else [("smooth", path(line, across, upright))],
    )


def evaluation_rows(held_out: Sequence[Row]) -> list[list[str]]:
    """The held-out numbers as a table: step, loss, bits per byte, token accuracy, tokens."""
    stride = math.ceil(len(held_out) / SHOWN_EVALUATIONS) or 1
    kept = [row for index, row in enumerate(held_out) if index % stride == 0 or row is held_out[-1]]
    return [evaluation_row(row) for row in kept]


def evaluation_row(row: Row) -> list[str]:
    """One evaluation in words."""
    accuracy = number(row, "eval_token_accuracy")
    return [
        short(number(row, "step")),
        short(number(row, "eval_loss")),
        short(number(row, "eval_bits_per_byte")),
        "–" if accuracy is None else share(accuracy),
        short(number(row, "eval_tokens")),
    ]


# --- Lines


def step_lines(line: Sequence[Point], across: Axis, upright: Axis) -> list[tuple[str, str]]:
    """Paths of what was measured each step; smoothed only where there is something to smooth."""
    window = smoothing_window(line)
    if window < 2:
        return [("smooth", path(line, across, upright))]
    return [
        ("raw", path(line, across, upright)),
        ("smooth", path(smoothed(line, window, upright), across, upright)),
    ]


def smoothing_window(line: Sequence[Point]) -> int:
    """Steps to average over: a fortieth of the line."""
    return len(line) // 40


def smoothed(line: Sequence[Point], window: int, upright: Axis) -> list[Point]:
    """Mean over a centred window of steps, narrower at the two ends, so that it lags nowhere.

    On a logarithmic axis it is the geometric mean, which one spike does not lift for a whole window.
    """
    values = np.array([value for _, value in line])
    sums = np.concatenate([[0.0], np.cumsum(np.log(values) if upright.log else values)])
    places = np.arange(len(line))
    first = np.maximum(places - window // 2, 0)
    last = np.minimum(places + window // 2 + 1, len(line))
    means = (sums[last] - sums[first]) / (last - first)
    drawn = np.exp(means) if upright.log else means
    return [(step, float(mean)) for (step, _), mean in zip(line, drawn, strict=True)]


def path(line: Sequence[Point], across: Axis, upright: Axis) -> str:
    """The SVG path of a line."""
    corners = [f"{across.place(x):.2f} {100 - upright.place(y):.2f}" for x, y in thinned(line)]
    return "M" + " L".join(corners)


def corners(shape: str) -> list[Point]:
    """The corners of a line that `path` wrote, in percent of the picture from its upper left."""
    pairs = (corner.split() for corner in shape.removeprefix("M").split(" L"))
    return [(float(x), float(y)) for x, y in pairs]


def thinned(line: Sequence[Point], buckets: int = 400) -> Sequence[Point]:
    """At most two points a bucket, its lowest and highest, so that no spike is lost."""
    if len(line) <= 2 * buckets:
        return line
    kept: list[Point] = []
    for part in np.array_split(np.arange(len(line)), buckets):
        points = [line[index] for index in part]
        kept += sorted({min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])})
    return kept


# --- Lengths of the examples


def length_chart(run: Run) -> Chart | None:
    """Histogram of example lengths; one bar a bin, equally wide also where the bins are not."""
    histogram = inside(run.facts, "data", "length_histogram")
    bounds, heights = numbers(inside(histogram, "edges")), numbers(inside(histogram, "counts"))
    if not heights or len(bounds) != len(heights) + 1 or max(heights) <= 0:
        return None
    upright, width = axis_over([0.0, max(heights)]), 100 / len(heights)
    stride = math.ceil(len(bounds) / 6)
    return Chart(
        key="lengths",
        title="Tokens of an example",
        description=f"{counted(int(sum(heights)), 'example')}, {short(bounds[0])} to {short(bounds[-1])} tokens long.",
        x_ticks=[Tick(round(i * width, 2), short(bounds[i])) for i in range(0, len(bounds), stride)],
        y_ticks=labelled_ticks(upright, about=4),
        bars=length_bars(bounds, heights, upright),
        marker=max_length_marker(run.recipe, bounds),
    )


def numbers(value: object) -> list[float]:
    """The numbers in a list from data."""
    return [item for item in map(finite, listed(value)) if item is not None]


def length_bars(
    bounds: Sequence[float], heights: Sequence[float], upright: Axis
) -> list[tuple[float, float, float, float, str]]:
    """One bar a bin, with a gap between them: x, y, width, height and what it says."""
    width = 100 / len(heights)
    return [
        (
            round((index + 0.06) * width, 2),
            round(100 - upright.place(height), 2),
            round(0.88 * width, 2),
            round(upright.place(height), 2),
            f"{short(bounds[index])} to {short(bounds[index + 1])} tokens: {whole(height)}",
        )
        for index, height in enumerate(heights)
    ]


def max_length_marker(recipe: Row, bounds: Sequence[float]) -> Tick | None:
    """The longest example that the recipe allows, where it falls into the histogram."""
    limit = number(recipe, "max_length")
    if limit is None or not bounds[0] <= limit <= bounds[-1] or list(bounds) != sorted(set(bounds)):
        return None
    width = 100 / (len(bounds) - 1)
    at = float(np.interp(limit, bounds, [index * width for index in range(len(bounds))]))
    return Tick(round(at, 2), f"max_length {short(limit)}")
