"""Causal attention of a pack by batched matrix products, for CPUs and for softcapped scores.

Queries go in blocks, and each block sees only the keys it can reach. Short segments that continue the same one
share a block, because a call costs as much as some ten thousand scores. Scores and softmax are float32; the other
products are in the dtype of the input. Key and value heads that several query heads share are never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 128  # queries, about: 64 and 256 were slower from 400 tokens up


def attention_by_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    parents: tuple[int, ...] | None = None,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention within each segment, and to all of the segments that it continues.

    Args:
        query: (1, tokens, heads, head_dim).
        key: (1, keys, key_value_heads, head_dim), keys ≥ tokens. Keys before the first query's are what all
            segments without a parent continue.
        value: (1, keys, key_value_heads, value_dim).
        lengths: tokens of each segment; they sum to `tokens`.
        parents: the segment that each continues, an earlier one, or −1; None: none continues another.
        scale: of the scores.
        window: most keys that a query sees, its own included; None: all before it.
        softcap: scores are squashed to ±softcap by tanh.
        sinks: (heads,) scores of a key that every query sees and whose value is 0 (GPT-OSS).
        dropout: share of the weights that are dropped.

    Returns:
        (1, tokens, heads, value_dim).
    """
    sharing = query.shape[2] // key.shape[2]
    parents = parents or (-1,) * len(lengths)
    blocks = _blocks(lengths, parents, key.shape[1] - query.shape[1], window, sharing, query.device)
    output: Tensor = _ByProducts.apply(query, key, value, sinks, blocks, scale, softcap, dropout)
    return output


@dataclass(frozen=True, slots=True)
class Block:
    """Queries that are multiplied with the same keys.

    Attributes:
        rows: of the queries, those of heads that share a key head side by side for each token.
        seen: of the keys, piece by piece.
        hidden: (rows, keys) float32, 0 where a query sees a key and −inf elsewhere.
    """

    rows: slice
    seen: tuple[slice, ...]
    hidden: Tensor

    def of(self, row: Tensor) -> Tensor:
        """(groups, all keys, head_dim) → (groups, keys seen, head_dim)."""
        pieces = [row[:, piece] for piece in self.seen]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def add(self, total: Tensor, part: Tensor) -> None:
        """The inverse of `of`: gradients of the keys seen are added to those of all."""
        sizes = [piece.stop - piece.start for piece in self.seen]
        for piece, own in zip(self.seen, part.split(sizes, dim=1), strict=True):
            total[:, piece].add_(own)


class _ByProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        blocks: tuple[Block, ...],
        scale: float,
        softcap: float | None,
        dropout: float,
    ) -> Tensor:
        groups = key.shape[2]
        q, k, v = (
            _by_group(query, groups, torch.float32),
            key[0].transpose(0, 1).float(),
            value[0].transpose(0, 1),
        )
        sink = None if sinks is None else _sink_of_each_row(sinks.float(), groups, query.shape[1])
        output = torch.empty((*q.shape[:2], v.shape[2]), dtype=query.dtype, device=query.device)
        kept: list[Tensor] = []
        for block in blocks:
            seen = block.of(k).transpose(1, 2)
            if softcap is None:
                scores = torch.baddbmm(block.hidden, q[:, block.rows], seen, alpha=scale)
            else:
                squashed = torch.bmm(q[:, block.rows], seen).mul_(scale / softcap).tanh_()
                scores = block.hidden + softcap * squashed
            if sink is not None:
                scores = torch.cat([scores, sink[:, block.rows]], dim=-1)
            weights = scores.softmax(-1).to(query.dtype)
            kept.append(weights)
            if sink is not None:
                weights = weights[..., :-1]
            if softcap is not None:
                kept.append(squashed.square_().neg_().add_(1.0).to(query.dtype))
            if dropout:
                stays = torch.rand(weights.shape, device=weights.device).ge_(dropout).div_(1.0 - dropout)
                kept.append(stays.to(query.dtype))
                weights = weights * kept[-1]
            output[:, block.rows] = torch.bmm(weights, block.of(v))
        ctx.save_for_backward(query, key, value, *kept)
        ctx.settings = (scale, softcap, None if sinks is None else sinks.dtype, dropout, blocks)
        return _by_token(output, query.shape)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        scale, softcap, sinks_dtype, dropout, blocks = ctx.settings
        groups, left = key.shape[2], iter(kept)
        k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)
        q, slopes = _by_group(query, groups), _by_group(upstream, groups)
        d_query = torch.empty_like(q)
        # Float32, in which the gradients of many that continue a segment are added up
        d_key = torch.zeros(k.shape, device=query.device)
        d_value = torch.zeros(v.shape, device=query.device)
        d_sink = None if sinks_dtype is None else torch.empty((*q.shape[:2], 1), device=query.device)
        for block in blocks:
            with_sink = next(left)
            weights = with_sink if d_sink is None else with_sink[..., :-1]
            bend = next(left) if softcap is not None else None
            stays = next(left) if dropout else None
            used = weights if stays is None else weights * stays
            block.add(d_value, torch.bmm(used.transpose(1, 2), slopes[:, block.rows]))
            d_weights = torch.bmm(slopes[:, block.rows], block.of(v).transpose(1, 2))
            if stays is not None:
                d_weights.mul_(stays)
            if d_sink is not None:
                d_weights = F.pad(d_weights, (0, 1))  # its value is 0, and so is what its weight brings
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, with_sink, -1, weights.dtype)
            if d_sink is not None:
                d_sink[:, block.rows], d_scores = d_scores[..., -1:], d_scores[..., :-1]
            if bend is not None:
                d_scores.mul_(bend)
            d_query[:, block.rows] = torch.bmm(d_scores, block.of(k))
            block.add(d_key, torch.bmm(d_scores.transpose(1, 2), q[:, block.rows]))
        return (
            _by_token(d_query.mul_(scale), query.shape),
            d_key.mul_(scale).to(key.dtype).transpose(0, 1)[None],
            d_value.to(value.dtype).transpose(0, 1)[None],
            None if d_sink is None else _by_head(d_sink, query.shape[2]).to(sinks_dtype),
            *(None,) * 4,
        )


