"""Where the numbers of a weight live, read and written as one float32 tensor: whole, split into 16 and 16 bits, or
over many ranks.

A bfloat16 weight is the upper half of its float32 master, rounded. The lower half beside it is all that the
master is more, so that both together take 4 bytes instead of 6, and no bit of the result changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
# The fewest numbers of a piece that compiled code is used for: small ones take as long either way, and a compiler would
# make code of its own for shapes with a 1 in them.
_WORTH_COMPILED = 1 << 16


@dataclass(frozen=True, slots=True)
class Code:
    """Compiled code that splits and joins whole pieces, flat.

    It takes the bits of floats as integers: between two operations on floats a compiler may leave the rounding out.

    Attributes:
        split: (bits, upper halves to fill, rest to fill) → which numbers lie in the middle between two upper halves and
            were rounded down: (n,) int32, int16, int16 → (n,) bool.
        join: (upper halves, rest, bits to fill): (n,) int16, int16, int32.
    """

    split: Callable[[Tensor, Tensor, Tensor], Tensor]
    join: Callable[[Tensor, Tensor, Tensor], None]

    def is_right(self, device: torch.device) -> bool:
        """Whether it gives what plain operations give, on numbers of all sizes and on those in the middle."""
        random = torch.Generator().manual_seed(0)
        bits = torch.randint(-(2**31), 2**31, (4 * _WORTH_COMPILED,), generator=random).to(torch.int32)
        bits[::7] = (bits[::7] >> 16 << 16) + _HALF
        values = bits.view(torch.float32)
        values = torch.where(values.isfinite(), values, 1.0).to(device)
        halves = [
            Halves(torch.empty_like(values, dtype=torch.bfloat16), values, code) for code in (None, self)
        ]
        return all(torch.equal(half.join(), values) for half in halves) and torch.equal(
            halves[0].upper, halves[1].upper
        )


def split_bits(bits: Tensor, upper: Tensor, more: Tensor) -> Tensor:
    """`Code.split`: to the nearest, and from the middle to the even neighbour."""
    rounded = (bits + (_HALF - 1) + ((bits >> 16) & 1)) >> 16
    rest = bits - (rounded << 16)
    upper.copy_(rounded)
    more.copy_(rest)
    return rest == _HALF


def join_bits(upper: Tensor, more: Tensor, bits: Tensor) -> None:
    """`Code.join`."""
    bits.copy_((upper.to(torch.int32) << 16) + more)


class Halves:
    """A float32 tensor as its bfloat16 rounding, which others hold, and what it is more or less, 16 bits.

    Rounding goes to the nearest, and from the middle to the even neighbour. So the bits of the number are those of
    its rounding and −32,768 to 32,768 more: one too many for 16 bits. The middles that went down, one number in
    131,072 or so, read as those that went up, and are listed.

    Attributes:
        upper: bfloat16, of the same shape; the weight that the model computes with.
        code: what makes and joins large halves; None: operation by operation.
    """

    def __init__(self, upper: Tensor, values: Tensor, code: Code | None = None) -> None:
        self.upper = upper
        self.code = code
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
        if code := self._code_for(upper, kept, values):
            bits, *halves = values.view(torch.int32), upper.view(torch.int16), kept
            down = code.split(*(part.view(-1) for part in (bits, *halves)))
            self._went_down[piece.start] = down.nonzero()[:, 0]
            return
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
        bits = out.view(torch.int32)
        if code := self._code_for(upper, kept, out):
            code.join(*(part.view(-1) for part in (upper.view(torch.int16), kept, bits)))
        else:
            out.copy_(upper)
            bits.add_(kept)
        bits.view(-1)[self._went_down[piece.start]] += 2 * _HALF

    def _code_for(self, *parts: Tensor) -> Code | None:
        """Compiled code, where there is some and it is worth it."""
        fits = parts[0].numel() >= _WORTH_COMPILED and all(part.is_contiguous() for part in parts)
        return self.code if fits else None


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
            master.halves = Halves(self.working[name].data, master.data)
            _empty(master)

    def hand_over(self, name: str, shrink: float) -> None:
        """A master becomes whole, with its gradient, until it is published."""
        master: Any = self.parameters[name]
        master.data = master.halves.join()
        super().hand_over(name, shrink)

    def _open(self, piece: Piece) -> Tensor:
        name, rows = piece
        halves: Halves = self.parameters[name].halves
        upper = in_rows(halves.upper)[rows]
        values = scratch("master", tuple(upper.shape), upper, dtype=torch.float32)
        halves.join_piece(rows, out=values)
        return values

    def _close(self, piece: Piece, values: Tensor) -> None:
        name, rows = piece
        self.parameters[name].halves.keep_piece(rows, values)

    def compile(self, backend: str, device: torch.device) -> str:
        """Halves are made and joined by compiled code from here on.

        Returns:
            Why not; empty: they are.
        """
        code = Code(
            split=torch.compile(split_bits, backend=backend, dynamic=True),
            join=torch.compile(join_bits, backend=backend, dynamic=True),
        )
        if not code.is_right(device):
            return "halves of masters were not what they are without"
        for master in self.parameters.values():
            master.halves.code = code
        return ""

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
            self.working[name].data = master.halves.join()
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
