"""The queue: who answers which prompt, so that nobody waits and no prompt is answered too often.

A place is held on a lease. A lease that ran out gives the place to the next person and takes nothing from the
one who had it: the draft stays, and an answer that comes late is kept as an extra. Places are exact whatever
races: an index allows each once. In one round a prompt is asked of nobody twice; what people judged lost begins
a new round, in which whoever answered it before may answer it again (see `open_round`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from tuition.collect import gold, people
from tuition.collect.prompts import MOST_OVERLAP, prompt
from tuition.collect.refusals import ConflictError, NotFoundError
from tuition.collect.store import Store
from tuition.collect.texts import plain_text

LEASE_SECONDS = 1_800.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """One person's work on one prompt.

    Attributes:
        state: claimed, submitted, skipped, or expired: the lease ran out and the place was given on.
        extra: the answer came late and has no place of its own.
        round: how often the prompt had come back from judging when it was claimed.
    """

    id: int
    prompt_id: int
    person_id: int
    state: str
    extra: bool
    lease_until: float
    round: int


def claim(
    store: Store, person_id: int, *, prompt_id: int | None = None, lease_seconds: float = LEASE_SECONDS
) -> Assignment | None:
    """What the person is to answer now: what they hold already, or the next prompt; None where there is none.

    People who are still being tested, or failed, are given gold prompts only.

    Args:
        prompt_id: ask for this prompt, ahead of the queue and of what is held.

    Raises:
        NotAllowedError: the person may not write.
    """
    people.require(store, person_id, "write")
    only_gold = not gold.writing_standing(store, person_id).qualified
    now = store.now()
    with store.writing(durable=False) as db:
        _expire(db, now, person_id)
        held = _held(db, person_id, prompt_id)
        if held is not None:
            db.execute("UPDATE assignment SET lease_until = ? WHERE id = ?", (now + lease_seconds, held))
            return _assignment(db, held)
        found = _next_prompt(db, person_id, only_gold, prompt_id)
        if found is None:
            return None
        taken = _take(db, found, person_id, now, lease_seconds)
        store.note("claimed", f"prompt {found}", by=person_id)
        return _assignment(db, taken)


def _expire(db: sqlite3.Connection, now: float, person_id: int) -> None:
    """Give on what is held beyond its lease; of a person's own only that in which nothing is typed, for what is urgent."""
    db.execute(
        """UPDATE assignment SET state = 'expired' WHERE state = 'claimed' AND lease_until < ?
        AND (person_id <> ? OR NOT EXISTS (SELECT 1 FROM draft WHERE assignment_id = assignment.id))""",
        (now, person_id),
    )


def _held(db: sqlite3.Connection, person_id: int, prompt_id: int | None) -> int | None:
    row = db.execute(
        """SELECT id FROM assignment WHERE person_id = ? AND state = 'claimed'
        AND (?2 IS NULL OR prompt_id = ?2) ORDER BY id LIMIT 1""",
        (person_id, prompt_id),
    ).fetchone()
    return None if row is None else int(row[0])


def _next_prompt(
    db: sqlite3.Connection, person_id: int, only_gold: bool, prompt_id: int | None
) -> int | None:
    """The most urgent prompt with a free place that the person has not answered in its round, and never skipped."""
    row = db.execute(
        """SELECT id FROM prompt WHERE gold = ? AND taken < overlap AND paused = 0 AND (?2 IS NULL OR id = ?2)
        AND NOT EXISTS (SELECT 1 FROM assignment a WHERE a.prompt_id = prompt.id AND a.person_id = ?3
            AND (a.state = 'skipped' OR a.state <> 'expired' AND a.round = prompt.round))
        ORDER BY priority DESC, id LIMIT 1""",
        (int(only_gold), prompt_id, person_id),
    ).fetchone()
    return None if row is None else int(row[0])


