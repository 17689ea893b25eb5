"""The state of every generator of random numbers that a step may draw from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class RandomState:
    """Where all generators stand.

    Attributes:
        tensors: PyTorch's on the CPU and on each accelerator: (bytes,) uint8.
        values: Python's and NumPy's, as JSON.
    """

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]


def random_state() -> RandomState:
    """Where all generators stand now."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda-{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    if torch.backends.mps.is_available():
        tensors["mps"] = torch.mps.get_rng_state()
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    numpy = [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)]
    return RandomState(tensors, {"python": [version, list(words), gauss], "numpy": numpy})


def restore_random_state(state: RandomState) -> None:
    """Put all generators back. Those of a device that this machine has not are left out.

    Raises:
        ValueError: a generator cannot stand there.
    """
    try:
        torch.set_rng_state(state.tensors["torch"])
    except RuntimeError as error:  # PyTorch's word for it, and for much else
        raise ValueError(str(error)) from error
    for name, tensor in state.tensors.items():
        index = name.removeprefix("cuda-")
        if index.isdigit() and torch.cuda.is_available() and int(index) < torch.cuda.device_count():
            torch.cuda.set_rng_state(tensor, int(index))
        elif name == "mps" and torch.backends.mps.is_available():
            torch.mps.set_rng_state(tensor)
    version, words, gauss = state.values["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state.values["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
