"""The loss of each demonstration before and after a training run. A high loss says "look at this", no more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuition.collect.store import Store


@dataclass(frozen=True, slots=True)
class Loss:
    """Nats a learned token.

    Attributes:
        run: the run's folder.
        before: of the model that the run began with.
        after: of the trained model.
    """

    demonstration_id: int
    rev: int
    run: str
    before: float
    after: float


def note(store: Store, losses: Iterable[Loss]) -> int:
    """Keep the losses of a run, in place of what was noted for it before; how many."""
    count = 0
    with store.writing() as db:
        for loss in losses:
            row = (
                loss.demonstration_id,
                loss.rev,
                loss.run,
                loss.before,
                loss.after,
                store.now(),
            )
            db.execute("INSERT OR REPLACE INTO loss VALUES (?,?,?,?,?,?)", row)
            count += 1
        store.note("measured", "losses", by=None, demonstrations=count)
    return count


def of_demonstration(store: Store, demonstration_id: int) -> list[Loss]:
    """A demonstration's losses, the newest run first."""
    query = """SELECT demonstration_id, rev, run, before, after FROM loss
        WHERE demonstration_id = ? ORDER BY created_at DESC, rev DESC"""
    with store.reading() as db:
        return [Loss(*row) for row in db.execute(query, (demonstration_id,))]


def highest(store: Store, *, limit: int = 50) -> list[Loss]:
    """Accepted demonstrations whose latest revision was hardest to learn: worth a look."""
    query = """SELECT l.demonstration_id, l.rev, l.run, l.before, l.after FROM loss l
        JOIN demonstration d ON d.id = l.demonstration_id AND d.rev = l.rev AND d.status = 'accepted'
        ORDER BY l.after DESC LIMIT ?"""
    with store.reading() as db:
        return [Loss(*row) for row in db.execute(query, (limit,))]
