"""The gradient of a weight, as the passes of a step leave it: kept as it was made until a sum is wanted.

`main_grad` (the name is Megatron-LM's) is the sum of dense gradients: in the dtype of the only pass that made one,
float32 from the second on. `main_rows` are an embedding's few rows that wait beside a bfloat16 `main_grad`, which
would otherwise become a float32 matrix, vocabulary × width, for their sake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuition.train.pieces import in_rows, pieces_of
from tuition.train.scratch import scratch

# Bytes of a gradient whose memory the next one gets on a CPU. What the heap gives to so large a block anew lies
# elsewhere each time, because small things that live longer have come to lie in between, and so the heap grows.
_LARGE = 8 << 20


@dataclass(frozen=True, slots=True)
class Rows:
    """Gradients of single rows, which may come more than once; sorted by place."""

    places: Tensor
    values: Tensor

    def add_to(self, total: Tensor) -> None:
        """Add them to a float32 gradient."""
        total.index_add_(0, self.places, self.values.float())

    def within(self, piece: slice) -> Rows:
        """Those of some rows, counted from the first of these. On a GPU it would wait for the device."""
        first, last = torch.searchsorted(self.places, torch.tensor([piece.start, piece.stop])).tolist()
        return Rows(self.places[first:last] - piece.start, self.values[first:last])


def sum_apart(parameter: Any) -> None:
    """Let a weight keep the sum of its gradients itself, in float32, whatever its own dtype."""
    forget(parameter)
    parameter.register_post_accumulate_grad_hook(_move)


def _move(parameter: Any) -> None:
    """A gradient joins those of the passes before as soon as it is made, and its own memory is free again."""
    gradient, parameter.grad = parameter.grad, None
    if gradient is not None:
        add(parameter, gradient)


def add(parameter: Any, gradient: Tensor) -> None:
    """Add to the sum of a parameter's gradients: float32 as soon as it is a sum.

    Args:
        gradient: nobody else's; it may become the sum.
    """
    total: Tensor | None = parameter.main_grad
    if gradient.is_sparse:
        places, order = gradient._indices()[0].sort(stable=True)
        rows = Rows(places, gradient._values()[order])
        if total is None:
            total = parameter.main_grad = torch.zeros(parameter.shape, device=parameter.device)
        if total.dtype == torch.float32:
            rows.add_to(total)
        else:
            parameter.main_rows.append(rows)
    elif total is None:
        parameter.main_grad = gradient
    else:
        parameter.main_grad = _add(_wide(parameter, total, parameter.main_rows), gradient)
        parameter.main_rows = []
        keep_room(parameter, gradient)


def take(holders: Sequence[Any], slot: str) -> Tensor | None:
    """The sum of what all holders of a weight keep, in their order; none of them keeps a part.

    Args:
        slot: where the dense part is kept, `main_grad` or `grad`.

    Returns:
        float32, or as the only pass that made one left it.
    """
    total: Tensor | None = None
    for holder in holders:
        part, waiting = getattr(holder, slot), getattr(holder, "main_rows", ())
        setattr(holder, slot, None)
        if total is not None and part is not None:
            total = _add(_wide(holders[0], total), part)
            keep_room(holder, part)
        else:
            total = part if total is None else total
        if total is not None and waiting:
            total = _wide(holders[0], total, waiting)
        forget(holder, slot)
    return total


def _wide(weight: Any, gradient: Tensor, waiting: Sequence[Rows] = ()) -> Tensor:
    """A gradient in float32, with rows that waited beside it; nobody else has it."""
    wide = gradient
    if gradient.dtype != torch.float32:
        wide = room_for(weight, torch.float32).copy_(gradient)
        keep_room(weight, gradient)
    for rows in waiting:
        rows.add_to(wide)
    return wide


def _add(total: Tensor, part: Tensor) -> Tensor:
    """Float32 and what may be bfloat16: on a CPU, PyTorch takes twice as long for both in one operation."""
    if part.dtype == total.dtype or total.device.type != "cpu":
        return total.add_(part)
    for piece in pieces_of(total):
        rows, more = in_rows(total)[piece], in_rows(part)[piece]
        rows.add_(scratch("part", tuple(more.shape), more, dtype=total.dtype).copy_(more))
    return total


def piece_of(holder: Any, slot: str, piece: slice) -> Tensor:
    """Rows of what a weight keeps, float32, to be changed: the weight's own, or good until this thread asks again.

    Args:
        holder: keeps a dense part.
        piece: of the rows.
    """
    part = in_rows(getattr(holder, slot))[piece]
    if part.dtype == torch.float32 and part.is_contiguous():
        return part
    total = scratch("gradient", tuple(part.shape), part, dtype=torch.float32).copy_(part)
    for rows in getattr(holder, "main_rows", ()):
        rows.within(piece).add_to(total)
    return total


def forget(parameter: Any, slot: str = "main_grad", *, room: bool = False) -> None:
    """Keep no gradient.

    Args:
        room: nor memory for the next.
    """
    gradient = getattr(parameter, slot, None)
    setattr(parameter, slot, None)
    if slot == "main_grad":
        parameter.main_rows = []
        if gradient is not None:
            keep_room(parameter, gradient)
    if room:
        parameter.__dict__.pop("main_room", None)


def room_for(weight: Any, dtype: torch.dtype) -> Tensor:
    """Memory for a gradient of a weight: what an earlier one has left, or new. Nobody else has it."""
    room: Tensor | None = getattr(weight, "main_room", {}).pop(dtype, None)
    return torch.empty(weight.shape, dtype=dtype, device=weight.device) if room is None else room


def keep_room(weight: Any, gradient: Tensor) -> None:
    """Nobody reads this gradient any more: the next may have its memory, if that is worth it."""
    fits = gradient.shape == weight.shape and gradient.is_contiguous() and gradient.device.type == "cpu"
    if fits and gradient.nbytes >= _LARGE and hasattr(weight, "main_grad"):
        weight.__dict__.setdefault("main_room", {})[gradient.dtype] = gradient
