"""torchrun as `tuition train` starts it, and the watch that a rank keeps on it: a signal at any moment stops all ranks
without a traceback, and none outlives whoever started it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

from tuition.leaving import INTERRUPTED

SECONDS_TO_SAVE = 110  # after a signal; schedulers are asked for two minutes
STOPS = (signal.SIGINT, signal.SIGTERM)
_STARTER = "TUITION_TORCHRUN"
_SECONDS_BETWEEN_LOOKS = 1.0


def main() -> None:
    """Run torchrun. Whoever starts this may block SIGINT and SIGTERM until it is ready for them."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _terminate)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    os.environ[_STARTER] = str(os.getpid())
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.run import main as torchrun

    try:
        torchrun()
    except SignalException:  # the ranks have ended
        sys.exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    """Before torchrun has its own handler there is no rank."""
    os._exit(INTERRUPTED)


def _terminate(number: int, frame: FrameType | None) -> None:
    """torchrun passes on what it gets, and a rank that Python is still starting for dies of SIGTERM without a word."""
    os.kill(os.getpid(), signal.SIGTERM)


def stop_with_the_starter() -> None:
    """Have this rank stop, as a signal stops it, when the torchrun that started it is no more."""
    starter = os.environ.get(_STARTER)
    if starter is not None:
        threading.Thread(target=_watch, args=(int(starter),), name="starter", daemon=True).start()


def _watch(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_SAVE)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
