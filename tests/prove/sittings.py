"""Real training processes, started cheaply and killed at any instant.

A server process imports everything once and forks a child for each sitting, which really trains: `tuition.train`
with a real model, real files, real locks. A fresh sitting is the command in a new interpreter, which takes five
times as long and shows that the fork hides nothing.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.prove.faultydisk import Unsynced
from tuition import files

_ROOT = Path(__file__).resolve().parents[2]
_LOOK_AGAIN_SECONDS = 0.002


def import_everything() -> None:
    """What a sitting surely imports. No backward pass: PyTorch's engine does not live through a fork."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    import tuition.training  # noqa: F401

    torch.set_num_threads(1)


def import_what_was_missing(noted: Path) -> None:
    """Import here what a sitting had to import by itself, so that the next ones need not."""
    for name in json.loads(noted.read_text()):
        if name not in sys.modules:
            with suppress(Exception):  # a module that imports only in its place
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each child copies all pages that its collector looks at


def sitting(
    settings: dict[str, Any], folder: Path, *, die_at_operation: int | None = None, note: Path | None = None
) -> int:
    """Fork a process that trains: a new run, or a resume where there is one; its id.

    Args:
        die_at_operation: it kills itself at the n-th disk operation of the thread that writes checkpoints.
        note: a file for the names of the modules that it had at its end.
    """

    def train() -> None:
        import tuition

        if _begun(folder):
            tuition.train(folder, resume=True)
        else:
            tuition.train(**settings, output_dir=str(folder))
        if note is not None:
            note.write_text(json.dumps(list(sys.modules)))

    return forked(train, log_of(folder), Deadly(die_at_operation, thread="checkpoint"))


def forked(act: Callable[[], object], log: Path, disk: files.Disk) -> int:
    """Fork a process that does this on this disk, and says what it has to say in the log; its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        _to_log(log)
        files.disk = disk
        act()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def fresh_sitting(settings: dict[str, Any], folder: Path) -> int:
    """The same by the command line in an interpreter of its own, on the real disk; its id."""
    given = [f"--set={key}={value}" for key, value in {**settings, "output_dir": folder}.items()]
    words = [str(folder), "--resume"] if _begun(folder) else given
    process = os.fork()
    if not process:
        _to_log(log_of(folder))
        os.environ["PYTHONPATH"] = str(_ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "tuition", "train", *words])
    return process


def _begun(folder: Path) -> bool:
    return (folder / "run.json").exists()


def log_of(folder: Path) -> Path:
    """Where the sittings of a run say what they have to say."""
    return folder.with_suffix(".log")


def _to_log(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)


class Deadly(Unsynced):
    """A disk at whose n-th operation this process kills itself; only those of one thread are counted, where it is named.

    Nothing waits for the real disk: a kill, unlike a power cut, loses nothing that the system was given.
    """

    def __init__(self, operation: int | None, *, thread: str | None = None) -> None:
        self._at = operation
        self._thread = thread
        self.operations = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "operations":
            return super().__getattribute__(name)
        if self._thread in (None, threading.current_thread().name):
            self.operations += 1
            if self.operations == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getattribute__(name)


def wait(process: int) -> tuple[int, float]:
    """The exit status of a child (-9 where it was killed), and the CPU seconds that it took."""
    _, status, used = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def kill_after(process: int, cpu_seconds: float) -> int:
    """Kill a child once it has used so much of the processor, if it lives that long; its exit status.

    By its own clock and not by the wall's: a busy machine then moves no instant.
    """
    began = time.monotonic()
    while _used(process, began) < cpu_seconds:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_LOOK_AGAIN_SECONDS)
    os.kill(process, signal.SIGKILL)
    return wait(process)[0]


def _used(process: int, began: float) -> float:
    """CPU seconds of another process; where the system does not tell, the seconds since it began."""
    try:
        return time.clock_gettime((~process << 3) | 2)  # Linux's name of that clock
    except OSError:
        return time.monotonic() - began
