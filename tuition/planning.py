"""The plan before the bill: what a recipe will take on other hardware, from its data and its model's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuition.counting import counted
from tuition.errors import UserError
from tuition.recipe import Recipe
from tuition.screen import duration, size

if TYPE_CHECKING:
    from tuition.train.budget import Budget

_BYTES_A_TOKEN = 3.6  # of JSON rows of chat in English, quotes and keys counted in
_LEARNED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Expected:
    """A plan, to print.

    Attributes:
        facts: (what, value) in the order of the screen.
        fits: whether a rank has the memory.
        numbers: the same for programs.
    """

    facts: list[tuple[str, str]]
    fits: bool
    numbers: dict[str, Any]


def plan_of(recipe: Recipe, *, gpus: int, gpu: str) -> Expected:
    """What a run of this recipe needs on so many GPUs of a kind.

    Rows and lengths are guessed from the data, and half of the tokens are taken to be learned.

    Raises:
        UserError: the GPU is not known, or the model is no common decoder.
    """
    from tuition.train.budget import GPUS, budget_of, shape_of
    from tuition.train.model import load_config, quiet_transformers

    kind = gpu.lower()
    if kind not in GPUS:
        raise UserError(
            f"'{gpu}' is not in the list", where="--gpu", next_step=f"Known are {', '.join(GPUS)}"
        )
    quiet_transformers()
    chosen = recipe.replace(dtype="bfloat16") if recipe.dtype == "auto" else recipe
    shape = shape_of(load_config(recipe.model, recipe.revision, trusted=recipe.trust_remote_code))
    rows, tokens = _data(recipe)
    mean = min(tokens / rows, _longest(recipe))
    budget = budget_of(
        shape, chosen, ranks=gpus, gpu=kind, tokens_per_update=mean * recipe.batch_size,
        learned_share=_LEARNED_SHARE, mean_length=mean,
    )  # fmt: skip
    updates = recipe.max_steps or max(1, round(recipe.epochs * rows / recipe.batch_size))
    facts = [
        ("model", f"{shape.weights:,} weights in {counted(shape.layers, 'layer')} of width {shape.width:,}"),
        ("data", f"about {counted(rows, 'row')} of {mean:,.0f} tokens, guessed from the size of the files"),
        (
            "hardware",
            f"{gpus} × {kind}, {chosen.parallel}, {chosen.method}, {chosen.optimizer}, {chosen.dtype}",
        ),
        *_in_words(budget, gpus, updates),
    ]
    return Expected(facts, budget.fits, _numbers(budget, updates))


def _in_words(budget: Budget, gpus: int, updates: int) -> Iterator[tuple[str, str]]:
    """Memory by part, bytes on the wire, speed and time; and what to change where it does not fit."""
    assert budget.seconds is not None and budget.room is not None and budget.tokens_per_second is not None
    seconds = updates * budget.seconds
    verdict = "fits" if budget.fits else "does not fit"
    yield from ((name, size(count)) for name, count in budget.parts.items() if count)
    yield "memory a GPU", f"{size(budget.bytes)} of {size(budget.room)}: {verdict}"
    yield "passes", f"at most {counted(budget.pass_tokens, 'token')} in one"
    yield "on the wire", f"{size(budget.wire_bytes)} a GPU and update"
    yield "speed", f"{budget.tokens_per_second:,.0f} tokens/s over all, {budget.seconds:.2f} s an update"
    hours = f"{gpus * seconds / 3600:,.1f} GPU hours"
    yield "time", f"{duration(seconds)} for {counted(updates, 'update')}, {hours}"
    yield from (("change", words) for words in budget.advice)


def _numbers(budget: Budget, updates: int) -> dict[str, Any]:
    return {
        "fits": budget.fits, "pass_tokens": budget.pass_tokens, "parts": budget.parts, "bytes": budget.bytes,
        "room": budget.room, "wire_bytes": budget.wire_bytes, "seconds_per_update": budget.seconds,
        "seconds": None if budget.seconds is None else updates * budget.seconds,
        "tokens_per_second": budget.tokens_per_second, "updates": updates, "change": list(budget.advice),
    }  # fmt: skip


def _longest(recipe: Recipe) -> int:
    """The most tokens of an example; longer rows are left out, cut or split."""
    from tuition.render.modelfiles import longest_example, positions_in
    from tuition.render.modelfolder import open_model

    opened = open_model(recipe.model, recipe.revision, trusted=recipe.trust_remote_code)
    return longest_example(recipe.max_length, positions_in(opened.path))


def _data(recipe: Recipe) -> tuple[int, float]:
    """Rows to learn from and their tokens, guessed from the first rows and the sizes of files; nothing is rendered."""
    from tuition.data import extent_of, find_sources

    sources = find_sources(recipe.data)
    extents = [extent_of(name) for name in sources.train]
    rows = sum(extent.rows for extent in extents)
    tokens = sum(extent.bytes for extent in extents) / _BYTES_A_TOKEN
    learned = 1.0 if recipe.val_data else 1.0 - recipe.val_split
    if recipe.replay:
        learned /= 1.0 - recipe.replay_share  # general rows are taken to be as long
    return max(1, round(rows * learned)), tokens * learned
