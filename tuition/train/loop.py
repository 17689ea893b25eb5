"""The loop. `train_step` reads top to bottom: count, forward, backward, clip, check, update, report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch

from tuition.batch import Pack, Plan, Weigh, make_packs
from tuition.batch.stream import batch_of
from tuition.conversation import Rendered
from tuition.counting import counted
from tuition.errors import Interrupted, LeftInTheMiddle, UserError
from tuition.recipe import OptimizerSettings
from tuition.train.checkpoint import Progress
from tuition.train.choosing import Choosing, note_figures
from tuition.train.learner import Learner
from tuition.train.loss import LOSSES, step_loss, token_loss_of
from tuition.train.memory import give_back_freed_memory, is_out_of_memory
from tuition.train.model import LoadedModel
from tuition.train.optimizer import learning_rate_at
from tuition.train.randomness import RandomState, random_state, restore_random_state
from tuition.train.reports import EvalReport, SkipReport, StepReport
from tuition.train.trunk import over_trunks

_MOST_SKIPPED_IN_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Figures of the model as it is, by name; taken every so many updates, and after the last."""

    every_steps: int
    measure: Callable[[], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Pacing:
    """How many updates the loop takes between checkpoints and between journal lines."""

    save_every_steps: int
    log_every_steps: int
    save_every_epoch: bool = False


@dataclass(slots=True)
class Hooks:
    """What the caller does at points of the loop. Evaluators come in here, so that training knows none."""

    on_step: Callable[[StepReport], None]
    on_eval: Callable[[EvalReport], None]
    save: Callable[[Progress], None]
    evaluators: Sequence[Evaluator] = ()
    choosing: Choosing = field(default_factory=Choosing)
    should_stop: Callable[[], bool] = field(default=lambda: False)
    hurry: Callable[[], bool] = field(default=lambda: False)
    breakable: Callable[[], AbstractContextManager[None]] = field(default=nullcontext)
    on_skip: Callable[[SkipReport], None] = field(default=lambda report: None)


class NotFinite(UserError):
    """A loss or a gradient was NaN or infinite; the weights are as before."""

    rows: tuple[str, ...] = ()


def train(
    learner: Learner,
    examples: Sequence[Rendered],
    plan: Plan,
    settings: OptimizerSettings,
    packing: tuple[int | None, int],
    pacing: Pacing,
    progress: Progress,
    hooks: Hooks,
) -> Progress:
    """Take the plan's updates that are still to take.

    Args:
        packing: most examples in a pack (None: no limit), most tokens in a pack.
        progress: where to go on from; a fresh one begins at update 1.

    Raises:
        Interrupted: after a checkpoint was saved.
        NotFinite: the loss or a gradient is not finite; the weights are as before that update.
    """
    learner.model.train()
    weigh = LOSSES[settings.loss]
    most_examples, token_budget = packing if learner.packed else (1, packing[1])
    if progress.evaluation_is_due:
        _evaluate_save_or_stop(plan, pacing, progress, hooks)
    first_step = progress.step + 1
    while progress.step < plan.steps and not progress.stopped_early:
        step = progress.step + 1
        batch = batch_of(examples, plan, step)
        packs = packs_of(learner, batch, weigh, (most_examples, token_budget))
        before = random_state()
        try:
            report = train_step(learner, packs, batch, plan, settings, step, hooks)
        except LeftInTheMiddle:
            _back_to(before, learner)
            hooks.save(progress)
            raise Interrupted from None
        except NotFinite as fault:
            if settings.not_finite == "stop" or progress.skipped_in_a_row == _MOST_SKIPPED_IN_A_ROW:
                _back_to(before, learner)
                hooks.save(progress)
                raise
            _skip(fault, plan, step, progress, hooks)
            _evaluate_save_or_stop(plan, pacing, progress, hooks)
            continue
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or learner.updating or learner.ranks.many:
                raise  # other ranks are waiting in the middle of this update
            _back_to(before, learner)
            token_budget = _smaller_budget(error, learner, packs, progress, hooks)
            continue
        if step == first_step:
            give_back_freed_memory()
        _count(progress, report)
        if step % pacing.log_every_steps == 0 or step in (1, plan.steps):
            hooks.on_step(report)
        _evaluate_save_or_stop(plan, pacing, progress, hooks)
    return progress


def packs_of(
    learner: Learner, batch: Sequence[Rendered], weigh: Weigh, packing: tuple[int | None, int]
) -> list[Pack]:
    """The passes that this rank makes of an update's examples."""
    lay = partial(
        make_packs,
        weigh=weigh,
        max_examples=packing[0],
        token_budget=packing[1],
        share_prefixes=learner.shares,
        share_trunks=learner.trunks,
        lanes=learner.lanes,
        work=learner.work,
        longest_alike=learner.longest_alike,
    )
    mine = lay(learner.ranks.share(batch, learner.work))
    return learner.ranks.even(mine, lambda: lay(batch[:1])[0])


def train_step(
    learner: Learner,
    packs: Sequence[Pack],
    batch: Sequence[Rendered],
    plan: Plan,
    settings: OptimizerSettings,
    step: int,
    hooks: Hooks | None = None,
) -> StepReport:
    """One update of the weights, over all packs of the step."""
    started = time.perf_counter()
    hurry, breakable = (hooks.hurry, hooks.breakable) if hooks else (lambda: False, nullcontext)
    ranks = learner.ranks
    (whole_step_weight,) = ranks.sums(sum(pack.weight for pack in packs))
    learner.masters.forget_gradients()

    def forward_and_backward(lane: LoadedModel, pack: Pack) -> torch.Tensor:
        if hurry():
            raise LeftInTheMiddle
        loss = step_loss(lane, pack, whole_step_weight, token_loss_of(settings))
        loss.backward()
        return loss.detach()

    with breakable():
        losses = over_trunks(learner.as_lanes(), forward_and_backward, packs)
    if ranks.many:
        learner.masters.join()
        ranks.add_up(learner.masters.slots())
    norm_value = ranks.norm(learner.masters.norms())
    mine = [pack for pack in packs if pack.weight]
    loss_value, tokens, shared_tokens, learned_tokens = ranks.sums(
        torch.stack(losses).sum().item(),
        sum(pack.tokens for pack in mine),
        sum(pack.shared_tokens for pack in mine),
        sum(len(pack.rows) for pack in mine),
    )
    refuse_not_finite(learner, batch, step, loss_value, norm_value)
    rate = learning_rate_at(step, steps=plan.steps, settings=settings)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    learner.updating = True  # from here on, a failed step cannot be taken again
    learner.masters.update(learner.optimizer, shrink=shrink_to(settings.max_grad_norm, norm_value))
    learner.updating = False
    seconds = time.perf_counter() - started
    return StepReport(
        step=step,
        epoch=plan.epoch_of(step),
        loss=loss_value,
        learning_rate=rate,
        grad_norm=norm_value,
        tokens=int(tokens),
        shared_tokens=int(shared_tokens),
        learned_tokens=int(learned_tokens),
        seconds=seconds,
        tokens_per_second=tokens / seconds,
    )


def shrink_to(most: float, norm: float) -> float:
    """What gradients of this norm are multiplied by to have a norm of at most `most`; 0: they are left."""
    return most / (norm + 1e-6) if most and norm > most else 1.0


def refuse_not_finite(
    learner: Learner, batch: Sequence[Rendered], step: int, loss: float, grad_norm: float
) -> None:
    """Stop before the update when the loss or the gradient is NaN or infinite.

    Raises:
        NotFinite: naming the step and the rows in it.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    learner.masters.forget_gradients()
    rows = tuple(str(example.origin) for example in batch)
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    fault = NotFinite(
        f"the loss is {loss} and the gradient's norm {grad_norm} at step {step}; the weights were not changed. "
        f"The step's rows: {', '.join(rows[:8])}{more}",
        next_step="Lower learning_rate, set dtype: float32, set not_finite: skip, or look at these rows with "
        "`tuition preview`",
    )
    fault.rows = rows
    raise fault


def _back_to(random: RandomState, learner: Learner) -> None:
    """As before the update that was begun: it can be taken again and gives the same."""
    learner.masters.forget_gradients()
    restore_random_state(random)


def _smaller_budget(
    error: Exception, learner: Learner, packs: Sequence[Pack], progress: Progress, hooks: Hooks
) -> int:
    """Another program took memory: the tokens of smaller passes, one at a time, which give the same result.

    Raises:
        UserError: one example alone does not fit; a checkpoint was saved.
    """
    largest = max(packs, key=lambda pack: (len(pack.lengths), pack.held_tokens))
    tokens = largest.held_tokens
    if len(largest.lengths) == 1 and learner.lanes == 1:
        hooks.save(progress)
        raise UserError(
            f"memory ran out at step {progress.step + 1}, and a pass of one example ({counted(tokens, 'token')}) cannot be "
            "made smaller; no example was left out",
            next_step="Free memory, or set activation_checkpointing: on, and go on with --resume",
        ) from error
    learner.lanes = 1
    return max(1, tokens // 2)


def _count(progress: Progress, report: StepReport) -> None:
    """An update was taken."""
    progress.step = report.step
    progress.skipped_in_a_row = 0
    progress.tokens += report.tokens
    progress.learned_tokens += report.learned_tokens
    progress.seconds += report.seconds


def _skip(fault: NotFinite, plan: Plan, step: int, progress: Progress, hooks: Hooks) -> None:
    """Leave an update out, and say so."""
    progress.step = step
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    hooks.on_skip(SkipReport(step, plan.epoch_of(step), fault.what, fault.rows))


def _evaluate_save_or_stop(plan: Plan, pacing: Pacing, progress: Progress, hooks: Hooks) -> None:
    """After an update, whichever of these it is time for."""
    last, stop = progress.step == plan.steps, hooks.should_stop()
    among_the_best = _evaluate(progress, hooks, last=last)
    last = last or progress.stopped_early
    epoch_ends = pacing.save_every_epoch and progress.step % plan.steps_per_epoch == 0
    if last or stop or among_the_best or epoch_ends or progress.step % pacing.save_every_steps == 0:
        hooks.save(progress)
    if stop and not last:
        raise Interrupted


def _evaluate(progress: Progress, hooks: Hooks, *, last: bool) -> bool:
    """Take the figures that are due, all or none; whether this step's checkpoint is among the best now."""
    due = [e for e in hooks.evaluators if last or progress.step % e.every_steps == 0]
    progress.evaluation_is_due = False
    if not due:
        return False
    before = random_state()
    figures: dict[str, float] = {}
    try:
        for evaluator in due:
            with hooks.breakable():
                figures |= evaluator.measure()
    except (Interrupted, LeftInTheMiddle):  # it takes longer than a stop may wait: a resume begins with it
        restore_random_state(before)
        progress.evaluation_is_due = True
        hooks.save(progress)
        raise Interrupted from None
    restore_random_state(before)  # whatever measured it, the run goes on as if nobody had looked
    hooks.on_eval(EvalReport(progress.step, figures))
    return note_figures(progress, figures, hooks.choosing)
