"""The objectives: how tokens are weighed, and the weighted loss of one pack.

The loss of a step is always one sum over the whole step divided once:
    Σ weight × −log p(token)  ÷  Σ weight
so that neither the micro-batch, nor packing, nor accumulation can change it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tuition.batch import Pack, Trunk, Weigh
from tuition.recipe import OptimizerSettings
from tuition.train.cross_entropy import TokenLoss, linear_cross_entropy
from tuition.train.device import put_on
from tuition.train.head import decoder_of, takes_logits_to_keep
from tuition.train.model import LoadedModel, base_of

T = TypeVar("T")
_LOSS_ROWS = 1024  # positions whose float32 logits exist at the same time


def token_mean(supervised: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every learned token of the step counts the same (times its own weight)."""
    return supervised


def example_mean(supervised: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every example counts the same: 1/N Σ L(f(x), y), where L is the mean over the example's tokens."""
    return (supervised / np.float32(np.count_nonzero(supervised))).astype(np.float32)


LOSSES: dict[str, Weigh] = {"token_mean": token_mean, "example_mean": example_mean}


TOKEN_LOSSES: dict[str, TokenLoss] = {
    "nll": TokenLoss(),
    "dft": TokenLoss(by_probability=True),  # Wu et al. 2025, arXiv 2508.05629
}


def token_loss_of(settings: OptimizerSettings) -> TokenLoss:
    """What a learned token costs, by the recipe."""
    return replace(TOKEN_LOSSES[settings.token_loss], smoothing=settings.label_smoothing)


def step_loss(
    loaded: LoadedModel, pack: Pack, whole_step_weight: float, token_loss: TokenLoss = TOKEN_LOSSES["nll"]
) -> Tensor:
    """What a pack adds to the loss of its step: Σ weight × token loss ÷ the whole step's weight, with gradients.

    Returns:
        A float32 scalar.
    """
    coefficients = torch.from_numpy(pack.weights / np.float32(whole_step_weight))
    disturbed = nullcontext() if loaded.noise is None else loaded.noise.over(pack.lengths)
    with disturbed, _offloading(loaded):
        return _losses(loaded, pack, coefficients, token_loss)[0]


def token_losses(loaded: LoadedModel, pack: Pack) -> Tensor:
    """−log p of each row of a pack, without gradients.

    Args:
        loaded: the model; it gets packs of one segment only unless `loaded.packed`.

    Returns:
        (rows,) float32, in the order of `pack.targets`; `[pack.rows]` gives one for each learned token.
    """
    with torch.no_grad():
        return _losses(loaded, pack, torch.from_numpy(pack.weights), TOKEN_LOSSES["nll"])[1]


def run_trunk(loaded: LoadedModel, trunk: Trunk) -> None:
    """A pass over a trunk alone, of which `loaded.before` takes the keys and values."""
    positions, lengths = np.arange(len(trunk)), (len(trunk),)
    decoder: Any = decoder_of(base_of(loaded.model))
    with _offloading(loaded):
        decoder(**_inputs(loaded, trunk.ids, positions, lengths))


def _offloading(loaded: LoadedModel) -> AbstractContextManager[Any]:
    """Inside, what the backward pass needs waits where the run wants it to."""
    return torch.autograd.graph.save_on_cpu(pin_memory=True) if loaded.offloads else nullcontext()


def _losses(
    loaded: LoadedModel, pack: Pack, coefficients: Tensor, token_loss: TokenLoss
) -> tuple[Tensor, Tensor]:
    """Σ coefficient × token loss, and the loss of each learned token."""
    return within(loaded, lambda inside: _losses_of_whole(inside, pack, coefficients, token_loss))


def within(loaded: LoadedModel, run: Callable[[LoadedModel], T]) -> T:
    """Run what calls a model or uses its weights. Where ranks hold parts of it, all do so, with as many passes each.

    Args:
        run: given the model as it is inside, where the weights outside of its layers are whole.
    """
    if loaded.root is None:
        return run(loaded)
    found: T = loaded.root(partial(run, replace(loaded, root=None)))
    return found


class Root(torch.nn.Module):
    """What holds a sharded model: all that uses its weights is one forward pass of this, so that they are there."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, run: Callable[[], T]) -> T:
        """See `within`."""
        return run()


def _losses_of_whole(
    loaded: LoadedModel, pack: Pack, coefficients: Tensor, token_loss: TokenLoss
) -> tuple[Tensor, Tensor]:
    keep = put_on(loaded.device, torch.from_numpy(pack.keep))
    targets = put_on(loaded.device, torch.from_numpy(pack.targets))
    coefficients = put_on(loaded.device, coefficients)
    if loaded.head is None:
        losses = _losses_by_the_models_own_head(loaded, pack, keep, targets, token_loss)
        return (losses * coefficients).sum(), losses.detach()
    decoder: Any = decoder_of(base_of(loaded.model))
    hidden = decoder(**_pack_inputs(loaded, pack)).last_hidden_state[0].index_select(0, keep)
    return linear_cross_entropy(
        loaded.head.terms(hidden),
        loaded.head.bias,
        targets,
        coefficients,
        scale=loaded.head.scale,
        softcap=loaded.head.softcap,
        token_loss=token_loss,
        chunk=loaded.head.chunk,
    )


def _losses_by_the_models_own_head(
    loaded: LoadedModel, pack: Pack, keep: Tensor, targets: Tensor, token_loss: TokenLoss
) -> Tensor:
    """For heads that are not linear: logits at learned positions, or all where the model gives no choice."""
    trims = takes_logits_to_keep(base_of(loaded.model))
    trim = {"logits_to_keep": keep} if trims else {}
    logits = loaded.model(**_pack_inputs(loaded, pack), **trim).logits[0]
    logits = logits if trims else logits[keep]
    pieces = zip(logits.split(_LOSS_ROWS), targets.split(_LOSS_ROWS), strict=True)
    return torch.cat([_plain_token_losses(rows.float(), wanted, token_loss) for rows, wanted in pieces])


def _plain_token_losses(logits: Tensor, targets: Tensor, token_loss: TokenLoss) -> Tensor:
    """The loss of each row by plain autograd, the obviously right way."""
    losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=token_loss.smoothing)
    if not token_loss.by_probability:
        return losses
    return losses * logits.detach().softmax(-1).gather(1, targets[:, None])[:, 0]


def _pack_inputs(loaded: LoadedModel, pack: Pack) -> dict[str, Any]:
    parents = pack.parents if pack.shared_tokens else None
    return _inputs(loaded, pack.ids, pack.positions, pack.lengths, parents)


def _inputs(
    loaded: LoadedModel,
    ids: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    lengths: tuple[int, ...],
    parents: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """What a decoder is given. One example alone is left to count its own positions, as it does when it is served."""
    inputs = {
        "input_ids": put_on(loaded.device, torch.from_numpy(ids)[None]),
        "use_cache": False,  # a cache would let segments see one another
    }
    if not loaded.packed:
        return inputs
    return inputs | {
        "position_ids": put_on(loaded.device, torch.from_numpy(positions)[None]),
        "segment_lengths": lengths,
        **({"segment_parents": parents} if parents is not None else {}),
        **({"segments_before": loaded.before} if loaded.before is not None else {}),
    }
