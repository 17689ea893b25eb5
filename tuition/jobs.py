"""Commands that were started from the page: each its own process, which outlives the page and the studio.

What was started stands beside the run in `jobs/`: the process, the command and what it printed.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tuition import files
from tuition.errors import UserError
from tuition.foreign import OBJECT_BYTES, fault_of, read_text
from tuition.train.folder import RunFolder

_LOG_BYTES = 20_000
_watched: set[tuple[Path, str]] = set()  # folder and kind, where this process is yet to note the end
_noting = threading.Lock()  # a note is written by who starts, by who asks for a stop and by who sees the end


@dataclass(frozen=True, slots=True)
class Job:
    """One command and what became of it.

    Attributes:
        kind: what it does, such as `train`; its files are named so.
        command: what a person would type.
        runs: its process is alive, or its end is not noted yet.
        code: the exit code; None while it runs, or where the studio was not there to see the end.
        log: the end of what it printed.
        stopping: it was asked to stop.
    """

    kind: str
    command: str
    started: str
    runs: bool
    code: int | None
    log: str
    stopping: bool

    @property
    def done(self) -> bool:
        """Whether it came to its end as it should."""
        return not self.runs and self.code == 0

    @property
    def last_line(self) -> str:
        """The last that it printed; empty where it printed nothing."""
        return next((line.strip() for line in reversed(self.log.splitlines()) if line.strip()), "")


def start(folder: Path, kind: str, arguments: Sequence[str]) -> None:
    """Run `tuition ARGUMENTS`; its output and its process are noted in the run's folder.

    Raises:
        UserError: one of this kind is at work there.
    """
    with _noting:  # of two that are asked for at once, the second meets the first
        found = find(folder, kind)
        if found is not None and found.runs:
            raise UserError(
                f"a command is at work there: {found.command}",
                where=str(folder),
                next_step="Wait for it, or stop it",
            )
        process = _begin(folder, kind, arguments)
        note: dict[str, object] = {
            "command": shown(arguments),
            "pid": process.pid,
            "born": _born(process.pid),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _watched.add((folder, kind))
        files.write_json(_note(folder, kind), note)
    threading.Thread(target=_see_the_end, args=(process, folder, kind, note), daemon=True).start()


def _begin(folder: Path, kind: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """The process, which prints into its log."""
    files.make_folder(RunFolder(folder).jobs)
    files.append_line(_log(folder, kind), f"$ {shown(arguments)}")
    log = files.disk.append(_log(folder, kind))
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "tuition", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the studio's terminal is not for it
            env={**os.environ, "COLUMNS": "110", "NO_COLOR": "1"},
        )
    finally:
        files.disk.close(log)


def stop(folder: Path, kind: str) -> None:
    """Ask it to end by SIGTERM: a run takes its update to the end and saves.

    Raises:
        UserError: none is at work, or it was asked already.
    """
    with _noting:
        note = _read(folder, kind)
        if not _alive(note):
            raise UserError(
                "no process that was started here is at work",
                where=str(folder),
                next_step="Press Ctrl-C where it was started, if it was started in a terminal",
            )
        if note.get("stopping"):
            raise UserError(
                "was asked to stop already", where=str(folder), next_step="Wait until it has saved"
            )
        files.write_json(_note(folder, kind), {**note, "stopping": True})
    with suppress(ProcessLookupError):  # it has ended this very moment
        os.kill(int(str(note["pid"])), signal.SIGTERM)


def find(folder: Path, kind: str) -> Job | None:
    """The newest command of a kind; None where there was none."""
    watched = (folder, kind) in _watched  # asked first: its end is noted before it is no longer watched
    note = _read(folder, kind)
    if not note:
        return None
    code = note.get("code")
    return Job(
        kind=kind,
        command=str(note.get("command")),
        started=str(note.get("started")),
        runs=_alive(note) or watched,
        code=code if isinstance(code, int) else None,
        log=_end_of(_log(folder, kind)),
        stopping=bool(note.get("stopping")),
    )


def find_all(folder: Path) -> list[Job]:
    """The newest command of each kind."""
    kinds = sorted(path.stem for path in RunFolder(folder).jobs.glob("*.json"))
    return [job for kind in kinds if (job := find(folder, kind)) is not None]


def at_work(folder: Path, kind: str = "train") -> bool:
    """Whether a process of that kind is alive."""
    return _alive(_read(folder, kind))


def shown(arguments: Sequence[str]) -> str:
    """The command as a person types it."""
    return shlex.join(["tuition", *arguments])


def _see_the_end(process: subprocess.Popen[bytes], folder: Path, kind: str, note: dict[str, object]) -> None:
    """Wait, so that no dead process lingers, and note how it ended."""
    try:
        code = process.wait()
        with _noting:
            newest = _read(folder, kind)
            if newest.get("pid") == note["pid"] and folder.exists():
                files.write_json(_note(folder, kind), {**newest, "code": code})
    finally:
        _watched.discard((folder, kind))


def _alive(note: dict[str, object]) -> bool:
    """Whether the very process is there: a number that another process has now is not it."""
    pid = note.get("pid")
    return isinstance(pid, int) and pid > 0 and note.get("born") is not None and _born(pid) == note["born"]


def _born(pid: int) -> str | None:
    """When a process began, in its system's own words; None where there is none, or only its remains."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            after_name = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if after_name[0] in "ZX" else after_name[19]
    asked = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, born = asked.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else born.strip()


def _read(folder: Path, kind: str) -> dict[str, object]:
    try:
        note = json.loads(read_text(_note(folder, kind), OBJECT_BYTES, "Remove it"))
    except (UserError, OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _end_of(log: Path) -> str:
    try:
        if fault_of(log):
            return ""
        with log.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - _LOG_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text if size <= _LOG_BYTES else text.partition("\n")[2]


def _note(folder: Path, kind: str) -> Path:
    return RunFolder(folder).jobs / f"{kind}.json"


def _log(folder: Path, kind: str) -> Path:
    return RunFolder(folder).jobs / f"{kind}.log"
