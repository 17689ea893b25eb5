"""Linear layer and cross-entropy in one, a chunk of rows at a time: (learned, vocabulary) never exists whole.

Gradients are computed beside the loss, while a chunk's logits are still there, so that nothing is computed
twice. Softmax, losses and sums over chunks are in float32; matrix products are in the dtype of the weights.
One code for every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tuition.train import gradients
from tuition.train.scratch import scratch

# Bytes of the logits that exist at the same time. On a CPU, more rows make better matrix products
# (256 rows of a vocabulary of 49,152 were a tenth slower than 1,024); on a GPU they fill it.
CHUNK_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}
# On a CPU, rows are filled up with zeros to a multiple of so many: products of 481 rows took 306 ms where those of
# 496 take 208, because oneDNN cuts a matrix into equal pieces, and some numbers have no good ones.
_ROWS_TOGETHER = 16
# Float32 values that are worked on at a time: on a CPU they stay in its cache from the first pass to the last.
BLOCK_VALUES = {"cpu": 1 << 19, "cuda": 64 << 20}


Chunk = Callable[..., None]
"""What fills the losses of a chunk and turns its logits into slopes, as `chunk_at_once` does."""


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """What a learned token costs.

    Attributes:
        smoothing: share of the target that is spread evenly over the vocabulary.
        by_probability: the loss is multiplied by p(target) as it stands, which carries no gradient.
    """

    smoothing: float = 0.0
    by_probability: bool = False


def linear_cross_entropy(
    terms: Sequence[tuple[Tensor, Tensor]],
    bias: Tensor | None,
    targets: Tensor,
    coefficients: Tensor | None = None,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
    token_loss: TokenLoss = TokenLoss(),
    chunk: Chunk | None = None,
) -> tuple[Tensor, Tensor]:
    """Σ coefficient × −log p(target), where the logits are a sum of linear terms.

    Args:
        terms: (rows, width) inputs and (vocabulary, width) weights; logits = Σ input · weightᵀ + bias.
            A LoRA adapter over the head is a second term.
        bias: (vocabulary,), or None.
        targets: (rows,) int64.
        coefficients: (rows,) float32, what each row counts in the sum; None: 1 each.
        scale: the logits are multiplied by it.
        softcap: then squashed to ±softcap by tanh (Gemma 2).
        token_loss: what stands for −log p.
        chunk: compiled code for a chunk's losses and slopes; None: operation by operation.

    Returns:
        The sum, float32, which alone carries gradients; and the loss of each row, (rows,) float32.
    """
    if coefficients is None:
        coefficients = torch.ones(len(targets), device=targets.device)
    flat = [tensor for term in terms for tensor in term]
    total, losses = _LinearCrossEntropy.apply(
        targets, coefficients, scale, softcap, token_loss, chunk, bias, *flat
    )
    return total, losses


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        targets: Tensor,
        coefficients: Tensor,
        scale: float,
        softcap: float | None,
        token_loss: TokenLoss,
        chunk: Chunk | None,
        bias: Tensor | None,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        weights = flat[1::2]
        wanted = ctx.needs_input_grad[6:]
        vocabulary = weights[0].shape[0]
        together = _ROWS_TOGETHER if weights[0].device.type == "cpu" else 1
        learned, spare = len(targets), -len(targets) % together
        inputs = [F.pad(x, (0, 0, 0, spare)) for x in flat[0::2]]
        losses = torch.empty(len(targets), dtype=torch.float32, device=targets.device)
        d_bias = torch.zeros(vocabulary, device=targets.device) if wanted[0] else None
        d_inputs = [
            torch.empty_like(x) if need else None for x, need in zip(inputs, wanted[1::2], strict=True)
        ]
        d_weights: list[Tensor | None] = [None] * len(weights)
        for rows in _chunks(learned + spare, vocabulary, weights[0], together):
            logits = _logits_of([x[rows] for x in inputs], weights, bias)
            logits[learned - rows.start :].zero_()
            _losses_and_slopes(
                logits[: learned - rows.start],
                targets[rows],
                coefficients[rows],
                losses[rows],
                scale,
                softcap,
                token_loss,
                slopes=any(wanted),
                compiled=chunk,
            )
            if d_bias is not None:
                d_bias += logits.sum(0, dtype=torch.float32)
            for i, (x, weight, d_input) in enumerate(zip(inputs, weights, d_inputs, strict=True)):
                if d_input is not None:
                    torch.mm(logits, weight, out=d_input[rows])
                if wanted[2 + 2 * i]:
                    d_weights[i] = _add_product(
                        d_weights[i], logits, x[rows], weight, last=rows.stop == learned + spare
                    )
        ctx.gradients = (d_bias, [d if d is None else d[:learned] for d in d_inputs], d_weights)
        ctx.parameters = (bias, *flat)
        ctx.mark_non_differentiable(losses)
        return (losses * coefficients).sum(), losses

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_bias, d_inputs, d_weights = ctx.gradients
        ctx.gradients = None
        pairs = zip(d_inputs, d_weights, strict=True)
        found = [d_bias, *(gradient for pair in pairs for gradient in pair)]
        given = [_deliver(p, g, upstream) for p, g in zip(ctx.parameters, found, strict=True)]
        return *(None,) * 6, *given


def _deliver(parameter: Tensor, gradient: Tensor | None, upstream: Tensor) -> Tensor | None:
    """A gradient in its parameter's dtype; straight into its sum where it keeps one."""
    if gradient is None:
        return None
    if upstream.device.type != "cpu" or float(upstream) != 1.0:  # a step's loss is divided before, so it is 1
        gradient.mul_(upstream)
    if not hasattr(parameter, "main_grad"):
        return gradient.to(parameter.dtype)
    gradients.add(parameter, gradient)
    return None


