"""Attention over a flat row of segments: each attends to itself alone, and no dense mask is built.

Registered in transformers' AttentionInterface, so that any model which goes through it runs packed
rows. Without segments (generation, for example) it is plain SDPA. Three bodies do the work: a
variable-length flash kernel on CUDA, batched matrix products where they beat SDPA or SDPA cannot, and one
SDPA call a segment elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tuition.train import attention_varlen
from tuition.train.attention_products import attention_by_products

NAME = "tuition_segments"

# Where a token looks back on at most so many, a CPU is faster with matrix products: forward and backward of
# 170 tokens took 3.8 ms instead of 6.9 in bfloat16, of 1,000 tokens 46 instead of 94. Beyond, SDPA keeps
# memory linear, because products keep the weights for the backward pass.
_LONGEST_REACH_BY_PRODUCTS = 1024


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    segment_lengths: tuple[int, ...] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment.

    Args:
        module: the attention layer, as transformers passes it.
        query: (1, heads, tokens, head_dim).
        key: (1, key_value_heads, tokens, head_dim); value likewise.
        attention_mask: ignored where `segment_lengths` is given.
        segment_lengths: tokens of each segment; they sum to `tokens`.
        sliding_window: most tokens that a token looks back on, itself included.
        softcap: scores are squashed to this range before the softmax (Gemma 2).

    Returns:
        (1, tokens, heads, head_dim), and None for the attention weights.
    """
    if segment_lengths is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    if kwargs.get("s_aux") is not None:
        raise NotImplementedError("attention sinks are not known to packed attention")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    kernel = attention_varlen.kernel_for(query, dropout=dropout, softcap=softcap)
    if kernel is not None:
        return attention_varlen.attend(
            kernel, query, key, value, segment_lengths, scale=scale, window=sliding_window
        ), None
    pieces = [
        _one_segment(q, k, v, scale=scale, dropout=dropout, window=sliding_window, softcap=softcap)
        for q, k, v in zip(
            query.transpose(1, 2).split(segment_lengths, dim=1),
            key.transpose(1, 2).split(segment_lengths, dim=1),
            value.transpose(1, 2).split(segment_lengths, dim=1),
            strict=True,
        )
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1), None


def _one_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    dropout: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """One segment: everything is (1, tokens, heads, head_dim)."""
    tokens = query.shape[1]
    reach = tokens if window is None else min(tokens, window)
    short = query.device.type == "cpu" and reach <= _LONGEST_REACH_BY_PRODUCTS and dropout == 0.0
    if softcap is not None or short:
        return attention_by_products(
            query, key, value, scale=scale, window=window, softcap=softcap, dropout=dropout
        )
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=None if reach == tokens else _banded(tokens, reach, query.device),
        is_causal=reach == tokens,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=key.shape[2] != query.shape[2],
    )
    return attended.transpose(1, 2)


def _banded(tokens: int, window: int, device: torch.device) -> Tensor:
    """(tokens, tokens) bool: which earlier tokens each token sees."""
    back = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)[None, :]
    return (back >= 0) & (back < window)


def register() -> None:
    """Make the function known to transformers under `NAME`. A mask is not built for it: none is needed."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, segment_attention)
