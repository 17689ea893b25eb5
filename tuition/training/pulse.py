"""A rank that stands still ends itself, so that torchrun starts all of them again.

Nothing is sent for it: whoever waits for a rank that hangs stands still too. So a rank whose process or machine is
frozen is found by the others, which end, and torchrun ends what is left.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LOOKS = 10  # within the seconds that may pass between two beats
_STDERR = 2
_STUCK = 3  # the exit code; any but 0 has torchrun start all again


class Pulse:
    """Whether a rank gets on.

    Args:
        rank: which this is, to say it.
        seconds: that may pass between two beats.
    """

    def __init__(self, rank: int, seconds: float) -> None:
        self._rank, self._seconds = rank, seconds
        self._beats = 0

    def beat(self) -> None:
        """Something was done."""
        self._beats += 1

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, this process ends where it has not got on for too long, and says on stderr where it stood."""
        over = threading.Event()
        threading.Thread(target=self._watch, args=(over,), name="pulse", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _watch(self, over: threading.Event) -> None:
        # looks are counted, and not seconds, which pass too while a machine sleeps
        seen, looks_without_a_beat = self._beats, 0
        while not over.wait(self._seconds / _LOOKS):
            beats = self._beats
            looks_without_a_beat = looks_without_a_beat + 1 if beats == seen else 0
            seen = beats
            if looks_without_a_beat > _LOOKS:
                sentence = f"tuition: rank {self._rank} has not got on for {self._seconds:g} s (heartbeat_seconds) and ends; it stood here:\n"
                with suppress(OSError):  # nobody reads any more
                    os.write(_STDERR, sentence.encode())
                    faulthandler.dump_traceback(_STDERR)
                os._exit(_STUCK)  # no clean way out: what hangs would hang it too
