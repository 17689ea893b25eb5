"""The tuned model beside the model it came from, prompt by prompt.

Both models answer the same prompts, so the difference is judged in pairs: what both find easy or both
find hard cancels out. Nothing here generates answers or reads files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tuition.evaluate.measures import Metric, find_metric
from tuition.interval import Score, interval

Verdict = Literal["better", "worse", "not decided"]


@dataclass(frozen=True)
class Answer:
    """One held-out prompt, what was expected, and what each model wrote.

    Attributes:
        origin: where the prompt came from, as `file:line`.
    """

    prompt: str
    expected: str
    base: str
    tuned: str
    origin: str


@dataclass(frozen=True)
class Comparison:
    """Two models judged by one metric on the same prompts.

    Attributes:
        metric: its name.
        base: score of the model before training.
        tuned: score of the model after training.
        difference: tuned minus base by prompt, its interval from resampling the pairs.
        wins: prompts on which the tuned model scores higher.
        losses: prompts on which it scores lower.
        both_right: number of prompts with equal and full score.
        both_wrong: number of prompts with equal score below that.
        verdict: `not decided` where the interval of the difference reaches zero, or prompts are too few for one.
    """

    metric: str
    base: Score
    tuned: Score
    difference: Score
    wins: list[Answer]
    losses: list[Answer]
    both_right: int
    both_wrong: int
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The object of this comparison in `evaluation.json`; keys are the names of the attributes."""
        return asdict(self)


def compare(
    answers: Sequence[Answer],
    metric: str | Metric,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> Comparison:
    """Judge both models by `metric` on the same prompts.

    Args:
        metric: a metric or its name.
        rows: the row of each answer as it stands in the file, for metrics that read it.

    Raises:
        UserError: there is no such metric, or no answer.
    """
    chosen = find_metric(metric) if isinstance(metric, str) else metric
    rows = [{} for _ in answers] if rows is None else rows
    base, tuned = (
        [chosen.measure(getattr(a, which), a.expected, row) for a, row in zip(answers, rows, strict=True)]
        for which in ("base", "tuned")
    )
    gains = [after - before for before, after in zip(base, tuned, strict=True)]
    width, prompts = chosen.highest - chosen.lowest, [answer.prompt for answer in answers]
    difference = interval(gains, lowest=-width, highest=width, groups=prompts, seed=seed)
    bounds: Any = {"lowest": chosen.lowest, "highest": chosen.highest, "groups": prompts, "seed": seed}
    return Comparison(
        metric=chosen.name,
        base=interval(base, **bounds),
        tuned=interval(tuned, **bounds),
        difference=difference,
        wins=[answer for answer, gain in zip(answers, gains, strict=True) if gain > 0],
        losses=[answer for answer, gain in zip(answers, gains, strict=True) if gain < 0],
        both_right=sum(before == after == 1.0 for before, after in zip(base, tuned, strict=True)),
        both_wrong=sum(before == after < 1.0 for before, after in zip(base, tuned, strict=True)),
        verdict=verdict_of(difference),
    )


def verdict_of(difference: Score) -> Verdict:
    """What the interval of a paired difference allows to say; a few equal differences decide nothing."""
    return _VERDICTS[difference.side]


_VERDICTS: dict[int, Verdict] = {1: "better", -1: "worse", 0: "not decided"}