def _take(db: sqlite3.Connection, prompt_id: int, person_id: int, now: float, lease_seconds: float) -> int:
    (taken,) = db.execute(
        """INSERT INTO assignment(prompt_id, person_id, slot, state, lease_until, created_at, round)
        VALUES (?1, ?2, ?3, 'claimed', ?4, ?5, (SELECT round FROM prompt WHERE id = ?1))
        ON CONFLICT(prompt_id, person_id, round) DO UPDATE SET
            state = 'claimed', slot = excluded.slot, lease_until = excluded.lease_until RETURNING id""",
        (prompt_id, person_id, _free_slot(db, prompt_id), now + lease_seconds, now),
    ).fetchone()
    return int(taken)


def _free_slot(db: sqlite3.Connection, prompt_id: int) -> int | None:
    """The lowest free place of a prompt; None where all are held or filled."""
    rows = db.execute(
        "SELECT slot FROM assignment WHERE prompt_id = ? AND state IN ('claimed', 'submitted') AND extra = 0",
        (prompt_id,),
    )
    used = {row[0] for row in rows}
    (overlap,) = db.execute("SELECT overlap FROM prompt WHERE id = ?", (prompt_id,)).fetchone()
    return next((slot for slot in range(overlap) if slot not in used), None)


def own(store: Store, assignment_id: int, person_id: int) -> Assignment:
    """A person's own assignment.

    Raises:
        NotFoundError: there is none of that id, or it is somebody else's.
    """
    with store.reading() as db:
        found = _assignment(db, assignment_id)
    if found is None or found.person_id != person_id:
        raise NotFoundError(f"you have no task {assignment_id}", next_step="Ask for the next one")
    return found


def fill(store: Store, assignment_id: int, person_id: int) -> Assignment:
    """Mark a place as answered: its own while that is free, else as an extra. For `demonstrations.submit`."""
    with store.writing() as db:
        held = own(store, assignment_id, person_id)
        slot = None if held.state == "claimed" else _free_slot(db, held.prompt_id)
        late = held.state == "expired"
        db.execute(
            """UPDATE assignment SET state = 'submitted', extra = ?, slot = coalesce(?, slot) WHERE id = ?""",
            (int(late and slot is None), slot, assignment_id),
        )
        return own(store, assignment_id, person_id)


def renew(store: Store, assignment_id: int, person_id: int, *, lease_seconds: float = LEASE_SECONDS) -> None:
    """Hold a place longer: each saved draft does."""
    with store.writing() as db:
        db.execute(
            "UPDATE assignment SET lease_until = ? WHERE id = ? AND person_id = ? AND state = 'claimed'",
            (store.now() + lease_seconds, assignment_id, person_id),
        )


def skip(store: Store, assignment_id: int, person_id: int, reason: str) -> None:
    """Leave a prompt to others, and say why; the person is not given it again.

    Raises:
        ConflictError: it was answered already.
        UserError: no reason is given.
    """
    reason = plain_text(reason, "the reason", longest=2_000, empty=False).strip()
    with store.writing() as db:
        held = own(store, assignment_id, person_id)
        if held.state == "submitted":
            raise ConflictError("this prompt is answered already", next_step="Ask for the next one")
        db.execute(
            "UPDATE assignment SET state = 'skipped', skip_reason = ? WHERE id = ?", (reason, assignment_id)
        )
        store.note("skipped", f"prompt {held.prompt_id}", by=person_id, reason=reason)


def only_for_others(store: Store, person_id: int) -> dict[int, int]:
    """Prompts that are asked, but not of this person, who answered, skipped or holds them; with their open places."""
    query = """SELECT p.id, p.overlap - p.taken FROM assignment a JOIN prompt p ON p.id = a.prompt_id
        WHERE a.person_id = ? AND (a.state = 'skipped' OR a.state <> 'expired' AND a.round = p.round)
        AND p.taken < p.overlap AND p.paused = 0 AND p.gold = 0"""
    with store.reading() as db:
        return dict(db.execute(query, (person_id,)).fetchall())


