"""The first and last moments of a command: a signal while libraries are imported, or Python tidies up, ends it at once.

An exception there would stop in the midst of somebody else's code. Nothing is imported here that takes time.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType

_BY_DEFAULT = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
INTERRUPTED = 130


def leave_when_told() -> None:
    """From here on SIGINT, SIGTERM and SIGHUP end this process; whichever its starter has it ignore stays ignored."""
    for number, default in _BY_DEFAULT.items():
        if signal.getsignal(number) == default:
            signal.signal(number, _leave)
    sys.unraisablehook = _send_again
    atexit.register(_ignore)


def raise_when_told() -> None:
    """From here on they raise KeyboardInterrupt, where `leave_when_told` was in force: there is work to end well."""
    for number in _BY_DEFAULT:
        if signal.getsignal(number) is _leave:
            signal.signal(number, _raise)


def leave_again() -> None:
    """The work has ended; where `raise_when_told` was in force, a signal ends this process."""
    for number in _BY_DEFAULT:
        if signal.getsignal(number) is _raise:
            signal.signal(number, _leave)
    # Python ends itself by SIGINT, whatever exit code is asked for, when an interrupt last ended code in a string, of
    # which every dataclass is made. Code in a string that ends well has it forget.
    exec("")


def _leave(number: int, frame: FrameType | None) -> None:
    try:
        if os.environ.get("WORLD_SIZE", "1") == "1":  # many ranks leave it to whoever started them
            os.write(2, b"tuition: interrupted\n")
    finally:
        os._exit(INTERRUPTED)


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore() -> None:
    """What is left is Python's own end, in which it would have forgotten `_leave`."""
    for number in _BY_DEFAULT:
        signal.signal(number, signal.SIG_IGN)


def _send_again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops an interrupt that comes while an object is finalised; it comes once more, when that is over."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    import threading

    again = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
