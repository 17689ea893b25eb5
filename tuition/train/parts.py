"""Tensors of a checkpoint in parts: what a rank writes of each, and any part read from whatever parts lie there.

The files are safetensors. Those of several ranks say in their headers where each part begins, in the words of
torch.distributed.checkpoint's reader of safetensors, so that it can read them as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from tuition.train.distributed import Ranks
from tuition.train.storage import put, whole
from tuition.train.tensorfile import tensor_pieces

# as torch.distributed.checkpoint.hf_storage names them
_WHERE, _BEGINS = "DCP_SHARDING_INFO", "saved_offsets"


@dataclass(frozen=True, slots=True)
class Part:
    """A block of a tensor.

    Attributes:
        values: its numbers.
        offset: where they begin in the whole tensor, one number a dimension.
    """

    values: Tensor
    offset: tuple[int, ...]


def parts_to_write(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Part]:
    """Copies on the CPU of what this rank writes, so that each number is written by exactly one.

    A rank writes the part that it holds. What several hold alike is written by one: in `hsdp` the machines take
    turns, tensor by tensor; everything that is not shared out is the first rank's.
    """
    machines, machine = ranks.world // ranks.parts, ranks.rank // ranks.parts
    found = {}
    for turn, (name, tensor) in enumerate(tensors.items()):
        if isinstance(tensor, DTensor):
            offset, mine = place_of(tensor), tensor.to_local()
            if mine.numel() and turn % machines == machine:
                found[name] = Part(_copy(mine), offset)
        elif ranks.first:
            found[name] = Part(_copy(whole(tensor)), (0,) * tensor.ndim)
    return found


def place_of(weight: DTensor) -> tuple[int, ...]:
    """Where this rank's part of a weight begins."""
    (block,) = weight.__create_chunk_list__()
    return tuple(block.offsets)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def part_pieces(parts: Mapping[str, Part], *, sharded: bool) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file of these parts.

    Args:
        sharded: other files hold the rest, so that the header says where each part begins.
    """
    where = {name: {_BEGINS: list(part.offset)} for name, part in parts.items()}
    note = {"format": "pt", "DCP_VERSION": "1.0", _WHERE: json.dumps(where)} if sharded else {}
    return tensor_pieces({name: part.values for name, part in parts.items()}, note)


@dataclass(frozen=True, slots=True)
class _Block:
    """A part that lies in a file."""

    file: Any
    offset: tuple[int, ...]
    shape: tuple[int, ...]


class Stored:
    """The tensors of one kind in a checkpoint, whatever parts they lie in.

    Args:
        folder: of the checkpoint.
        kind: how its files are named: KIND.safetensors, or KIND-1-of-N.safetensors and so on.

    Attributes:
        shapes: of the whole tensors, by name.

    Raises:
        SafetensorError, ValueError, LookupError, TypeError: a file is damaged.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._blocks: dict[str, list[_Block]] = {}
        alone = folder / f"{kind}.safetensors"
        for path in [alone] if alone.exists() else sorted(folder.glob(f"{kind}-*.safetensors")):
            file: Any = safe_open(path, framework="pt")
            where = json.loads((file.metadata() or {}).get(_WHERE, "{}"))
            for name in file.keys():  # noqa: SIM118  it is no dictionary
                shape = tuple(file.get_slice(name).get_shape())
                offset = tuple(where[name][_BEGINS]) if where else (0,) * len(shape)
                if len(offset) != len(shape) or not all(type(n) is int and n >= 0 for n in offset):
                    raise ValueError(f"{path.name} does not say where its part of {name} begins")
                self._blocks.setdefault(name, []).append(_Block(file, offset, shape))
        self.shapes = {name: _hull(blocks) for name, blocks in self._blocks.items()}

    def whole(self, name: str) -> Tensor:
        """All numbers of a tensor."""
        shape = self.shapes[name]
        return self.part(name, (0,) * len(shape), shape)

    def part(self, name: str, offset: Sequence[int], shape: Sequence[int]) -> Tensor:
        """A block of a tensor, from all files that hold something of it.

        Raises:
            ValueError: no file holds some of it.
        """
        found, covered = torch.empty(0), 0
        for block in self._blocks[name]:
            if (block.offset, block.shape) == (tuple(offset), tuple(shape)):
                values: Tensor = block.file.get_tensor(name)
                return values
            lows = [max(*pair) for pair in zip(offset, block.offset, strict=True)]
            highs = [
                min(a + n, b + m) for a, n, b, m in zip(offset, shape, block.offset, block.shape, strict=True)
            ]
            if any(high <= low for low, high in zip(lows, highs, strict=True)):
                continue
            piece = block.file.get_slice(name)[_slices(lows, highs, block.offset)]
            if not covered:
                found = torch.empty(tuple(shape), dtype=piece.dtype)
            found[_slices(lows, highs, offset)] = piece
            covered += piece.numel()
        if covered != math.prod(shape):
            raise ValueError(f"of {name}, {covered} of {math.prod(shape)} numbers are there")
        return found


def _hull(blocks: Sequence[_Block]) -> tuple[int, ...]:
    """The shape of what all blocks lie in."""
    ends = [[a + n for a, n in zip(block.offset, block.shape, strict=True)] for block in blocks]
    return tuple(map(max, zip(*ends, strict=True)))


def _slices(lows: Sequence[int], highs: Sequence[int], begin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(low - b, high - b) for low, high, b in zip(lows, highs, begin, strict=True))


# --- into what learns ---


@torch.no_grad()
def put_weight(weight: Tensor, stored: Stored, name: str) -> None:
    """Give a weight that learns the numbers that are stored; where ranks share it out, this one's part of them."""
    if isinstance(weight, DTensor):
        weight.to_local().copy_(_part_for(weight, stored, name))
    else:
        put(weight, stored.whole(name))


def remember(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Parameter], stored: Stored, key: str
) -> bool:
    """Give an optimizer back one thing that it remembered; False where it fits no weight.

    Args:
        key: as `remembered` named it.
    """
    owner, _, name = key.rpartition("/")
    of_blocks = name.startswith(("qmap", "absmax"))  # scales and codes of moments in 8 bits
    weight, shape = weights.get(owner), stored.shapes[key]
    if weight is None or (shape and shape != tuple(weight.shape) and not of_blocks):
        return False
    if isinstance(weight, DTensor) and shape == tuple(weight.shape):
        optimizer.state[weight][name] = _shared_out_like(weight, _part_for(weight, stored, key))
        return True
    value = stored.whole(key)
    counted = value.ndim == 0 and value.dtype == torch.int64
    optimizer.state[weight][name] = int(value) if counted else value.to(weight.device)
    return True


def _shared_out_like(weight: DTensor, mine: Tensor) -> DTensor:
    return DTensor.from_local(
        mine.to(weight.to_local().device),
        weight.device_mesh,
        weight.placements,
        run_check=False,
        shape=weight.shape,
        stride=weight.stride(),
    )


def _part_for(weight: DTensor, stored: Stored, name: str) -> Tensor:
    """Of what is stored, this rank's part; nothing where it holds none of the weight."""
    mine = weight.to_local()
    return stored.part(name, place_of(weight), mine.shape) if mine.numel() else torch.empty_like(mine)
