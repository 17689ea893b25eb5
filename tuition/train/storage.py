"""Where the numbers of a weight live, read and written as one float32 tensor: whole, split into 16 and 16 bits, or
over many ranks.

A bfloat16 weight is the upper half of its float32 master, rounded. The lower half beside it is all that the
master is more, so that both together take 4 bytes instead of 6, and no bit of the result changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from tuition.train import gradients
from tuition.train.masters import Masters, Piece
from tuition.train.pieces import in_rows, pieces_of
from tuition.train.scratch import scratch

_HALF = 0x8000


class Halves:
    """A float32 tensor as its bfloat16 rounding, which others hold, and what it is more or less, 16 bits.

    Rounding goes to the nearest, and from the middle to the even neighbour. So the bits of the number are those of
    its rounding and −32,768 to 32,768 more: one too many for 16 bits. The middles that went down, one number in
    131,072 or so, read as those that went up, and are listed.

    Attributes:
        upper: bfloat16, of the same shape; the weight that the model computes with.
    """

    def __init__(self, upper: Tensor, values: Tensor) -> None:
        self.upper = upper
        self._more = torch.empty_like(upper, dtype=torch.int16)
        self._went_down: dict[int, Tensor] = {}
        self.keep(values)

    def keep(self, values: Tensor) -> None:
        """Hold these numbers from here on; `upper` becomes their rounding.

        Args:
            values: float32.
        """
        for piece in pieces_of(self.upper):
            self.keep_piece(piece, in_rows(values)[piece])

    def join(self) -> Tensor:
        """The float32 numbers, to the bit."""
        joined = torch.empty(self.upper.shape, dtype=torch.float32, device=self.upper.device)
        for piece in pieces_of(self.upper):
            self.join_piece(piece, out=in_rows(joined)[piece])
        return joined

    def keep_piece(self, piece: slice, values: Tensor) -> None:
        """Hold these numbers in some rows, one of `pieces_of`."""
        upper, kept = (in_rows(half)[piece] for half in (self.upper, self._more))
        upper.copy_(values)
        more = (
            scratch("halves", tuple(upper.shape), upper, dtype=torch.float32).copy_(upper).view(torch.int32)
        )
        torch.sub(values.contiguous().view(torch.int32), more, out=more)
        kept.copy_(more)
        self._went_down[piece.start] = _places_of_largest(more, _HALF)

    def join_piece(self, piece: slice, *, out: Tensor) -> None:
        """Write the numbers of some rows, one of `pieces_of`, into a contiguous float32 tensor."""
        upper, kept = (in_rows(half)[piece] for half in (self.upper, self._more))
        bits = out.copy_(upper).view(torch.int32).add_(kept)
        bits.view(-1)[self._went_down[piece.start]] += 2 * _HALF


def _places_of_largest(bits: Tensor, largest: int) -> Tensor:
    """Flat places of a number that none exceeds. Few rows have it: comparing only those takes a tenth of the time."""
    rows = bits.view(-1, bits.shape[-1])
    found = (rows.amax(1) == largest).nonzero()[:, 0]
    row, column = (rows[found] == largest).nonzero().unbind(1)
    return found[row] * rows.shape[1] + column


class SplitMasters(Masters):
    """Masters that exist as a whole only while the optimizer moves them."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__(model, dtype)
        for name, master in self.parameters.items():
            master.halves = Halves(self.working[name].data, master.data)  # type: ignore[attr-defined]
            _empty(master)

    def hand_over(self, name: str, shrink: float) -> None:
        """A master becomes whole, with its gradient, until it is published."""
        master: Any = self.parameters[name]
        master.data = master.halves.join()
        super().hand_over(name, shrink)

    def _open(self, piece: Piece) -> Tensor:
        name, rows = piece
        halves: Halves = self.parameters[name].halves  # type: ignore[attr-defined]
        upper = in_rows(halves.upper)[rows]
        values = scratch("master", tuple(upper.shape), upper, dtype=torch.float32)
        halves.join_piece(rows, out=values)
        return values

    def _close(self, piece: Piece, values: Tensor) -> None:
        name, rows = piece
        self.parameters[name].halves.keep_piece(rows, values)  # type: ignore[attr-defined]

    @torch.no_grad()
    def publish(self, names: Iterable[str] = ()) -> None:
        """What the optimizer moved is split again. The model computes with the upper halves themselves."""
        for name in names:
            master: Any = self.parameters[name]
            master.halves.keep(master.data)
            _empty(master)

    def settle(self) -> None:
        """The model's weights become the masters themselves, to be written. Training is over after this."""
        for name, master in self.parameters.items():
            self.working[name].data = master.halves.join()  # type: ignore[attr-defined]
            gradients.forget(self.working[name], room=True)
        self.parameters, self.split = self.working, False


def _empty(master: Parameter) -> None:
    """Keep the shape, and no memory."""
    master.data = master.data.new_zeros(()).expand(master.shape)


def whole(weight: Tensor) -> Tensor:
    """All numbers of a weight that learns, float32, or of what an optimizer remembers of it.

    Where ranks hold parts of it, all of them must call this.
    """
    if isinstance(weight, DTensor):
        full: Tensor = weight.full_tensor().detach()
        return full
    halves: Halves | None = getattr(weight, "halves", None)
    return weight.detach() if halves is None else halves.join()


@torch.no_grad()
def put(weight: Tensor, values: Tensor) -> None:
    """Give a weight that learns, and that one rank holds whole, other numbers."""
    halves: Halves | None = getattr(weight, "halves", None)
    if halves is None:
        weight.copy_(values)
    else:
        halves.keep(values.to(halves.upper.device, torch.float32))


def remembered(optimizer: torch.optim.Optimizer, weights: Mapping[str, Parameter]) -> dict[str, Tensor]:
    """What an optimizer remembers of each weight, as `NAME/KEY` → tensor; counters as integers of no dimension.

    Where a weight is shared out over ranks, so is what is remembered of its numbers.
    """
    return {
        f"{name}/{key}": value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.int64)
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
        if isinstance(value, Tensor | int)
    }
