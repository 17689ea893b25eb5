"""Attention over a flat row of segments: each attends to itself alone, and no dense mask is built.

Registered in transformers' AttentionInterface, so that any model which goes through it runs packed
rows. Without segments (generation, for example) it is plain SDPA.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "tuition_segments"


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
    pieces = [
        _one_segment(
            q, k, v, scaling=scaling, dropout=dropout, sliding_window=sliding_window, softcap=softcap
        )
        for q, k, v in zip(
            query.split(segment_lengths, dim=2),
            key.split(segment_lengths, dim=2),
            value.split(segment_lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


def _one_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    tokens = query.shape[2]
    windowed = sliding_window is not None and tokens > sliding_window
    if softcap is not None:
        return _softcapped(
            query, key, value, scaling=scaling, dropout=dropout, window=sliding_window, softcap=softcap
        )
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_causal(tokens, sliding_window, query.device) if windowed else None,
        is_causal=not windowed,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _softcapped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None,
    dropout: float,
    window: int | None,
    softcap: float,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~_causal(query.shape[2], window, query.device), float("-inf"))
    weights = F.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype), p=dropout)
    return weights @ value


def _causal(tokens: int, window: int | None, device: torch.device) -> Tensor:
    """(tokens, tokens) bool: which earlier tokens each token sees."""
    back = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)[None, :]
    return (back >= 0) & (back < (tokens if window is None else window))


def register() -> None:
    """Make the function known to transformers under `NAME`. A mask is not built for it: none is needed."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, segment_attention)
