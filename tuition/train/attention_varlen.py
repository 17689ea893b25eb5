"""Packed attention on CUDA: one call of a variable-length flash kernel for all segments.

The logic is tested with a slow kernel put in its place; the kernels themselves have not been run by the
project yet.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tuition.train.device import put_on

Kernel = Callable[..., Tensor]
"""(query, key, value, query_ends, key_ends, most_queries, most_keys, *, scale, window) → (tokens, heads, head_dim);
the first three are (tokens, heads, head_dim), the ends (segments + 1,) int32; the last query of a segment sees
its last key; `window`: tokens seen, None for all."""

_LARGEST_HEAD, _HEAD_STEP = 256, 8


def kernel_for(
    query: Tensor, value: Tensor, *, dropout: float, softcap: float | None, sinks: Tensor | None
) -> Kernel | None:
    """The kernel that computes this exactly, or None."""
    width = query.shape[-1]
    fits = (
        query.dtype in (torch.bfloat16, torch.float16)
        and value.shape[-1] <= width <= _LARGEST_HEAD
        and not width % _HEAD_STEP
    )
    if query.device.type != "cuda" or not fits or dropout or softcap is not None or sinks is not None:
        return None
    found = working_kernel(query.device)
    return found and found[1]


def attend(
    kernel: Kernel,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: tuple[int, ...],
    keys: tuple[int, ...],
    *,
    scale: float,
    window: int | None,
) -> Tensor:
    """All segments in one call.

    Args:
        query: (1, tokens, heads, head_dim); key and value likewise, with tokens of their own.
        queries: how many there are in each segment; `keys` likewise: its own tokens after those it continues.

    Returns:
        (1, tokens, heads, head_dim).
    """
    longest = max(keys)
    bound = None if window is None or window >= longest else window
    ends = _boundaries(queries, query.device), _boundaries(keys, query.device)
    return kernel(query[0], key[0], value[0], *ends, max(queries), longest, scale=scale, window=bound)[None]


def with_ancestors(
    key: Tensor, value: Tensor, lengths: tuple[int, ...], parents: tuple[int, ...] | None, before: int
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Keys and values of all segments, each behind all that it continues, by one operation each.

    Args:
        key: (1, tokens, key_value_heads, head_dim); value likewise.
        lengths: tokens of each segment.
        parents: the segment that each continues, an earlier one, or −1; None: none continues another.
        before: so many stand before the first segment, which all without a parent continue.

    Returns:
        Both, longer, and how many are each segment's.
    """
    places, found = _places(lengths, parents or (-1,) * len(lengths), before, key.device)
    longer = [_Gathered.apply(row[0], places)[None] for row in (key, value)]
    return longer[0], longer[1], found


class _Gathered(torch.autograd.Function):
    """Rows, some of them more than once: their gradients are added up in float32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.shape = rows.shape
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        total = torch.zeros(ctx.shape, dtype=torch.float32, device=upstream.device)
        return total.index_add_(0, places, upstream.float()).to(upstream.dtype), None


@lru_cache(maxsize=8)  # as with boundaries
def _places(
    lengths: tuple[int, ...], parents: tuple[int, ...], before: int, device: torch.device
) -> tuple[Tensor, tuple[int, ...]]:
    """Where the keys of each segment stand, and how many those are."""
    first, *own = torch.arange(before + sum(lengths)).split([before, *lengths])
    seen = {-1: first}
    for segment, parent in enumerate(parents):
        seen[segment] = torch.cat([seen[parent], own[segment]])
    whole = [seen[segment] for segment in range(len(lengths))]
    with torch.inference_mode(False):
        return put_on(device, torch.cat(whole)), tuple(len(places) for places in whole)


@lru_cache(maxsize=8)  # every layer of a pass asks again, and a copy to the device would wait for it
def _boundaries(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return put_on(device, torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32))


@lru_cache(maxsize=8)
def working_kernel(device: torch.device) -> tuple[str, Kernel] | None:
    """The first of the installed kernels, with its name, that runs on this device, forward and backward."""
    return next((found for found in installed_kernels().items() if _runs(found[1], device)), None)


def _runs(kernel: Kernel, device: torch.device) -> bool:
    """Try two short segments. One that was made for another GPU or another PyTorch is installed and fails."""
    with torch.inference_mode(False), torch.enable_grad():
        try:
            given = [
                torch.ones(9, heads, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
                for heads in (2, 1, 1)
            ]
            ends = _boundaries((4, 5), device)
            output = kernel(*given, ends, ends, 5, 5, scale=0.125, window=None)
            found = [output.detach(), *torch.autograd.grad(output.sum(), given)]
            return all(bool(tensor.isfinite().all()) for tensor in found)
        except Exception:  # strangers' code, compiled elsewhere
            return False


def installed_kernels() -> dict[str, Kernel]:
    """FlashAttention 3 where it is installed, then torch's own, then FlashAttention 2."""
    kernels = {}
    for module, adapt in (
        ("flash_attn_interface", _flash_attention),
        ("torch.nn.attention.varlen", _torch_varlen),
        ("flash_attn", _flash_attention),
    ):
        with suppress(ImportError, AttributeError):
            kernels[module] = adapt(__import__(module, fromlist=["*"]))
    return kernels


def _torch_varlen(module: Any) -> Kernel:
    function = module.varlen_attn
    known = inspect.signature(function).parameters
    if not {"scale", "window_size"} <= known.keys():
        raise AttributeError("this version of torch cannot be told the scale of the scores")

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, q_ends: Tensor, k_ends: Tensor, most_q: int, most_k: int, *,
        scale: float, window: int | None,
    ) -> Tensor:  # fmt: skip
        grouped = {"enable_gqa": q.shape[1] != k.shape[1]} if "enable_gqa" in known else {}
        output: Tensor = function(
            q, k, v, q_ends, k_ends, most_q, most_k,
            scale=scale, window_size=_window(window), **grouped,
        )  # fmt: skip
        return output

    return kernel


def _flash_attention(module: Any) -> Kernel:
    function = module.flash_attn_varlen_func

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, q_ends: Tensor, k_ends: Tensor, most_q: int, most_k: int, *,
        scale: float, window: int | None,
    ) -> Tensor:  # fmt: skip
        output = function(
            q, k, v, q_ends, k_ends, most_q, most_k,
            softmax_scale=scale, causal=True, window_size=_window(window),
        )  # fmt: skip
        attended: Tensor = output[0] if isinstance(output, tuple) else output
        return attended

    return kernel


def _window(window: int | None) -> tuple[int, int]:
    """(left, right) as flash kernels count them: tokens beside the query's own; (-1, 0) is plain causal."""
    return (-1 if window is None else window - 1, 0)