def open_round(store: Store, prompt_id: int) -> None:
    """Ask a prompt anew of anybody, with one place that is free; for `results.send_back`.

    A round that nobody has answered yet goes on. Who is at work on the prompt, or was and has a draft, answers it
    in the new round.
    """
    with store.writing() as db:
        db.execute(
            """UPDATE prompt SET paused = 0, overlap = max(overlap, min(?1, taken + 1)), round = round + EXISTS (
                SELECT 1 FROM assignment a WHERE a.prompt_id = prompt.id AND a.round = prompt.round
                AND a.state = 'submitted') WHERE id = ?2""",
            (MOST_OVERLAP, prompt_id),
        )
        db.execute(
            """UPDATE assignment SET round = (SELECT round FROM prompt WHERE id = ?1)
            WHERE prompt_id = ?1 AND state IN ('claimed', 'expired')""",
            (prompt_id,),
        )


def ask_anew(store: Store, prompt_id: int, *, by: int | None) -> None:
    """Begin a new round of a prompt by hand.

    Raises:
        NotFoundError: there is no such prompt.
    """
    with store.writing():
        prompt(store, prompt_id)
        open_round(store, prompt_id)
        store.note("asked anew", f"prompt {prompt_id}", by=by)


def unfinished(store: Store, person_id: int) -> list[Assignment]:
    """What the person began and has not sent, the latest first: held places, and drafts that outlived theirs."""
    query = """SELECT a.* FROM assignment a LEFT JOIN draft d ON d.assignment_id = a.id
        WHERE a.person_id = ? AND (a.state = 'claimed' OR a.state = 'expired' AND d.rev IS NOT NULL)
        ORDER BY coalesce(d.saved_at, a.created_at) DESC LIMIT 50"""
    with store.reading() as db:
        return [_as_assignment(row) for row in db.execute(query, (person_id,))]


# --- flags ---


@dataclass(frozen=True, slots=True)
class Flag:
    """A prompt that somebody finds wrong, such as sensitive, ambiguous or broken."""

    id: int
    prompt_id: int
    person: str
    reason: str
    created_at: float


def flag(store: Store, prompt_id: int, person_id: int, reason: str) -> None:
    """Show a prompt to the admins; the work on it goes on.

    Raises:
        UserError: no reason is given.
    """
    reason = plain_text(reason, "the reason", longest=2_000, empty=False).strip()
    with store.writing() as db:
        row = (prompt_id, person_id, reason, store.now())
        try:
            db.execute("INSERT INTO flag(prompt_id, person_id, reason, created_at) VALUES (?,?,?,?)", row)
        except sqlite3.IntegrityError:
            raise NotFoundError(
                f"there is no prompt {prompt_id}", next_step="Flag what you are shown"
            ) from None
        store.note("flagged", f"prompt {prompt_id}", by=person_id, reason=reason)


def open_flags(store: Store) -> list[Flag]:
    """Flags that nobody has resolved, the oldest first."""
    query = """SELECT f.id, f.prompt_id, p.name, f.reason, f.created_at FROM flag f
        JOIN person p ON p.id = f.person_id WHERE f.resolved_at IS NULL ORDER BY f.id LIMIT 200"""
    with store.reading() as db:
        return [Flag(*row) for row in db.execute(query)]


def resolve_flag(store: Store, flag_id: int, *, by: int) -> None:
    """Close a flag."""
    with store.writing() as db:
        db.execute(
            "UPDATE flag SET resolved_at = ?, resolved_by = ? WHERE id = ? AND resolved_at IS NULL",
            (store.now(), by, flag_id),
        )
        store.note("resolved", f"flag {flag_id}", by=by)


def _assignment(db: sqlite3.Connection, assignment_id: int) -> Assignment | None:
    row = db.execute("SELECT * FROM assignment WHERE id = ?", (assignment_id,)).fetchone()
    return None if row is None else _as_assignment(row)


def _as_assignment(row: sqlite3.Row) -> Assignment:
    return Assignment(
        row["id"], row["prompt_id"], row["person_id"], row["state"], bool(row["extra"]), row["lease_until"],
        row["round"],
    )  # fmt: skip
