"""The runs of a folder as people look at them: a line for each, and one of them closely.

Reads run folders only, each of which may be a stranger's or half written; starts nothing (see `jobs.py`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from tuition.collect import NotFoundError
from tuition.curves import read_curves
from tuition.errors import UserError
from tuition.evaluate.report.charts import Chart, loss_chart
from tuition.evaluate.report.data import data_view
from tuition.evaluate.report.facts import (
    Row,
    Run,
    inside,
    listed,
    number,
    parse_row,
    read_object,
    read_rows,
    read_run,
)
from tuition.evaluate.report.machine import settings, train_command
from tuition.evaluate.report.verdict import about, cautions, verdict
from tuition.foreign import fault_of
from tuition.recipe import parse_yaml
from tuition.train.folder import RunFolder

_TAIL_BYTES = 1 << 14
_NAME = re.compile(r"[^\W_][\w.-]{0,99}")
STATUSES = ("starting", "running", "finished", "interrupted", "killed", "failed", "never began")


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run in a list.

    Attributes:
        name: of its folder.
        status: one of `STATUSES`; killed: it says that it runs, and no process does.
        base: the model it learns from.
        started: as ISO 8601; of a run that has not begun, since when its folder is there.
        step: updates taken, of `steps`; None where it is not known yet.
        loss: of the newest update.
        held_out: the lowest so far.
        has_model: it can be talked to and exported.
    """

    name: str
    path: Path
    status: str
    base: str = ""
    method: str = ""
    started: str = ""
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    held_out: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    has_model: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether a look in a moment may show something new."""
        return self.status in ("starting", "running")

    @property
    def can_resume(self) -> bool:
        """Whether `tuition train RUN --resume` has something to do."""
        return self.status in ("interrupted", "killed", "failed")


@dataclass(frozen=True, slots=True)
class Scored:
    """One demonstration and what it costs, in nats a token.

    Attributes:
        line: in the file; in a store, which demonstration it is.
        held_out: the run did not learn from its prompt.
        suspicions: why it looks wrong; nothing is dropped for it.
    """

    file: str
    line: int
    prompt: str
    expected: str
    before: float | None
    after: float | None
    learned: bool
    held_out: bool
    suspicions: list[str]


@dataclass(frozen=True, slots=True)
class RunView:
    """One run closely.

    Attributes:
        verdict: the strongest sentence that the folder allows.
        cautions: what speaks against shipping.
        proofs: whether each check before step 1 held, and in what words.
        data: what became of the rows; see `data_view`.
        demonstrations: the highest loss after training first; empty where it was not measured.
    """

    line: RunLine
    verdict: str
    about: list[str]
    cautions: list[str]
    chart: Chart | None
    proofs: list[tuple[bool, str]]
    data: Row
    settings: list[tuple[str, str]]
    command: str
    demonstrations: list[Scored] = field(default_factory=list)


# --- a folder of runs


def find_run(runs: Path, name: str) -> Path:
    """The folder of a run by its name, which never leads out of the folder of runs.

    Raises:
        NotFoundError: there is no run of that name.
    """
    folder = runs / name
    # a name is one step down, and no link to elsewhere
    if not _NAME.fullmatch(name) or folder.is_symlink() or not _is_run(folder):
        raise NotFoundError("there is no run of that name", where=str(runs), next_step="See the list of runs")
    return folder


def new_run_folder(runs: Path, name: str) -> Path:
    """Where a run of that name will live.

    Raises:
        UserError: the name is none, or taken.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"'{name[:60]}' cannot name a run",
            where="name",
            next_step="Use letters, digits, points, dashes and underscores, a letter or digit first",
        )
    if (runs / name).exists():
        raise UserError(f"there is a run called {name}", where="name", next_step="Choose another name")
    return runs / name


