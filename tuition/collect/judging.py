"""Judging: one person, one prompt, two answers whose authors nobody names.

Sides are drawn here, once for each person and pair, and stored. What is handed out holds no model, run or
batch; a verdict about left and right becomes one about A and B only here.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from tuition.collect import gold, people
from tuition.collect.batches import FLAGS
from tuition.collect.prompts import read_messages
from tuition.collect.refusals import ConflictError, NotFoundError
from tuition.collect.results import send_back
from tuition.collect.store import Store, as_json
from tuition.collect.texts import plain_text
from tuition.conversation import Message
from tuition.errors import UserError

LEASE_SECONDS = 1_800.0
VERDICTS = ("left_much", "left", "tie", "right", "right_much", "both_bad")


@dataclass(frozen=True, slots=True)
class Task:
    """What a person is asked to judge.

    Attributes:
        id: of this person's judgement.
        left: the text shown left.
        done: how many the person has judged in all.
    """

    id: int
    messages: tuple[Message, ...]
    left: str
    right: str
    done: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person decided.

    Attributes:
        choice: one of `VERDICTS`.
        rating_left: 1 to 7, or None.
        flags_left: keys of `FLAGS`.
        seconds: from the first sight to the verdict, as the page counted.
    """

    choice: str
    rating_left: int | None = None
    rating_right: int | None = None
    flags_left: Sequence[str] = ()
    flags_right: Sequence[str] = ()
    comment: str = ""
    seconds: float = 0.0


def claim(store: Store, person_id: int, *, lease_seconds: float = LEASE_SECONDS) -> Task | None:
    """The pair that the person holds, or the next; None where there is none.

    Raises:
        NotAllowedError: the person may not judge.
    """
    people.require(store, person_id, "judge")
    only_gold = not gold.judging_standing(store, person_id).qualified
    now = store.now()
    with store.writing(durable=False) as db:
        db.execute(
            "UPDATE judgement SET state = 'expired' WHERE state = 'claimed' AND lease_until < ? AND person_id <> ?",
            (now, person_id),
        )
        held = db.execute(
            """SELECT j.id FROM judgement j JOIN pair p ON p.id = j.pair_id JOIN batch b ON b.id = p.batch_id
            WHERE j.person_id = ? AND j.state = 'claimed' AND b.closed_at IS NULL ORDER BY j.id LIMIT 1""",
            (person_id,),
        ).fetchone()
        if held is not None:
            db.execute("UPDATE judgement SET lease_until = ? WHERE id = ?", (now + lease_seconds, held[0]))
            return _task(db, held[0], person_id)
        pair_id = _next_pair(db, person_id, only_gold)
        if pair_id is None:
            return None
        return _task(db, _take(db, pair_id, person_id, now, lease_seconds), person_id)


def _next_pair(db: sqlite3.Connection, person_id: int, only_gold: bool) -> int | None:
    """A pair of an open batch with a free place, whose answers differ and which the person has not seen.

    Pairs that were written as tests go to those who are being tested, and to nobody else.
    """
    row = db.execute(
        """SELECT p.id FROM pair p JOIN batch b ON b.id = p.batch_id
        WHERE b.closed_at IS NULL AND (p.expected IS NOT NULL) >= ?1 AND b.tests <= ?1 AND p.answer_a <> p.answer_b
        AND (p.taken < b.overlap OR p.expected IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM judgement WHERE pair_id = p.id AND person_id = ?2 AND state <> 'expired')
        ORDER BY b.id, p.id LIMIT 1""",
        (int(only_gold), person_id),
    ).fetchone()
    return None if row is None else int(row[0])


def _take(db: sqlite3.Connection, pair_id: int, person_id: int, now: float, lease_seconds: float) -> int:
    rows = db.execute(
        "SELECT slot FROM judgement WHERE pair_id = ? AND state IN ('claimed', 'judged') AND extra = 0",
        (pair_id,),
    )
    used = {row[0] for row in rows}
    slot = next(number for number in range(len(used) + 1) if number not in used)
    (taken,) = db.execute(
        """INSERT INTO judgement(pair_id, person_id, slot, state, left, lease_until, created_at)
        VALUES (?, ?, ?, 'claimed', ?, ?, ?)
        ON CONFLICT(pair_id, person_id) DO UPDATE SET
            state = 'claimed', slot = excluded.slot, lease_until = excluded.lease_until RETURNING id""",
        (pair_id, person_id, slot, secrets.choice("ab"), now + lease_seconds, now),
    ).fetchone()
    return int(taken)


def _task(db: sqlite3.Connection, judgement_id: int, person_id: int) -> Task:
    row = db.execute(
        """SELECT j.left, p.answer_a, p.answer_b, q.messages FROM judgement j JOIN pair p ON p.id = j.pair_id
        JOIN prompt q ON q.id = p.prompt_id WHERE j.id = ?""",
        (judgement_id,),
    ).fetchone()
    (done,) = db.execute(
        "SELECT count(*) FROM judgement WHERE person_id = ? AND state = 'judged'", (person_id,)
    ).fetchone()
    left, right = ("answer_a", "answer_b") if row["left"] == "a" else ("answer_b", "answer_a")
    return Task(judgement_id, read_messages(row["messages"]), row[left], row[right], done)


