"""Causal attention of one segment by batched matrix products, for CPUs and for softcapped scores.

Queries go in blocks, and each block sees only the keys it can reach, so that nothing above the diagonal is
computed but for the block on it. Scores and softmax are float32; the other products are in the dtype of the
input. Key and value heads that several query heads share are never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_BLOCK = 128  # queries; 64 and 256 were slower from 400 tokens up, and no better below


def attention_by_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention where the last query sees the last key: keys before the first query are its prefix.

    Args:
        query: (1, tokens, heads, head_dim).
        key: (1, keys, key_value_heads, head_dim), keys ≥ tokens; value likewise.
        scale: of the scores.
        window: most keys that a query sees, its own included; None: all before it.
        softcap: scores are squashed to ±softcap by tanh.
        dropout: share of the weights that are dropped.

    Returns:
        (1, tokens, heads, head_dim).
    """
    output: Tensor = _ByProducts.apply(query, key, value, scale, window, softcap, dropout)
    return output


class _ByProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
        dropout: float,
    ) -> Tensor:
        groups = key.shape[2]
        output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)
        k_exact = k.float().transpose(1, 2)
        kept: list[Tensor] = []
        blocks = list(_blocks(query.shape[1], key.shape[1], window))
        for rows, seen, mask in blocks:
            q = _by_group(query, rows, groups)
            hidden = mask_of(*mask, query.device).repeat(q.shape[1] // (rows.stop - rows.start), 1)
            if softcap is None:
                scores = torch.baddbmm(hidden, q.float(), k_exact[:, :, seen], alpha=scale)
            else:
                squashed = torch.bmm(q.float(), k_exact[:, :, seen]).mul_(scale / softcap).tanh_()
                scores = hidden + softcap * squashed
            weights = scores.softmax(-1).to(query.dtype)
            kept.append(weights)
            if softcap is not None:
                kept.append(squashed.square_().neg_().add_(1.0).to(query.dtype))
            if dropout:
                stays = torch.rand(weights.shape, device=weights.device).ge_(dropout).div_(1.0 - dropout)
                kept.append(stays.to(query.dtype))
                weights = weights * kept[-1]
            _put(output, rows, torch.bmm(weights, v[:, seen]))
        ctx.save_for_backward(query, key, value, *kept)
        ctx.settings = (scale, softcap, dropout, blocks)
        return output

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        scale, softcap, dropout, blocks = ctx.settings
        groups, left = key.shape[2], iter(kept)
        k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)
        d_query = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        d_key = torch.zeros(k.shape, device=query.device)
        d_value = torch.zeros(v.shape, device=query.device)
        for rows, seen, _ in blocks:
            weights = next(left)
            bend = next(left) if softcap is not None else None
            stays = next(left) if dropout else None
            q, d_output = _by_group(query, rows, groups), _by_group(upstream, rows, groups)
            used = weights if stays is None else weights * stays
            d_value[:, seen] += torch.bmm(used.transpose(1, 2), d_output)
            d_weights = torch.bmm(d_output, v[:, seen].transpose(1, 2))
            if stays is not None:
                d_weights.mul_(stays)
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            if bend is not None:
                d_scores.mul_(bend)
            _put(d_query, rows, torch.bmm(d_scores, k[:, seen]).mul_(scale))
            d_key[:, seen] += torch.bmm(d_scores.transpose(1, 2), q)
        return (
            d_query,
            d_key.mul_(scale).to(key.dtype).transpose(0, 1)[None],
            d_value.to(value.dtype).transpose(0, 1)[None],
            *(None,) * 4,
        )


def _blocks(
    tokens: int, keys: int, window: int | None
) -> Iterator[tuple[slice, slice, tuple[int, int, int, int | None]]]:
    """Rows of queries, the keys that they see, and what `mask_of` needs for the two."""
    before = keys - tokens
    for start in range(0, tokens, _BLOCK):
        stop = min(start + _BLOCK, tokens)
        first = 0 if window is None else max(0, before + start - window + 1)
        bound = None if window is None or before + stop - first <= window else window
        yield (
            slice(start, stop),
            slice(first, before + stop),
            (stop - start, before + stop - first, before + start - first, bound),
        )


@lru_cache(maxsize=256)
def mask_of(rows: int, columns: int, place: int, window: int | None, device: torch.device) -> Tensor:
    """(rows, columns) float32, 0 where a query sees a key and −inf elsewhere; query 0 stands at key `place`."""
    with torch.inference_mode(False):
        back = torch.arange(rows, device=device)[:, None] + place - torch.arange(columns, device=device)
        hidden = (back < 0) if window is None else (back < 0) | (back >= window)
        return torch.zeros(rows, columns, device=device).masked_fill_(hidden, float("-inf"))


def _by_group(tensor: Tensor, rows: slice, groups: int) -> Tensor:
    """(1, tokens, heads, head_dim) → (groups, heads / groups × rows, head_dim): heads that share keys together."""
    part = tensor[0, rows].transpose(0, 1)
    return part.reshape(groups, -1, part.shape[-1])


def _put(target: Tensor, rows: slice, grouped: Tensor) -> None:
    """The inverse of `_by_group`, written into `target`."""
    heads, head_dim = target.shape[2:]
    target[0, rows] = grouped.view(heads, -1, head_dim).transpose(0, 1)
