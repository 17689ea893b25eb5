"""Findings on a terminal: errors first, one of each code with how often it was made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from tuition.errors import Finding, sentence
from tuition.screen.texts import printable


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
