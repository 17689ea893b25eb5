"""What came of a command, to stdout: for people, or one object of JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuition.counting import counted
from tuition.screen.findings import first_of_each, show_findings
from tuition.screen.texts import highlighted, plain, printable, shorten
from tuition.streams import holds_all_characters

if TYPE_CHECKING:
    from tuition.conversation import Rendered
    from tuition.data import Ledger
    from tuition.evaluate.report.several import Several
    from tuition.evaluate.score import Evaluation
    from tuition.render.tokens import Tokens


def print_json(value: Any) -> None:
    """One line of JSON on stdout; on a terminal without anything that could steer it."""
    text = json.dumps(value, ensure_ascii=not holds_all_characters(sys.stdout))
    if sys.stdout.isatty():  # JSON itself escapes most control characters, and not those above 127
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    print(text)


def show_check(ledger: Ledger, shapes: Mapping[str, str]) -> None:
    """What `check` found: the shape of each source, the findings by code, the ledger."""
    console = Console()
    for source, shape in shapes.items():
        console.print(f"{plain(source)}: [bold]{plain(shape)}[/bold]", highlight=False, soft_wrap=True)
    show_findings(console, first_of_each(ledger.findings, ledger.counts_by_code()))
    summary = ledger.summary()
    tokens = (
        f", {counted(summary['tokens'], 'token')}, {summary['supervised_tokens']:,} learned"
        if summary["tokens"]
        else ""
    )
    left_out = f" + {summary['left_out']:,} left out" if summary["left_out"] else ""
    console.print(
        f"{counted(summary['rows_in'], 'row')} in = {summary['kept']:,} kept + {len(summary['rejected']):,} rejected{left_out}{tokens}",
        highlight=False,
        soft_wrap=True,
    )


def show_example(example: Rendered, tokens: Tokens) -> None:
    """One example with its place, its counts and its tokens coloured."""
    from tuition.render.preview import token_texts

    console = Console()
    share = example.learned_tokens / len(example)
    console.rule(
        Text(f"{example.origin}  {len(example):,} tokens, {example.learned_tokens:,} learned ({share:.0%})")
    )
    shown = highlighted(token_texts(example, tokens), brackets=console.color_system is None)
    console.print(shown, soft_wrap=True)


def show_evaluation(result: Evaluation) -> None:
    """Figures of one model, or of two on the same prompts with a few of their answers side by side."""
    from tuition.evaluate.lines import all_lines

    console = Console()
    if (found := result.comparison) is not None:
        held_out = result.overlap is not None and not result.overlap.trained_on
        if shown := [*found.losses[:4], *found.wins[:8]]:
            title = f"the same {'held-out ' if held_out else ''}questions"
            texts = ((answer.prompt, answer.expected, answer.base, answer.tuned) for answer in shown)
            console.print(_before_and_after(title, texts))
    for line in all_lines(result):
        console.print(Text(printable(line)), highlight=False, soft_wrap=True)


def show_samples(rows: Sequence[Mapping[str, Any]], name: str, most: int = 4) -> None:
    """A few of a run's held-out prompts with what was answered before and after."""
    shown = [row for row in rows if row.get("tuned") is not None][:most]
    if shown:
        texts = ([str(row[key] or "") for key in ("prompt", "expected", "base", "tuned")] for row in shown)
        Console().print(_before_and_after(name, texts))


def _before_and_after(title: str, rows: Iterable[Sequence[str]]) -> Table:
    """A table of questions: what is expected, and the answers of both models."""
    table = Table(title=title, title_justify="left")
    for column in ("question", "expected", "base", "tuned"):
        table.add_column(column, overflow="fold")
    for texts in rows:
        table.add_row(*(Text(printable(_ends_gathered(shorten(text)))) for text in texts))
    return table


def _ends_gathered(text: str) -> str:
    """The text with line ends that follow one another shown on one line: a base model may write hundreds."""
    return re.sub(r"\n{2,}", lambda ends: "↵" * len(ends[0]) + "\n", text)


def show_several(found: Several) -> None:
    """Runs side by side: what differs, the metrics with their intervals, then losses, ledger and cost."""
    from tuition.evaluate.report.machine import setting
    from tuition.evaluate.report.severalpage import cell, figure_row, losses_do_not_compare

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
    if caution := losses_do_not_compare(found):
        console.print(_words(caution), soft_wrap=True)
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
            f"{mark} {entry['name']:16} {plain(entry['found'])}{plain(fix)}",
            highlight=False,
            soft_wrap=True,
        )