def _chunks(rows: int, vocabulary: int, like: Tensor, together: int) -> Iterator[slice]:
    """Slices of the rows whose logits stay within bounds, as equal as multiples of `together` can be."""
    most = max(16, CHUNK_BYTES.get(like.device.type, 128 << 20) // (vocabulary * like.element_size()))
    each = math.ceil(rows / max(1, math.ceil(rows / most)) / together) * together
    return (slice(start, min(start + each, rows)) for start in range(0, rows, max(1, each)))


def _logits_of(inputs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """(rows, vocabulary), in memory that the next chunk gets too."""
    logits = scratch("logits", (len(inputs[0]), len(weights[0])), weights[0])
    torch.mm(inputs[0], weights[0].t(), out=logits)
    for x, weight in zip(inputs[1:], weights[1:], strict=True):
        logits.addmm_(x, weight.t())
    return logits if bias is None else logits.add_(bias)


def _losses_and_slopes(
    logits: Tensor,
    targets: Tensor,
    coefficients: Tensor,
    losses: Tensor,
    scale: float,
    softcap: float | None,
    token_loss: TokenLoss,
    *,
    slopes: bool,
    compiled: Chunk | None = None,
) -> None:
    """Fill `losses`, and write the gradient of the sum over the logits, block by block."""
    if compiled is not None and slopes:
        for tensor in (logits, targets, coefficients, losses):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        compiled(logits, targets, coefficients, losses, scale, softcap, token_loss)
        return
    rows, vocabulary = logits.shape
    most = max(1, BLOCK_VALUES.get(logits.device.type, 1 << 19) // vocabulary)
    for start in range(0, rows, most):
        block = slice(start, min(start + most, rows))
        _block(
            logits[block],
            targets[block, None],
            coefficients[block],
            losses[block],
            scale,
            softcap,
            token_loss,
            slopes=slopes,
        )


def _block(
    logits: Tensor,
    targets: Tensor,
    coefficients: Tensor,
    losses: Tensor,
    scale: float,
    softcap: float | None,
    token_loss: TokenLoss,
    *,
    slopes: bool,
) -> None:
    """`_losses_and_slopes` of rows few enough to stay in a core's cache.

    Args:
        targets: (rows, 1).
    """
    values = scratch("float32", tuple(logits.shape), logits, dtype=torch.float32)
    values.copy_(logits)
    if scale != 1.0:
        values.mul_(scale)
    squashed = values.div_(softcap).tanh_().clone() if softcap is not None else None
    if softcap is not None:
        values.mul_(softcap)
    # −log p = log Σ exp − logit, and log Σ exp = largest logit − log(largest p), which is at least 1/vocabulary:
    # exact however small p is, and two thirds of the time that log_softmax and exp take
    reference = values.amax(-1) - values.gather(1, targets)[:, 0]
    spread = values.gather(1, targets)[:, 0] - values.mean(-1) if token_loss.smoothing else None
    torch.softmax(values, dim=-1, out=values)
    torch.sub(reference, values.amax(-1).log_(), out=losses)
    counts = coefficients * scale
    if token_loss.by_probability:
        counts = counts * values.gather(1, targets)[:, 0]
    if spread is not None:
        losses.add_(spread, alpha=token_loss.smoothing)
    if token_loss.by_probability:
        losses.mul_(values.gather(1, targets)[:, 0])
    if not slopes:
        return
    values.scatter_add_(1, targets, values.new_full((), token_loss.smoothing - 1.0).expand(targets.shape))
    if spread is not None:
        values.sub_(token_loss.smoothing / logits.shape[1])
    values.mul_(counts[:, None])
    if squashed is not None:
        values.mul_(squashed.square_().neg_().add_(1.0))
    logits.copy_(values)


def chunk_at_once(
    logits: Tensor,
    targets: Tensor,
    coefficients: Tensor,
    losses: Tensor,
    scale: float,
    softcap: float | None,
    token_loss: TokenLoss,
) -> None:
    """What `_losses_and_slopes` does, for a compiler: it may write the logits down in float32 nowhere."""
    values = logits.float() * scale
    squashed = None if softcap is None else (values / softcap).tanh()
    values = values if squashed is None or softcap is None else squashed * softcap
    top = values.amax(-1, keepdim=True)
    powers = (values - top).exp()
    total = powers.sum(-1, keepdim=True)
    wanted = values.gather(1, targets[:, None])
    loss = (top - wanted + total.log())[:, 0]
    counts = coefficients * scale
    if token_loss.smoothing:
        loss = loss + token_loss.smoothing * (wanted[:, 0] - values.mean(-1))
    if token_loss.by_probability:
        probability = ((wanted - top).exp() / total)[:, 0]
        loss, counts = loss * probability, counts * probability
    losses.copy_(loss)
    is_target = torch.arange(values.shape[1], device=values.device) == targets[:, None]
    slopes = (
        powers / total - is_target * (1.0 - token_loss.smoothing) - token_loss.smoothing / values.shape[1]
    )
    if squashed is not None:
        slopes = slopes * (1.0 - squashed.square())
    logits.copy_(slopes * counts[:, None])


def _add_product(
    total: Tensor | None, slopes: Tensor, inputs: Tensor, weight: Tensor, *, last: bool
) -> Tensor:
    """total + slopesᵀ · inputs, a gradient of `weight`, in float32 as soon as there is more than one chunk."""
    if total is not None and slopes.dtype == torch.float32:
        return total.addmm_(slopes.t(), inputs)
    product = torch.mm(slopes.t(), inputs, out=gradients.room_for(weight, slopes.dtype))
    if total is None and (last or slopes.dtype == torch.float32):
        return product
    if total is None:
        total = gradients.room_for(weight, torch.float32).copy_(product)
    else:
        total.add_(product)
    gradients.keep_room(weight, product)
    return total
