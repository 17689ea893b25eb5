"""Attention over a flat row of segments: each attends to itself and to those it continues, and no dense mask
over the row is built.

Registered in transformers' AttentionInterface, so that any model which goes through it runs packed
rows. Without segments (generation, for example) it is plain SDPA. Three bodies do the work: a
variable-length flash kernel on CUDA, batched matrix products where they beat SDPA or SDPA cannot, and one
SDPA call a segment elsewhere.
"""

from __future__ import annotations

from typing import Any, Protocol

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


class Before(Protocol):
    """What stands before a row: keys and values that its segments without a parent continue."""

    def extend(self, layer: torch.nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Those of an attention layer, and then the row's own: all (1, tokens, key_value_heads, head_dim)."""
        ...


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
    segment_parents: tuple[int, ...] | None = None,
    segments_before: Before | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment, and to all of the segments that it continues.

    Args:
        module: the attention layer, as transformers passes it.
        query: (1, heads, tokens, head_dim).
        key: (1, key_value_heads, tokens, head_dim).
        value: (1, key_value_heads, tokens, value_dim).
        attention_mask: ignored where `segment_lengths` is given.
        segment_lengths: tokens of each segment; they sum to `tokens`.
        segment_parents: the segment that each continues, an earlier one, or −1; None: none continues another.
        segments_before: what those without a parent continue; None: they begin examples.
        sliding_window: most tokens that a token looks back on, itself included.
        softcap: scores are squashed to this range before the softmax (Gemma 2).
        s_aux: (heads,) scores of a key that every token sees and whose value is 0 (GPT-OSS).

    Returns:
        (1, tokens, heads, value_dim), contiguous, and None for the attention weights.
    """
    if segment_lengths is None:
        if softcap is not None or s_aux is not None:
            raise NotImplementedError("without segments softcaps and sinks are for the model's own attention")
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    if segments_before is not None:
        k, v = segments_before.extend(module, k, v)
    before = k.shape[1] - q.shape[1]
    kernel = attention_varlen.kernel_for(query, value, dropout=dropout, softcap=softcap, sinks=s_aux)
    if kernel is not None:
        return _by_kernel(kernel, q, k, v, segment_lengths, segment_parents, scale, sliding_window), None
    seen = _keys_seen(before, segment_lengths, segment_parents)
    if (
        softcap is not None
        or s_aux is not None
        or all(
            _is_short(query, tokens, keys, sliding_window, dropout)
            for tokens, keys in zip(segment_lengths, seen, strict=True)
        )
    ):
        return attention_by_products(
            q, k, v, segment_lengths, segment_parents,
            scale=scale, window=sliding_window, softcap=softcap, sinks=s_aux, dropout=dropout,
        ), None  # fmt: skip
    return _one_by_one(q, k, v, segment_lengths, segment_parents, scale, dropout, sliding_window), None


def _by_kernel(
    kernel: attention_varlen.Kernel,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    parents: tuple[int, ...] | None,
    scale: float,
    window: int | None,
) -> Tensor:
    """All segments in one flash call, keys and values of those that are continued once for each that continues them."""
    key_lengths, before = lengths, key.shape[1] - query.shape[1]
    if parents is not None or before:
        key, value, key_lengths = attention_varlen.with_ancestors(key, value, lengths, parents, before)
    width = value.shape[-1]
    if width < query.shape[-1]:  # kernels take one width: zeros make none of the outputs other than 0
        value = F.pad(value, (0, query.shape[-1] - width))
    attended = attention_varlen.attend(
        kernel, query, key, value, lengths, key_lengths, scale=scale, window=window
    )
    return attended[..., :width].contiguous()


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    parents: tuple[int, ...] | None,
    scale: float,
    dropout: float,
    window: int | None,
) -> Tensor:
    """A call a segment."""
    pieces = [
        _one_segment(q, k, v, scale=scale, dropout=dropout, window=window)
        for q, k, v in zip(
            query.split(lengths, dim=1),
            _with_ancestors(key, lengths, parents),
            _with_ancestors(value, lengths, parents),
            strict=True,
        )
    ]
    return torch.cat(pieces, dim=1).contiguous()


def _with_ancestors(row: Tensor, lengths: tuple[int, ...], parents: tuple[int, ...] | None) -> list[Tensor]:
    """Split (1, keys, heads, head_dim) into segments, each behind all that it continues.

    Args:
        row: what stands before the first segment, which all without a parent continue, and then the segments.
    """
    before = row.shape[1] - sum(lengths)
    if parents is None and not before:
        return list(torch.split(row, list(lengths), dim=1))
    # Joined from float32, so that the gradients of many descendants are added up in it; both casts are exact
    first, *own = torch.split(row, [before, *lengths], dim=1)
    parents = parents or (-1,) * len(own)
    continued = set(parents)
    whole = {-1: first.float()} if before else {}
    for segment, (piece, parent) in enumerate(zip(own, parents, strict=True)):
        joined = torch.cat([whole[parent].to(row.dtype), piece], dim=1) if parent in whole else piece
        whole[segment] = joined.float() if segment in continued else joined
    return [whole[segment].to(row.dtype) for segment in range(len(own))]


def _keys_seen(before: int, lengths: tuple[int, ...], parents: tuple[int, ...] | None) -> tuple[int, ...]:
    """How many keys the last token of each segment has before it and at it."""
    seen = {-1: before}
    for segment, (length, parent) in enumerate(zip(lengths, parents or (-1,) * len(lengths), strict=True)):
        seen[segment] = length + seen[parent]
    return tuple(seen[segment] for segment in range(len(lengths)))


def _is_short(query: Tensor, tokens: int, keys: int, window: int | None, dropout: float) -> bool:
    """Whether a segment is computed faster by products, and in not much more memory."""
    reach = keys if window is None else min(keys, window)
    few = reach <= _LONGEST_REACH_BY_PRODUCTS or tokens * reach <= _LONGEST_REACH_BY_PRODUCTS**2
    return query.device.type == "cpu" and few and dropout == 0.0


def _one_segment(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float, window: int | None
) -> Tensor:
    """One segment: (1, tokens, heads, head_dim), keys and values with those it continues before its own."""
    tokens, keys = query.shape[1], key.shape[1]
    if _is_short(query, tokens, keys, window, dropout):
        return attention_by_products(query, key, value, (tokens,), scale=scale, window=window)
    reach = keys if window is None else min(keys, window)
    plain = reach == keys == tokens
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=None if plain else _banded(tokens, keys, reach, query.device),
        is_causal=plain,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=key.shape[2] != query.shape[2],
    )
    return attended.transpose(1, 2)


def _banded(tokens: int, keys: int, window: int, device: torch.device) -> Tensor:
    """(tokens, keys) bool: which keys each token sees; the last sees the last."""
    own = torch.arange(keys - tokens, keys, device=device)
    back = own[:, None] - torch.arange(keys, device=device)[None, :]
    return (back >= 0) & (back < window)


def register() -> None:
    """Make the function known to transformers under `NAME`. A mask is not built for it: none is needed.

    Where something is known under that name, it stays: compiled layers have put their own there.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if NAME not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        ALL_ATTENTION_FUNCTIONS.register(NAME, segment_attention)