def judge(store: Store, judgement_id: int, person_id: int, verdict: Verdict) -> None:
    """Store a verdict; the same one twice is stored once, and one that comes late is an extra.

    With the last one that its batch asks for, the prompts where model A failed lead the writers' queue.

    Raises:
        NotFoundError: the judgement is not theirs.
        ConflictError: they judged or skipped it otherwise before.
        UserError: the verdict, a rating or a flag is none.
    """
    people.require(store, person_id, "judge")
    _check(verdict)
    with store.writing() as db:
        row = _own(db, judgement_id, person_id)
        told = _by_model(verdict, row["left"])
        if row["state"] == "judged" and row["verdict"] == told["verdict"]:
            return
        if row["state"] in ("judged", "skipped"):
            raise ConflictError("you have decided about this pair", next_step="Ask for the next one")
        extra = row["state"] == "expired" and _slot_is_taken(db, row)
        db.execute(
            """UPDATE judgement SET state = 'judged', extra = ?, verdict = ?, rating_a = ?, rating_b = ?,
            flags_a = ?, flags_b = ?, comment = ?, seconds = ?, judged_at = ? WHERE id = ?""",
            (
                int(extra), told["verdict"], told["rating_a"], told["rating_b"], told["flags_a"], told["flags_b"],
                verdict.comment, max(0.0, min(float(verdict.seconds), 86_400.0)), store.now(), judgement_id,
            ),
        )  # fmt: skip
        store.note("judged", f"judgement {judgement_id}", by=person_id, left=row["left"], **told)
        if (batch_id := _batch_completed_by(db, row["pair_id"])) is not None:
            send_back(store, batch_id, by=None)


def _batch_completed_by(db: sqlite3.Connection, pair_id: int) -> int | None:
    """The batch whose last wanted judgement was the newest of this pair; one that comes after it completes nothing."""
    batch_id, overlap = db.execute(
        "SELECT b.id, b.overlap FROM pair p JOIN batch b ON b.id = p.batch_id WHERE p.id = ?", (pair_id,)
    ).fetchone()
    judged = "(SELECT count(*) FROM judgement WHERE pair_id = pair.id AND state = 'judged')"
    (of_pair,) = db.execute(f"SELECT {judged} FROM pair WHERE id = ?", (pair_id,)).fetchone()
    missing = db.execute(
        f"SELECT 1 FROM pair WHERE batch_id = ? AND answer_a <> answer_b AND {judged} < ? LIMIT 1",
        (batch_id, overlap),
    ).fetchone()
    return batch_id if of_pair == overlap and missing is None else None


def last_batch_of(store: Store, person_id: int) -> int | None:
    """The batch that the person judged in last; for those who may see its results."""
    query = """SELECT p.batch_id FROM judgement j JOIN pair p ON p.id = j.pair_id
        WHERE j.person_id = ? AND j.state = 'judged' ORDER BY j.judged_at DESC, j.id DESC LIMIT 1"""
    with store.reading() as db:
        row = db.execute(query, (person_id,)).fetchone()
    return None if row is None else int(row[0])


def skip(store: Store, judgement_id: int, person_id: int, reason: str) -> None:
    """Leave a pair to others, and say why.

    Raises:
        NotFoundError: the judgement is not theirs.
        UserError: no reason is given.
    """
    reason = plain_text(reason, "the reason", longest=2_000, empty=False).strip()
    with store.writing() as db:
        if _own(db, judgement_id, person_id)["state"] == "judged":
            raise ConflictError("you have judged this pair", next_step="Ask for the next one")
        db.execute("UPDATE judgement SET state = 'skipped', comment = ? WHERE id = ?", (reason, judgement_id))
        store.note("skipped", f"judgement {judgement_id}", by=person_id, reason=reason)


def _own(db: sqlite3.Connection, judgement_id: int, person_id: int) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM judgement WHERE id = ? AND person_id = ?", (judgement_id, person_id)
    ).fetchone()
    if row is None:
        raise NotFoundError(f"you have no judgement {judgement_id}", next_step="Ask for the next one")
    return row


def _slot_is_taken(db: sqlite3.Connection, row: sqlite3.Row) -> bool:
    found = db.execute(
        "SELECT 1 FROM judgement WHERE pair_id = ? AND slot = ? AND state IN ('claimed', 'judged') AND extra = 0",
        (row["pair_id"], row["slot"]),
    ).fetchone()
    return found is not None


def _check(verdict: Verdict) -> None:
    if verdict.choice not in VERDICTS:
        raise UserError(
            f"unknown verdict '{verdict.choice}'", next_step=f"Choose one of: {', '.join(VERDICTS)}"
        )
    for rating in (verdict.rating_left, verdict.rating_right):
        if rating is not None and not 1 <= rating <= 7:
            raise UserError(f"a rating of {rating} is not 1 to 7", next_step="Choose 1 to 7, or none")
    for flag in (*verdict.flags_left, *verdict.flags_right):
        if flag not in FLAGS:
            raise UserError(f"unknown flag '{flag}'", next_step=f"Choose of: {', '.join(FLAGS)}")
    plain_text(verdict.comment, "the comment", longest=10_000)


def _by_model(verdict: Verdict, left: str) -> dict[str, str | int | None]:
    """Left and right as A and B."""
    right = "b" if left == "a" else "a"
    side, much = verdict.choice.removesuffix("_much"), verdict.choice.endswith("_much")
    better = {"left": left, "right": right}.get(side)
    return {
        "verdict": verdict.choice if better is None else f"{better}{'_much' if much else ''}",
        f"rating_{left}": verdict.rating_left,
        f"rating_{right}": verdict.rating_right,
        f"flags_{left}": as_json(sorted(set(verdict.flags_left))),
        f"flags_{right}": as_json(sorted(set(verdict.flags_right))),
    }
