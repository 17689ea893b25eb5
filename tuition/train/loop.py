"""The loop. `train_step` reads top to bottom: count, forward, backward, clip, check, update, report."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from tuition.batch import Pack, Plan, make_packs
from tuition.conversation import Rendered
from tuition.errors import Interrupted, UserError
from tuition.recipe import OptimizerSettings
from tuition.train.checkpoint import Progress
from tuition.train.loss import LOSSES, step_loss
from tuition.train.masters import Masters
from tuition.train.memory import is_out_of_memory
from tuition.train.model import LoadedModel
from tuition.train.optimizer import OPTIMIZERS, learning_rate_at


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one update did. Loss is in nats a learned token (or an example, by the objective).

    `tokens` are those of the examples; `shared_tokens` of them were not computed again.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    shared_tokens: int
    learned_tokens: int
    seconds: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class EvalReport:
    """Held-out figures at one point of the run. Loss is in nats a learned token, weighted by token."""

    step: int
    eval_loss: float
    eval_bits_per_byte: float
    eval_tokens: int


@dataclass(slots=True)
class Learner(LoadedModel):
    """A model with the masters of its weights that learn, and the optimizer that moves them."""

    masters: Masters = field(kw_only=True)
    optimizer: torch.optim.Optimizer = field(kw_only=True)


def make_learner(
    model: Any, device: torch.device, dtype: torch.dtype, settings: OptimizerSettings
) -> Learner:
    """A model ready to learn: its weights that learn are float32 masters, whatever it computes in."""
    masters = Masters(model, dtype)
    optimizer = OPTIMIZERS[settings.optimizer](masters.parameters.values(), settings)
    return Learner(model.train(), device, dtype, masters=masters, optimizer=optimizer)


@dataclass(frozen=True, slots=True)
class Pacing:
    """When the loop looks up: updates between evaluations, checkpoints and journal lines."""

    eval_every_steps: int
    save_every_steps: int
    log_every_steps: int


@dataclass(slots=True)
class Hooks:
    """What the caller does at points of the loop. Evaluators come in here, so that training knows none."""

    on_step: Callable[[StepReport], None]
    on_eval: Callable[[EvalReport], None]
    evaluate: Callable[[int], EvalReport] | None
    save: Callable[[Progress], None]
    should_stop: Callable[[], bool] = field(default=lambda: False)


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
        UserError: the loss or a gradient is not finite; the weights are as before that update.
    """
    learner.model.train()
    weigh = LOSSES[settings.loss]
    most_examples, token_budget = packing if learner.packed else (1, packing[1])
    while progress.step < plan.steps:
        step = progress.step + 1
        batch = [examples[i] for i in plan.examples_of(step)]
        packs = make_packs(
            batch,
            weigh,
            max_examples=most_examples,
            token_budget=token_budget,
            share_prefixes=learner.shares,
        )
        try:
            report = train_step(learner, packs, batch, plan, settings, step)
        except (MemoryError, RuntimeError) as error:
            largest = max(packs, key=lambda pack: len(pack.lengths))
            if not is_out_of_memory(error) or len(largest.lengths) == 1:
                raise
            token_budget = max(
                1, len(largest.ids) // 2
            )  # another program took memory: smaller passes, same result
            continue
        progress.step = step
        progress.tokens += report.tokens
        progress.learned_tokens += report.learned_tokens
        progress.seconds += report.seconds
        if step % pacing.log_every_steps == 0 or step in (1, plan.steps):
            hooks.on_step(report)
        _look_up(plan, pacing, progress, hooks)
    return progress


def train_step(
    learner: Learner,
    packs: Sequence[Pack],
    batch: Sequence[Rendered],
    plan: Plan,
    settings: OptimizerSettings,
    step: int,
) -> StepReport:
    """One update of the weights, over all packs of the step."""
    started = time.perf_counter()
    whole_step_weight = sum(pack.weight for pack in packs)
    loss = torch.zeros((), device=learner.device)
    learner.masters.forget_gradients()
    for pack in packs:
        pack_loss = step_loss(learner, pack, whole_step_weight)
        pack_loss.backward()
        loss += pack_loss.detach()
    gradients = learner.masters.gather()
    loss_value, norm_value = torch.stack([loss, torch.nn.utils.get_total_norm(gradients)]).tolist()
    refuse_not_finite(learner, batch, step, loss_value, norm_value)
    clip(gradients, norm_value, settings.max_grad_norm)
    rate = learning_rate_at(step, steps=plan.steps, settings=settings)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    learner.optimizer.step()
    learner.masters.publish()
    tokens, seconds = sum(pack.tokens for pack in packs), time.perf_counter() - started
    return StepReport(
        step=step,
        epoch=plan.epoch_of(step),
        loss=loss_value,
        learning_rate=rate,
        grad_norm=norm_value,
        tokens=tokens,
        shared_tokens=sum(pack.shared_tokens for pack in packs),
        learned_tokens=sum(len(pack.rows) for pack in packs),
        seconds=seconds,
        tokens_per_second=tokens / seconds,
    )


def clip(gradients: Sequence[torch.Tensor], norm: float, most: float) -> None:
    """Scale gradients down to a norm of at most `most`; 0: leave them."""
    if most and norm > most:
        torch._foreach_mul_(list(gradients), most / (norm + 1e-6))


def refuse_not_finite(
    learner: Learner, batch: Sequence[Rendered], step: int, loss: float, grad_norm: float
) -> None:
    """Stop before the update when the loss or the gradient is NaN or infinite.

    Raises:
        UserError: naming the step and the rows in it.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    learner.masters.forget_gradients()
    rows = ", ".join(str(example.origin) for example in batch[:8])
    more = f" and {len(batch) - 8} more" if len(batch) > 8 else ""
    raise UserError(
        f"the loss is {loss} and the gradient's norm {grad_norm} at step {step}; the weights were not changed. "
        f"The step's rows: {rows}{more}",
        next_step="Lower learning_rate, set dtype: float32, or look at these rows with `tuition preview`",
    )


def _look_up(plan: Plan, pacing: Pacing, progress: Progress, hooks: Hooks) -> None:
    """After an update: evaluate, save, or stop, when it is time to."""
    last, stop = progress.step == plan.steps, hooks.should_stop()
    improved = False
    if hooks.evaluate is not None and (last or progress.step % pacing.eval_every_steps == 0):
        report = hooks.evaluate(progress.step)
        hooks.on_eval(report)
        improved = progress.best_eval_loss is None or report.eval_loss < progress.best_eval_loss
        if improved:
            progress.best_step, progress.best_eval_loss = progress.step, report.eval_loss
    if last or stop or improved or progress.step % pacing.save_every_steps == 0:
        hooks.save(progress)
    if stop and not last:
        raise Interrupted


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask the loop to stop after the current update; a second one leaves at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller keeps its own signals
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
