"""What a person sees in the terminal: the opening screen, progress, previews, comparisons.

Progress and warnings go to stderr, results to stdout. Plain lines where there is no terminal.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from tuition.errors import sentence

if TYPE_CHECKING:
    from tuition.errors import Finding
    from tuition.render.preview import TokenText
    from tuition.train.loop import EvalReport, StepReport

_SECONDS_BETWEEN_PLAIN_LINES = 5.0


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
        """The object that `train --dry-run --json` prints."""
        return {
            "title": self.title,
            "facts": dict(self.facts),
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


_BRACKETS = "⟦⟧"


class Terminal(Watcher):
    """Shows a run on a console: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._steps = 0
        self._first_step = 0
        self._began = 0.0
        self._last_line = 0.0
        self._held_out = ""

    def stage(self, text: str) -> None:
        self.console.print(f"[dim]{_plain(text)}[/dim]")

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
        figures = (
            f"loss {report.loss:.4f}{self._held_out if self._bar else ''}  lr {report.learning_rate:.1e}  "
            f"{report.tokens_per_second:,.0f} tokens/s  {duration(left)} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=report.step, figures=figures)
        elif (
            report.step in (1, self._steps)
            or time.monotonic() - self._last_line > _SECONDS_BETWEEN_PLAIN_LINES
        ):
            self._last_line = time.monotonic()
            self.console.print(
                f"step {report.step}/{self._steps}  {figures}", highlight=False, soft_wrap=True
            )

    def evaluation(self, report: EvalReport) -> None:
        figures = "  ".join(
            _figure(name, value) for name, value in report.figures.items() if name != "tokens"
        )
        self._held_out = f"  held-out {figures}"
        if self._bar is None:
            self.console.print(
                f"step {report.step}/{self._steps}  held-out {figures}", highlight=False, soft_wrap=True
            )

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _figure(name: str, value: float) -> str:
    words = {"loss": f"loss {value:.4f}", "bits_per_byte": f"{value:.3f} bits a byte"}
    return words.get(name, f"{name} {value:.3f}")


def show_opening(console: Console, opening: Opening) -> None:
    """The opening screen: what will be learned, what was set aside and why, how long and how much memory."""
    console.print(f"\n[bold]{_plain(opening.title)}[/bold]\n")
    table = Table.grid(padding=(0, 2))
    for label, text in opening.facts:
        table.add_row(Text(label, style="dim"), Text(text))
    console.print(table)
    if opening.findings:
        console.print()
        show_findings(console, opening.findings)
    if opening.example:
        coloured = console.color_system is not None
        shown = "is green" if coloured else f"stands between {_BRACKETS[0]} and {_BRACKETS[1]}"
        console.print(f"\n[dim]one example; what is learned {shown}, the rest is context[/dim]")
        console.print(highlighted(opening.example, brackets=not coloured))
    for warning in opening.warnings:
        console.print(f"[yellow]{_plain(warning)}[/yellow]")
    console.print()


def show_findings(console: Console, findings: Sequence[tuple[int, Finding]]) -> None:
    """One line a code: how often, the first place, what and what to do."""
    styles = {"error": "red", "warning": "yellow", "info": "dim"}
    for count, finding in findings:
        times = f"{count:,} times, first " if count > 1 else ""
        place = str(finding.origin) if finding.origin.line else finding.origin.file
        line = Text.assemble(
            (f"{finding.code} {finding.severity}  ", styles[finding.severity]),
            (printable(f"{times}{place}: "), "dim"),
            printable(f"{sentence(finding.message)} "),
            (printable(finding.fix), "italic"),
        )
        console.print(line, soft_wrap=True)


def highlighted(tokens: Sequence[TokenText], *, brackets: bool = False) -> Text:
    """Tokens as text: learned ones green, control tokens underlined, weights other than 1 before what they weigh.

    White space is visible where it is learned: line ends, tabs, and spaces that no letter follows or that
    begin what is learned.

    Args:
        brackets: around what is learned, for where no colour is shown.
    """
    text = Text()
    before = 0.0
    for token in tokens:
        learned = token.supervised > 0
        if brackets and learned != (before > 0):
            text.append(_BRACKETS[before > 0])
        if learned and token.supervised not in (1.0, before):
            text.append(f"×{token.supervised:g} ", style="bold")
        shown = _visible_blanks(token.text, begins=not before) if learned else token.text
        style = "green" if learned else "dim"
        text.append(printable(shown), style=f"{style} underline" if token.special else style)
        before = token.supervised
    if brackets and before > 0:
        text.append(_BRACKETS[1])
    return text


def _visible_blanks(text: str, *, begins: bool) -> str:
    unseen = r" {2,}| +$|^ +" if begins else r" {2,}| +$"
    dotted = re.sub(unseen, lambda blanks: "·" * len(blanks[0]), text)
    return dotted.replace("\n", "↵\n").replace("\t", "→")


def printable(text: str) -> str:
    """The text with terminal control characters made visible: data must not move the cursor."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _plain(text: str) -> str:
    """Text as it is, for rich: neither its markup nor a terminal's."""
    return escape(printable(text))


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


# --- results, to stdout ---


def print_json(value: Any) -> None:
    """One line of JSON on stdout; on a terminal without anything that could steer it."""
    text = json.dumps(value, ensure_ascii=False)
    if sys.stdout.isatty():  # JSON itself escapes most control characters, and not those above 127
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    print(text)


def show_check(checked: Any) -> None:
    """What `check` found: the shapes, the findings by code, the ledger."""
    console = Console()
    ledger = checked.ledger
    for source, shape in checked.shapes.items():
        console.print(f"{_plain(source)}: [bold]{_plain(shape)}[/bold]")
    show_findings(console, first_of_each(ledger.findings, ledger.counts_by_code()))
    summary = ledger.summary()
    tokens = (
        f", {summary['tokens']:,} tokens, {summary['supervised_tokens']:,} learned"
        if summary["tokens"]
        else ""
    )
    left_out = f" + {summary['left_out']:,} left out" if summary["left_out"] else ""
    console.print(
        f"{summary['rows_in']:,} rows in = {summary['kept']:,} kept + {len(summary['rejected']):,} rejected{left_out}{tokens}",
        highlight=False,
    )


def first_of_each(findings: Sequence[Finding], counts: dict[str, int]) -> list[tuple[int, Finding]]:
    """One finding a code with how often it was made, errors first."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.code, finding)
    return by_severity((counts[code], finding) for code, finding in first.items())


def by_severity(findings: Iterable[tuple[int, Finding]]) -> list[tuple[int, Finding]]:
    """Findings with their counts, errors first, then in the order of the codes."""
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda pair: (order[pair[1].severity], pair[1].code))


def show_example(example: Any, tokens: Any) -> None:
    """One example with its place, its counts and its tokens coloured."""
    from tuition.render.preview import token_texts

    console = Console()
    share = example.learned_tokens / len(example)
    console.rule(
        Text(f"{example.origin}  {len(example):,} tokens, {example.learned_tokens:,} learned ({share:.0%})")
    )
    shown = highlighted(token_texts(example, tokens), brackets=console.color_system is None)
    console.print(shown, soft_wrap=True)


def show_evaluation(result: Any) -> None:
    """Figures of one model, or of two on the same prompts with a few of their answers side by side."""
    from tuition.evaluate.lines import all_lines

    console = Console()
    if result.comparison is not None and (result.comparison.losses or result.comparison.wins):
        console.print(_answers_table(result.comparison, result.overlap))
    for line in all_lines(result):
        console.print(Text(printable(line)), highlight=False, soft_wrap=True)


def show_samples(rows: Sequence[Mapping[str, Any]], name: str, most: int = 4) -> None:
    """A few of a run's held-out prompts with what was answered before and after."""
    shown = [row for row in rows if row.get("tuned") is not None][:most]
    if not shown:
        return
    table = Table(title=name, title_justify="left")
    for column in ("question", "expected", "base", "tuned"):
        table.add_column(column, overflow="fold")
    for row in shown:
        texts = (row["prompt"], row["expected"], row["base"], row["tuned"])
        table.add_row(*(_answer(str(text or "")) for text in texts))
    Console().print(table)


def _answers_table(comparison: Any, overlap: Any) -> Table:
    held_out = overlap is not None and not overlap.trained_on
    table = Table(title=f"the same {'held-out ' if held_out else ''}questions", title_justify="left")
    for column in ("question", "expected", "base", "tuned"):
        table.add_column(column, overflow="fold")
    for answer in [*comparison.losses[:4], *comparison.wins[:8]]:
        texts = (answer.prompt, answer.expected, answer.base, answer.tuned)
        table.add_row(*(_answer(text) for text in texts))
    return table


def _answer(text: str) -> Text:
    """A question or an answer in a table: its start, and line ends that follow one another on one line."""
    return Text(printable(re.sub(r"\n{2,}", lambda ends: "↵" * len(ends[0]) + "\n", shorten(text))))


def show_several(found: Any) -> None:
    """Runs side by side: what differs, the metrics with their intervals, then losses, ledger and cost."""
    from tuition.evaluate.report.machine import setting
    from tuition.evaluate.report.severalpage import cell, figure_row

    console, figures = Console(), [figure_row(figure) for figure in found.figures]
    table = Table(title="runs compared", title_justify="left")
    for column in ("", *found.names):
        table.add_column(_words(column), overflow="fold")
    for key, values in found.differing.items():
        table.add_row(_words(key), *(_words(shorten(setting(value), 40)) for value in values))
    table.add_section()
    for row in figures:
        scores = (
            f"{each['value']} [{each['interval']}]" if each["interval"] else "–" for each in row["cells"]
        )
        table.add_row(_words(row["name"]), *map(_words, scores))
    table.add_section()
    for label, values in found.rows.items():
        table.add_row(label, *(_words(cell(value)) for value in values))
    console.print(table)
    for row in figures:
        for name, each in zip(found.names, row["cells"], strict=True):
            if each["difference"]:
                line = f"{row['name']}, {name} − {found.names[0]}: {each['difference']}: {each['verdict']}"
                console.print(_words(line), soft_wrap=True)


def _words(text: str) -> Text:
    """Text of a page for the terminal, where a space that does not break is none."""
    return Text(printable(text.replace("\u00a0", " ")))


def show_doctor(examined: dict[str, Any]) -> None:
    """Each check on a line, with what to do where it failed."""
    console = Console()
    for entry in examined["checks"]:
        mark = "[green]ok[/green]  " if entry["ok"] else "[red]mend[/red]"
        fix = f"  {entry['fix']}" if entry["fix"] else ""
        console.print(
            f"{mark} {entry['name']:16} {_plain(entry['found'])}{_plain(fix)}",
            highlight=False,
            soft_wrap=True,
        )


class Counter:
    """Shows how much is scored or answered: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, Any] = {}
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
            self.console.print(f"{_plain(name)}: {done:,} of {total:,}", highlight=False, soft_wrap=True)


def shorten(text: str, length: int = 160) -> str:
    """The text on one screen: its start, and how much more there is."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text) - length:,} more)"
