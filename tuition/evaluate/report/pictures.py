"""Each picture of a report as a PNG, for slides and messages: the same lines, drawn by matplotlib (an extra)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuition import files
from tuition.errors import UserError
from tuition.evaluate.report.charts import Chart, corners, length_chart, loss_chart, small_multiples
from tuition.evaluate.report.comparison import METRIC_NAMES, read_score
from tuition.evaluate.report.data import fate_bar
from tuition.evaluate.report.facts import Run, read_run
from tuition.evaluate.report.words import visible

FOLDER = "pictures"
_INK, _QUIET, _RULE, _ACCENT, _BASE = "#1c1f23", "#5c636b", "#dfdfd9", "#0b6a62", "#737b82"
_LINES: dict[str, dict[str, Any]] = {
    "raw": {"color": "#a9b0b3", "linewidth": 0.8, "alpha": 0.8},
    "smooth": {"color": _ACCENT, "linewidth": 1.8},
    "held": {"color": _INK, "linewidth": 1.2, "linestyle": (0, (1, 3))},
}
_FATES = {"kept": _ACCENT, "split": "#5f9f99", "truncated": _BASE, "rejected": "#a2361b"}


def write_pictures(run_folder: Path) -> list[Path]:
    """Write `pictures/NAME.png` into a run folder for every picture of its report.

    Raises:
        UserError: matplotlib is not installed, or there is no run.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "pictures need the package matplotlib",
            where="--png",
            next_step='Install it: pip install "tuition[pictures]"',
        ) from None
    run = read_run(run_folder)
    files.make_folder(run_folder / FOLDER)
    return [_save(figure, run_folder / FOLDER / f"{name}.png") for name, figure in _figures(run, Figure)]


def _figures(run: Run, make: Any) -> Iterator[tuple[str, Any]]:
    charts = [loss_chart(run), *small_multiples(run), length_chart(run)]
    yield from ((chart.key, _draw(chart, make)) for chart in charts if chart is not None)
    if any(read_score(row.get("tuned")) for row in run.comparisons):
        yield "result", _draw_result(run, make)
    if fate_bar(run):
        yield "ledger", _draw_ledger(run, make)


def _save(figure: Any, file: Path) -> Path:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    files.write_bytes(file, [image.getvalue()])
    return file


def _draw(chart: Chart, make: Any) -> Any:
    """A chart of the page: its lines already lie in a square of 100 by 100, from the upper left corner."""
    figure, axes = _canvas(make, chart.title, (8, 4))
    for kind, shape in chart.lines:
        across, down = zip(*corners(shape), strict=True)
        axes.plot(across, [100 - y for y in down], **_LINES.get(kind, _LINES["smooth"]))
    axes.scatter(
        [x for x, _, _ in chart.dots], [100 - y for _, y, _ in chart.dots], color=_INK, s=16, zorder=3
    )
    for x, y, width, height, _ in chart.bars:
        axes.bar(x, height, width, 100 - y - height, align="edge", color=_ACCENT)
    if chart.marker is not None:
        axes.axvline(chart.marker.at, color=_QUIET, linewidth=0.8, linestyle=(0, (3, 3)))
        beside = "right" if chart.marker.at > 60 else "left"
        axes.annotate(
            chart.marker.label, (chart.marker.at, 98), ha=beside, va="top", color=_QUIET, fontsize=8
        )
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.set_xticks([tick.at for tick in chart.x_ticks], [tick.label for tick in chart.x_ticks])
    axes.set_yticks([tick.at for tick in chart.y_ticks], [tick.label for tick in chart.y_ticks])
    for kind, words in chart.legend:
        axes.plot([], [], label=words, **_LINES.get(kind, _LINES["smooth"]))
    if chart.legend:
        axes.legend(frameon=False, fontsize=8, loc="best")
    return figure


def _draw_result(run: Run, make: Any) -> Any:
    """Base and tuned with their intervals, a line a metric."""
    rows = [row for row in run.comparisons if read_score(row.get("base")) and read_score(row.get("tuned"))]
    figure, axes = _canvas(make, "Before and after, with 95 % intervals", (8, 1.4 + 0.7 * len(rows)))
    for place, row in enumerate(rows):
        for key, colour, shift in (("base", _BASE, 0.12), ("tuned", _ACCENT, -0.12)):
            score = read_score(row.get(key))
            assert score is not None
            if score.enough:
                axes.hlines(shift - place, score.low, score.high, color=colour, linewidth=3, alpha=0.5)
            axes.scatter(
                [score.value], [shift - place], color=colour, s=36, label=key if place == 0 else None
            )
    names = [visible(METRIC_NAMES.get(str(row.get("metric")), str(row.get("metric")))) for row in rows]
    axes.set_yticks([-place for place in range(len(rows))], names)
    axes.set(ylim=(-len(rows) + 0.4, 0.6))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _draw_ledger(run: Run, make: Any) -> Any:
    """What became of the rows, as one bar."""
    figure, axes = _canvas(make, "Rows by what became of them", (8, 1.6))
    for fate, count, start, width in fate_bar(run):
        axes.barh(
            0, width, left=start, color=_FATES.get(fate, "#a9b0b3"), label=f"{visible(fate)}: {count:,}"
        )
    axes.set(xlim=(0, 100), yticks=[])
    axes.set_xlabel("% of the rows", color=_QUIET, fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.6), ncols=4)
    return figure


def _canvas(make: Any, title: str, inches: tuple[float, float]) -> tuple[Any, Any]:
    figure = make(figsize=inches, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_as_text(title), loc="left", fontsize=11, color=_INK)
    axes.grid(color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_QUIET, labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def _as_text(words: str) -> str:
    """matplotlib reads text between dollar signs as a formula."""
    return visible(words).replace("$", r"\$")
