"""Memory: what is in use, what is left, keeping what the allocator has, and trading it for time."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tuition.errors import UserError
from tuition.train.model import base_of

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h
_CGROUP = Path("/sys/fs/cgroup")
# A CPU's allocator; CUDA where it loads code or asks for memory beside PyTorch's allocator; its libraries
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed: every step needs the same blocks again.

    Otherwise each large block goes back to the kernel and is faulted in page by page at the next step.
    Where there is no mallopt, nothing happens.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 << 20)
        # Two arenas: with one, lanes wait for each other; with many, what one has freed no other can use
        mallopt(_M_ARENA_MAX, 2)


def give_back_freed_memory() -> None:
    """Ask glibc to give freed memory back to the system.

    Done once, after the first update: the optimizer's moments then lie where its activations had been, and the gaps
    between them are too small for the large blocks of the next update.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def checkpoint_activations(model: Any) -> None:
    """Compute each layer's activations again in the backward pass from here on. The result is the same.

    Raises:
        UserError: this model cannot.
    """
    base = base_of(model)
    if not getattr(base, "supports_gradient_checkpointing", False):
        raise UserError(
            f"{type(base).__name__} cannot recompute activations",
            where="activation_checkpointing",
            next_step="Set activation_checkpointing: off",
        )
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory did not suffice, in the words of any device and of its libraries."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def memory_left(device: torch.device) -> int | None:
    """Bytes that can still be taken, of the machine and of the container; None: not known.

    Not asked of a GPU: it refuses what it has not, and what it calls free leaves out what PyTorch keeps to use again.
    """
    if device.type == "cuda":
        return None
    left = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        left.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        left.append(limit - int((_CGROUP / "memory.current").read_text(encoding="ascii")))
    return min(left) if left else None


def peak_memory(device: torch.device) -> int:
    """The most memory in use so far, in bytes: of the CUDA device, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
