"""Batches: two models' answers to the same prompts, waiting to be judged, and what came out.

Which model wrote an answer stands here and nowhere else: who judges is never told (see `judging`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuition.collect.accepted import iso
from tuition.collect.agreement import Agreement, agreement
from tuition.collect.refusals import NotFoundError
from tuition.collect.store import Store, as_json
from tuition.collect.texts import plain_text
from tuition.collect.winrate import WORTH, WinRate, win_rate
from tuition.errors import UserError
from tuition.interval import Score, interval, score

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
MIDDLING = 3  # a rating of at most this, of 7, sends a prompt back to the writers


@dataclass(frozen=True, slots=True)
class NewPair:
    """Two answers to one prompt.

    Attributes:
        expected: `a` or `b` where it is known which is better: a gold pair, which tests who judges.
    """

    prompt_id: int
    answer_a: str
    answer_b: str
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A comparison of two models.

    Attributes:
        sampling: how the answers were drawn.
        overlap: how many people judge each pair.
        pairs: in all; `identical` of them have equal answers, which nobody is asked about: they are ties.
        judged: judgements so far, of `wanted`.
        leaks: answers in which a model's name stands, so that who judges may know.
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

    @property
    def opened(self) -> str:
        """When it was put before people, as ISO 8601."""
        return iso(self.created_at)

    @property
    def wanted(self) -> int:
        """Judgements that the batch asks for."""
        return (self.pairs - self.identical) * self.overlap


@dataclass(frozen=True, slots=True)
class Results:
    """What people judged.

    Attributes:
        rate: of model A, over judgements and identical answers.
        pools: the same by the role of who judged: people who also write demonstrations may favour what they taught.
        agreement: on who is better, over pairs that several people judged.
        left_share: how often the side shown left was preferred, of decided judgements; far from one half says
            that sides were not judged alike.
        flags: flag → the share of A's and of B's answers that have it.
        ratings: the mean rating of A and of B.
    """

    batch: Batch
    rate: WinRate
    pools: dict[str, WinRate]
    agreement: Agreement
    left_share: Score | None
    flags: dict[str, tuple[Score, Score]]
    ratings: tuple[Score, Score] | None


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
            "INSERT INTO pair(batch_id, prompt_id, answer_a, answer_b, expected) VALUES (?,?,?,?,?)",
            (batch_id, pair.prompt_id, *texts, pair.expected),
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
    found = next((one for one in batches(store) if one.id == batch_id), None)
    if found is None:
        raise NotFoundError(f"there is no batch {batch_id}", next_step="See the list of batches")
    return found


def batches(store: Store) -> list[Batch]:
    """All batches, the newest first."""
    with store.reading() as db:
        rows = db.execute("SELECT * FROM batch ORDER BY id DESC").fetchall()
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
    )


def _short(model: str) -> str:
    """A model's name as an answer would say it; shorter ones stand in any text."""
    name = model.rstrip("/").rsplit("/", 1)[-1]
    return name if len(name) > 3 else model


def close_batch(store: Store, batch_id: int, *, by: int | None) -> None:
    """Ask nobody any more; what was judged stays."""
    with store.writing() as db:
        db.execute(
            "UPDATE batch SET closed_at = coalesce(closed_at, ?) WHERE id = ?", (store.now(), batch_id)
        )
        store.note("closed", f"batch {batch_id}", by=by)


# --- what came out ---


def rate(store: Store, batch_id: int) -> WinRate:
    """The win rate of A so far, identical answers as ties."""
    with store.reading() as db:
        return win_rate(_verdicts(db, batch_id, _judged(db, batch_id)))


def results(store: Store, batch_id: int) -> Results:
    """What people judged so far.

    Raises:
        NotFoundError: there is no such batch.
    """
    with store.reading() as db:
        found = batch(store, batch_id)
        judged = _judged(db, batch_id)
        verdicts = _verdicts(db, batch_id, judged)
    roles = sorted({row["role"] for row in judged})
    return Results(
        batch=found,
        rate=win_rate(verdicts),
        pools={
            role: win_rate([(row["prompt_id"], row["verdict"]) for row in judged if row["role"] == role])
            for role in roles
        },
        agreement=agreement(_by_pair(judged)),
        left_share=_left_share(judged),
        flags=_flag_rates(judged),
        ratings=_ratings(judged),
    )


