"""The objectives: how tokens are weighed, and the weighted loss of one pack.

The loss of a step is always one sum over the whole step divided once:
    Σ weight × −log p(token)  ÷  Σ weight
so that neither the micro-batch, nor packing, nor accumulation can change it.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tuition.batch import Pack, Weigh
from tuition.train.model import LoadedModel, base_of, compute_in

_LOSS_ROWS = 1024  # positions whose float32 logits exist at the same time


def token_mean(supervised: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every learned token of the step counts the same (times its own weight)."""
    return supervised


def example_mean(supervised: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every example counts the same: 1/N Σ L(f(x), y), where L is the mean over the example's tokens."""
    return (supervised / np.float32(np.count_nonzero(supervised))).astype(np.float32)


LOSSES: dict[str, Weigh] = {"token_mean": token_mean, "example_mean": example_mean}


def token_losses(loaded: LoadedModel, pack: Pack) -> Tensor:
    """−log p of each learned token of a pack, in float32.

    Args:
        loaded: the model; it gets packs of one segment only unless `loaded.packed`.

    Returns:
        (learned,) float32, in the order of `pack.targets`.
    """
    keep = torch.from_numpy(pack.keep).to(loaded.device)
    targets = torch.from_numpy(pack.targets).to(loaded.device)
    with compute_in(loaded.device, loaded.dtype):
        logits = _learned_logits(loaded, pack, keep)
    pieces = zip(logits.split(_LOSS_ROWS), targets.split(_LOSS_ROWS), strict=True)
    return torch.cat([F.cross_entropy(rows.float(), wanted, reduction="none") for rows, wanted in pieces])


def _learned_logits(loaded: LoadedModel, pack: Pack, keep: Tensor) -> Tensor:
    """(learned, vocabulary): the head's output where the next token is learned, and nowhere else."""
    trims = _takes_logits_to_keep(loaded.model)
    logits: Tensor = loaded.model(
        input_ids=torch.from_numpy(pack.ids)[None].to(loaded.device),
        position_ids=torch.from_numpy(pack.positions)[None].to(loaded.device),
        use_cache=False,  # a cache would let segments see one another
        **({"segment_lengths": pack.lengths} if loaded.packed else {}),
        **({"logits_to_keep": keep} if trims else {}),
    ).logits[0]
    return logits if trims else logits[keep]


def weighted_loss_sum(losses: Tensor, pack: Pack) -> Tensor:
    """Σ weight × loss over the pack's learned tokens: a scalar, not yet divided."""
    return (losses * torch.from_numpy(pack.weights).to(losses.device)).sum()


def _takes_logits_to_keep(model: Any) -> bool:
    base = base_of(model)
    return "logits_to_keep" in inspect.signature(base.forward).parameters
