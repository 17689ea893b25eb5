"""The objectives: how tokens are weighed, and the weighted loss of one pack.

The loss of a step is always one sum over the whole step divided once:
    Σ weight × −log p(token)  ÷  Σ weight
so that neither the micro-batch, nor packing, nor accumulation can change it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tuition.batch import Pack, Weigh
from tuition.train.cross_entropy import linear_cross_entropy
from tuition.train.head import decoder_of, takes_logits_to_keep
from tuition.train.model import LoadedModel, base_of

_LOSS_ROWS = 1024  # positions whose float32 logits exist at the same time


def token_mean(supervised: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every learned token of the step counts the same (times its own weight)."""
    return supervised


def example_mean(supervised: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every example counts the same: 1/N Σ L(f(x), y), where L is the mean over the example's tokens."""
    return (supervised / np.float32(np.count_nonzero(supervised))).astype(np.float32)


LOSSES: dict[str, Weigh] = {"token_mean": token_mean, "example_mean": example_mean}


def step_loss(loaded: LoadedModel, pack: Pack, whole_step_weight: float) -> Tensor:
    """What a pack adds to the loss of its step: Σ weight × −log p ÷ the whole step's weight, with gradients.

    Returns:
        A float32 scalar.
    """
    total, _ = _losses(loaded, pack, torch.from_numpy(pack.weights / np.float32(whole_step_weight)))
    return total


def token_losses(loaded: LoadedModel, pack: Pack) -> Tensor:
    """−log p of each row of a pack, without gradients.

    Args:
        loaded: the model; it gets packs of one segment only unless `loaded.packed`.

    Returns:
        (rows,) float32, in the order of `pack.targets`; `[pack.rows]` gives one for each learned token.
    """
    with torch.no_grad():
        return _losses(loaded, pack, torch.from_numpy(pack.weights))[1]


def _losses(loaded: LoadedModel, pack: Pack, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Σ coefficient × −log p, and −log p of each learned token."""
    keep = torch.from_numpy(pack.keep).to(loaded.device)
    targets = torch.from_numpy(pack.targets).to(loaded.device)
    coefficients = coefficients.to(loaded.device)
    if loaded.head is None:
        losses = _losses_by_the_models_own_head(loaded, pack, keep, targets)
        return (losses * coefficients).sum(), losses.detach()
    decoder: Any = decoder_of(base_of(loaded.model))
    hidden = decoder(**_inputs(loaded, pack)).last_hidden_state[0].index_select(0, keep)
    return linear_cross_entropy(
        loaded.head.terms(hidden),
        loaded.head.bias,
        targets,
        coefficients,
        scale=loaded.head.scale,
        softcap=loaded.head.softcap,
    )


def _losses_by_the_models_own_head(loaded: LoadedModel, pack: Pack, keep: Tensor, targets: Tensor) -> Tensor:
    """For heads that are not linear: logits at learned positions, or all where the model gives no choice."""
    trims = takes_logits_to_keep(base_of(loaded.model))
    trim = {"logits_to_keep": keep} if trims else {}
    logits = loaded.model(**_inputs(loaded, pack), **trim).logits[0]
    logits = logits if trims else logits[keep]
    pieces = zip(logits.split(_LOSS_ROWS), targets.split(_LOSS_ROWS), strict=True)
    return torch.cat([F.cross_entropy(rows.float(), wanted, reduction="none") for rows, wanted in pieces])


def _inputs(loaded: LoadedModel, pack: Pack) -> dict[str, Any]:
    return {
        "input_ids": torch.from_numpy(pack.ids)[None].to(loaded.device),
        "position_ids": torch.from_numpy(pack.positions)[None].to(loaded.device),
        "use_cache": False,  # a cache would let segments see one another
        **({"segment_lengths": pack.lengths} if loaded.packed else {}),
        **({"segment_parents": pack.parents} if pack.shared_tokens else {}),
    }
