"""Libraries imported with care: the large ones quickly, and those that reach for the hub meanwhile so that they do not.

Where the CPU has AVX512-BF16, bitsandbytes fetches compiled code from the hub if a package called `kernels` is there,
and peft imports bitsandbytes by itself. Nobody asked for that code, so neither finds that package.
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tuition.errors import UserError

_FETCHES = "kernels"


def import_large_ones() -> None:
    """torch, and of transformers what every run needs, before they are asked for piece by piece.

    What they make stays, so no garbage is looked for in it, now or later: that took a fifth of a short run. The same
    holds for what else the process has by then.
    """
    if "transformers.modeling_utils" in sys.modules:
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("torch")
        importlib.import_module("transformers.modeling_utils")
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def peft() -> Any:
    """The library of adapters. It imports bitsandbytes when it first looks for layers in 4 bits: here that is done before."""
    with suppress(ImportError):  # optional, and peft does without
        _imported("bitsandbytes")
    return _imported("peft")


def bitsandbytes() -> Any:
    """The library of 4-bit weights and 8-bit moments.

    Raises:
        UserError: it is not installed.
    """
    try:
        return _imported("bitsandbytes")
    except ImportError as error:
        raise UserError(
            f"4-bit weights and 8-bit moments need bitsandbytes ({error})",
            where="method, optimizer",
            next_step="pip install 'tuition[quantised]', or choose method: lora and optimizer: adamw",
        ) from None


def _imported(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    # it says what it could not fetch
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    with _nothing_to_fetch_with():
        return importlib.import_module(name)


@contextmanager
def _nothing_to_fetch_with() -> Iterator[None]:
    before = {name: module for name, module in sys.modules.items() if name == _FETCHES}
    sys.modules[_FETCHES] = None  # type: ignore[assignment]  # for Python: it cannot be imported
    try:
        yield
    finally:
        del sys.modules[_FETCHES]
        sys.modules.update(before)
