"""What was found of a model, on disk as it comes, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from tuition import files
from tuition.foreign import lines_of

T = TypeVar("T")
# What reading the head, a torn line or a strange one raises.
_NO_SUCH_LINE = (ValueError, LookupError, TypeError, OverflowError, RecursionError)


class Kept(Generic[T]):
    """Things found, each by its key, in memory and in a file of one JSON object a line.

    Args:
        path: the file; None: in memory only.
        read: the key and the thing of a line; what it raises for a line that holds none passes the line over.
        head: what the first line of a new file says.
    """

    def __init__(
        self, path: Path | None, read: Callable[[Any], tuple[str, T]], head: dict[str, Any] | None = None
    ) -> None:
        self.found: dict[str, T] = {}
        self.path = path
        if path is None:
            return
        files.make_folder(path.parent)
        if head is not None and not path.exists():
            files.append_line(path, json.dumps(head))
        if path.exists():
            self._recall(path, read)

    def add(self, key: str, thing: T, row: dict[str, Any]) -> None:
        """Keep one thing, and its line on disk before anything else happens."""
        self.found[key] = thing
        if self.path is not None:
            files.append_line(self.path, json.dumps(row))

    def _recall(self, path: Path, read: Callable[[Any], tuple[str, T]]) -> None:
        lines = list(lines_of(path))
        if lines and not lines[-1].endswith(b"\n"):  # the machine stopped within it: that is found again
            files.append_line(path, "")
        for line in lines:
            try:
                key, thing = read(json.loads(line))
            except _NO_SUCH_LINE:
                continue
            self.found[key] = thing


def kept_under(
    folder: Path | None, settings: dict[str, Any], read: Callable[[Any], tuple[str, T]]
) -> Kept[T]:
    """What was kept in `folder` under these settings: of one model, and all else that it depends on."""
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = None if folder is None else folder / f"{fingerprint[:16]}.jsonl"
    return Kept(path, read, {"fingerprint": fingerprint, **settings})
