"""What every refusal of something hostile is held to: soon, in little memory, and nothing written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_BYTES = 500_000_000
# Of work, not of waiting: half a second is the most that anything takes here, and 1.1 where a template uses up its own
# second.
MOST_CPU_SECONDS = 2.0


@contextmanager
def refused_in_bounds(folder: Path) -> Iterator[None]:
    """Within it, no file appears or goes in the folder, and this process takes little memory and time."""
    before = sorted(folder.rglob("*"))
    held, began = _reset_peak(), time.process_time()
    yield
    assert time.process_time() - began < MOST_CPU_SECONDS
    assert _peak() - held < MOST_BYTES
    assert sorted(folder.rglob("*")) == before


def _reset_peak() -> int:
    """Let the system forget the most memory that this process ever had; what it has now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the peak of before then hides a smaller one
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    """A line of the system's account of this process, in bytes; 0 where it keeps none."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
