"""Figures of one model, or of two on the same held-out rows, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import files
from tuition.counting import counted
from tuition.errors import UserError
from tuition.evaluate.compare import Answer, Comparison, compare
from tuition.evaluate.heldout import HeldOut
from tuition.evaluate.marks import Marks, differences
from tuition.evaluate.measures import Metric
from tuition.evaluate.testset import TestSet
from tuition.interval import Score, interval
from tuition.train.folder import RunFolder

if TYPE_CHECKING:
    from tuition.evaluate.demonstrations import RowMarks
    from tuition.evaluate.forgetting import Forgetting
    from tuition.evaluate.gate import Judged
    from tuition.evaluate.judge import Verdicts
    from tuition.evaluate.overlap import Overlap


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one model on one source.

    Attributes:
        model: what the user called it.
        metric: how answers were scored, the first of the metrics; `loss` where they were not.
        held_out: loss over the answers in the data; None where there are no such rows.
        score: the first metric over all prompts.
        comparison: the first metric against the baseline, on the same prompts.
        base_held_out: the baseline's loss.
        rows_in: rows read.
        rejected: rows that could not be scored, with code and reason.
        scores: metric → score, for every metric.
        comparisons: the comparison of every metric.
        corpus: metric → model or baseline → score of all answers together, where that is not the mean.
        differences: `loss` and `bits_per_byte` → tuned minus base by prompt; loss only where both models
            see the same tokens.
        forgetting: what training took away on general text.
        demonstrations: each demonstration before and after.
        judge: what a judge preferred.
        gate: each condition, and whether it holds.
        overlap: rows that the run was trained on; None where nothing says what that was.
        asked: what was scored, where the user named nothing.
    """

    model: str
    metric: str = "loss"
    held_out: HeldOut | None = None
    score: Score | None = None
    comparison: Comparison | None = None
    base_held_out: HeldOut | None = None
    rows_in: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Score] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    corpus: dict[str, dict[str, float]] = field(default_factory=dict)
    differences: dict[str, Score] = field(default_factory=dict)
    forgetting: Forgetting | None = None
    demonstrations: list[RowMarks] | None = None
    judge: Verdicts | None = None
    gate: list[Judged] = field(default_factory=list)
    overlap: Overlap | None = None
    asked: str | None = None

    @property
    def passed(self) -> bool:
        """Every condition holds, and no more was forgotten than may be."""
        return all(judged.met for judged in self.gate) and not (self.forgetting and self.forgetting.exceeded)

    def to_json(self) -> dict[str, Any]:
        """The object that `evaluate --json` prints."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        if self.forgetting is not None:
            found["forgetting"] = self.forgetting.to_json()
        if self.overlap is not None:
            found["overlap"] = self.overlap.to_json()
        return found


def evaluation_of(
    name: str, tuned: Marks, base: Marks | None, test_set: TestSet, *, metrics: Sequence[Metric]
) -> Evaluation:
    """Put the marks of one model, or of two, together.

    Raises:
        UserError: the two models scored different rows, so nothing may be compared.
    """
    if base is not None and base.scored != tuned.scored:
        raise UserError(
            f"the baseline scores {counted(len(base.scored), 'example')} and the model {len(tuned.scored)}: not the same rows",
            where=name,
            next_step="Compare models that read the rows alike, or remove the rows that only one can read",
        )
    comparisons = (
        []
        if base is None
        else [compare(answers_of(test_set, base, tuned, m.name), m, rows=test_set.rows) for m in metrics]
    )
    scores = {c.metric: c.tuned for c in comparisons} or {m.name: _score(m, tuned, test_set) for m in metrics}
    return Evaluation(
        model=name,
        metric=metrics[0].name if metrics else "loss",
        held_out=tuned.held_out,
        score=next(iter(scores.values()), None),
        comparison=next(iter(comparisons), None),
        base_held_out=None if base is None else base.held_out,
        rows_in=test_set.ledger.rows_in,
        rejected=[entry.to_json() for entry in test_set.ledger.rejected],
        scores=scores,
        comparisons=comparisons,
        corpus={m.name: _corpus(m, tuned, base, test_set) for m in metrics if m.corpus is not None},
        differences={} if base is None else differences(base.examples, tuned.examples),
    )


def _score(metric: Metric, marks: Marks, test_set: TestSet) -> Score:
    rows = test_set.rows or [{}] * len(test_set.questions)
    values = [
        metric.measure(given, question.expected, row)
        for given, question, row in zip(marks.answers[metric.name], test_set.questions, rows, strict=True)
    ]
    prompts = [question.prompt for question in test_set.questions]
    return interval(values, lowest=metric.lowest, highest=metric.highest, groups=prompts, seed=0)


def _corpus(metric: Metric, tuned: Marks, base: Marks | None, test_set: TestSet) -> dict[str, float]:
    expected = [question.expected for question in test_set.questions]
    if metric.corpus is None:
        return {}
    found = {"tuned": metric.corpus(tuned.answers[metric.name], expected)}
    return found if base is None else {"base": metric.corpus(base.answers[metric.name], expected), **found}


def record(name: str, tuned: Marks, base: Marks | None, test_set: TestSet) -> None:
    """The answers of both models belong in the folder of the run, as its samples."""
    folder = RunFolder(Path(name))
    if not folder.holds_a_run() or base is None or not tuned.answers:
        return
    first = next(iter(tuned.answers))
    pairs = zip(test_set.questions, base.answers[first], tuned.answers[first], strict=True)
    rows = [
        {
            "prompt": question.prompt,
            "expected": question.expected,
            "base": before,
            "tuned": after,
            "file": question.conversation.origin.file,
            "line": question.conversation.origin.line,
        }
        for question, before, after in pairs
    ]
    files.write_jsonl(folder.samples, rows)


def answers_of(test_set: TestSet, base: Marks, tuned: Marks, metric: str) -> list[Answer]:
    """What both models answered to each prompt, by the answers of one metric."""
    pairs = zip(test_set.questions, base.answers[metric], tuned.answers[metric], strict=True)
    return [
        Answer(question.prompt, question.expected, before, after, str(question.conversation.origin))
        for question, before, after in pairs
    ]
