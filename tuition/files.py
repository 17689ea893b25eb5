"""Every durable write goes through here: temporary file, fsync, rename, fsync of the folder.

One place, so that tests can fail each single operation. A reader finds the old content or the new,
never a mixture, whatever instant the machine stops at.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def write_bytes(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace `path` by `content`, or by its pieces one after the other, atomically and durably.

    Raises:
        OSError: disk full, no permission; the old content then stands unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            for piece in (content,) if isinstance(content, bytes) else content:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, atomically and durably."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Replace `path` by one JSON object a line. Rows are taken one by one, so memory does not grow."""
    write_bytes(path, (f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode() for row in rows))


def copy(source: Path, path: Path) -> None:
    """Replace `path` by the content of another file, a piece at a time."""
    with open(source, "rb") as stream:
        write_bytes(path, iter(lambda: stream.read(1 << 20), b""))


def append_line(path: Path, line: str) -> None:
    """Add one line to `path` in a single write, so that a line is there whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (line + "\n").encode("utf-8"))
    finally:
        os.close(descriptor)


def publish_folder(temporary: Path, final: Path) -> None:
    """Make a finished folder appear under its final name at once.

    Each file is fsynced, a manifest of SHA-256 sums is written last, then the folder is renamed. A
    folder without a manifest is therefore never complete.

    Raises:
        FileExistsError: `final` is there already.
        OSError: disk full or no permission; `final` does not exist then.
    """
    if final.exists():
        raise FileExistsError(f"{final} exists")
    sums = {}
    for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
        sync_file(path)
        sums[path.relative_to(temporary).as_posix()] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    write_json(temporary / MANIFEST, {"files": sums})
    os.replace(temporary, final)
    sync_folder(final.parent)


def manifest_faults(folder: Path) -> list[str]:
    """What is wrong with a published folder: one sentence a fault, none when it is whole."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in files.items()}
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return [f"{MANIFEST} cannot be read ({error})"]
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    faults = [f"{name} is missing" for name in sorted(expected.keys() - present)]
    faults += [f"{name} is not in the manifest" for name in sorted(present - expected.keys())]
    for name in sorted(expected.keys() & present):
        digest, size = expected[name]
        if (folder / name).stat().st_size != size:
            faults.append(f"{name} has {(folder / name).stat().st_size} bytes, the manifest says {size}")
        elif sha256(folder / name) != digest:
            faults.append(f"{name} does not have the SHA-256 that the manifest says")
    return faults


def fresh_folder(path: Path) -> Path:
    """An empty folder at `path`; whatever an interrupted write left there is removed first."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def remove_folder(path: Path) -> None:
    """Remove a published folder so that a crash in between leaves none that looks complete."""
    doomed = path.with_name(f".{path.name}.removed")
    if doomed.exists():
        shutil.rmtree(doomed)
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Ask the disk to keep what was written to `path`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Ask the disk to keep the names in `path`: a rename is durable only after this."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; its renames are journalled by the file system
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
