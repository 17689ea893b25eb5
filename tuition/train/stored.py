"""Is what was loaded what the files hold? A library can fill weights with random numbers without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuition.errors import UserError
from tuition.render.modelfiles import shards_of

_STORED_AS = {"F64", "F32", "F16", "BF16"}  # what is stored in fewer bits is loaded by conversions


def refuse_other_numbers(model: Any, folder: Path, where: str) -> None:
    """Look at a few rows of each weight that the files hold under its own name.

    Conversions of a library put numbers in another order, so a weight that differs is compared once more as a set.

    Raises:
        UserError: naming the first weight that holds other numbers than its file.
    """
    parameters = dict(model.named_parameters())
    for name, stored in _stored(folder):
        loaded = parameters.get(name)
        if loaded is None or loaded.is_meta or list(loaded.shape) != stored.get_shape():
            continue
        if stored.get_dtype() in _STORED_AS and _all_rows_differ(loaded.detach(), stored):
            whole = stored[:].to(loaded.dtype)
            if not torch.equal(whole.flatten().sort().values, loaded.detach().cpu().flatten().sort().values):
                raise UserError(
                    f"transformers filled {name} with other numbers than its file holds",
                    where=where,
                    next_step="Try another version of transformers, in which this model is loaded as it is",
                )


def _stored(folder: Path) -> Iterator[tuple[str, Any]]:
    """Each tensor of the weights, of which only what is looked at is read."""
    from safetensors import safe_open

    for shard in shards_of(folder):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no dictionary
                yield name, file.get_slice(name)


def _all_rows_differ(loaded: Tensor, stored: Any) -> bool:
    """Of three rows; one alone may be a padding token's, which models set to zero."""
    if not loaded.ndim or not loaded.numel():
        return False
    rows = {len(loaded) // 3, len(loaded) // 2, len(loaded) - 1}
    return not any(
        torch.equal(stored[row : row + 1].to(loaded.dtype), loaded[row : row + 1].cpu()) for row in rows
    )
