"""The opening screen of a run: what will be learned, from what, for how long, and what to look at first."""

from __future__ import annotations

from pathlib import Path

from tuition.counting import counted
from tuition.data import split_share
from tuition.recipe import Recipe
from tuition.render import unread_pickles
from tuition.render.preview import token_texts
from tuition.render.proof import Proof
from tuition.screen import Opening, by_severity, duration, size
from tuition.starter import display_name
from tuition.train.folder import RunFolder
from tuition.training.ready import Ready

Fact = tuple[str, str]


def opening_of(ready: Ready, folder: RunFolder) -> Opening:
    """All that is known before step 1, for a person."""
    recipe, corpus = ready.recipe, ready.corpus
    return Opening(
        title=f"tuition: {recipe.method} fine-tuning of {display_name(recipe.model)}",
        facts=[
            *_model(ready),
            *_data(ready),
            _plan(ready),
            *_judged(ready),
            *(("proof" if n == 0 else "", _proof_line(proof)) for n, proof in enumerate(ready.proofs)),
            *_machine(ready),
            ("run folder", str(folder.path)),
        ],
        example=token_texts(corpus.at_hand.typical, ready.renderer.tokens),
        findings=by_severity(corpus.totals.findings),
        warnings=_warnings(ready),
    )


def _model(ready: Ready) -> list[Fact]:
    name, method = display_name(ready.recipe.model), ready.recipe.method
    return [
        ("model", f"{name}  {ready.parameters:,} parameters, {ready.trainable:,} learn ({method})"),
        ("template", ready.template.provenance if ready.template else "none: plain text"),
    ]


def _data(ready: Ready) -> list[Fact]:
    corpus, facts = ready.corpus, ready.corpus.facts()
    share = facts["learned_tokens"] / facts["tokens"]
    named = [split_share(source)[0] for source in (*ready.sources.train, *ready.sources.validation)]
    return [
        *(("data", f"{source}  {shape}") for source, shape in corpus.shapes.items()),
        *(("data", f"{name}  no row has a known shape") for name in named if name not in corpus.shapes),
        (
            "rows",
            f"{facts['rows_in']:,} in, {facts['kept']:,} kept, {facts['rejected']:,} rejected"
            f"{_counted(facts['left_out'], 'left out')}{_counted(facts['truncated'], 'cut')}",
        ),
        (
            "examples",
            f"{len(corpus.train):,} to learn from, {len(corpus.validation):,} held out; "
            f"longest {facts['longest_tokens']:,} of {int(ready.recipe.max_length):,} tokens",
        ),
        (
            "tokens",
            f"{facts['tokens']:,}, of which {facts['learned_tokens']:,} are learned ({share:.0%})",
        ),
    ]


def _plan(ready: Ready) -> Fact:
    recipe, plan = ready.recipe, ready.plan
    epochs = round(plan.epochs, 2)
    return (
        "plan",
        f"{counted(plan.steps, 'update')} of {counted(recipe.batch_size, 'example')} "
        f"({epochs:,g} epoch{'' if epochs == 1 else 's'}), "
        f"{_loss(recipe)}, learning rate {recipe.learning_rate:.1e} {recipe.lr_scheduler}",
    )


def _loss(recipe: Recipe) -> str:
    """How tokens are weighed, and what one costs where that is not -log p."""
    costs = {"dft": recipe.token_loss == "dft", "smoothed": recipe.label_smoothing > 0}
    named = " and ".join(name for name, chosen in costs.items() if chosen)
    noise = f", noise {recipe.neftune_alpha:g} (NEFTune)" if recipe.neftune_alpha else ""
    return f"{recipe.loss}{f' ({named})' if named else ''}{noise}"


def _judged(ready: Ready) -> list[Fact]:
    """What chooses the model, and how often it is looked at; nothing where no row is held out."""
    recipe, scorer = ready.recipe, ready.judging.scorer
    if not ready.corpus.validation:
        return []
    parts = [f"held-out loss every {_updates(int(recipe.eval_every_steps))}"]
    if scorer is not None:
        names = ", ".join(metric.name for metric in scorer.metrics)
        every = _updates(int(recipe.eval_metrics_every_steps))
        parts.append(f"{names} of {counted(len(scorer.questions), 'answer')} every {every}")
    parts.append(f"the best by {recipe.best_by} is kept" if recipe.keep == "best" else "the last is kept")
    if recipe.early_stopping_patience is not None:
        parts.append(
            f"stops after {counted(recipe.early_stopping_patience, 'evaluation')} without a gain in {recipe.best_by}"
        )
    if recipe.average_checkpoints is not None:
        parts.append(
            f"or the average of the {recipe.average_checkpoints} {recipe.average_of}, where it is better"
        )
    return [("judged", "; ".join(parts))]


def _updates(count: int) -> str:
    """Behind `every`."""
    return "update" if count == 1 else counted(count, "update")


def _machine(ready: Ready) -> list[Fact]:
    recipe, trial = ready.recipe, ready.trial
    # by epochs and not by updates, of which the last of an epoch may be smaller
    tokens_to_learn = ready.plan.epochs * ready.corpus.train.tokens
    return [
        ("machine", f"{ready.device} in {recipe.dtype}; {_most_in_a_pass(recipe)}{ready.path.how}"),
        (
            "estimate",
            f"{duration(tokens_to_learn / trial.tokens_per_second)}{_scoring(ready)} and "
            f"{size(trial.peak_bytes)} of memory "
            f"({trial.tokens_per_second:,.0f} tokens/s measured on the largest pass, {trial.tokens:,} tokens"
            f"{', activations computed twice' if trial.checkpointing else ''}"
            f"{' and kept in the CPU memory' if trial.offloading else ''})",
        ),
    ]


def _most_in_a_pass(recipe: Recipe) -> str:
    most = recipe.micro_batch_size
    return f"at most {counted(most, 'example')} in a pass; " if most else ""


def _scoring(ready: Ready) -> str:
    """What the held-out losses add to the time of the updates, where that is to be felt."""
    from tuition.training.judging import loss_seconds  # which imports torch

    seconds = loss_seconds(ready)
    return f" to learn, {duration(seconds)} to score the held-out rows," if seconds >= 1 else ""


def _warnings(ready: Ready) -> list[str]:
    recipe, corpus, template = ready.recipe, ready.corpus, ready.template
    warnings = []
    if template is not None and template.date is not None:
        warnings.append(
            f"The chat template asks for today's date, and all rows are learned with {template.date} (R028). "
            "Served on another day, the model is given another date."
        )
    if pickles := unread_pickles(Path(recipe.model)):
        warnings.append(
            f"Not read, because a pickle can run code: {', '.join(pickles)}. The safetensors beside them are used."
        )
    if ready.sources.unread:
        warnings.append(ready.sources.unread)
    if not corpus.validation and recipe.val_split:
        warnings.append(
            "No row fell to validation, so the last checkpoint becomes the model. "
            "Raise val_split, or give --val-data, to choose by held-out loss."
        )
    if recipe.batch_size > len(corpus.train):
        warnings.append(
            f"batch_size {recipe.batch_size} is more than the {counted(len(corpus.train), 'example')}: "
            "every update sees them all."
        )
    return warnings


def _proof_line(proof: Proof) -> str:
    return f"{'✓' if proof.ok else '✗ allowed by the recipe:'} {proof.detail}"


def _counted(count: int, word: str) -> str:
    return f", {count:,} {word}" if count else ""
