"""What goes on, to stderr: the opening screen, the progress of a run, how much is scored or answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tuition.screen.findings import show_findings
from tuition.screen.texts import BRACKETS, duration, highlighted, plain, printable

if TYPE_CHECKING:
    from tuition.errors import Finding
    from tuition.render.preview import TokenText
    from tuition.train.reports import EvalReport, StepReport

_SECONDS_BETWEEN_PLAIN_LINES = 5.0
_LEAST_BAR = 10  # columns


@dataclass(slots=True)
class Opening:
    """What the opening screen says before training.

    Attributes:
        title: one line.
        facts: label and text of each line.
        example: the first training example, token by token.
        findings: codes with counts and one of each.
        warnings: sentences that deserve attention.
    """

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    example: Sequence[TokenText] = ()
    findings: Sequence[tuple[int, Finding]] = ()
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The object that `train --dry-run --json` prints; a label that has several lines keeps them all."""
        facts: dict[str, str] = {}
        label = ""
        for named, text in self.facts:
            label = named or label
            facts[label] = f"{facts[label]}\n{text}" if label in facts else text
        return {
            "title": self.title,
            "facts": facts,
            "findings": [{"count": count, **finding.to_json()} for count, finding in self.findings],
            "warnings": self.warnings,
        }


class Watcher:
    """Told what a run does. This one says nothing; `Terminal` shows it."""

    def stage(self, text: str) -> None:
        """Something that takes a while begins."""

    def opening(self, opening: Opening) -> None:
        """All is known and nothing has been trained yet."""

    def begin(self, steps: int, step: int) -> None:
        """Training begins, or goes on after `step`."""

    def step(self, report: StepReport) -> None:
        """An update was taken."""

    def evaluation(self, report: EvalReport) -> None:
        """The held-out examples were scored."""

    def end(self) -> None:
        """Training is over, or interrupted."""


class Terminal(Watcher):
    """Shows a run on a console: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._steps = 0
        self._first_step = 0
        self._began = 0.0
        self._last_line = 0.0
        self._held_out: list[str] = []

    def stage(self, text: str) -> None:
        self.console.print(f"[dim]{plain(text)}[/dim]")

    def opening(self, opening: Opening) -> None:
        show_opening(self.console, opening)

    def begin(self, steps: int, step: int) -> None:
        self._steps, self._first_step, self._began = steps, step, time.monotonic()
        if not self.console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
            console=self.console,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=steps, completed=step, figures="")
        self._bar.start()

    def step(self, report: StepReport) -> None:
        pace = (time.monotonic() - self._began) / (report.step - self._first_step)
        left = (self._steps - report.step) * pace
        loss, time_left = f"loss {report.loss:.4f}", f"{duration(left)} left"
        rate, speed = f"lr {report.learning_rate:.1e}", f"{report.tokens_per_second:,.0f} tokens/s"
        if self._bar is not None:
            shown = _that_fit([loss, time_left, *self._held_out, speed, rate], self._room())
            self._bar.update(self._task, completed=report.step, figures=shown)
        elif (
            report.step in (1, self._steps)
            or time.monotonic() - self._last_line > _SECONDS_BETWEEN_PLAIN_LINES
        ):
            self._last_line = time.monotonic()
            self._say(report.step, [loss, rate, speed, time_left])

    def evaluation(self, report: EvalReport) -> None:
        first, *others = (_figure(name, value) for name, value in report.figures.items() if name != "tokens")
        self._held_out = [f"held-out {first}", *others]
        if self._bar is None:
            self._say(report.step, self._held_out)

    def _say(self, step: int, figures: Sequence[str]) -> None:
        line = "  ".join([f"step {step}/{self._steps}", *figures])
        self.console.print(line, highlight=False, soft_wrap=True)

    def _room(self) -> int:
        """Columns beside the word, the bar and the count of updates."""
        return self.console.width - len("training") - _LEAST_BAR - 2 * len(str(self._steps)) - 4

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _that_fit(figures: Sequence[str], room: int) -> str:
    """The first figures, as many as fit whole: a terminal would cut the count of updates and the time left."""
    shown = ""
    for figure in figures:
        longer = f"{shown}  {figure}" if shown else figure
        if len(longer) > room:
            break
        shown = longer
    return shown


def _figure(name: str, value: float) -> str:
    words = {"loss": f"loss {value:.4f}", "bits_per_byte": f"{value:.3f} bits a byte"}
    return words.get(name, f"{name} {value:.3f}")


def show_opening(console: Console, opening: Opening) -> None:
    """The opening screen: what will be learned, what was set aside and why, how long and how much memory."""
    console.print(f"\n[bold]{plain(opening.title)}[/bold]\n")
    table = Table.grid(padding=(0, 2))
    for label, text in opening.facts:
        table.add_row(Text(label, style="dim"), Text(text))
    console.print(table)
    if opening.findings:
        console.print()
        show_findings(console, opening.findings)
    if opening.example:
        coloured = console.color_system is not None
        shown = "is green" if coloured else f"stands between {BRACKETS[0]} and {BRACKETS[1]}"
        console.print(f"\n[dim]one example; what is learned {shown}, the rest is context[/dim]")
        console.print(highlighted(opening.example, brackets=not coloured))
    for warning in opening.warnings:
        console.print(f"[yellow]{plain(warning)}[/yellow]")
    console.print()


class Counter:
    """Shows how much is scored or answered: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Counter:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, name: str, done: int, total: int) -> None:
        """So much of so much is done."""
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(printable(name), total=total)
        self._bar.update(self._tasks[name], completed=done)
        if not self.console.is_terminal and time.monotonic() - self._last_line > _SECONDS_BETWEEN_PLAIN_LINES:
            self._last_line = time.monotonic()
            self.console.print(f"{plain(name)}: {done:,} of {total:,}", highlight=False, soft_wrap=True)
