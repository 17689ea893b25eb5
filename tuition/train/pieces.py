"""Weights in pieces: what is done to one piece after the other finds it in a core's cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

# Numbers of a piece: its gradient is 4 MB. Pieces of 131,072 took twice as long: their calls cost more than they save.
_PIECE_VALUES = 1 << 20


def pieces_of(shape: Sequence[int]) -> list[slice]:
    """The rows of a weight in pieces of about equal size; the same each time."""
    rows, values = (shape[0], torch.Size(shape).numel()) if shape else (1, 1)
    count = max(1, min(rows, -(-values // _PIECE_VALUES)))
    edges = [rows * place // count for place in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def in_rows(weight: Tensor) -> Tensor:
    """The weight itself; a single number as a row of one."""
    return weight if weight.ndim else weight.view(1)
