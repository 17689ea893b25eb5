"""Everything that one call of `evaluate` asks of a model, and of the model it is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tuition import files
from tuition.batch.corpus import cache_folder
from tuition.errors import UserError
from tuition.evaluate.demonstrations import RowMarks, row_marks, summary_of
from tuition.evaluate.forgetting import MOST_FORGOTTEN, Forgetting, General, forgetting_of, general_marks
from tuition.evaluate.gate import FIGURES, Condition, figures_of, judge_conditions
from tuition.evaluate.heldoutrows import HeldOutRows, held_out_rows
from tuition.evaluate.judge import Judge, Verdicts, judge_pairs
from tuition.evaluate.load import Answerer, base_named_by, load_answerer, span_markers_of
from tuition.evaluate.marks import Marks, Placed, Progress, examine, place_marks, rendered
from tuition.evaluate.measures import Metric, find_metric
from tuition.evaluate.overlap import learned_by, overlap_of
from tuition.evaluate.report import write_report
from tuition.evaluate.score import Evaluation, answers_of, evaluation_of, record
from tuition.evaluate.testset import TestSet, read_test_set
from tuition.foreign import OBJECT_BYTES, read_text
from tuition.train.folder import RunFolder
from tuition.train.model import load_config
from tuition.train.naming import run_of
from tuition.train.selfcheck import choose_path


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked.

    Attributes:
        data: files of held-out rows, each row with its answer.
        given: rows from Python, beside those.
        held_out: the rows among them that are meant, where they are those that the run held out; None: all.
        metrics: how answers are scored; none: the loss only.
        baseline: another model that answers the same prompts.
        general: files of general text, to see what training took away.
        rows: files of demonstrations, each to be shown before and after.
        conditions: what must hold.
        certain: conditions must hold for all of the interval.
        most_forgotten: bits a byte on general text that may be lost.
        judge: who compares the answers; None: nobody.
        max_new_tokens: longest answer.
        limit: answer only the first so many prompts.
        device: auto, cpu, cuda or mps.
        trusted: the model's own code that may run; see `trust_remote_code`.
    """

    data: tuple[str, ...] = ()
    given: tuple[Any, ...] = ()
    held_out: HeldOutRows | None = None
    metrics: tuple[Metric, ...] = ()
    baseline: str | None = None
    general: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    certain: bool = False
    most_forgotten: float = MOST_FORGOTTEN
    judge: Judge | None = None
    max_new_tokens: int = 256
    limit: int | None = None
    device: str = "auto"
    trusted: str | None = None

    @property
    def has_rows(self) -> bool:
        """Rows with the answers expected were named or given."""
        return bool(self.data or self.given)

    @property
    def compares(self) -> bool:
        """A second model scores the held-out rows too."""
        over_baseline = any(c.relative for c in self.conditions)
        return self.has_rows and (self.baseline is not None or self.judge is not None or over_baseline)

    @property
    def needs_base(self) -> bool:
        """A second model is loaded."""
        return self.compares or bool(self.general or self.rows)


