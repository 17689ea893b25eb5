"""Base against tuned: the scores of both models, and their answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuition.counting import counted
from tuition.evaluate.metrics import METRICS
from tuition.evaluate.report.axes import Axis
from tuition.evaluate.report.facts import Row, Run, listed, mappings, number, place
from tuition.evaluate.report.words import (
    percentage_points,
    plain,
    share,
    share_interval,
    short_path,
    shorten,
)
from tuition.interval import Score

SHOWN_PAIRS = 3  # of wins, of losses and of the rest; more unfold
UNFOLDED_PAIRS = 20
_INTERVALS = ("base_interval", "tuned_interval", "difference_interval")

METRIC_NAMES = {
    "exact_match": "exact match",
    "contains": "expected text contained",
    "number": "right number",
    "f1": "word F1",
    "rouge_l": "ROUGE-L",
}
BADGES = {
    "better": ("better than the base model", "good"),
    "worse": ("worse than the base model", "bad"),
    "not decided": ("not decided", "open"),
}


# --- Scores


def headline(run: Run) -> Row | None:
    """The first comparison in words: the one that the run is judged by."""
    return next(iter(comparison_rows(run)), None)


def comparison_rows(run: Run) -> list[Row]:
    """The comparisons whose scores are there; their questions are held out where that is known."""
    question = "held-out question" if run.held_out_questions else "question"
    found = (comparison_row(row, question) for row in run.comparisons)
    return [row for row in found if row is not None]


def comparison_row(row: Row, question: str) -> Row | None:
    """One comparison in words and in places on the interval bars; None if its scores are not there."""
    base, tuned, difference = (read_score(row.get(key)) for key in ("base", "tuned", "difference"))
    if not (base and tuned and difference):
        return None
    metric = str(row.get("metric"))
    if metric.startswith("python:"):  # an own function has a scale of its own
        words = {**_common(row, metric, base, tuned, difference), **_plain(base, tuned, difference)}
    else:
        words = _common(row, metric, base, tuned, difference)
    unknown: Row = {} if difference.enough else dict.fromkeys(_INTERVALS, "")
    questions = counted(tuned.count, question)
    return {**words, **unknown, "questions": questions, "few": _few(difference, questions)}


def _few(difference: Score, questions: str) -> str:
    """That an interval over so few prompts is too narrow, as a clause; empty where they are enough."""
    prompts = (
        "" if difference.prompts == difference.count else f", {counted(difference.prompts, 'prompt')} in all,"
    )
    return f"{questions}{prompts} are few" if difference.few else ""


def _plain(base: Score, tuned: Score, difference: Score) -> Row:
    figures: Row = {}
    for name, score in (("base", base), ("tuned", tuned), ("difference", difference)):
        figures[name] = f"{score.value:.4g}"
        figures[f"{name}_interval"] = f"{score.low:.4g} to {score.high:.4g}"
    return figures


def _common(row: Row, metric: str, base: Score, tuned: Score, difference: Score) -> Row:
    return {
        "name": METRIC_NAMES.get(metric, metric),
        "base": share(base.value),
        "base_interval": share_interval(base.low, base.high),
        "base_bar": interval_places(base, Axis(0.0, 1.0)),
        "tuned": share(tuned.value),
        "tuned_interval": share_interval(tuned.low, tuned.high),
        "tuned_bar": interval_places(tuned, Axis(0.0, 1.0)),
        "difference": f"{percentage_points(difference.value)} points",
        "difference_interval": f"{percentage_points(difference.low)} to {percentage_points(difference.high)}",
        "difference_bar": interval_places(difference, Axis(-1.0, 1.0)),
        "verdict": str(row.get("verdict")),
        "tone": verdict_badge(row)[1],
        "wins": len(listed(row.get("wins"))),
        "losses": len(listed(row.get("losses"))),
        "both_right": int(number(row, "both_right") or 0),
        "both_wrong": int(number(row, "both_wrong") or 0),
    }


def read_score(value: object) -> Score | None:
    """A score from `evaluation.json`, or None if a number is missing; where prompts are, each row is one."""
    mean, low, high, count = (number(value, key) for key in ("value", "low", "high", "count"))
    if mean is None or low is None or high is None or count is None:
        return None
    return Score(mean, low, high, int(count), int(number(value, "prompts") or count))


def interval_places(score: Score, axis: Axis) -> list[float]:
    """Low, value and high of a score in percent of the bar's width; the value alone where there is no interval."""
    ends = (score.low, score.value, score.high) if score.enough else (score.value,) * 3
    places = (axis.place(value) for value in ends)
    return [round(min(100.0, max(0.0, at)), 2) for at in places]


