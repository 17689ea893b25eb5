"""Demonstrations: what people wrote, every revision of it, and what reviewers said.

A demonstration is never overwritten: an edit is a new revision under the name of whoever made it. A post
carries a key that its page drew, so that a request which is sent twice is stored once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuition.collect import guidelines, people, queue, suggestions
from tuition.collect.refusals import ConflictError, NotFoundError
from tuition.collect.store import Store, as_json
from tuition.collect.texts import Turns, plain_text, read_turns

STATUSES = ("submitted", "accepted", "returned")


@dataclass(frozen=True, slots=True)
class Revision:
    """One text.

    Attributes:
        turns: what follows the prompt: the assistant's turn, or assistant and user in turn up to the last answer.
        seconds: from the first sight of the prompt to sending, as the page counted.
        suggested_by: the model whose answer the author was shown, if any.
        edit_ratio: how much of it was changed, 0 to 1; 0 is an untouched suggestion.
    """

    rev: int
    person_id: int
    person: str
    turns: Turns
    guideline_version: int
    seconds: float
    suggested_by: str | None
    edit_ratio: float | None
    created_at: float
    event_id: int


@dataclass(frozen=True, slots=True)
class Review:
    """What a reviewer decided about one revision. `second` is what somebody said who was not told the first."""

    rev: int
    person: str
    decision: str
    comment: str
    created_at: float
    second: bool


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt's answer by one person.

    Attributes:
        status: one of `STATUSES`.
        extra: it came after the lease had ended and the place was given on.
        revisions: the oldest first; the last one counts.
        reviews: likewise, second readings among them.
    """

    id: int
    prompt_id: int
    person_id: int
    person: str
    assignment_id: int
    status: str
    extra: bool
    created_at: float
    revisions: tuple[Revision, ...]
    reviews: tuple[Review, ...]

    @property
    def latest(self) -> Revision:
        """The revision that counts."""
        return self.revisions[-1]

    @property
    def decisions(self) -> tuple[Review, ...]:
        """The reviews that decided, without second readings."""
        return tuple(review for review in self.reviews if not review.second)


# --- writing ---


def submit(
    store: Store,
    assignment_id: int,
    person_id: int,
    turns: Sequence[Mapping[str, Any]],
    *,
    post_key: str,
    seconds: float = 0.0,
    guideline_version: int | None = None,
    suggestion_id: int | None = None,
) -> Demonstration:
    """Send an answer; the draft goes with it. Sending a returned one again adds a revision.

    Args:
        post_key: drawn by the page; a second post with it is the first one, and stores nothing.
        guideline_version: that the author saw; None: the newest.

    Raises:
        UserError: a turn is empty, or the last is not the assistant's.
        ConflictError: the assignment was answered or skipped already.
        NotFoundError: the assignment, guideline or suggestion is none of theirs.
    """
    people.require(store, person_id, "write")
    read = read_turns(turns, finished=True)
    with store.writing() as db:
        assignment = queue.own(store, assignment_id, person_id)
        if (known := _posted(db, person_id, post_key)) is not None:
            return demonstration(store, known)
        before = db.execute(
            "SELECT * FROM demonstration WHERE assignment_id = ?", (assignment_id,)
        ).fetchone()
        if assignment.state == "skipped" or (before is not None and before["status"] != "returned"):
            raise ConflictError("this prompt is answered or skipped", next_step="Ask for the next one")
        if before is None:
            extra = queue.fill(store, assignment_id, person_id).extra
            row = (assignment.prompt_id, person_id, assignment_id, int(extra), store.now(), store.now())
            cursor = db.execute(
                """INSERT INTO demonstration(prompt_id, person_id, assignment_id, status, rev, extra, created_at,
                changed_at) VALUES (?,?,?,'submitted',0,?,?,?)""",
                row,
            )
            demonstration_id = int(cursor.lastrowid or 0)
        else:
            demonstration_id = before["id"]
        add_revision(
            store, demonstration_id, person_id, read, post_key=post_key, seconds=seconds, status="submitted",
            guideline_version=guideline_version, suggestion_id=suggestion_id,
        )  # fmt: skip
        db.execute("DELETE FROM draft WHERE assignment_id = ?", (assignment_id,))
        return demonstration(store, demonstration_id)


def _posted(db: sqlite3.Connection, person_id: int, post_key: str) -> int | None:
    """The demonstration that a post with this key stored."""
    plain_text(post_key, "the post's key", longest=100, empty=False)
    row = db.execute(
        "SELECT demonstration_id FROM revision WHERE person_id = ? AND post_key = ?", (person_id, post_key)
    ).fetchone()
    return None if row is None else int(row[0])


