"""Batches: two models' answers to the same prompts, waiting to be judged; what came out stands in `results`.

Which model wrote an answer stands here and nowhere else: who judges is never told (see `judging`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuition.collect.accepted import iso
from tuition.collect.refusals import NotFoundError
from tuition.collect.store import Store, as_json
from tuition.collect.texts import plain_text
from tuition.errors import UserError

# InstructGPT's metadata about one answer (table 3 and appendix D of arXiv 2203.02155)
FLAGS: dict[str, str] = {
    "fails_task": "fails the task",
    "inappropriate": "inappropriate for an assistant",
    "hallucination": "makes something up",
    "satisfies_constraint": "satisfies the constraint that was given",
    "sexual": "sexual content",
    "violent": "violent content",
    "encourages_harm": "encourages or fails to discourage harm",
    "denigrates": "denigrates a group of people",
    "harmful_advice": "gives harmful advice",
    "opinion": "expresses an opinion",
    "moral_judgement": "expresses a moral judgement",
}


@dataclass(frozen=True, slots=True)
class NewPair:
    """Two answers to one prompt.

    Attributes:
        expected: `a` or `b` where it is known which is better: a gold pair, which tests who judges.
        sample: which of several answers to the prompt they are.
    """

    prompt_id: int
    answer_a: str
    answer_b: str
    expected: str | None = None
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers of a batch, for those who manage; `opening` is the prompt's, `judged` how often people judged it."""

    id: int
    prompt_id: int
    opening: str
    answer_a: str
    answer_b: str
    expected: str | None
    judged: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A comparison of two models.

    Attributes:
        sampling: how the answers were drawn.
        overlap: how many people judge each pair.
        pairs: in all; `identical` of them have equal answers, which nobody is asked about: they are ties.
        judged: judgements so far, of `wanted`.
        leaks: answers in which a model's name stands, so that who judges may know.
        tests: of its pairs the better side is known; they test who judges, and compare no models.
    """

    id: int
    name: str
    model_a: str
    model_b: str
    sampling: Mapping[str, Any]
    overlap: int
    created_at: float
    closed: bool
    pairs: int
    identical: int
    judged: int
    leaks: int
    tests: bool

    @property
    def opened(self) -> str:
        """When it was put before people, as ISO 8601."""
        return iso(self.created_at)

    @property
    def wanted(self) -> int:
        """Judgements that the batch asks for."""
        return (self.pairs - self.identical) * self.overlap


def open_batch(
    store: Store,
    *,
    name: str,
    model_a: str,
    model_b: str,
    pairs: Iterable[NewPair],
    sampling: Mapping[str, Any],
    overlap: int = 1,
    by: int | None,
) -> Batch:
    """Put pairs before the people who judge, all or none.

    Raises:
        UserError: there is no pair, or one prompt has two.
    """
    if overlap < 1:
        raise UserError("each pair needs a judgement", next_step="Choose an overlap of 1 or more")
    with store.writing() as db:
        row = (
            plain_text(name, "the name", longest=200),
            model_a,
            model_b,
            as_json(dict(sampling)),
            overlap,
            store.now(),
        )
        cursor = db.execute(
            "INSERT INTO batch(name, model_a, model_b, sampling, overlap, created_at) VALUES (?,?,?,?,?,?)",
            row,
        )
        batch_id = int(cursor.lastrowid or 0)
        names = (_short(model_a).lower(), _short(model_b).lower())
        kinds = [_add_pair(db, batch_id, pair, names) for pair in pairs]
        if not kinds:
            raise UserError("there is nothing to compare", next_step="Name prompts that both models answer")
        identical, leaks = (sum(kind) for kind in zip(*kinds, strict=True))
        counts = (len(kinds), identical, leaks, batch_id)
        db.execute("UPDATE batch SET pairs = ?, identical = ?, leaks = ? WHERE id = ?", counts)
        store.note("opened", f"batch {batch_id}", by=by, a=model_a, b=model_b, pairs=len(kinds))
        return batch(store, batch_id)


def _add_pair(
    db: sqlite3.Connection, batch_id: int, pair: NewPair, names: tuple[str, str]
) -> tuple[bool, bool]:
    """Whether both answers are the same, and whether one of them names a model."""
    texts = (plain_text(pair.answer_a, "an answer"), plain_text(pair.answer_b, "an answer"))
    try:
        db.execute(
            "INSERT INTO pair(batch_id, prompt_id, answer_a, answer_b, expected, sample) VALUES (?,?,?,?,?,?)",
            (batch_id, pair.prompt_id, *texts, pair.expected, pair.sample),
        )
    except sqlite3.IntegrityError:
        raise UserError(
            f"prompt {pair.prompt_id} is unknown or stands twice in the batch", next_step="Give each once"
        ) from None
    return texts[0] == texts[1], any(name in text.lower() for name in names for text in texts)


def batch(store: Store, batch_id: int) -> Batch:
    """One batch.

    Raises:
        NotFoundError: there is none of that id.
    """
    with store.reading() as db:
        row = db.execute("SELECT * FROM batch WHERE id = ?", (batch_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"there is no batch {batch_id}", next_step="See the list of batches")
        return _batch(db, row)


def batches(store: Store, *, limit: int = 1_000) -> list[Batch]:
    """The comparisons, the newest first; test pairs are none."""
    with store.reading() as db:
        rows = db.execute("SELECT * FROM batch WHERE tests = 0 ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [_batch(db, row) for row in rows]


def _batch(db: sqlite3.Connection, row: sqlite3.Row) -> Batch:
    (judged,) = db.execute(
        """SELECT count(*) FROM judgement j JOIN pair p ON p.id = j.pair_id
        WHERE p.batch_id = ? AND j.state = 'judged'""",
        (row["id"],),
    ).fetchone()
    return Batch(
        id=row["id"],
        name=row["name"],
        model_a=row["model_a"],
        model_b=row["model_b"],
        sampling=json.loads(row["sampling"]),
        overlap=row["overlap"],
        created_at=row["created_at"],
        closed=row["closed_at"] is not None,
        pairs=row["pairs"],
        identical=row["identical"],
        judged=judged,
        leaks=row["leaks"],
        tests=bool(row["tests"]),
    )


def _short(model: str) -> str:
    """A model's name as an answer would say it, a checkpoint's by its run; shorter ones stand in any text."""
    name = model.partition("/checkpoints/")[0].rstrip("/").rsplit("/", 1)[-1]
    return name if len(name) > 3 else model


def close_batch(store: Store, batch_id: int, *, by: int | None) -> None:
    """Ask nobody any more; what was judged stays."""
    with store.writing() as db:
        db.execute(
            "UPDATE batch SET closed_at = coalesce(closed_at, ?) WHERE id = ?", (store.now(), batch_id)
        )
        store.note("closed", f"batch {batch_id}", by=by)


# --- pairs whose better side is known ---


def pairs(store: Store, batch_id: int, *, after: int = 0, limit: int = 20) -> list[Pair]:
    """Pairs of a batch in the order in which they are judged, a page at a time.

    Args:
        after: only ids above it: the last of the page before.
    """
    query = """SELECT p.id, p.prompt_id, q.opening, p.answer_a, p.answer_b, p.expected,
        (SELECT count(*) FROM judgement WHERE pair_id = p.id AND state = 'judged')
        FROM pair p JOIN prompt q ON q.id = p.prompt_id WHERE p.batch_id = ? AND p.id > ? ORDER BY p.id LIMIT ?"""
    with store.reading() as db:
        return [Pair(*row) for row in db.execute(query, (batch_id, after, limit))]


def expect(store: Store, pair_id: int, better: str | None, *, by: int | None) -> int:
    """State which answer of a pair is better, so that it tests who judges; None makes it an ordinary pair again.

    Returns:
        its batch.

    Raises:
        NotFoundError: there is no such pair.
        UserError: `better` is none of `a` and `b`, or both answers are the same.
    """
    if better not in (None, "a", "b"):
        raise UserError(f"'{better}' is no side", next_step="Choose a or b")
    with store.writing() as db:
        row = db.execute("SELECT batch_id, answer_a = answer_b FROM pair WHERE id = ?", (pair_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"there is no pair {pair_id}", next_step="See the pairs of the comparison")
        if better and row[1]:
            raise UserError("both answers are the same", next_step="Choose a pair whose answers differ")
        db.execute("UPDATE pair SET expected = ? WHERE id = ?", (better, pair_id))
        store.note("expects", f"pair {pair_id}", by=by, better=better)
    return int(row[0])


def tests_of(store: Store) -> int | None:
    """The batch of pairs that were written to test who judges, which are given to nobody else; None where none were."""
    with store.reading() as db:
        row = db.execute("SELECT id FROM batch WHERE tests = 1").fetchone()
    return None if row is None else int(row[0])


def _make_tests(store: Store, *, by: int | None) -> int:
    with store.writing() as db:
        cursor = db.execute(
            """INSERT INTO batch(name, model_a, model_b, sampling, overlap, created_at, tests)
            VALUES ('Test pairs', '', '', '{}', 1, ?, 1)""",
            (store.now(),),
        )
        store.note("opened", f"batch {cursor.lastrowid}", by=by, tests=True)
        return int(cursor.lastrowid or 0)


def add_test_pair(store: Store, prompt_id: int, *, better: str, worse: str, by: int | None) -> None:
    """A pair that tests who judges.

    Raises:
        UserError: an answer is empty, or both are the same.
    """
    for text in (better, worse):
        plain_text(text, "an answer", empty=False)
    if better == worse:
        raise UserError("both answers are the same", next_step="Write one that is clearly worse")
    with store.writing() as db:
        batch_id = tests_of(store) or _make_tests(store, by=by)
        (sample,) = db.execute(
            "SELECT count(*) FROM pair WHERE batch_id = ? AND prompt_id = ?", (batch_id, prompt_id)
        ).fetchone()
        _add_pair(db, batch_id, NewPair(prompt_id, better, worse, "a", sample), ("", ""))
        db.execute("UPDATE batch SET pairs = pairs + 1 WHERE id = ?", (batch_id,))
        store.note("added", f"batch {batch_id}", by=by, prompt=prompt_id)
