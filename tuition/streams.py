"""The three streams that a command is given: always there, and whoever stops reading them never ends the work.

A terminal is closed, `2>&1 | head` has seen enough, a service starts without streams. Nothing is imported here that
takes time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class Unheard:
    """A stream that drops what nobody reads any more, and is the stream itself otherwise."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, if anybody is there; its length."""
        try:
            return int(self._stream.write(text))
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Hand on what was written, if anybody is there."""
        try:
            self._stream.flush()
        except OSError:
            return


def make_usable() -> None:
    """From here on all three streams can be used, whatever the command was started with.

    Those that are closed read as empty and write to nowhere. What an encoding does not hold is written by its number.
    What is said on stderr never fails; a result that stdout cannot take still does.
    """
    _occupy_descriptors()
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  as long as the process
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    setattr(sys, "stderr", Unheard(sys.stderr))  # noqa: B010  which its type would not take
    if os.environ.get("COLUMNS", "").strip("0") == "":  # a terminal that does not know its width says 0
        os.environ.pop("COLUMNS", None)


def holds_all_characters(stream: Any) -> bool:
    """Whether the stream's encoding can write any text."""
    return str(getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def _occupy_descriptors() -> None:
    """A file that is opened as number 2 would receive what libraries say on stderr: a checkpoint, for instance."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
