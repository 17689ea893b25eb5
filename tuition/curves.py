"""Curves of runs that go on: of a journal only what is new is read, and only what a picture needs is kept.

A page that is open asks every two seconds, and a long run's journal has a million lines.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tuition.errors import UserError
from tuition.evaluate.report.facts import Ledger, Row, Run, number, parse_row, read_object
from tuition.foreign import bounded_lines, fault_of
from tuition.recipe import parse_yaml
from tuition.train.folder import RunFolder

MOST_POINTS = 20_000
_MOST_JOURNALS = 16
_SHOWN = ("loss", "eval_loss")


def read_curves(folder: Path) -> Run:
    """A run of which only the facts and the losses were read.

    Beyond `MOST_POINTS` updates, of each four neighbours the lowest and the highest are kept: no spike is lost.
    """
    run = RunFolder(folder)
    with _one_at_a_time:
        journal = _journal_of(run.metrics)
        training, held_out = list(journal.training.values()), list(journal.held_out.values())
    facts = read_object(run.facts, json.loads, [])
    recipe = read_object(run.recipe, parse_yaml, [])
    return Run(folder, facts, recipe, training, held_out, Ledger(), [], [], [], {}, {}, [])


@dataclass(slots=True)
class _Journal:
    """What was read of a file so far; rows by step, the last one where a resumed run wrote a step twice."""

    file: int  # its number in the file system: a file that was put in its place is another
    offset: int = 0
    training: dict[float, Row] = field(default_factory=dict)
    held_out: dict[float, Row] = field(default_factory=dict)

    def read_on(self, stream: BinaryIO) -> None:
        """Take in the lines that are new; one that is still being written waits."""
        stream.seek(self.offset)
        for line in bounded_lines(stream, Path(stream.name)):
            if not line.endswith(b"\n"):
                break
            self.offset += len(line)
            self._take(parse_row(line.decode("utf-8", "replace")) or {})
        self.training = _ordered(self.training)
        self.held_out = _ordered(self.held_out)
        while len(self.training) > MOST_POINTS:
            self.training = _thinned(self.training)

    def _take(self, row: Row) -> None:
        step = number(row, "step")
        if step is None:
            return
        kept = {"step": step, **{key: row[key] for key in _SHOWN if key in row}}
        if "loss" in row:
            self.training[step] = kept
        if "eval_loss" in row:
            self.held_out[step] = kept


_journals: OrderedDict[Path, _Journal] = OrderedDict()
_one_at_a_time = threading.Lock()


def _journal_of(path: Path) -> _Journal:
    try:
        if fault_of(path):
            return _Journal(0)
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            known = _journals.get(path)
            if known is None or known.file != status.st_ino or known.offset > status.st_size:
                known = _Journal(status.st_ino)
            known.read_on(stream)
    except (OSError, UserError):  # what no run writes is shown by the run's own page
        return _Journal(0)
    _journals[path] = known
    _journals.move_to_end(path)
    while len(_journals) > _MOST_JOURNALS:
        _journals.popitem(last=False)
    return known


def _ordered(rows: dict[float, Row]) -> dict[float, Row]:
    """By ascending step; as they mostly are already."""
    return dict(sorted(rows.items()))


def _thinned(rows: dict[float, Row]) -> dict[float, Row]:
    """Of each four neighbours the lowest and the highest loss."""
    steps, kept = list(rows), []
    for start in range(0, len(steps), 4):
        four = sorted(steps[start : start + 4], key=lambda step: _height(rows[step]))
        kept += sorted({four[0], four[-1]})
    return {step: rows[step] for step in kept}


def _height(row: Row) -> float:
    return number(row, "loss") or 0.0
