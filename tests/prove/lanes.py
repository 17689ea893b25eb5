"""Parts of the proof side by side, each in a process of its own: what one ends with is kept at once, whatever becomes
of the others. What measures time or memory runs alone, behind the rest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

_GRACE_SECONDS = 15.0


def run_all(parts: Sequence[str], alone: Sequence[str], lanes: int, tell: Callable[[str], None]) -> bool:
    """Run parts, so many at a time, then those that must be alone one by one; whether every one survived.

    Ctrl-C and SIGTERM are passed on to the parts, which remove what they laid; none is left running.
    """
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    at_work: dict[str, subprocess.Popen[bytes]] = {}
    survived, began = True, time.monotonic()
    waiting = [(part, lanes) for part in parts] + [(part, 1) for part in alone]
    try:
        while waiting or at_work:
            for part, process in list(at_work.items()):
                if process.poll() is not None:
                    del at_work[part]
                    survived &= process.returncode == 0
                    said = "" if process.returncode == 0 else f" with exit {process.returncode}"
                    left = ", ".join([*at_work, *(name for name, _ in waiting)]) or "nothing"
                    tell(
                        f"=== {(time.monotonic() - began) / 60:.1f} minutes: {part} ended{said}; left: {left}"
                    )
            if waiting and len(at_work) < waiting[0][1]:
                part, _ = waiting.pop(0)
                at_work[part] = _start(part)
            else:
                time.sleep(0.2)
    finally:
        _stop(list(at_work.values()))
    return survived


def _as_ctrl_c(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _start(part: str) -> subprocess.Popen[bytes]:
    """A part in a group of its own, so that all that it started can be stopped with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.prove"],
        env={"OMP_NUM_THREADS": "1", **os.environ, "PARTS": part, "PROVE_ALL": "1"},
        stdout=subprocess.DEVNULL,
        process_group=0,
    )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    until = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, until - time.monotonic()))
        with suppress(ProcessLookupError):  # the part, or whatever it left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
