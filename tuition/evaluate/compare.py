"""The tuned model beside the model it came from, prompt by prompt.

Both models answer the same prompts, so the difference is judged in pairs: what both find easy or both
find hard cancels out. Nothing here generates answers or reads files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tuition.errors import UserError
from tuition.evaluate.metrics import METRICS, Score, interval, score

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
        metric: a key of `METRICS`.
        base: score of the model before training.
        tuned: score of the model after training.
        difference: tuned minus base by prompt, its interval from resampling the pairs.
        wins: prompts on which the tuned model scores higher.
        losses: prompts on which it scores lower.
        both_right: number of prompts with equal and full score.
        both_wrong: number of prompts with equal score below that.
        verdict: `not decided` where the interval of the difference reaches zero.
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


def compare(answers: Sequence[Answer], metric: str, *, seed: int = 0) -> Comparison:
    """Judge both models by `metric` on the same prompts.

    Raises:
        UserError: there is no such metric, or no answer.
    """
    measure = METRICS.get(metric)
    if measure is None:
        raise UserError(f"there is no metric {metric!r}", next_step=f"Choose one of {', '.join(METRICS)}.")
    base = [measure(answer.base, answer.expected) for answer in answers]
    tuned = [measure(answer.tuned, answer.expected) for answer in answers]
    gains = [after - before for before, after in zip(base, tuned, strict=True)]
    difference = interval(gains, lowest=-1.0, highest=1.0, seed=seed)
    return Comparison(
        metric=metric,
        base=score(base, seed=seed),
        tuned=score(tuned, seed=seed),
        difference=difference,
        wins=[answer for answer, gain in zip(answers, gains, strict=True) if gain > 0],
        losses=[answer for answer, gain in zip(answers, gains, strict=True) if gain < 0],
        both_right=sum(before == after == 1.0 for before, after in zip(base, tuned, strict=True)),
        both_wrong=sum(before == after < 1.0 for before, after in zip(base, tuned, strict=True)),
        verdict=verdict_of(difference),
    )


def verdict_of(difference: Score) -> Verdict:
    """What the interval of a paired difference allows to say."""
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "not decided"