def add_revision(
    store: Store,
    demonstration_id: int,
    person_id: int,
    turns: Turns,
    *,
    post_key: str,
    seconds: float,
    status: str,
    guideline_version: int | None,
    suggestion_id: int | None,
) -> None:
    """Put a text behind the others of a demonstration; the caller has checked it. For `submit` and `reviewing`.

    Args:
        status: the demonstration's from now on, which is also the event's verb.
    """
    with store.writing() as db:
        (last,) = db.execute("SELECT rev FROM demonstration WHERE id = ?", (demonstration_id,)).fetchone()
        version = guidelines.current(store).version if guideline_version is None else guideline_version
        guidelines.version(store, version)
        ratio = (
            None
            if suggestion_id is None
            else suggestions.edit_ratio_of(store, suggestion_id, demonstration_id, turns)
        )
        event = store.note(
            status, f"demonstration {demonstration_id}", by=person_id, rev=last + 1, guideline=version
        )
        row = (
            demonstration_id, last + 1, person_id, as_json(turns), version, max(0.0, min(float(seconds), 86_400.0)),
            suggestion_id, ratio, post_key, store.now(), event,
        )  # fmt: skip
        db.execute("INSERT INTO revision VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)
        db.execute(
            "UPDATE demonstration SET rev = ?, status = ?, changed_at = ? WHERE id = ?",
            (last + 1, status, store.now(), demonstration_id),
        )


# --- looking ---


def demonstration(store: Store, demonstration_id: int) -> Demonstration:
    """One demonstration with its revisions and reviews.

    Raises:
        NotFoundError: there is none of that id.
    """
    with store.reading() as db:
        row = db.execute(
            "SELECT d.*, p.name AS person FROM demonstration d JOIN person p ON p.id = d.person_id WHERE d.id = ?",
            (demonstration_id,),
        ).fetchone()
        if row is None:
            raise NotFoundError(f"there is no demonstration {demonstration_id}", next_step="See the list")
        return Demonstration(
            id=row["id"],
            prompt_id=row["prompt_id"],
            person_id=row["person_id"],
            person=row["person"],
            assignment_id=row["assignment_id"],
            status=row["status"],
            extra=bool(row["extra"]),
            created_at=row["created_at"],
            revisions=_revisions(db, demonstration_id),
            reviews=_reviews(db, demonstration_id),
        )


def _revisions(db: sqlite3.Connection, demonstration_id: int) -> tuple[Revision, ...]:
    query = """SELECT r.*, p.name AS person, s.made_by FROM revision r JOIN person p ON p.id = r.person_id
        LEFT JOIN suggestion s ON s.id = r.suggestion_id WHERE r.demonstration_id = ? ORDER BY r.rev"""
    return tuple(
        Revision(
            rev=row["rev"],
            person_id=row["person_id"],
            person=row["person"],
            turns=json.loads(row["turns"]),
            guideline_version=row["guideline_version"],
            seconds=row["seconds"],
            suggested_by=row["made_by"],
            edit_ratio=row["edit_ratio"],
            created_at=row["created_at"],
            event_id=row["event_id"],
        )
        for row in db.execute(query, (demonstration_id,))
    )


def _reviews(db: sqlite3.Connection, demonstration_id: int) -> tuple[Review, ...]:
    query = """SELECT r.rev, p.name, r.decision, r.comment, r.created_at, r.second = 1 FROM review r
        JOIN person p ON p.id = r.person_id WHERE r.demonstration_id = ? ORDER BY r.id"""
    return tuple(Review(*row) for row in db.execute(query, (demonstration_id,)))


def find(
    store: Store,
    *,
    status: str = "",
    person_id: int | None = None,
    prompt_id: int | None = None,
    untouched: bool = False,
    before: int | None = None,
    limit: int = 50,
) -> list[Demonstration]:
    """Demonstrations, the newest first, a page at a time.

    Args:
        untouched: only those whose author sent a model's suggestion as it was.
        before: only ids below this one: the last of the page before.
    """
    where, values = ["1"], []
    for condition, value in (
        ("status = ?", status or None),
        ("person_id = ?", person_id),
        ("prompt_id = ?", prompt_id),
        ("id < ?", before),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    if untouched:
        where.append("id IN (SELECT demonstration_id FROM revision WHERE rev = 1 AND edit_ratio = 0)")
    query = f"SELECT id FROM demonstration WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
    with store.reading() as db:
        ids = [row[0] for row in db.execute(query, (*values, limit)).fetchall()]
        return [demonstration(store, found) for found in ids]


def authors_of(store: Store, ids: Sequence[int]) -> dict[int, str]:
    """Who wrote each of these demonstrations; one that is not there is left out."""
    query = """SELECT d.id, p.name FROM demonstration d JOIN person p ON p.id = d.person_id
        WHERE d.id IN (SELECT value FROM json_each(?))"""
    with store.reading() as db:
        return {row[0]: row[1] for row in db.execute(query, (json.dumps(list(ids)),))}


def returned_to(store: Store, person_id: int) -> list[Demonstration]:
    """What reviewers gave back to the person, the latest first."""
    return find(store, status="returned", person_id=person_id)
