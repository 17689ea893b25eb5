"""How long tests wait for what must come: long, for it costs nothing where all is well, and a machine may be slow or busy."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 300.0


def wait_for(condition: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    """Return when the condition holds.

    Args:
        told: what to say of it where it never does.

    Raises:
        AssertionError: it took too long.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, f"waited for {PATIENCE_SECONDS:g} s in vain {told()}"
        time.sleep(0.05)
