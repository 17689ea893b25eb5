"""Conditions that a model must meet to be shipped: `exact_match>=baseline+0.05`, `loss<=1.2`, `forgetting<=0.02`.

A condition is FIGURE, one of >= <= > <, and a number, `baseline`, or `baseline` plus or minus a number. A number
may be a percentage. What is said against the baseline is judged on the paired difference.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuition.errors import UserError
from tuition.interval import Score

if TYPE_CHECKING:
    from tuition.evaluate.score import Evaluation

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+"
_CONDITION = re.compile(
    rf"""
    \s*(?P<figure>\S.*?)\s*
    (?P<sign>>=|<=|>|<)\s*
    (?:(?P<baseline>baseline)\s*(?:(?P<more>[-+−])\s*(?P<by>{_NUMBER})\s*(?P<by_percent>%?))?
      |(?P<number>[+-]?(?:{_NUMBER}))\s*(?P<percent>%?))\s*
    """,
    re.VERBOSE,
)
_AND = re.compile(r"(?<!\s)\s+and\s+")
_LONGEST = 200  # characters of one condition: trying where its figure ends takes time with the square of them
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
FIGURES = ("loss", "perplexity", "bits_per_byte", "token_accuracy", "forgetting", "judge")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: `figure sign amount`, where the amount is over the baseline if `relative`."""

    text: str
    figure: str
    sign: str
    amount: float
    relative: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the tuned model, and its paired difference from the baseline where there is one."""

    value: Score
    difference: Score | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one condition.

    Attributes:
        condition: as the user wrote it.
        met: whether it holds: for the figure, or for all of its interval where certainty is required.
        decided: whether it holds, or fails, for all of the interval.
        relative: the figures are differences from the baseline.
        value: the figure.
        low: lower end of its interval.
        high: upper end.
        threshold: what it is held against.
        enough: prompts are enough for an interval; where they are not, nothing is decided.
    """

    condition: str
    met: bool
    decided: bool
    relative: bool
    value: float
    low: float
    high: float
    threshold: float
    enough: bool = True

    def __str__(self) -> str:
        what = "tuned − base is" if self.relative else "it is"
        doubt = "" if self.decided else "; the interval allows either"
        between = f", 95 % interval {self.low:.4g} to {self.high:.4g}{doubt}"
        said = between if self.enough else "; prompts are too few for an interval"
        return f"{'met' if self.met else 'NOT MET'}: {self.condition} ({what} {self.value:.4g}{said})"


def read_conditions(texts: Sequence[str]) -> list[Condition]:
    """The conditions of some texts, each of which may join several by `and`.

    Raises:
        UserError: one of them is no condition.
    """
    return [_read(part) for text in texts for part in _AND.split(text)]


def _read(text: str) -> Condition:
    found = _CONDITION.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise UserError(
            f"'{text[:_LONGEST]}' is no condition",
            where="--require",
            next_step="Write FIGURE, one of >= <= > <, and a number or baseline: exact_match>=baseline+0.05, loss<=1.2",
        )
    if found["baseline"]:
        amount = float(found["by"] or 0) / (100 if found["by_percent"] else 1)
        amount = -amount if found["more"] in ("-", "−") else amount
    else:
        amount = float(found["number"]) / (100 if found["percent"] else 1)
    return Condition(text.strip(), found["figure"], found["sign"], amount, bool(found["baseline"]))


def judge_conditions(
    conditions: Sequence[Condition], figures: Mapping[str, Figure], *, certain: bool = False
) -> list[Judged]:
    """Hold each condition against its figure.

    Args:
        certain: a condition is met only where all of the 95 % interval meets it.

    Raises:
        UserError: a figure was not measured, or not against a baseline.
    """
    return [_judge(condition, figures, certain) for condition in conditions]


def _judge(condition: Condition, figures: Mapping[str, Figure], certain: bool) -> Judged:
    if condition.figure not in figures:
        raise UserError(
            f"'{condition.figure}' is not measured",
            where=f"--require {condition.text}",
            next_step=f"Measured are: {', '.join(figures) or 'nothing'}",
        )
    figure = figures[condition.figure]
    score = figure.difference if condition.relative else figure.value
    if score is None:
        raise UserError(
            f"'{condition.figure}' is not measured against a baseline",
            where=f"--require {condition.text}",
            next_step="Hold it against a number, or name another figure, such as loss",
        )
    holds = _SIGNS[condition.sign]
    ends = [holds(_rounded(end), condition.amount) for end in (score.low, score.high)]
    now = holds(_rounded(score.value), condition.amount)
    return Judged(
        condition=condition.text,
        met=all(ends) and now and score.enough if certain else now,
        decided=ends[0] == ends[1] == now and score.enough,
        relative=condition.relative,
        value=score.value,
        low=score.low,
        high=score.high,
        threshold=condition.amount,
        enough=score.enough,
    )


def _rounded(value: float) -> float:
    """A mean of decimals to 12 places, so that 0.3 − 0.25 is not less than 0.05."""
    return round(value, 12)


def figures_of(evaluation: Evaluation) -> dict[str, Figure]:
    """Every figure that conditions may name."""
    figures: dict[str, Figure] = {}
    if evaluation.held_out is not None:
        compared = {c.metric: c.difference for c in evaluation.comparisons}
        figures |= {name: Figure(score, compared.get(name)) for name, score in evaluation.scores.items()}
        intervals = evaluation.held_out.intervals
        figures |= {name: Figure(s, evaluation.differences.get(name)) for name, s in intervals.items()}
        figures["perplexity"] = Figure(_exponential(intervals["loss"]))
    if evaluation.forgetting is not None:
        figures["forgetting"] = Figure(evaluation.forgetting.difference)
    if evaluation.judge is not None:
        figures["judge"] = Figure(evaluation.judge.score)
    return figures


def _exponential(loss: Score) -> Score:
    value, low, high = (math.exp(min(x, 700.0)) for x in (loss.value, loss.low, loss.high))
    return Score(value, low, high, loss.count, loss.prompts, loss.method)