@dataclass(frozen=True, slots=True)
class _Material:
    """The rows of all that is asked, read once."""

    test_set: TestSet | None
    demonstrations: TestSet | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one model scored on all of it."""

    marks: Marks | None
    general: General | None
    demonstrations: list[Placed] | None


def evaluate_all(model: str, wishes: Wishes, on_progress: Progress) -> Evaluation:
    """Score a model, hold it against its base, and judge the conditions.

    Raises:
        UserError: anything the user can mend.
    """
    if not (wishes.has_rows or wishes.general or wishes.rows):
        wishes = _on_held_out_rows(model, wishes)
    wishes = _with_metrics_of_conditions(wishes)
    if wishes.judge is not None and not wishes.has_rows:
        raise UserError("a judge needs prompts", where="--judge", next_step="Name rows: --data FILE")
    other = _other(model, wishes) if wishes.needs_base else None
    material = _read(wishes, span_markers_of(model))
    folder = _answers_folder(model)
    answerer = load_answerer(model, device=wishes.device, trusted=wishes.trusted)
    tuned = _see(answerer, material, wishes, on_progress, folder, compare=True)
    base, template = None, answerer.renderer.template
    del answerer  # two models need not fit at the same time
    if other is not None:
        answerer = load_answerer(other[0], device=wishes.device, template=template, revision=other[1])
        base = _see(answerer, material, wishes, on_progress, folder, compare=wishes.compares)
        del answerer
    return _written(model, material, wishes, base, tuned, folder, on_progress)


def _on_held_out_rows(model: str, wishes: Wishes) -> Wishes:
    """Where nobody named anything, what is scored is what the run held out.

    Raises:
        UserError: nothing says what that is.
    """
    held_out = held_out_rows(run_of(model))
    if held_out is None:
        if not Path(model).exists():
            load_config(model, None, trusted=wishes.trusted)  # a model that is not there is said first
        raise UserError(
            "there is nothing to score",
            where=model,
            next_step="Name rows that it was not trained on: --data FILE; or --general or --rows",
        )
    return replace(wishes, data=held_out.sources, held_out=held_out)


def _read(wishes: Wishes, span_markers: tuple[str, str] | None) -> _Material:
    read = partial(read_test_set, span_markers=span_markers)
    held_out = wishes.held_out
    if held_out is not None:
        read = partial(read, only=held_out.places, mapping=held_out.mapping)
    return _Material(
        read(wishes.data, given=wishes.given, limit=wishes.limit, metrics=wishes.metrics)
        if wishes.has_rows
        else None,
        read(wishes.rows, limit=None) if wishes.rows else None,
    )


def _with_metrics_of_conditions(wishes: Wishes) -> Wishes:
    """A condition may name a metric that nothing else does: it is measured too."""
    known = {metric.name for metric in wishes.metrics} | set(FIGURES)
    named = [find_metric(c.figure) for c in wishes.conditions if c.figure not in known]
    if named and not wishes.has_rows:
        raise UserError(
            f"'{named[0].name}' needs prompts", where="--require", next_step="Name rows: --data FILE"
        )
    return replace(wishes, metrics=(*wishes.metrics, *{metric.name: metric for metric in named}.values()))


def _other(model: str, wishes: Wishes) -> tuple[str, str | None]:
    if wishes.baseline is not None:
        return wishes.baseline, None
    base = base_named_by(model)
    if base is None:
        raise UserError(
            "nothing says which model this one came from", where=model, next_step="Name it: --baseline MODEL"
        )
    return base


def _answers_folder(model: str) -> Path:
    """Answers stand in the run's folder, or in the cache where there is no run."""
    folder = run_of(model)
    return folder.answers if folder.holds_a_run() else cache_folder().parent / "answers"


def _see(
    answerer: Answerer,
    material: _Material,
    wishes: Wishes,
    on_progress: Progress,
    folder: Path,
    *,
    compare: bool,
) -> _Seen:
    marks = demonstrations = None
    if material.test_set is not None and compare:
        # a judge needs written answers, whatever else is measured
        metrics = wishes.metrics or ((find_metric("exact_match"),) if wishes.judge else ())
        marks = examine(
            answerer,
            material.test_set,
            metrics=metrics,
            max_new_tokens=wishes.max_new_tokens,
            on_progress=on_progress,
            answers_folder=folder,
        )
    if material.demonstrations is not None:
        examples = rendered(answerer, material.demonstrations)
        choose_path(answerer.loaded, examples)
        demonstrations = place_marks(answerer.loaded, answerer.renderer.tokens, examples)
    general = general_marks(answerer, wishes.general) if wishes.general else None
    return _Seen(marks, general, demonstrations)


