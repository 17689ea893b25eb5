"""Who is told what happens in a run: the journal first, then the person who watches, then trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuition.screen import Watcher
from tuition.train.journal import Journal
from tuition.training.trackers import Trackers

if TYPE_CHECKING:
    from tuition.train.reports import EvalReport, SkipReport, StepReport


class Telling:
    """What the loop reports goes through here.

    Args:
        journal: metrics.jsonl, which a resume goes on from.
        watcher: the person's screen.
        trackers: those of report_to.
    """

    def __init__(self, journal: Journal, watcher: Watcher, trackers: Trackers) -> None:
        self.journal, self.watcher, self.trackers = journal, watcher, trackers

    def base(self, report: EvalReport) -> None:
        """Held-out figures before anything was learned."""
        self.journal.write(report.to_json())
        self.trackers.evaluation(report.figures, report.step)

    def step(self, report: StepReport) -> None:
        """An update was taken."""
        line = report.to_json()
        self.journal.write(line)
        self.watcher.step(report)
        self.trackers.step(line)

    def evaluation(self, report: EvalReport) -> None:
        """The held-out rows were looked at."""
        self.journal.write(report.to_json())
        self.watcher.evaluation(report)
        self.trackers.evaluation(report.figures, report.step)

    def skipped(self, report: SkipReport) -> None:
        """An update was left out."""
        self.journal.write(report.to_json())
        self.watcher.stage(f"step {report.step} is left out: {report.skipped}")
