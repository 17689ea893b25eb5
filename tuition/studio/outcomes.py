"""What became of a command that a run's page started, in a sentence and with links: it stays there when the command ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuition import api
from tuition.counting import counted


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command that ended well.

    Attributes:
        sentence: what there is now.
        links: words and address, of where to go from here.
    """

    sentence: str
    links: tuple[tuple[str, str], ...] = ()


def outcome_of(store: api.Store, folder: Path, job: api.jobs.Job) -> Outcome:
    """What the newest command of a kind left; only for one that ended with exit code 0."""
    if job.kind == "compare":
        return _compared(store, folder)
    if job.kind == "measure":
        return _measured(folder)
    return Outcome(job.last_line)  # an export says itself where it lies and what was verified


def _measured(folder: Path) -> Outcome:
    scored = len(api.board.scored_demonstrations(folder))
    return Outcome(f"measured {counted(scored, 'demonstration')}", (("see them", "#demonstrations"),))


def _compared(store: api.Store, folder: Path) -> Outcome:
    """The newest comparison in which the run is A, as `tuition compare RUN OTHER` makes it."""
    batch = next((one for one in api.batches.batches(store) if one.model_a == str(folder)), None)
    if batch is None:
        return Outcome("its pairs stand in the store that was served then")
    waiting = 0 if batch.closed else max(0, batch.wanted - batch.judged)
    said = [_win_rate(store, batch)] if batch.judged or not waiting else []
    if waiting:
        said.append(counted(waiting, "pair waits", "pairs wait"))
    links = (("judge them", "/judge"),) if waiting else ()
    return Outcome("; ".join(said), (*links, ("the comparison", f"/overview/comparison/{batch.id}")))


def _win_rate(store: api.Store, batch: api.batches.Batch) -> str:
    score = api.results.rate(store, batch.id).score
    if score is None:
        return "closed before anybody judged"
    judged = counted(batch.judged, "judgement", "judgements")
    same = f" and {counted(batch.identical, 'equal pair', 'equal pairs')}" if batch.identical else ""
    return f"wins {score.value:.0%} of {judged}{same} (95 % interval {score.low:.0%} to {score.high:.0%})"
