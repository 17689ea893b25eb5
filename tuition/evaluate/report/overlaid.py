"""One picture with a line for each of several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuition.evaluate.report.axes import Axis, axis_over, labelled_ticks, spans_much
from tuition.evaluate.report.charts import SHOWN_DOTS, Chart, dot, path, smoothed, smoothing_window
from tuition.evaluate.report.facts import Point
from tuition.evaluate.report.words import short


def overlaid(
    key: str,
    title: str,
    lines: Sequence[Sequence[Point]],
    names: Sequence[str],
    kind: Callable[[int], str],
    *,
    dots: bool = False,
) -> Chart | None:
    """The lines of several runs over one another; None where there is nothing to draw.

    Args:
        key: unique on the page.
        lines: of each run, in the order of `names`; long ones are smoothed.
        kind: the classes of the line of a run, by its place.
        dots: points are marked where they are few, so that a single one is seen too.
    """
    shown = [(place, line) for place, line in enumerate(lines) if len(line) >= (1 if dots else 2)]
    points = [point for _, line in shown for point in line]
    if len(points) < 2:
        return None
    across = Axis(0.0, max(step for step, _ in points) or 1.0)
    values = [value for _, value in points]
    upright = axis_over(values, log=spans_much(values))
    return Chart(
        key=key,
        title=title + (" (logarithmic scale)" if upright.log else ""),
        description=" ".join(
            f"{names[place]}: {short(line[0][1])} to {short(line[-1][1])}." for place, line in shown
        ),
        x_ticks=labelled_ticks(across),
        y_ticks=labelled_ticks(upright),
        lines=[(kind(place), path(_even(line, upright), across, upright)) for place, line in shown],
        dots=[dot(point, across, upright) for point in points] if dots and len(points) <= SHOWN_DOTS else [],
        legend=[(kind(place), names[place]) for place, _ in shown],
    )


def _even(line: Sequence[Point], upright: Axis) -> Sequence[Point]:
    window = smoothing_window(line)
    return smoothed(line, window, upright) if window > 1 else line
