"""Processes that prepare files beside the run: `python -m tuition.batch.stream`, a line in, a line out.

What they make lies in the folder of prepared data; the lines only say that it does, or why not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from tuition.batch.stream.units import Job, Unit, prepare_unit
from tuition.errors import UserError

_MOST_WAITING = 2  # a process that is done has its next file at once


class Workers:
    """Processes that prepare the units of a job; started when they are first needed, ended with this one."""

    def __init__(self, job: Job, count: int) -> None:
        self._job = job
        self._processes: list[_Process] = []
        self._count = count

    def prepare_all(self, asked: Sequence[tuple[Unit, str]]) -> Iterator[str]:
        """The names of units as they become ready.

        Args:
            asked: units with the names of their keys.

        Raises:
            UserError: one cannot be prepared.
        """
        for unit, name in asked:
            process = self._least_busy()
            if len(process.waiting) >= _MOST_WAITING:
                yield process.answer()
            process.ask(unit, name)
        for process in self._processes:
            while process.waiting:
                yield process.answer()

    def begin(self, unit: Unit, name: str) -> None:
        """Have a unit prepared while something else goes on."""
        if not self._working_on(name):
            self._least_busy().ask(unit, name)

    def finish(self, unit: Unit, name: str) -> None:
        """Return when a unit is ready. Raises as `prepare_all`."""
        self.begin(unit, name)
        self.settle(name)

    def settle(self, name: str) -> None:
        """Hear the answer about a unit, if it was asked for: until then it is not asked for again. Raises as `finish`."""
        for process in self._working_on(name):
            while process.answer() != name:
                pass

    def _working_on(self, name: str) -> list[_Process]:
        return [p for p in self._processes if name in (waiting for _, waiting in p.waiting)]

    def _least_busy(self) -> _Process:
        if len(self._processes) < self._count and all(process.waiting for process in self._processes):
            self._processes.append(_Process(self._job))
        return min(self._processes, key=lambda process: len(process.waiting))


class _Process:
    """One of them. Answers come in the order of the questions."""

    def __init__(self, job: Job) -> None:
        self.waiting: deque[tuple[Unit, str]] = deque()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tuition.batch.stream"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run, which saves first
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._say(job.to_json())

    def ask(self, unit: Unit, name: str) -> None:
        self.waiting.append((unit, name))
        self._say(json.dumps({**asdict(unit), "name": name}))

    def answer(self) -> str:
        """The name of the unit that is ready next."""
        unit, name = self.waiting.popleft()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise UserError(
                f"the process that prepares files ended by itself (exit code {code})",
                where=str(unit),
                next_step="See what it said above, and whether memory sufficed; then start again",
            )
        if fault := json.loads(line)["fault"]:
            raise UserError(fault["what"], where=fault["where"], next_step=fault["next_step"])
        return name

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which `answer` says
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def _end(process: Any) -> None:
    process.kill()  # what it was writing appears whole or not at all
    process.wait()
    with suppress(BrokenPipeError):  # what it was asked last may still wait to be sent
        process.stdin.close()
    process.stdout.close()


def main() -> None:
    """Prepare what the lines of stdin name, until there are none."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    job = Job.from_json(sys.stdin.readline())
    renderers = job.renderers()
    for line in sys.stdin:
        asked = json.loads(line)
        unit = Unit(tuple(asked["train"]), tuple(asked["validation"]))
        answers.write(json.dumps({"fault": _fault_of(job, unit, renderers, asked["name"])}) + "\n")
        answers.flush()


def _fault_of(job: Job, unit: Unit, renderers: Iterator[Any], name: str) -> dict[str, str] | None:
    try:
        prepare_unit(job, unit, next(renderers), expected=name)
    except UserError as error:
        return {"what": error.what, "where": error.where or str(unit), "next_step": error.next_step}
    except OSError as error:
        step = "Make room, lower stream_gb, or name another folder in the environment variable TUITION_CACHE"
        what = f"prepared data cannot be written ({error.strerror or error})"
        return {"what": what, "where": job.root, "next_step": step}
    return None
