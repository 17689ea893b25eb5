"""SIGINT and SIGTERM, from the first stage of a run to its last: nothing half-done stays, and nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A stop must be over within ten seconds: an update may take half of them to finish, saving the other half.
_PATIENCE_SECONDS = 5.0


class Signals:
    """Told by the operating system to stop.

    Outside of `gently` the first signal raises KeyboardInterrupt, because nothing there needs finishing. Inside,
    it is only noted: the loop ends its update and saves. A second one always raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.count = 0
        self._asked_at = 0.0
        self._gentle = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Receive both signals; whoever had them before has them again after."""
        try:
            before = {
                number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)
            }
        except ValueError:  # not in the main thread: the caller keeps its own signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def gently(self) -> Iterator[None]:
        """Inside, a first signal is only noted."""
        self._gentle = True
        try:
            yield
        finally:
            self._gentle = False

    def asked(self) -> bool:
        """A signal came."""
        return self.count > 0

    def hurry(self) -> bool:
        """A signal came so long ago that what takes long must be broken off."""
        return self.asked() and time.monotonic() - self._asked_at > _PATIENCE_SECONDS

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self._asked_at = time.monotonic()
        if self.count > 1 or not self._gentle:
            raise KeyboardInterrupt
