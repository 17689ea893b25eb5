"""Every durable write goes through here: temporary file, fsync, rename, fsync of the folder.

One place, so that tests can fail each single operation of `Disk`. A reader finds the old content or the new,
never a mixture, whatever instant the machine stops at.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tuition.foreign import OBJECT_BYTES, fault_of

MANIFEST = "manifest.json"

_IN_PLACE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

Sum = dict[str, Any]  # a file's line in a manifest: {"sha256": hexadecimal digits, "bytes": size}


class Disk:
    """The calls of the operating system that change what lies on disk, or make it last.

    Nothing else in the package changes files. Tests put another in its place (`files.disk`), which fails
    at the n-th call, or forgets what was not synced.
    """

    def create(self, path: Path) -> int:
        """A descriptor of an empty file to write. A link or a pipe of that name is removed, not written through."""
        with suppress(FileNotFoundError):
            os.unlink(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def append(self, path: Path) -> int:
        """A descriptor that writes behind what is there; never through a link, nor into a pipe that nobody reads."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _IN_PLACE, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of the data; how many bytes."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Return when the file's content is on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Let go of a descriptor."""
        os.close(descriptor)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file off behind so many bytes."""
        os.truncate(path, size)

    def replace(self, source: Path, target: Path) -> None:
        """Rename; what `target` named before is gone."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def chmod(self, path: Path, mode: int) -> None:
        """Say who may read and write a file."""
        os.chmod(path, mode)

    def mkdir(self, path: Path) -> None:
        """Make an empty folder."""
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def touch(self, path: Path) -> None:
        """Note that something was used now."""
        os.utime(path)

    def sync_path(self, path: Path) -> None:
        """Return when a file's content, or the names in a folder, are on the disk.

        A rename is durable only after its folder was synced.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (
            PermissionError
        ):  # a folder that may be entered and not read: its names are left to the file system
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> Iterator[bytes]:
        """The file's content, a piece at a time."""
        with open(path, "rb") as stream:
            while piece := stream.read(1 << 17):
                yield piece


disk: Disk = Disk()


# --- files ---


class NewFile:
    """A file on its way to disk, written piece by piece; synced and summed when it is closed.

    It is no durable file yet: rename it, or publish the folder it lies in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = disk.create(path)
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Add a piece, the whole of it."""
        assert self._descriptor is not None
        data = memoryview(piece).cast("B")
        self._digest.update(data)
        self._bytes += len(data)
        with named(self._path):
            _write_all(self._descriptor, data)

    def tell(self) -> int:
        """Bytes so far."""
        return self._bytes

    def finish(self) -> Sum:
        """Sync and close; what the manifest will say of it, summed in memory and not from the disk."""
        assert self._descriptor is not None
        with named(self._path):
            disk.sync(self._descriptor)
        self.close()
        return {"sha256": self._digest.hexdigest(), "bytes": self._bytes}

    def close(self) -> None:
        """Let go of the file, whatever happened."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            disk.close(descriptor)


def write_new(path: Path, pieces: Iterable[bytes | memoryview]) -> Sum:
    """Write a file inside a folder that is not published yet; its size and SHA-256."""
    new = NewFile(path)
    try:
        for piece in pieces:
            new.write(piece)
        return new.finish()
    finally:
        new.close()


def write_bytes(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace `path` by `content`, or by its pieces one after the other, atomically and durably.

    Raises:
        OSError: disk full, no permission; the old content then stands unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_new(temporary, (content,) if isinstance(content, bytes) else content)
        disk.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the name that whoever asked for it knows
        with suppress(OSError):
            disk.unlink(temporary)
        raise
    disk.sync_path(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, atomically and durably."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON. NaN is refused: it is not JSON."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Indented JSON in UTF-8. NaN is refused: it is not JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Replace `path` by one JSON object a line. Rows are taken one by one, so memory does not grow."""
    write_bytes(path, (f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode() for row in rows))


def copy(source: Path, path: Path) -> None:
    """Replace `path` by the content of another file, a piece at a time."""
    write_bytes(path, disk.read(source))


def copy_joined(sources: Iterable[Path], path: Path) -> None:
    """Replace `path` by the contents of other files, one behind the other."""
    write_bytes(path, (piece for source in sources for piece in disk.read(source)))


def append_line(path: Path, line: str) -> None:
    """Add one line to `path`. It lasts through a kill at once, and through a power cut after `sync`."""
    descriptor = disk.append(path)
    try:
        with named(path):
            _write_all(descriptor, memoryview((line + "\n").encode("utf-8")))
    finally:
        disk.close(descriptor)


def sync(path: Path) -> None:
    """Return when a file's content and its name are on the disk."""
    disk.sync_path(path)
    disk.sync_path(path.parent)


def truncate(path: Path, size: int) -> None:
    """Cut `path` off behind so many bytes, durably."""
    disk.truncate(path, size)
    disk.sync_path(path)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        disk.unlink(path)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A descriptor has no name: what fails inside says which file it was."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        written = disk.write(descriptor, data)
        if written == 0:
            raise OSError(errno.EIO, "nothing was written")
        data = data[written:]


