"""Memory that a thread uses again and again."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

_BUFFERS: dict[tuple[str, str, torch.device, torch.dtype], Tensor] = {}


def scratch(name: str, shape: tuple[int, ...], like: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Memory that is used again by whoever asks for the same name in the same thread; its content is whatever was there.

    Args:
        like: on whose device, and in whose dtype unless another is given.
    """
    key = (name, threading.current_thread().name, like.device, dtype or like.dtype)
    values = math.prod(shape)
    if key not in _BUFFERS or _BUFFERS[key].numel() < values:
        _BUFFERS.pop(key, None)
        with torch.inference_mode(False):
            _BUFFERS[key] = torch.empty(values, dtype=key[3], device=key[2])
    return _BUFFERS[key][:values].view(shape)
