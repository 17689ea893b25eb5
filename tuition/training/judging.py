"""How a run is judged while it learns: what is measured, how often, and by what the best checkpoint is chosen.

Evaluators are made here and handed into the loop, which knows none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tuition.batch import Plan
from tuition.errors import UserError
from tuition.evaluate.forgetting import GeneralText, find_general, read_general
from tuition.evaluate.heldout import held_out_loss, learned_bytes
from tuition.evaluate.running import AnswerScorer, make_scorer
from tuition.recipe import Recipe, RenderSettings
from tuition.render import Renderer
from tuition.starter import general_path
from tuition.train.choosing import LOWER_IS_BETTER, Choosing
from tuition.train.learner import Learner
from tuition.train.loop import Evaluator

if TYPE_CHECKING:
    from tuition.training.material import Material
    from tuition.training.ready import Ready

_MOST_EVALUATIONS = 10
_SHARE_OF_TIME = 0.2


@dataclass(frozen=True, slots=True)
class Judging:
    """What a run is judged by.

    Attributes:
        scorer: metrics of answers to held-out prompts; None where no metric is asked for.
        general: text on which is seen what was forgotten; None where there is none.
        choosing: how the best checkpoint is told.
    """

    scorer: AnswerScorer | None
    general: GeneralText | None
    choosing: Choosing


def make_judging(material: Material) -> Judging:
    """Everything that judging needs, read before a weight is loaded.

    Raises:
        UserError: a metric cannot be taken, there is nothing held out to judge by, or the general text cannot
            be read.
    """
    recipe = material.recipe
    metrics = metrics_of(recipe)
    _refuse_nothing_held_out(recipe, metrics, bool(material.corpus.validation))
    sources = (*material.sources.train, *material.sources.validation)
    scorer = (
        make_scorer(
            material.corpus.held_out,
            sources,
            metrics,
            most=recipe.eval_prompts,
            max_new_tokens=recipe.eval_max_new_tokens,
        )
        if metrics
        else None
    )
    averaged = recipe.average_checkpoints if recipe.average_of == "best" else None
    choosing = Choosing(recipe.best_by, averaged or 1, recipe.early_stopping_patience)
    return Judging(scorer, _general(material), choosing)


def metrics_of(recipe: Recipe) -> list[str]:
    """The metrics of answers that are measured: those asked for, and the one that chooses."""
    chooses = [] if recipe.best_by in LOWER_IS_BETTER else [recipe.best_by]
    return list(dict.fromkeys([*recipe.eval_metrics, *chooses]))


def _refuse_nothing_held_out(recipe: Recipe, metrics: list[str], held_out: bool) -> None:
    asks = {
        "eval_metrics": bool(recipe.eval_metrics),
        "best_by": bool(metrics) and not recipe.eval_metrics,
        "early_stopping_patience": recipe.early_stopping_patience is not None,
        "average_checkpoints": recipe.average_checkpoints is not None,
    }
    wanting = [key for key, asked in asks.items() if asked]
    if wanting and not held_out:
        raise UserError(
            "no row is held out to judge by",
            where=", ".join(wanting),
            next_step="Raise val_split, or name held-out rows in val_data",
        )


def _general(material: Material) -> GeneralText | None:
    """General text is rendered apart: what is learned, and where answers stop, must not depend on it."""
    given = material.recipe.general
    if not given:
        return None
    named = general_path(given)
    renderer = Renderer.from_settings(
        material.tokenizer,
        material.template,
        RenderSettings(),
        max_length=int(material.recipe.max_length),
        positions=material.renderer.positions,
    )
    return read_general(renderer, find_general((named,) if isinstance(named, str) else tuple(named)))


# --- how often ---


def loss_every_steps(material: Material, plan: Plan) -> int:
    """Ten times a run, or as often as takes at most a fifth of it; scoring a token costs a third of learning it."""
    corpus = material.corpus
    return _every_steps(plan, plan.epochs * corpus.train.tokens, corpus.validation.tokens / 3)


def loss_seconds(ready: Ready) -> float:
    """About how long the held-out losses of a whole run take, the base model's among them."""
    steps, every = ready.plan.steps, int(ready.recipe.eval_every_steps)
    return (1 + math.ceil(steps / every)) * ready.corpus.validation.tokens / 3 / ready.trial.tokens_per_second


def answers_every_steps(
    judging: Judging, material: Material, plan: Plan, learner: Learner, speed: float
) -> int:
    """The same for answers, by the time that the first tokens of them take.

    Args:
        speed: tokens learned a second.
    """
    if judging.scorer is None:
        return plan.steps
    corpus = material.corpus
    learning = plan.epochs * corpus.train.tokens / speed
    return _every_steps(plan, learning, judging.scorer.most_seconds(learner, material.renderer))


def _every_steps(plan: Plan, learning: float, evaluation: float) -> int:
    affordable = int(_SHARE_OF_TIME * learning / max(1e-9, evaluation))
    return max(1, plan.steps // min(_MOST_EVALUATIONS, max(1, affordable)))


# --- what the loop is given ---


def evaluators_of(ready: Ready, go_on: Callable[[], None]) -> list[Evaluator]:
    """What is measured while the run learns, the same on all ranks; nothing where no row is held out.

    Args:
        go_on: asked often; what it raises ends an evaluation.
    """
    recipe, corpus, scorer = ready.recipe, ready.corpus, ready.judging.scorer
    if not corpus.validation:
        return []
    text_bytes = learned_bytes(corpus.validation, ready.renderer.tokens)
    evaluators = [Evaluator(int(recipe.eval_every_steps), partial(_loss, ready, text_bytes, go_on))]
    if scorer is not None:
        measure = partial(_answers, ready, scorer, go_on)
        evaluators.append(Evaluator(int(recipe.eval_metrics_every_steps), measure))
    return evaluators


def _loss(ready: Ready, text_bytes: float, go_on: Callable[[], None]) -> dict[str, float]:
    found = held_out_loss(
        ready.learner, ready.corpus.validation, text_bytes=text_bytes, packing=ready.packing, go_on=go_on
    )
    return {"loss": found.loss, "bits_per_byte": found.bits_per_byte, "tokens": found.tokens}


def _answers(ready: Ready, scorer: AnswerScorer, go_on: Callable[[], None]) -> dict[str, float]:
    # the same on all ranks, also where a user's metric draws
    told: dict[str, float] = ready.learner.ranks.told(scorer.scores(ready.learner, ready.renderer, go_on))
    return told


def chooser_of(evaluators: Sequence[Evaluator], by: str) -> Callable[[], float]:
    """What gives the one figure that chooses, of the model as it is now."""
    kind = evaluators[0] if by in LOWER_IS_BETTER else evaluators[-1]
    return lambda: kind.measure()[by]
