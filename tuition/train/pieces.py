"""Weights in pieces: what is done to one piece after the other finds it in a core's cache."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

# Numbers of a piece: its gradient is 4 MB. Pieces of 131,072 took twice as long: their calls cost more than they save.
_PIECE_VALUES = 1 << 20
# Elsewhere there is no such cache, and asking a GPU for one operation takes as long as it needs for millions of numbers:
# pieces only bound what exists for a moment beside a weight, 256 MB in float32.
_PIECE_VALUES_ELSEWHERE = 64 << 20


def pieces_of(weight: Tensor) -> list[slice]:
    """The rows of a weight in pieces of about equal size; the same each time for one that stays where it is."""
    rows = weight.shape[0] if weight.ndim else 1
    most = _PIECE_VALUES if weight.device.type == "cpu" else _PIECE_VALUES_ELSEWHERE
    count = max(1, min(rows, -(-weight.numel() // most)))
    edges = [rows * place // count for place in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def in_rows(weight: Tensor) -> Tensor:
    """The weight itself; a single number as a row of one."""
    return weight if weight.ndim else weight.view(1)
