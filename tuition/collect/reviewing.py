"""Reviewing: accept a text, edit it, or give it back; and second readings, which show how far reviewers agree.

A share of what was decided is read by somebody else, who is not told the first decision. What they say changes
nothing by itself: it is counted, and where the two differ the text is shown to those who review.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tuition.collect import people
from tuition.collect.agreement import Agreement, agreement
from tuition.collect.demonstrations import Demonstration, Revision, add_revision, demonstration
from tuition.collect.refusals import ConflictError, NotAllowedError, NotFoundError
from tuition.collect.store import Store
from tuition.collect.texts import plain_text, read_turns
from tuition.errors import UserError

DECISIONS = ("accepted", "edited", "returned")
_SHARE = "second readings"
_OF_A_MILLION = 1_000_000
_MAY_READ_AGAIN = """d.person_id <> ?1 AND NOT EXISTS (
    SELECT 1 FROM review r WHERE r.demonstration_id = d.id AND r.person_id = ?1)"""


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
        post_key: for `edited`: as in `demonstrations.submit`.

    Raises:
        ConflictError: it has a newer revision, or was decided by somebody else meanwhile.
        NotAllowedError: the person may not review, or wrote it and is no admin.
        UserError: the decision is unknown, or the comment of a return is empty.
    """
    reviewer = people.require(store, person_id, "review")
    comment = _checked(decision, comment)
    with store.writing() as db:
        found = demonstration(store, demonstration_id)
        if _decided_so(found, reviewer.name, decision, rev, comment):
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
        if (
            found.status == "submitted"
            and secrets.randbelow(_OF_A_MILLION) < second_share(store) * _OF_A_MILLION
        ):
            db.execute("UPDATE demonstration SET second_rev = ? WHERE id = ?", (rev, demonstration_id))
        if decision == "edited":
            _edit(store, demonstration_id, person_id, turns or (), post_key)
        else:
            db.execute(
                "UPDATE demonstration SET status = ?, changed_at = ? WHERE id = ?",
                (decision, store.now(), demonstration_id),
            )
            store.note(decision, f"demonstration {demonstration_id}", by=person_id, rev=rev, comment=comment)
        return demonstration(store, demonstration_id)


def _checked(decision: str, comment: str) -> str:
    if decision not in DECISIONS:
        raise UserError(f"unknown decision '{decision}'", next_step=f"Choose one of: {', '.join(DECISIONS)}")
    return plain_text(comment, "the comment", longest=10_000, empty=decision != "returned").strip()


def _decided_so(found: Demonstration, name: str, decision: str, rev: int, comment: str) -> bool:
    said = [(one.person, one.decision, one.rev, one.comment) for one in found.decisions[-1:]]
    return said == [(name, decision, rev, comment)]


def _edit(
    store: Store, demonstration_id: int, person_id: int, turns: Sequence[Mapping[str, Any]], post_key: str
) -> None:
    read = read_turns(turns, finished=True)
    plain_text(post_key, "the post's key", longest=100, empty=False)
    add_revision(
        store, demonstration_id, person_id, read, post_key=post_key, seconds=0.0, status="accepted",
        guideline_version=None, suggestion_id=None,
    )  # fmt: skip


# --- second readings ---


def second_share(store: Store) -> float:
    """The share of decided texts that somebody else reads too, 0 to 1."""
    return float(store.setting(_SHARE, 0.0))


def set_second_share(store: Store, share: float, *, by: int | None) -> None:
    """Have that share read twice from now on.

    Raises:
        UserError: it is not within 0 to 1.
    """
    if not 0 <= share <= 1:
        raise UserError(f"a share of {share} is not 0 to 1", next_step="Choose another")
    store.set_setting(_SHARE, share, by=by)


def next_second_reading(store: Store, person_id: int) -> int | None:
    """The oldest demonstration that waits for another reader, and that this person may be.

    Raises:
        NotAllowedError: the person may not review.
    """
    people.require(store, person_id, "review")
    query = f"SELECT id FROM demonstration d WHERE second_rev IS NOT NULL AND {_MAY_READ_AGAIN} ORDER BY id LIMIT 1"
    with store.reading() as db:
        row = db.execute(query, (person_id,)).fetchone()
    return None if row is None else int(row["id"])


