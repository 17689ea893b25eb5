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
from tuition.collect.refusals import ConflictError, NotAllowedError, NotFoundError
from tuition.collect.store import Store, as_json
from tuition.collect.texts import Turns, plain_text, read_turns
from tuition.errors import UserError

DECISIONS = ("accepted", "edited", "returned")
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
    """What a reviewer decided about one revision."""

    rev: int
    person: str
    decision: str
    comment: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt's answer by one person.

    Attributes:
        status: one of `STATUSES`.
        extra: it came after the lease had ended and the place was given on.
        revisions: the oldest first; the last one counts.
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
        _add_revision(
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


def _add_revision(
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


# --- reviewing ---


def next_to_review(store: Store, person_id: int, *, after: int = 0) -> Demonstration | None:
    """The oldest demonstration that waits and that the person may review; None where there is none.

    Args:
        after: only ids above it: to look past one that is left for later.

    Raises:
        NotAllowedError: the person may not review.
    """
    reviewer = people.require(store, person_id, "review")
    with store.reading() as db:
        row = db.execute(
            """SELECT id FROM demonstration WHERE status = 'submitted' AND id > ? AND (person_id <> ? OR ?)
            ORDER BY id LIMIT 1""",
            (after, person_id, reviewer.role == "admin"),
        ).fetchone()
        return None if row is None else demonstration(store, row["id"])


def review(
    store: Store,
    demonstration_id: int,
    person_id: int,
    decision: str,
    *,
    rev: int,
    comment: str = "",
    turns: Sequence[Mapping[str, Any]] | None = None,
    post_key: str = "",
) -> Demonstration:
    """Accept a revision, accept it with an edit, or return it to its author with a comment.

    What was accepted may be returned later. The same decision by the same person twice is stored once.

    Args:
        rev: the revision that the reviewer read.
        turns: for `edited`: the new text, kept as a revision of its own beside the author's.
        post_key: for `edited`: as in `submit`.

    Raises:
        ConflictError: it has a newer revision, or was decided by somebody else meanwhile.
        NotAllowedError: the person may not review, or wrote it and is no admin.
        UserError: the decision is unknown, or the comment of a return is empty.
    """
    reviewer = people.require(store, person_id, "review")
    if decision not in DECISIONS:
        raise UserError(f"unknown decision '{decision}'", next_step=f"Choose one of: {', '.join(DECISIONS)}")
    comment = plain_text(comment, "the comment", longest=10_000, empty=decision != "returned").strip()
    with store.writing() as db:
        found = demonstration(store, demonstration_id)
        if _reviewed_so(found, reviewer.name, decision, rev, comment):
            return found
        if found.person_id == person_id and reviewer.role != "admin":
            raise NotAllowedError("you wrote this yourself", next_step="Leave it to another reviewer")
        decided = found.status == "accepted" and decision != "returned"
        if found.latest.rev != rev or found.status == "returned" or decided:
            raise ConflictError("somebody decided or changed this meanwhile", next_step="Read it again")
        db.execute(
            "INSERT INTO review(demonstration_id, rev, person_id, decision, comment, created_at) VALUES (?,?,?,?,?,?)",
            (demonstration_id, rev, person_id, decision, comment, store.now()),
        )
        if decision == "edited":
            _edit(store, demonstration_id, person_id, turns or (), post_key)
        else:
            db.execute(
                "UPDATE demonstration SET status = ?, changed_at = ? WHERE id = ?",
                (decision, store.now(), demonstration_id),
            )
            store.note(decision, f"demonstration {demonstration_id}", by=person_id, rev=rev, comment=comment)
        return demonstration(store, demonstration_id)


def _reviewed_so(found: Demonstration, name: str, decision: str, rev: int, comment: str) -> bool:
    last = found.reviews[-1] if found.reviews else None
    return last is not None and (last.person, last.decision, last.rev, last.comment) == (
        name,
        decision,
        rev,
        comment,
    )


def _edit(
    store: Store, demonstration_id: int, person_id: int, turns: Sequence[Mapping[str, Any]], post_key: str
) -> None:
    read = read_turns(turns, finished=True)
    plain_text(post_key, "the post's key", longest=100, empty=False)
    _add_revision(
        store, demonstration_id, person_id, read, post_key=post_key, seconds=0.0, status="accepted",
        guideline_version=None, suggestion_id=None,
    )  # fmt: skip


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
    query = """SELECT r.rev, p.name, r.decision, r.comment, r.created_at FROM review r
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


def returned_to(store: Store, person_id: int) -> list[Demonstration]:
    """What reviewers gave back to the person, the latest first."""
    return find(store, status="returned", person_id=person_id)