def free_name(runs: Path, stem: str) -> str:
    """A name like `stem` that no run has yet."""
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-._")[:60] or "run"
    number = 1
    while (runs / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return name


def list_runs(runs: Path, starting: Callable[[Path], bool] = lambda folder: False) -> list[RunLine]:
    """Every run of the folder, the newest first.

    Args:
        starting: whether a process is at work for a folder that holds no run yet.
    """
    if not runs.is_dir():
        return []
    folders = [f for f in runs.iterdir() if _NAME.fullmatch(f.name) and not f.is_symlink() and _is_run(f)]
    lines = [run_line(folder, starting) for folder in folders]
    return sorted(lines, key=lambda line: (line.started, line.name), reverse=True)


def _is_run(folder: Path) -> bool:
    run = RunFolder(folder)
    return folder.is_dir() and (run.facts.is_file() or run.jobs.is_dir())


def run_line(folder: Path, starting: Callable[[Path], bool] = lambda folder: False) -> RunLine:
    """What run.json and the end of the journal say, whatever else lies there."""
    run = RunFolder(folder)
    facts = read_object(run.facts, json.loads, [])
    if not facts:
        status = "starting" if starting(folder) else "never began"
        return RunLine(folder.name, folder, status, started=_since(folder))
    status = str(facts.get("status"))
    if status == "running" and not run.is_claimed():
        status = "killed"
    newest, held_out = _end_of_journal(run.metrics)
    lowest = number(facts, "result", "best_eval_loss")
    step, steps = number(newest, "step"), number(facts, "plan", "steps")
    seconds = number(newest, "seconds")
    return RunLine(
        name=folder.name,
        path=folder,
        status=status if status in STATUSES else "failed",
        base=str(inside(facts, "model", "name") or ""),
        method=str(inside(facts, "model", "method") or ""),
        started=str(facts.get("started") or _since(folder)),
        step=None if step is None else int(step),
        steps=None if steps is None else int(steps),
        loss=number(newest, "loss"),
        held_out=number(held_out, "eval_loss") if lowest is None else lowest,
        tokens_per_second=number(newest, "tokens_per_second"),
        seconds_left=(steps - step) * seconds if step and steps and seconds and status == "running" else None,
        has_model=run.model.is_dir() or run.adapter.is_dir(),
    )


def _since(folder: Path) -> str:
    """When something was put into the folder last, which of a run that never began is when it was started."""
    return datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _end_of_journal(journal: Path) -> tuple[Row, Row]:
    """The newest update and the newest evaluation; a long journal is not read for it."""
    try:
        if fault_of(journal):
            return {}, {}
        with journal.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return {}, {}
    rows = [row for row in map(parse_row, lines) if row is not None]
    updates = [row for row in rows if "loss" in row]
    evaluations = [row for row in rows if "eval_loss" in row]
    return (updates or [{}])[-1], (evaluations or [{}])[-1]


def recipe_of(folder: Path) -> Row:
    """The settings of a run, as far as its recipe can be read."""
    return read_object(RunFolder(folder).recipe, parse_yaml, [])


def data_of(folder: Path) -> list[str]:
    """What a run learned from, as its recipe names it."""
    given = recipe_of(folder).get("data")
    return [given] if isinstance(given, str) else [str(name) for name in listed(given)]


# --- one run


def view_run(folder: Path, starting: Callable[[Path], bool] = lambda folder: False) -> RunView:
    """Everything that the page of a run shows."""
    line = run_line(folder, starting)
    if line.status in ("starting", "never began"):
        return RunView(line, "", [], [], None, [], {}, [], "")
    run = _read_whole(folder, _stamp(folder))
    return RunView(
        line=line,
        verdict=verdict(run),
        about=about(run),
        cautions=[] if line.goes_on else cautions(run),
        chart=loss_chart(run),
        proofs=[
            (proof.get("ok") is True, str(proof.get("detail") or proof.get("name"))) for proof in run.proofs
        ],
        data=data_view(run),
        settings=settings(run.recipe),
        command=train_command(run),
        demonstrations=scored_demonstrations(folder),
    )


def scored_demonstrations(folder: Path) -> list[Scored]:
    """What `tuition evaluate RUN --rows` found; none where it was not asked."""
    found = [
        Scored(
            file=str(row.get("file", "")),
            line=int(number(row, "line") or 0),
            prompt=str(row.get("prompt", "")),
            expected=str(row.get("expected", "")),
            before=number(row, "before"),
            after=number(row, "after"),
            learned=row.get("learned") is True,
            held_out=row.get("held_out") is True,
            suspicions=[str(reason) for reason in listed(row.get("suspicions"))],
        )
        for row in read_rows(RunFolder(folder).demonstrations, [])
    ]
    return sorted(found, key=lambda row: -1.0 if row.after is None else row.after, reverse=True)


def live_chart(folder: Path) -> Chart | None:
    """The loss so far, from the journal alone."""
    return loss_chart(read_curves(folder))


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of the files that a view is made of: a view is made anew when one changed."""
    run = RunFolder(folder)
    found = []
    for path in (run.facts, run.recipe, run.metrics, run.ledger, run.findings, run.samples, run.evaluation):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((path.name, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=8)  # a ledger may have a million lines
def _read_whole(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> Run:
    return read_run(folder)
