"""Files that somebody else may have made: looked at before they are opened, and read no further than memory allows.

A pipe waits for ever, a device has no end, and a file of gigabytes may take no room on the disk. Nothing here writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tuition.errors import UserError

OBJECT_BYTES = 64 << 20  # of a file that is parsed as a whole
_LINE_BYTES = 16 << 20
_REMOVE = "Remove it, or put the file back as it was written"


def fault_of(path: Path, most_bytes: int | None = None) -> str:
    """What speaks against opening a file, as the rest of a sentence that begins with its name; empty: nothing does.

    Args:
        most_bytes: of its content; None: it is read piece by piece, and may be of any size.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # a link to itself, a name that no disk can hold
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if not stat.S_ISREG(found.st_mode):
        return "is a folder" if stat.S_ISDIR(found.st_mode) else "is not a regular file"
    if most_bytes is not None and found.st_size > most_bytes:
        return f"is larger than {_readable(most_bytes)}"
    return ""


def _readable(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def require_readable(path: Path, most_bytes: int | None, next_step: str, *, no_other: str = "") -> None:
    """Refuse what is no regular file, or larger than it may be.

    Args:
        no_other: what is never so large, such as a recipe.

    Raises:
        UserError: naming the file.
        FileNotFoundError: there is none.
    """
    fault = fault_of(path, most_bytes)
    if fault:
        never = f", which no {no_other} is" if no_other and fault.startswith("is larger") else ""
        raise UserError(fault + never, where=str(path), next_step=next_step)


def read_text(path: Path, most_bytes: int, next_step: str) -> str:
    """A text file in UTF-8, whole.

    Raises:
        UserError: it is no regular file, too large, no text, or cannot be read.
        FileNotFoundError: there is none.
    """
    require_readable(path, most_bytes, next_step)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(
            "cannot be read: it is not UTF-8 text", where=str(path), next_step=next_step
        ) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), next_step=next_step) from None


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file of any length, with their ends.

    Raises:
        UserError: it is no regular file, or a line is longer than memory allows.
        OSError: there is none, or it cannot be read.
    """
    require_readable(path, None, _REMOVE)
    with path.open("rb") as stream:
        yield from bounded_lines(stream, path)


def bounded_lines(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines from where a stream stands, with their ends.

    Raises:
        UserError: a line is longer than memory allows.
    """
    number = 0
    while line := stream.readline(_LINE_BYTES):
        number += 1
        if len(line) == _LINE_BYTES:
            raise UserError(
                f"is longer than {_readable(_LINE_BYTES)}", where=f"{path}:{number}", next_step=_REMOVE
            )
        yield line


def leads_out(path: Path, folder: Path) -> str:
    """What speaks against following a name in a folder of somebody else's, which may be a link; empty: nothing does."""
    if not os.path.lexists(path):
        return ""
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return "is a link to nothing"
    except (OSError, RuntimeError):
        return "is a link to itself"
    return "" if target.is_relative_to(folder.resolve()) else "points outside the folder"