def _by_group(tensor: Tensor, groups: int, dtype: torch.dtype | None = None) -> Tensor:
    """(1, tokens, heads, head_dim) → (groups, tokens × heads / groups, head_dim): heads that share keys together."""
    _, tokens, heads, head_dim = tensor.shape
    apart = tensor.view(tokens, groups, heads // groups, head_dim).transpose(0, 1)
    grouped = torch.empty(apart.shape, dtype=dtype or tensor.dtype, device=tensor.device).copy_(apart)
    return grouped.view(groups, -1, head_dim)


def _by_token(grouped: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_by_group`, for rows of any width."""
    _, tokens, heads, _ = shape
    groups, _, width = grouped.shape
    apart = grouped.view(groups, tokens, heads // groups, width).transpose(0, 1)
    return apart.reshape(1, tokens, heads, width).contiguous()


def _sink_of_each_row(sinks: Tensor, groups: int, tokens: int) -> Tensor:
    """(heads,) → (groups, tokens × heads / groups, 1)."""
    return sinks.view(groups, 1, -1).expand(groups, tokens, -1).reshape(groups, -1, 1)


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """Its inverse for gradients: the sum over all tokens, (heads,)."""
    groups = rows.shape[0]
    return rows.view(groups, -1, heads // groups).sum(1).flatten()


# --- which queries see which keys ---

Part = tuple[int, int, int]
"""A segment, and its first and last token (exclusive) that a block holds."""


@lru_cache(maxsize=4)  # every layer of a pass asks for the same, and each lane is in a pass of its own
def _blocks(
    lengths: tuple[int, ...],
    parents: tuple[int, ...],
    before: int,
    window: int | None,
    sharing: int,
    device: torch.device,
) -> tuple[Block, ...]:
    """The blocks of a pack.

    Args:
        before: keys that stand before the first query's.
        sharing: query heads that share a key head.
    """
    ends = list(accumulate(lengths, initial=before))
    found = []
    for parts in _parts(lengths, parents):
        (segment, start, _), (last, _, stop) = parts[0], parts[-1]
        rows = slice(sharing * (ends[segment] + start - before), sharing * (ends[last] + stop - before))
        chain = _chain(parents[segment], parents, ends)
        above = sum(piece.stop - piece.start for piece in chain)
        unseen = 0 if window is None else max(0, above + start - window + 1)
        hidden = _hidden(parts, above, window, device)[:, unseen:].repeat_interleave(sharing, 0)
        seen = _joined([*chain, slice(ends[segment], ends[last] + stop)], unseen)
        found.append(Block(rows, seen, hidden))
    return tuple(found)


def _parts(lengths: tuple[int, ...], parents: tuple[int, ...]) -> Iterator[list[Part]]:
    """What makes a block: short neighbours that continue the same segment, or a piece of a long one."""
    short: list[Part] = []
    for segment, length in enumerate(lengths):
        pieces = max(1, round(length / _BLOCK))
        together = sum(stop for _, _, stop in short) + length
        if short and (parents[segment] != parents[segment - 1] or together > _BLOCK):
            yield short
            short = []
        if pieces == 1:
            short.append((segment, 0, length))
        else:
            edges = [length * piece // pieces for piece in range(pieces + 1)]
            yield from ([(segment, start, stop)] for start, stop in pairwise(edges))
    if short:
        yield short


def _chain(segment: int, parents: tuple[int, ...], ends: list[int]) -> list[slice]:
    """Keys of a segment and of all that it continues, the first of them first."""
    chain = []
    while segment >= 0:
        chain.append(slice(ends[segment], ends[segment + 1]))
        segment = parents[segment]
    return [slice(0, ends[0]), *reversed(chain)]


def _joined(pieces: list[slice], unseen: int) -> tuple[slice, ...]:
    """The pieces without their first `unseen` keys; neighbours become one."""
    joined: list[slice] = []
    for piece in pieces:
        start = min(piece.stop, piece.start + unseen)
        unseen -= start - piece.start
        if joined and joined[-1].stop == start:
            joined[-1] = slice(joined[-1].start, piece.stop)
        elif start < piece.stop:
            joined.append(slice(start, piece.stop))
    return tuple(joined)


def _hidden(parts: list[Part], above: int, window: int | None, device: torch.device) -> Tensor:
    """(queries, keys) float32, 0 where a query sees a key and −inf elsewhere.

    Args:
        above: keys that all parts continue; they come first.
    """
    place = torch.cat([torch.arange(start, stop) for _, start, stop in parts]) + above
    of_key = torch.cat([torch.arange(above), *(torch.arange(stop) + above for _, _, stop in parts)])
    owner = torch.cat([torch.full((stop - start,), segment) for segment, start, stop in parts])
    of_keys_owner = torch.cat(
        [torch.full((above,), -1), *(torch.full((stop,), segment) for segment, _, stop in parts)]
    )
    back = place[:, None] - of_key
    of_another = (of_keys_owner >= 0) & (of_keys_owner != owner[:, None])
    hidden = of_another | (back < 0) if window is None else of_another | (back < 0) | (back >= window)
    return torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf")).to(device)