def _verdicts(db: sqlite3.Connection, batch_id: int, judged: list[sqlite3.Row]) -> list[tuple[int, str]]:
    """Prompt and verdict of each judgement, and a tie for each pair of identical answers."""
    same = db.execute("SELECT prompt_id FROM pair WHERE batch_id = ? AND answer_a = answer_b", (batch_id,))
    return [*((row["prompt_id"], row["verdict"]) for row in judged), *((row[0], "tie") for row in same)]


def _judged(db: sqlite3.Connection, batch_id: int) -> list[sqlite3.Row]:
    query = """SELECT j.*, p.prompt_id, person.role FROM judgement j JOIN pair p ON p.id = j.pair_id
        JOIN person ON person.id = j.person_id WHERE p.batch_id = ? AND j.state = 'judged' ORDER BY j.id"""
    return db.execute(query, (batch_id,)).fetchall()


def _by_pair(judged: list[sqlite3.Row]) -> dict[Any, list[str]]:
    """Who is better, without how much: people rarely agree on that."""
    said: dict[Any, list[str]] = {}
    for row in judged:
        said.setdefault(row["pair_id"], []).append(str(WORTH[row["verdict"]]))
    return said


def _left_share(judged: list[sqlite3.Row]) -> Score | None:
    decided = [row for row in judged if WORTH[row["verdict"]] != 0.5]
    left = [float((row["left"] == "a") == (WORTH[row["verdict"]] == 1.0)) for row in decided]
    return score(left, groups=[row["prompt_id"] for row in decided]) if decided else None


def _flag_rates(judged: list[sqlite3.Row]) -> dict[str, tuple[Score, Score]]:
    prompts = [row["prompt_id"] for row in judged]
    rates = {}
    for flag in FLAGS:
        a, b = ([float(flag in json.loads(row[side])) for row in judged] for side in ("flags_a", "flags_b"))
        if any(a) or any(b):
            rates[flag] = (score(a, groups=prompts), score(b, groups=prompts))
    return rates


def _ratings(judged: list[sqlite3.Row]) -> tuple[Score, Score] | None:
    rated = [row for row in judged if row["rating_a"] is not None and row["rating_b"] is not None]
    if not rated:
        return None
    prompts = [row["prompt_id"] for row in rated]
    a, b = (_rating_mean([row[side] for row in rated], prompts) for side in ("rating_a", "rating_b"))
    return a, b


def _rating_mean(ratings: list[int], prompts: list[int]) -> Score:
    return interval([float(r) for r in ratings], lowest=1.0, highest=7.0, groups=prompts, seed=0)


# --- tomorrow's queue ---


def send_back(store: Store, batch_id: int, *, model: str = "a", by: int | None) -> list[int]:
    """Let the writers' queue begin with the prompts where people judged a model lost or bad.

    A judgement sends a prompt back when the model lost, both were bad, or its rating was 3 of 7 or less. The
    share of such judgements, and how clearly it lost, decides the order; a prompt that has all of its answers
    is opened for one more.

    Args:
        model: `a` or `b`: whose failures.

    Returns:
        the prompts, the most urgent first.
    """
    with store.writing() as db:
        badness: dict[int, list[float]] = {}
        for row in _judged(db, batch_id):
            badness.setdefault(row["prompt_id"], []).append(_badness(row, model))
        urgent = {prompt_id: sum(said) / len(said) for prompt_id, said in badness.items() if sum(said)}
        (above,) = db.execute("SELECT coalesce(max(priority), 0) FROM prompt WHERE gold = 0").fetchone()
        for prompt_id, urgency in urgent.items():
            db.execute(
                """UPDATE prompt SET priority = ?, paused = 0, overlap = max(overlap, min(100, taken + 1))
                WHERE id = ? AND gold = 0""",
                (max(above, 0.0) + urgency, prompt_id),
            )
        store.note("sent back", f"batch {batch_id}", by=by, prompts=sorted(urgent), model=model)
    return sorted(urgent, key=lambda prompt_id: (-urgent[prompt_id], prompt_id))


def _badness(row: sqlite3.Row, model: str) -> float:
    """0: good enough; up to 1 by how clearly the model failed."""
    other = "b" if model == "a" else "a"
    by_verdict = {f"{other}_much": 1.0, "both_bad": 1.0, other: 0.75}.get(row["verdict"], 0.0)
    rating = row[f"rating_{model}"]
    by_rating = 0.0 if rating is None or rating > MIDDLING else 0.5 + 0.5 * (MIDDLING - rating) / MIDDLING
    return max(by_verdict, by_rating)
