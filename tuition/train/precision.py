"""Which precision is faster here, found by measuring matrix products at the model's own shapes."""

from __future__ import annotations

import time
from typing import Any

import torch

_ROWS = 512
_SECONDS_EACH = 0.05
# Narrower models take little time either way, and float32 gives the same result on more machines.
_NARROWEST = 256
# bfloat16 also pays for masters and for copies between the two: a smaller gain is none.
_WORTH = 1.2


def faster_dtype(device: torch.device, config: Any) -> torch.dtype:
    """bfloat16 where this machine multiplies it clearly faster than float32 at this model's shapes."""
    text = config.get_text_config()
    width = int(getattr(text, "hidden_size", 0) or 0)
    if width < _NARROWEST or not _computes_bfloat16(device):
        return torch.float32
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * width
    rates = multiplication_rates(device, width, int(inner))
    return torch.bfloat16 if rates[torch.bfloat16] > _WORTH * rates[torch.float32] else torch.float32


def multiplication_rates(device: torch.device, width: int, inner: int) -> dict[torch.dtype, float]:
    """Floating-point operations a second of a layer's forward and backward products, by dtype.

    Measured in turns and the best of each kept, so that a busy neighbour does not decide.
    """
    problems = {dtype: _products(device, width, inner, dtype) for dtype in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(problems, float("inf"))
    for run in problems.values():
        run()  # the first call prepares kernels
    until = time.perf_counter() + 2 * _SECONDS_EACH
    rounds = 0
    while rounds < 3 or time.perf_counter() < until:
        for dtype, run in problems.items():
            best[dtype] = min(best[dtype], run())
        rounds += 1
    return {dtype: 6 * _ROWS * width * inner / seconds for dtype, seconds in best.items()}


def _products(device: torch.device, width: int, inner: int, dtype: torch.dtype) -> Any:
    random = torch.Generator().manual_seed(0)  # the run's own random numbers stay untouched
    x, weight = (torch.randn(n, width, generator=random).to(device, dtype) for n in (_ROWS, inner))
    slope = torch.randn(_ROWS, inner, generator=random).to(device, dtype)

    def run() -> float:
        _wait(device)
        started = time.perf_counter()
        _ = x @ weight.t(), slope @ weight, slope.t() @ x
        _wait(device)
        return time.perf_counter() - started

    return run


def _computes_bfloat16(device: torch.device) -> bool:
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
