"""The page that compares runs: what differs, curves over one another, figures with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuition.counting import counted
from tuition.evaluate.report.axes import Axis
from tuition.evaluate.report.charts import Chart, answer_metrics
from tuition.evaluate.report.comparison import BADGES, METRIC_NAMES, interval_places
from tuition.evaluate.report.facts import Point, Row, Run, series
from tuition.evaluate.report.machine import setting
from tuition.evaluate.report.overlaid import overlaid
from tuition.evaluate.report.page import environment
from tuition.evaluate.report.several import Figure, Several, side_by_side
from tuition.evaluate.report.verdict import badge
from tuition.evaluate.report.words import percentage_points, share, share_interval, short
from tuition.files import write_text
from tuition.interval import Score

TEMPLATE = "several.html.jinja"
_COLOURS, _DASHES = 6, 3


def write_comparison(runs: Sequence[Run], to: Path) -> Several:
    """Write the page that compares runs to `to`, and return what it says."""
    found = side_by_side(runs)
    write_text(to, environment().get_template(TEMPLATE).render(view(runs, found)))
    return found


def view(runs: Sequence[Run], found: Several) -> Row:
    """Everything that the template shows, already in words."""
    return {
        "names": [(name, kind(place)) for place, name in enumerate(found.names)],
        "verdicts": [
            (name, sentence, *badge(run), warnings)
            for name, (sentence, _), run, warnings in zip(
                found.names, found.verdicts, runs, found.cautions, strict=True
            )
        ],
        "differing": [(key, [setting(value) for value in row]) for key, row in found.differing.items()],
        "held_out_by": losses_do_not_compare(found),
        "losses_compare": not found.held_out_by and "best held-out loss" in found.rows,
        "figures": [figure_row(figure) for figure in found.figures],
        "charts": charts(runs, found.names),
        "rows": [(label, list(map(cell, values))) for label, values in found.rows.items()],
        "first": found.names[0],
    }


def losses_do_not_compare(found: Several) -> str:
    """The sentence about runs that hold out other rows; nothing where they hold out the same."""
    if not found.held_out_by:
        return ""
    differ = f"{' and '.join(found.held_out_by)} {'differs' if len(found.held_out_by) == 1 else 'differ'}"
    return (
        f"The runs held out other rows ({differ}), so their held-out losses do not compare. Evaluate each on one "
        "file (tuition evaluate RUN --data FILE), or train them with the same val_data."
    )


def kind(place: int) -> str:
    """The classes of a run's line: six colours, then the same ones dashed."""
    return f"run run-{place % _COLOURS} dash-{place // _COLOURS % _DASHES}"


def cell(value: float | str | None) -> str:
    """A figure in words; a dash where a run has none."""
    return value if isinstance(value, str) else short(value)


def figure_row(figure: Figure) -> Row:
    """One metric: every run's score and its difference to the first, in words and places."""
    cells = zip(figure.scores, figure.differences, figure.verdicts, figure.shared, strict=True)
    return {
        "name": METRIC_NAMES.get(figure.metric, figure.metric),
        "cells": [_cell_of(figure.metric, *each) for each in cells],
    }


def _cell_of(metric: str, score: Score | None, difference: Score | None, verdict: str, shared: int) -> Row:
    if score is None:
        return {"value": "–", "interval": "", "bar": None, "difference": "", "verdict": "", "tone": "open"}
    own = metric.startswith("python:")  # a scale of its own
    return {
        "value": short(score.value) if own else share(score.value),
        "interval": _interval_of(score, own=own),
        "bar": None if own else interval_places(score, Axis(0.0, 1.0)),
        "difference": "" if difference is None else _gained(difference, shared),
        "verdict": verdict,
        "tone": BADGES.get(verdict, BADGES["not decided"])[1],
    }


def _interval_of(score: Score, *, own: bool) -> str:
    if not score.enough:
        return ""
    return f"{short(score.low)} to {short(score.high)}" if own else share_interval(score.low, score.high)


def _gained(difference: Score, shared: int) -> str:
    low, high = percentage_points(difference.low), percentage_points(difference.high)
    between = f", {low} to {high}" if difference.enough else ""
    return f"{percentage_points(difference.value)} points{between}, on {counted(shared, 'shared prompt')}"


# --- Curves over one another


def charts(runs: Sequence[Run], names: Sequence[str]) -> list[Chart]:
    """Held-out loss, training loss and metrics of answers, a line a run."""
    titled: dict[str, list[list[Point]]] = {
        "Held-out loss by step": [series(run.held_out, "eval_loss") for run in runs],
        "Training loss by step, smoothed": [series(run.training, "loss") for run in runs],
    }
    for place, run in enumerate(runs):
        for title, line in answer_metrics(run):
            titled.setdefault(title, [[] for _ in runs])[place] = line
    drawn = (
        overlaid(f"curve-{i}", title, lines, names, kind) for i, (title, lines) in enumerate(titled.items())
    )
    return [chart for chart in drawn if chart is not None]
