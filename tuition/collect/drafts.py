"""Drafts: what a person has typed and not sent. They outlive leases, crashes and closed pages.

A draft has a number that counts up. Whoever saves says which one they began from; where another tab has
saved meanwhile, nothing is overwritten and both texts are shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuition.collect import queue
from tuition.collect.refusals import ConflictError
from tuition.collect.store import Store, as_json
from tuition.collect.texts import Turns, read_turns


@dataclass(frozen=True, slots=True)
class Draft:
    """The turns as they were saved last; `rev` 0 and no turns where nothing was saved."""

    assignment_id: int
    turns: Turns
    rev: int
    saved_at: float


class DraftConflictError(ConflictError):
    """Another tab has saved; `stored` is its text."""

    stored: Draft


def draft(store: Store, assignment_id: int, person_id: int) -> Draft:
    """The draft of a person's own assignment.

    Raises:
        NotFoundError: the assignment is not theirs.
    """
    queue.own(store, assignment_id, person_id)
    with store.reading() as db:
        row = db.execute("SELECT * FROM draft WHERE assignment_id = ?", (assignment_id,)).fetchone()
    if row is None:
        return Draft(assignment_id, [], 0, 0.0)
    return Draft(assignment_id, json.loads(row["turns"]), row["rev"], row["saved_at"])


def save(
    store: Store, assignment_id: int, person_id: int, turns: Sequence[Mapping[str, Any]], *, rev: int
) -> Draft:
    """Save what is typed so far, and hold the place longer.

    Args:
        rev: of the draft that the text was typed upon; 0 for the first. Saving the same text twice is no conflict.

    Raises:
        DraftConflictError: another tab has saved something else since.
        ConflictError: the answer was sent already.
        NotFoundError: the assignment is not theirs.
    """
    read = read_turns(turns, finished=False)
    with store.writing() as db:
        _refuse_when_sent(store, assignment_id, person_id)
        stored = draft(store, assignment_id, person_id)
        if stored.turns == read and stored.rev:
            return stored
        if stored.rev != rev:
            conflict = DraftConflictError(
                "another tab has saved this draft meanwhile", next_step="Choose one of the two texts"
            )
            conflict.stored = stored
            raise conflict
        row = (assignment_id, as_json(read), rev + 1, store.now())
        db.execute("INSERT OR REPLACE INTO draft VALUES (?,?,?,?)", row)
        queue.renew(store, assignment_id, person_id)
        return Draft(assignment_id, read, rev + 1, store.now())


def _refuse_when_sent(store: Store, assignment_id: int, person_id: int) -> None:
    """A returned answer may be drafted anew; one that waits for review, or was accepted, may not."""
    queue.own(store, assignment_id, person_id)
    with store.reading() as db:
        row = db.execute(
            "SELECT status FROM demonstration WHERE assignment_id = ?", (assignment_id,)
        ).fetchone()
    if row is not None and row["status"] != "returned":
        raise ConflictError("this answer was sent already", next_step="Ask for the next prompt")