def _written(
    model: str,
    material: _Material,
    wishes: Wishes,
    base: _Seen | None,
    tuned: _Seen,
    folder: Path,
    on_progress: Progress,
) -> Evaluation:
    """Put everything together, judge the conditions, and keep it in the run's folder."""
    before = None if base is None else base.marks
    evaluation = Evaluation(model=model)
    if material.test_set is not None and tuned.marks is not None:
        metrics = [m for m in wishes.metrics if m.name in tuned.marks.answers]
        evaluation = evaluation_of(model, tuned.marks, before, material.test_set, metrics=metrics)
        record(model, tuned.marks, before, material.test_set)
        evaluation = replace(evaluation, overlap=overlap_of(model, material.test_set, tuned.marks))
    evaluation = replace(
        evaluation,
        forgetting=_forgetting(base, tuned, wishes),
        demonstrations=_demonstrations(model, material, base, tuned),
        judge=_judged(material, before, tuned.marks, wishes, folder, on_progress),
    )
    if material.demonstrations is not None:
        rejected = [entry.to_json() for entry in material.demonstrations.ledger.rejected]
        evaluation = replace(
            evaluation,
            rows_in=evaluation.rows_in + material.demonstrations.ledger.rows_in,
            rejected=[*evaluation.rejected, *rejected],
        )
    figures = figures_of(evaluation)
    gate = judge_conditions(wishes.conditions, figures, certain=wishes.certain)
    asked = None if wishes.held_out is None else wishes.held_out.sentence
    evaluation = replace(evaluation, gate=gate, asked=asked)
    write_evaluation(model, evaluation)
    return evaluation


def _forgetting(base: _Seen | None, tuned: _Seen, wishes: Wishes) -> Forgetting | None:
    if base is None or base.general is None or tuned.general is None:
        return None
    return forgetting_of(base.general, tuned.general, most=wishes.most_forgotten)


def _demonstrations(
    model: str, material: _Material, base: _Seen | None, tuned: _Seen
) -> list[RowMarks] | None:
    if material.demonstrations is None or base is None:
        return None
    return row_marks(
        material.demonstrations.conversations,
        base.demonstrations or [],
        tuned.demonstrations or [],
        learned_by(model),
    )


def _judged(
    material: _Material,
    base: Marks | None,
    tuned: Marks | None,
    wishes: Wishes,
    folder: Path,
    on_progress: Progress,
) -> Verdicts | None:
    if wishes.judge is None or material.test_set is None or base is None or tuned is None:
        return None
    written = next((m.name for m in wishes.metrics if m.choice is None), "exact_match")
    if written not in tuned.answers:
        raise UserError(
            "a judge compares written answers, and these are chosen",
            where="--judge",
            next_step="Add a metric of written answers, such as --metric exact_match",
        )
    pairs, name = answers_of(material.test_set, base, tuned, written), f"judged by {wishes.judge.model}"
    return judge_pairs(wishes.judge, pairs, folder, on_pair=lambda done: on_progress(name, done, len(pairs)))


def write_evaluation(model: str, evaluation: Evaluation) -> None:
    """Keep what was found in the folder of the run, over what an earlier call found, and renew its report.

    What is found of a checkpoint is not kept: the report is that of the model that the run kept.
    """
    folder = RunFolder(Path(model))
    if not folder.holds_a_run():
        return
    found = evaluation.to_json()
    if evaluation.demonstrations is not None:
        files.write_jsonl(folder.demonstrations, map(asdict, evaluation.demonstrations))
        found["demonstrations"] = summary_of(evaluation.demonstrations)
    new = {key: value for key, value in found.items() if value not in ([], {})}
    earlier = _earlier(folder.evaluation)
    found_in_all = {**earlier, **new, "gate": found.get("gate", []), "overlap": _overlap(earlier, new)}
    files.write_json(folder.evaluation, found_in_all)
    write_report(folder.path)


def _overlap(earlier: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was trained on of the figures that stand now: comparisons that stay become no more held out than they were."""
    before: Mapping[str, Any] | None = earlier.get("overlap")
    now: Mapping[str, Any] | None = new.get("overlap")
    comparisons_stay = bool(earlier.get("comparisons")) and "comparisons" not in new
    if "held_out" not in new or (comparisons_stay and not (now and now["trained_on"])):
        return before
    return now


def _earlier(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(read_text(path, OBJECT_BYTES, "Remove it"))
    except (UserError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