# --- folders ---


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably; nothing happens where it is there already."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):  # another process made it meanwhile
        disk.mkdir(path)
    disk.sync_path(path.parent)


def fresh_folder(path: Path) -> Path:
    """An empty folder at `path`; whatever an interrupted write left there is removed first."""
    remove_tree(path)
    make_folder(path)
    return path


def publish_folder(temporary: Path, final: Path, sums: Mapping[str, Sum] | None = None) -> None:
    """Make a finished folder appear under its final name at once.

    Each file is fsynced and may be read by whom the folder may (safetensors writes for its owner alone, and what is
    shipped is read by other users), a manifest of SHA-256 sums is written last, then the folder is renamed. A
    folder without a manifest is therefore never complete.

    Args:
        sums: name → what `write_new` said of a file, which is then neither read nor synced again.

    Raises:
        FileExistsError: `final` is there already.
        OSError: disk full or no permission; `final` does not exist then.
    """
    if final.exists():
        raise FileExistsError(f"{final} exists")
    known = sums or {}
    mode = temporary.stat().st_mode & 0o666
    entries: dict[str, Sum] = {}
    for path in sorted(temporary.rglob("*")):
        name = path.relative_to(temporary).as_posix()
        if path.is_dir():
            disk.sync_path(path)
        elif name in known:
            entries[name] = dict(known[name])
        else:
            if path.stat().st_mode & 0o777 != mode:
                with suppress(PermissionError):  # a file system that keeps no modes, such as FAT
                    disk.chmod(path, mode)
            disk.sync_path(path)
            entries[name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    write_new(temporary / MANIFEST, [json_bytes({"files": entries})])
    disk.sync_path(temporary)
    disk.replace(temporary, final)
    disk.sync_path(final.parent)


def manifest_faults(folder: Path, *, share: tuple[int, int] = (0, 1)) -> list[str]:
    """What is wrong with a published folder: one sentence a fault, none when it is whole.

    Args:
        share: (n, count): of several that look at it together, this one reads every count-th file from the n-th
            on, each byte of it. The names are looked at by all.
    """
    try:
        written = _read_manifest(folder / MANIFEST)
        value = json.loads(written)
        files = value["files"]
        if json_bytes(value) != written:  # a blank more or less is damage too
            return [f"{MANIFEST} is not as it was written"]
        expected = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in files.items()}
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        return [f"{MANIFEST} cannot be read ({error})"]
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    faults = [f"{name} is missing" for name in sorted(expected.keys() - present)]
    faults += [f"{name} is not in the manifest" for name in sorted(present - expected.keys())]
    for name in sorted(expected.keys() & present)[share[0] :: share[1]]:
        faults += _file_faults(folder / name, name, *expected[name])
    return faults


def _read_manifest(path: Path) -> bytes:
    fault = fault_of(path, OBJECT_BYTES)
    if fault:
        raise OSError(f"it {fault}")
    return path.read_bytes()


def _file_faults(path: Path, name: str, digest: str, size: int) -> list[str]:
    try:
        found = path.stat().st_size
        if found != size:
            return [f"{name} has {found} bytes, the manifest says {size}"]
        if sha256(path) != digest:
            return [f"{name} does not have the SHA-256 that the manifest says"]
    except OSError as error:
        return [f"{name} cannot be read ({error.strerror or error})"]
    return []


def remove_folder(path: Path) -> None:
    """Remove a published folder so that a crash in between leaves none that looks complete."""
    doomed = path.with_name(f".{path.name}.removed")
    remove_tree(doomed)
    disk.replace(path, doomed)
    disk.sync_path(path.parent)
    remove_tree(doomed)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, if it is there. Links are removed, what they point to is not."""
    if path.is_symlink():
        disk.unlink(path)
    if not path.is_dir():
        return
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        else:
            disk.unlink(entry)
    disk.rmdir(path)


def remove_empty_folder(path: Path) -> None:
    """Remove a folder with nothing in it.

    Raises:
        OSError: it holds something.
    """
    disk.rmdir(path)


def rename_folder(path: Path, target: Path) -> None:
    """Give a folder another name beside its old one, durably."""
    disk.replace(path, target)
    disk.sync_path(path.parent)


def folder_bytes(path: Path) -> int:
    """Bytes of all files in a folder; 0 where there is none."""
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def free_bytes(path: Path) -> int:
    """Free space on the disk that holds a folder, or will hold it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    for piece in disk.read(path):
        digest.update(piece)
    return digest.hexdigest()


def open_lock(path: Path) -> int:
    """A descriptor to lock; the file stays empty. Not one of `Disk`'s calls: a lock is not content."""
    return os.open(path, os.O_RDWR | os.O_CREAT | _IN_PLACE, 0o644)


def touch(path: Path) -> None:
    """Note that a file or folder was used now."""
    disk.touch(path)
