"""Tensors as a safetensors file, a piece at a time, so that `files` writes it and no second copy is held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_PIECE = 1 << 24


def tensor_pieces(
    tensors: Mapping[str, torch.Tensor], note: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file: length of the header, header, then each tensor's numbers.

    Args:
        tensors: on the CPU, contiguous.
        note: what the header says beside.
    """
    header: dict[str, object] = {"__metadata__": dict(note)} if note else {}
    end = 0
    # wide numbers first, as safetensors itself does, so that each tensor lies at a multiple of its width
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in order:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        numbers = tensors[name].detach().reshape(-1).view(torch.uint8).numpy()
        for start in range(0, len(numbers), _PIECE):
            yield numbers[start : start + _PIECE].data
