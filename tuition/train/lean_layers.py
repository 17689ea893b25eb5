"""Norms and gated layers that keep only their inputs for the backward pass, and work in blocks that stay in the cache.

A library's RMS norm is six passes over memory and keeps float32 copies; a gated layer keeps what it could
compute again. Which modules of a model these stand in for is found in `lean`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
"""An activation, and (gradient of its output, its input) → gradient of its input."""

_aten = torch.ops.aten
ACTIVATIONS: tuple[Activation, ...] = (
    (F.silu, _aten.silu_backward),
    (partial(F.gelu, approximate="tanh"), partial(_aten.gelu_backward, approximate="tanh")),
    (F.gelu, _aten.gelu_backward),
    (F.relu, lambda slope, x: _aten.threshold_backward(slope, x, 0)),
)

# Values that are worked on at a time on a CPU: two megabytes in float32 stay in a core's cache.
_BLOCK_VALUES = 1 << 19


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, offset: float, rounds_first: bool) -> Tensor:
    """x ÷ √(mean of squares + epsilon) × (weight + offset), in float32 inside (float64 for float64).

    Args:
        x: (…, width).
        weight: (width,).
        rounds_first: the quotient is rounded to the dtype of `x` before it is multiplied, as Llama does.
    """
    if x.device.type == "cuda" and not offset:  # there it is one kernel each way, and keeps as little
        return F.rms_norm(x, weight.shape, weight, epsilon)
    output: Tensor = _RmsNorm.apply(x, weight, epsilon, offset, rounds_first)
    return output


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) × up, both (…, width), keeping only the two."""
    output: Tensor = _Gated.apply(gate, up, activation)
    return output


def gated_linear(
    gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
) -> Tensor:
    """activation(gate) × up through a linear layer; the product is computed again in the backward pass."""
    output: Tensor = _GatedLinear.apply(gate, up, weight, bias, activation)
    return output


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, epsilon: float, offset: float, rounds_first: bool
    ) -> Tensor:
        rows, factor = x.reshape(-1, x.shape[-1]), _factor(weight, offset, rounds_first)
        output = torch.empty_like(rows, memory_format=torch.contiguous_format)
        inverse = torch.empty(len(rows), 1, dtype=_wide(x), device=x.device)
        for block in _blocks(rows):
            wide = rows[block].to(inverse.dtype, copy=True)
            size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            inverse[block] = size.square_().div_(rows.shape[1]).add_(epsilon).rsqrt_()
            wide.mul_(inverse[block])
            torch.mul(wide.to(x.dtype) if rounds_first else wide, factor, out=output[block])
        ctx.save_for_backward(x, weight, inverse)
        ctx.settings = (offset, rounds_first)
        return output.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        rows, slopes = x.reshape(-1, x.shape[-1]), upstream.reshape(-1, x.shape[-1])
        wide_weight = _factor(weight, ctx.settings[0], False)
        d_rows = torch.empty_like(rows, memory_format=torch.contiguous_format)
        d_weight = torch.zeros(weight.shape, dtype=inverse.dtype, device=x.device)
        for block in _blocks(rows):
            normed = rows[block].to(inverse.dtype, copy=True).mul_(inverse[block])
            slope = slopes[block].to(inverse.dtype, copy=True)
            d_weight += (slope * normed).sum(0)
            slope.mul_(wide_weight)
            along = torch.linalg.vecdot(slope, normed).unsqueeze_(-1).div_(-rows.shape[1])
            d_rows[block] = slope.addcmul_(normed, along).mul_(inverse[block])
        return d_rows.view(x.shape), d_weight.to(weight.dtype), None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return _product(gate, up, activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        return *_product_backward(upstream, gate, up, ctx.activation)[:2], None


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
    ) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        ctx.activation = activation
        return F.linear(_product(gate, up, activation), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        wants_weight, wants_bias = ctx.needs_input_grad[2:4]
        d_gate, d_up, product = _product_backward(upstream @ weight, gate, up, ctx.activation, wants_weight)
        rows = upstream.reshape(-1, weight.shape[0])
        d_weight = rows.t() @ product.reshape(-1, weight.shape[1]) if product is not None else None
        return d_gate, d_up, d_weight, rows.sum(0) if wants_bias else None, None


def _product(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    output = torch.empty_like(gate, memory_format=torch.contiguous_format)
    flat_gate, flat_up, flat = (t.reshape(-1, gate.shape[-1]) for t in (gate, up, output))
    for block in _blocks(flat):
        torch.mul(activation[0](flat_gate[block]), flat_up[block], out=flat[block])
    return output


def _product_backward(
    upstream: Tensor, gate: Tensor, up: Tensor, activation: Activation, wants_product: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of both factors, and the product where it is wanted."""
    made = [torch.empty_like(gate, memory_format=torch.contiguous_format) for _ in range(2 + wants_product)]
    slopes, x, y, d_x, d_y, *product = (t.reshape(-1, gate.shape[-1]) for t in (upstream, gate, up, *made))
    for block in _blocks(x):
        active = activation[0](x[block])
        torch.mul(slopes[block], active, out=d_y[block])
        d_x[block] = activation[1](slopes[block] * y[block], x[block])
        if wants_product:
            torch.mul(active, y[block], out=product[0][block])
    return made[0], made[1], made[2] if wants_product else None


def _blocks(rows: Tensor) -> Iterator[slice]:
    """Slices of (rows, width) that fit a core's cache; a GPU takes all at once."""
    each = len(rows) if rows.device.type != "cpu" else max(1, _BLOCK_VALUES // max(1, rows.shape[1]))
    return (slice(start, start + each) for start in range(0, len(rows), max(1, each)))


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _factor(weight: Tensor, offset: float, rounds_first: bool) -> Tensor:
    factor = weight if rounds_first else weight.to(_wide(weight))
    return factor + offset if offset else factor
