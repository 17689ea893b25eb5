"""A disk that fails at its n-th operation, and one that forgets what was not synced.

It does everything on the real disk and keeps a shadow beside it: for each file the content at its last sync,
for each folder the names at its last sync. A power cut leaves what the shadow says; so nothing needs really to
be synced, which would take most of the time.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tuition.files import Disk

MODES = {
    "EIO": "the operation fails once with an I/O error",
    "ENOSPC": "the disk is full from this operation on, until space is freed",
    "torn write": "half of the data is written, and the process dies",
    "power cut": "the machine stops; all that was not synced is lost, contents and names",
    "power cut, names kept": "the machine stops; names are there, contents that were not synced are empty",
    "silent tear": "half of a checkpoint's data is not written, and the disk says it was",
}


def can_happen(mode: str, operation: str, path: Path) -> bool:
    """Whether a mode makes sense at an operation: a silent tear, only where data is read back at once."""
    read_back = operation == "write" and path.parent.name.startswith(".step-")
    return mode != "silent tear" or read_back


def memory_folder() -> str | None:
    """A folder in memory, where there is one with room, for what need not be on a disk."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > 1 << 30 else None


class Unsynced(Disk):
    """The real disk without waiting for it: a killed process loses nothing that the system was given."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_path(self, path: Path) -> None:
        pass


class PowerCut(BaseException):
    """The machine or the process stopped: nothing after this reaches the disk."""


class FaultyDisk(Disk):
    """Counts operations and fails the n-th in one of `MODES`.

    Args:
        root: the folder whose durable state is followed; what lies in it now is durable.
        at: the operation that fails, counted from 1; None: none does.
    """

    def __init__(self, root: Path, *, at: int | None = None, mode: str = "EIO") -> None:
        self.root, self.at, self.mode = root, at, mode
        self.operations = 0
        self.seen: list[tuple[str, Path]] = []
        self.failed = ""
        self._dead = False
        self._full = False
        self._paths: dict[int, Path] = {}
        self._contents: dict[int, bytes] = {}
        self._entries: dict[int, dict[str, int]] = {}
        self._held: dict[int, int] = {}  # inode → descriptor: a held inode's number is not given away again
        for folder, folders, names in os.walk(root):
            for name in (*folders, *names):
                self._hold(Path(folder) / name)
            for name in names:
                self._keep_content(Path(folder) / name)
        for folder, _, _ in os.walk(root):
            self._keep_names(Path(folder))

    # --- the operations ---

    def create(self, path: Path) -> int:
        return self._do("create", path, lambda: self._opened(super(FaultyDisk, self).create(path), path))

    def append(self, path: Path) -> int:
        return self._do("append", path, lambda: self._opened(super(FaultyDisk, self).append(path), path))

    def write(self, descriptor: int, data: memoryview) -> int:
        path = self._paths[descriptor]

        def half() -> int:
            super(FaultyDisk, self).write(descriptor, data[: len(data) // 2])
            return len(data)

        return self._do("write", path, lambda: super(FaultyDisk, self).write(descriptor, data), half)

    def sync(self, descriptor: int) -> None:
        path = self._paths[descriptor]

        self._do("sync", path, lambda: self._keep_content(path))

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._do("close", self._paths.pop(descriptor), lambda: None)

    def truncate(self, path: Path, size: int) -> None:
        self._do("truncate", path, lambda: super(FaultyDisk, self).truncate(path, size))

    def replace(self, source: Path, target: Path) -> None:
        self._do("rename", target, lambda: super(FaultyDisk, self).replace(source, target))

    def unlink(self, path: Path) -> None:
        self._do("unlink", path, lambda: super(FaultyDisk, self).unlink(path))

    def mkdir(self, path: Path) -> None:
        def make() -> None:
            super(FaultyDisk, self).mkdir(path)
            self._hold(path)

        self._do("mkdir", path, make)

    def rmdir(self, path: Path) -> None:
        self._do("rmdir", path, lambda: super(FaultyDisk, self).rmdir(path))

    def sync_path(self, path: Path) -> None:
        self._do("sync", path, lambda: (self._keep_names if path.is_dir() else self._keep_content)(path))

    def read(self, path: Path) -> Iterator[bytes]:
        self._do("read", path, lambda: None)
        return super().read(path)

    # --- faults ---

    def _do(
        self, name: str, path: Path, act: Callable[[], Any], half: Callable[[], Any] | None = None
    ) -> Any:
        if self._dead:
            raise PowerCut
        self.operations += 1
        self.seen.append((name, path))
        if self.operations == self.at:
            self._fail(name, path, half)
            if self.mode == "silent tear":
                assert half is not None
                return half()
        if self._full and name in ("create", "append", "write", "mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return act()

    def _fail(self, name: str, path: Path, half: Callable[[], Any] | None) -> None:
        self.failed = f"{name} {path.name}"
        if self.mode == "EIO":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        if self.mode == "ENOSPC":
            self._full = True
        elif self.mode != "silent tear":
            if self.mode == "torn write" and half is not None:
                half()
            self._dead = True
            raise PowerCut

    # --- what lasts ---

    def _opened(self, descriptor: int, path: Path) -> int:
        self._paths[descriptor] = path
        self._hold(path)
        return descriptor

    def _hold(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_RDONLY)
        return inode

    def _keep_content(self, path: Path) -> None:
        self._contents[self._hold(path)] = path.read_bytes()

    def _keep_names(self, folder: Path) -> None:
        self._entries[folder.stat().st_ino] = {p.name: self._hold(p) for p in folder.iterdir()}

    def after(self, target: Path) -> Path:
        """The folder as it is found after the fault: as it lies there, or as a power cut leaves it."""
        if not self.mode.startswith("power cut"):
            return self.root
        self._rebuild(self.root.stat().st_ino, self.root, target)
        return target

    def _rebuild(self, inode: int, live: Path, target: Path) -> None:
        target.mkdir()
        names = self._entries.get(inode, {})
        if self.mode == "power cut, names kept":
            names = {p.name: self._hold(p) for p in live.iterdir()}
        for name, entry in names.items():
            if stat.S_ISDIR(os.fstat(self._held[entry]).st_mode):
                self._rebuild(entry, live / name, target / name)
            else:
                (target / name).write_bytes(self._contents.get(entry, b""))

    def let_go(self) -> None:
        """Close what is held."""
        for descriptor in (*self._held.values(), *self._paths):
            os.close(descriptor)
        self._held, self._paths = {}, {}
