"""Getting numbers to where the model lives, without waiting for what it is doing."""

from __future__ import annotations

import torch
from torch import Tensor


def put_on(device: torch.device, tensor: Tensor) -> Tensor:
    """A CPU tensor on the device.

    A plain copy to CUDA waits until all that was asked of it before is done; one from pinned memory queues up.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
