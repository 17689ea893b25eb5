"""SIGINT, SIGTERM and SIGHUP, from the first stage of a run to its last: nothing half-done stays or is lost."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tuition.errors import LeftInTheMiddle
from tuition.leaving import INTERRUPTED

# A stop must be over within ten seconds: an update may take three of them to finish, saving has the others.
_PATIENCE_SECONDS = 3.0
_STOPS = (signal.SIGINT, signal.SIGTERM)
# The terminal was closed. Kernel and shell may both say so, hence it never counts as somebody's second signal.
_CLOSED = signal.SIGHUP
_TO_LEAVE_SECONDS = 1.0


class _Enough:
    """How many signals end a process whose Python is not asked."""

    signals = 2


class Signals:
    """Told by the operating system to stop.

    Outside of `gently` the first signal raises KeyboardInterrupt, because nothing there needs finishing. Inside,
    it is only noted: the loop ends its update and saves. A second one raises KeyboardInterrupt, unless it is SIGHUP.
    """

    def __init__(self) -> None:
        self.count = 0
        self._asked_at = 0.0
        self._gentle = False
        self._breakable = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Receive the signals; whoever had them before has them again after. `nohup` is left to ignore SIGHUP."""
        closed = () if signal.getsignal(_CLOSED) is signal.SIG_IGN else (_CLOSED,)
        try:
            before = {number: signal.signal(number, self._receive) for number in (*_STOPS, *closed)}
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._break_off)
        except ValueError:  # not in the main thread: the caller keeps its own signals
            yield
            return
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
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

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Inside, what is computed may be broken off by `LeftInTheMiddle` once a stop has waited long enough.

        Between two of Python's own steps only; a single call into a library is finished first.
        """
        self._breakable = True
        try:
            yield
        finally:
            self._breakable = False

    def asked(self) -> bool:
        """A signal came."""
        return self.count > 0

    def hurry(self) -> bool:
        """A signal came so long ago that what takes long must be broken off."""
        return self.asked() and time.monotonic() - self._asked_at > _PATIENCE_SECONDS

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == _CLOSED and self.asked():
            return
        self.count += 1
        if self.count == 1:
            self._asked_at = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, max(_PATIENCE_SECONDS, 1e-3))
        if self.count > 1 or not self._gentle:
            raise KeyboardInterrupt

    def _break_off(self, number: int, frame: FrameType | None) -> None:
        if self._breakable:
            raise LeftInTheMiddle


@contextmanager
def second_signal_leaves() -> Iterator[None]:
    """Inside, a second SIGINT or SIGTERM ends this process, however long Python is not asked.

    A handler written in Python waits for the call into a library that goes on, which may take a minute, and two
    signals that come during it are one to it. So a thread counts them; it gives Python a second to leave by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_count, args=(reader,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()  # which ends the thread


@contextmanager
def first_signal_leaves() -> Iterator[None]:
    """Inside, where `second_signal_leaves` is in force, the first does: ranks meet here, and one may have left."""
    _Enough.signals = 1
    try:
        yield
    finally:
        _Enough.signals = 2


def _count(reader: socket.socket) -> None:
    with reader:
        seen = 0
        while seen < _Enough.signals:
            number = reader.recv(1)
            if not number:
                return
            seen += number[0] in _STOPS
        reader.settimeout(_TO_LEAVE_SECONDS)
        try:
            while reader.recv(1):
                pass
        except TimeoutError:
            if seen > 1:  # else a rank, and whoever started them says it once
                os.write(2, b"\ntuition: left at once; the last checkpoint stands. Go on with --resume\n")
            os._exit(INTERRUPTED)