def second_readings_wanted(store: Store, person_id: int | None = None) -> int:
    """How many texts wait for another reader; of these, those that a person may read, where one is named."""
    query = "SELECT count(*) FROM demonstration d WHERE second_rev IS NOT NULL"
    if person_id is not None:
        query += f" AND {_MAY_READ_AGAIN}"
    with store.reading() as db:
        return int(db.execute(query, () if person_id is None else (person_id,)).fetchone()[0])


def text_to_read_again(store: Store, demonstration_id: int, person_id: int) -> Revision:
    """The text that is read a second time, as the first reader saw it.

    Raises:
        NotAllowedError: the person may not review, wrote it, or read it before.
        NotFoundError: no second reading of it is wanted.
    """
    people.require(store, person_id, "review")
    with store.reading() as db:
        found = demonstration(store, demonstration_id)
        (rev,) = db.execute(
            "SELECT second_rev FROM demonstration WHERE id = ?", (demonstration_id,)
        ).fetchone()
        read_before = db.execute(
            "SELECT 1 FROM review WHERE demonstration_id = ? AND person_id = ?", (demonstration_id, person_id)
        ).fetchone()
    if rev is None:
        raise NotFoundError("nobody else needs to read this", next_step="Ask for the next one")
    if found.person_id == person_id or read_before is not None:
        raise NotAllowedError("you know this text", next_step="Leave it to another reviewer")
    return next(text for text in found.revisions if text.rev == rev)


def read_again(
    store: Store, demonstration_id: int, person_id: int, decision: str, *, comment: str = ""
) -> None:
    """Keep what a second reader would have decided. It changes neither the text nor its status.

    Raises:
        NotAllowedError: as for `text_to_read_again`.
        NotFoundError: likewise.
        UserError: the decision is unknown, or the comment of a return is empty.
    """
    comment = _checked(decision, comment)
    with store.writing() as db:
        rev = text_to_read_again(store, demonstration_id, person_id).rev
        db.execute(
            """INSERT INTO review(demonstration_id, rev, person_id, decision, comment, created_at, second)
            VALUES (?,?,?,?,?,?,1)""",
            (demonstration_id, rev, person_id, decision, comment, store.now()),
        )
        db.execute("UPDATE demonstration SET second_rev = NULL WHERE id = ?", (demonstration_id,))
        store.note(
            "read again",
            f"demonstration {demonstration_id}",
            by=person_id,
            rev=rev,
            decision=decision,
            comment=comment,
        )


_BOTH = """SELECT s.demonstration_id, (SELECT r.decision FROM review r WHERE r.demonstration_id = s.demonstration_id
    AND r.rev = s.rev AND r.second = 0 ORDER BY r.id LIMIT 1) AS first, s.decision AS second
    FROM review s WHERE s.second = 1"""


def agreement_of_reviewers(store: Store) -> Agreement:
    """How far two readers of the same text agree, neither of whom knew what the other said."""
    with store.reading() as db:
        return _agreement(
            tuple((row["first"], row["second"]) for row in db.execute(f"{_BOTH} ORDER BY s.id"))
        )


@lru_cache(maxsize=8)  # pages ask again and again, and resampling takes its time
def _agreement(decisions: tuple[tuple[str, str], ...]) -> Agreement:
    return agreement(dict(enumerate(decisions)))


def read_differently(store: Store, *, limit: int = 50) -> list[Demonstration]:
    """Texts about which two readers would decide differently, the newest first."""
    query = (
        f"SELECT demonstration_id FROM ({_BOTH}) WHERE first <> second ORDER BY demonstration_id DESC LIMIT ?"
    )
    with store.reading() as db:
        ids = [row[0] for row in db.execute(query, (limit,)).fetchall()]
        return [demonstration(store, found) for found in ids]
