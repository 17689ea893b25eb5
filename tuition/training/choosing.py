"""Which weights become the model: the best checkpoint, the last, or an average that measures better than it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuition.batch import Plan
from tuition.counting import counted
from tuition.recipe import Recipe
from tuition.train.averaging import average_weights
from tuition.train.checkpoint import Progress, load_weights
from tuition.train.choosing import Choosing
from tuition.train.folder import RunFolder
from tuition.train.loop import Evaluator
from tuition.train.shelf import checkpoint_steps
from tuition.training.judging import chooser_of
from tuition.training.ready import Ready


@dataclass(frozen=True, slots=True)
class Kept:
    """Which weights became the model, and why.

    Attributes:
        steps: of its checkpoint, or of those whose average it is.
        by: the figure that chose.
        value: that figure of the model on the held-out rows; None where it was not taken.
        average: what came of averaging: `steps`, `value`, the `value_without` of the checkpoint that would be
            kept otherwise, and whether the average `is_kept`; None where none was asked for.
        sentence: what is to be said about it; None: nothing.
    """

    steps: tuple[int, ...]
    by: str
    value: float | None
    average: dict[str, Any] | None = None
    sentence: str | None = None


def stays(recipe: Recipe, plan: Plan, step: int, newest: int) -> bool:
    """Whether a checkpoint stays because it ends an epoch, or will be averaged.

    By the cadence alone, so that the checkpoints of interruptions change nothing.
    """
    if recipe.keep_every_epoch and step % plan.steps_per_epoch == 0:
        return True
    if recipe.average_checkpoints is None or recipe.average_of != "last":
        return False
    every = int(recipe.save_every_steps)
    return step % every == 0 and step > newest - every * recipe.average_checkpoints


def choose_weights(
    ready: Ready, folder: RunFolder, progress: Progress, evaluators: Sequence[Evaluator]
) -> Kept:
    """Put the weights that become the model into the learner.

    Raises:
        UserError: a checkpoint that is needed is damaged.
    """
    recipe, choosing = ready.recipe, ready.judging.choosing
    best = progress.best_step
    chosen = best if recipe.keep == "best" and best is not None else progress.step
    value = progress.best_value if chosen == best else None
    if chosen != progress.step:
        _take(ready, folder, chosen)
    if recipe.average_checkpoints is None:
        return Kept((chosen,), choosing.by, value)
    steps = _steps_to_average(recipe, folder, progress)
    if len(steps) < 2:
        sentence = f"nothing is averaged: of the {counted(recipe.average_checkpoints, 'checkpoint')} there is {len(steps)}"
        return Kept((chosen,), choosing.by, value, sentence=sentence)
    return _better_of(ready, folder, chosen, value, steps, evaluators)


def _better_of(
    ready: Ready,
    folder: RunFolder,
    chosen: int,
    value: float | None,
    steps: Sequence[int],
    evaluators: Sequence[Evaluator],
) -> Kept:
    """The average of some checkpoints where it measures better than the chosen one, else that one."""
    choosing = ready.judging.choosing
    measure = chooser_of(evaluators, choosing.by)
    value = measure() if value is None else value
    average_weights([folder.checkpoints / f"step-{step}" for step in steps], ready.learned)
    ready.learner.masters.publish()
    averaged = measure()
    is_kept = choosing.is_better(averaged, value)
    if not is_kept:
        _take(ready, folder, chosen)
    return Kept(
        steps=tuple(steps) if is_kept else (chosen,),
        by=choosing.by,
        value=averaged if is_kept else value,
        average={"steps": list(steps), "value": averaged, "value_without": value, "is_kept": is_kept},
        sentence=_sentence(choosing, steps, averaged, chosen, value, is_kept=is_kept),
    )


def _sentence(
    choosing: Choosing, steps: Sequence[int], averaged: float, chosen: int, value: float, *, is_kept: bool
) -> str:
    names = f"the average of steps {', '.join(map(str, steps))}"
    if is_kept:
        return f"{names} is kept: {choosing.by} {averaged:.4f} on the held-out rows, {value:.4f} at step {chosen}"
    return (
        f"{names} is not kept: {choosing.by} {averaged:.4f} on the held-out rows is not better than "
        f"{value:.4f} at step {chosen}"
    )


def _take(ready: Ready, folder: RunFolder, step: int) -> None:
    load_weights(folder.checkpoints / f"step-{step}", ready.learned)
    ready.learner.masters.publish()


def _steps_to_average(recipe: Recipe, folder: RunFolder, progress: Progress) -> list[int]:
    """The best, or the last of the cadence, as far as they are there; oldest first."""
    there = set(checkpoint_steps(folder.checkpoints))
    every, count = int(recipe.save_every_steps), recipe.average_checkpoints or 0
    if recipe.average_of == "best":
        wanted = list(progress.best_steps)[:count]
    else:
        cadence = range(every, progress.step + 1, every)
        wanted = sorted({progress.step, *cadence}, reverse=True)[:count]
    return sorted(step for step in wanted if step in there)


def early_sentence(progress: Progress, by: str) -> str:
    """Why no update follows."""
    best = "" if progress.best_step is None else f" since step {progress.best_step}"
    return (
        f"stopped early after step {progress.step}: {counted(progress.evaluations_without_gain, 'evaluation')}{best} "
        f"brought no better {by}"
    )