def verdict_badge(row: Row) -> tuple[str, str]:
    """Words and tone for the verdict of a comparison."""
    return BADGES.get(str(row.get("verdict")), BADGES["not decided"])


# --- Answers


@dataclass(frozen=True)
class Pair:
    """One prompt answered before and after; marks say how well, and are empty where nothing is known."""

    prompt: str
    expected: str | None
    base: str | None
    tuned: str | None
    base_mark: str
    tuned_mark: str
    origin: str


def answer_groups(run: Run) -> list[tuple[str, list[Pair], list[Pair]]]:
    """Answers side by side: title, those shown, those that unfold. Wins, then losses, then the rest."""
    first = run.comparisons[0] if run.comparisons else {}
    metric = str(first.get("metric") or "exact_match")
    wins, losses = mappings(first.get("wins")), mappings(first.get("losses"))
    judged = {question_key(row) for row in [*wins, *losses]}
    others = [row for row in run.samples if question_key(row) not in judged]
    learned = number(run.facts, "data", "validation_examples") == 0
    fresh = run.held_out_questions or not run.comparisons  # a run answers held-out prompts by itself
    asked = "prompts that were learned from" if learned else "held-out prompts" if fresh else "prompts"
    groups = [
        (f"Became better: {len(wins):,}", wins),
        (f"Became worse: {len(losses):,}", losses),
        (f"{'Other ' * bool(judged)}{asked}, before and after: {len(others):,}".capitalize(), others),
    ]
    return [(title, *folded(rows, metric)) for title, rows in groups if rows]


def question_key(row: Row) -> tuple[str, str]:
    """What makes a sample the same question as one that was compared."""
    return str(row.get("prompt")), str(row.get("expected"))


def folded(rows: Sequence[Row], metric: str) -> tuple[list[Pair], list[Pair]]:
    """The pairs to show and those to unfold."""
    pairs = [pair(row, metric) for row in rows[:UNFOLDED_PAIRS]]
    return pairs[:SHOWN_PAIRS], pairs[SHOWN_PAIRS:]


def pair(row: Row, metric: str) -> Pair:
    """A row of `samples.jsonl`, or of the wins and losses in `evaluation.json`."""
    texts = {key: text_or_none(row.get(key)) for key in ("prompt", "expected", "base", "tuned")}
    shown = {key: None if text is None else shorten(text) for key, text in texts.items()}
    return Pair(
        prompt=shown["prompt"] or "",
        expected=shown["expected"],
        base=shown["base"],
        tuned=shown["tuned"],
        base_mark=mark(texts["base"], texts["expected"], metric),
        tuned_mark=mark(texts["tuned"], texts["expected"], metric),
        origin=short_path(str(row.get("origin") or place(row))),
    )


def text_or_none(value: object) -> str | None:
    """Text as it is; anything else that is there, as JSON."""
    return None if value is None else plain(value)


def mark(answer: str | None, expected: str | None, metric: str) -> str:
    """`right`, `wrong` or the score of one answer; nothing if there is nothing to measure."""
    if answer is None or not expected or metric not in METRICS:
        return ""
    value = METRICS[metric](answer, expected)
    return "right" if value == 1 else "wrong" if value == 0 else f"{value:.2f}"
