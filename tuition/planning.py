"""The plan before the bill: what a recipe will take on other hardware, from its data and its model's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.errors import UserError
from tuition.recipe import Recipe
from tuition.screen import duration, size

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

    Lengths are guessed from the bytes of the files, and half of the tokens are taken to be learned.

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
    mean = tokens / rows
    budget = budget_of(
        shape, chosen, ranks=gpus, gpu=kind, tokens_per_update=mean * recipe.batch_size,
        learned_share=_LEARNED_SHARE, mean_length=mean,
    )  # fmt: skip
    assert budget.seconds is not None and budget.room is not None and budget.tokens_per_second is not None
    updates = recipe.max_steps or max(1, round(recipe.epochs * rows / recipe.batch_size))
    seconds = updates * budget.seconds
    verdict = "fits" if budget.fits else "does not fit"
    facts = [
        ("model", f"{shape.weights:,} weights in {shape.layers} layers of width {shape.width:,}"),
        ("data", f"{rows:,} rows of about {mean:,.0f} tokens"),
        (
            "hardware",
            f"{gpus} × {kind}, {chosen.parallel}, {chosen.method}, {chosen.optimizer}, {chosen.dtype}",
        ),
        *((name, size(count)) for name, count in budget.parts.items() if count),
        ("memory a GPU", f"{size(budget.bytes)} of {size(budget.room)}: {verdict}"),
        ("on the wire", f"{size(budget.wire_bytes)} a GPU and update"),
        ("speed", f"{budget.tokens_per_second:,.0f} tokens/s over all, {budget.seconds:.2f} s an update"),
        ("time", f"{duration(seconds)} for {updates:,} updates, {gpus * seconds / 3600:,.1f} GPU hours"),
        *(("change", words) for words in budget.advice),
    ]
    numbers = {
        "fits": budget.fits, "parts": budget.parts, "bytes": budget.bytes, "room": budget.room,
        "wire_bytes": budget.wire_bytes, "seconds_per_update": budget.seconds, "seconds": seconds,
        "tokens_per_second": budget.tokens_per_second, "updates": updates, "change": list(budget.advice),
    }  # fmt: skip
    return Expected(facts, budget.fits, numbers)


def _data(recipe: Recipe) -> tuple[int, float]:
    """Rows to learn from and their tokens, guessed from the bytes of files; nothing is rendered."""
    from tuition.data import find_sources, split_share

    rows = bytes_read = 0
    for name in find_sources(recipe.data).train:
        path = Path(split_share(name)[0])
        if not path.is_file():
            raise UserError(
                "is no file on this machine, and its rows cannot be counted",
                where=name,
                next_step="Download it, or name a file of about the same size",
            )
        with path.open("rb") as stream:
            rows += sum(1 for line in stream if line.strip())
        bytes_read += path.stat().st_size
    if not rows:
        raise UserError("holds no rows", where=", ".join(recipe.data), next_step="Name other data")
    return rows, bytes_read / _BYTES_A_TOKEN
