"""What people judged about two models, and the queue of the next day, which begins where a model failed.

Pairs whose better side is known test who judges and are no evidence about the models: they are not counted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tuition.collect import queue
from tuition.collect.agreement import Agreement, agreement
from tuition.collect.batches import FLAGS, Batch, batch
from tuition.collect.store import Store
from tuition.collect.winrate import WORTH, WinRate, win_rate
from tuition.interval import Score, interval, score

MIDDLING = 3  # a rating of at most this, of 7, sends a prompt back to the writers


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


class Said(NamedTuple):
    """One judgement, as the table holds it; `flags_a` is JSON."""

    pair_id: int
    prompt_id: int
    role: str
    left: str
    verdict: str
    rating_a: int | None
    rating_b: int | None
    flags_a: str
    flags_b: str


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
    return Results(
        batch=found,
        rate=win_rate(verdicts),
        pools={
            role: win_rate([(one.prompt_id, one.verdict) for one in judged if one.role == role])
            for role in sorted({one.role for one in judged})
        },
        agreement=_agreement(judged),
        left_share=_left_share(judged),
        flags=_flag_rates(judged),
        ratings=_ratings(judged),
    )


def _verdicts(db: sqlite3.Connection, batch_id: int, judged: Sequence[Said]) -> list[tuple[int, str]]:
    """Prompt and verdict of each judgement, and ties for each pair of identical answers: as many as other pairs have
    judgements, so that a pair that needs nobody counts as much as one that several people judge."""
    same = db.execute(
        "SELECT prompt_id FROM pair WHERE batch_id = ? AND answer_a = answer_b AND expected IS NULL",
        (batch_id,),
    )
    of_each = max(1, round(len(judged) / max(1, len({one.pair_id for one in judged}))))
    ties = ((row[0], "tie") for row in same for _ in range(of_each))
    return [*((one.prompt_id, one.verdict) for one in judged), *ties]


def _judged(db: sqlite3.Connection, batch_id: int) -> tuple[Said, ...]:
    query = """SELECT j.pair_id, p.prompt_id, person.role, j.left, j.verdict, j.rating_a, j.rating_b, j.flags_a, j.flags_b
        FROM pair p JOIN judgement j ON j.pair_id = p.id JOIN person ON person.id = j.person_id
        WHERE p.batch_id = ? AND p.expected IS NULL AND j.state = 'judged' ORDER BY j.id"""
    return tuple(Said(*row) for row in db.execute(query, (batch_id,)))


# Pages ask again and again, and resampling takes its time: what the same judgements say is worked out once.


@lru_cache(maxsize=16)
def _agreement(judged: tuple[Said, ...]) -> Agreement:
    """On who is better, without how much: people rarely agree on that."""
    said: dict[int, list[str]] = {}
    for one in judged:
        said.setdefault(one.pair_id, []).append(str(WORTH[one.verdict]))
    return agreement(said)


@lru_cache(maxsize=16)
def _left_share(judged: tuple[Said, ...]) -> Score | None:
    decided = [one for one in judged if WORTH[one.verdict] != 0.5]
    left = [float((one.left == "a") == (WORTH[one.verdict] == 1.0)) for one in decided]
    return score(left, groups=[one.prompt_id for one in decided]) if decided else None


@lru_cache(maxsize=16)
def _flag_rates(judged: tuple[Said, ...]) -> dict[str, tuple[Score, Score]]:
    prompts = [one.prompt_id for one in judged]
    flagged = [(json.loads(one.flags_a), json.loads(one.flags_b)) for one in judged]
    rates = {}
    for flag in FLAGS:
        a, b = ([float(flag in flags[side]) for flags in flagged] for side in (0, 1))
        if any(a) or any(b):
            rates[flag] = (score(a, groups=prompts), score(b, groups=prompts))
    return rates


@lru_cache(maxsize=16)
def _ratings(judged: tuple[Said, ...]) -> tuple[Score, Score] | None:
    rated = [
        (one.prompt_id, float(one.rating_a), float(one.rating_b))
        for one in judged
        if one.rating_a is not None and one.rating_b is not None
    ]
    if not rated:
        return None
    prompts, of_a, of_b = zip(*rated, strict=True)
    return _mean(of_a, prompts), _mean(of_b, prompts)


def _mean(ratings: Sequence[float], prompts: Sequence[int]) -> Score:
    return interval(ratings, lowest=1.0, highest=7.0, groups=prompts, seed=0)


# --- tomorrow's queue ---


def send_back(store: Store, batch_id: int, *, model: str = "a", by: int | None) -> list[int]:
    """Let the writers' queue begin with the prompts where people judged a model lost or bad.

    A judgement sends a prompt back when the model lost, both were bad, or its rating was 3 of 7 or less. The
    share of such judgements, and how clearly it lost, decides the order; a prompt that has all of its answers
    is opened for one more, also by somebody who has answered it.

    Args:
        model: `a` or `b`: whose failures.

    Returns:
        the prompts, the most urgent first.
    """
    with store.writing() as db:
        badness: dict[int, list[float]] = {}
        for one in _judged(db, batch_id):
            badness.setdefault(one.prompt_id, []).append(_badness(one, model))
        urgent = {prompt_id: sum(said) / len(said) for prompt_id, said in badness.items() if sum(said)}
        (above,) = db.execute("SELECT coalesce(max(priority), 0) FROM prompt WHERE gold = 0").fetchone()
        for prompt_id, urgency in urgent.items():
            cursor = db.execute(
                "UPDATE prompt SET priority = ? WHERE id = ? AND gold = 0",
                (max(above, 0.0) + urgency, prompt_id),
            )
            if cursor.rowcount:
                queue.open_round(store, prompt_id)
        store.note("sent back", f"batch {batch_id}", by=by, prompts=sorted(urgent), model=model)
    return sorted(urgent, key=lambda prompt_id: (-urgent[prompt_id], prompt_id))


def _badness(said: Said, model: str) -> float:
    """0: good enough; up to 1 by how clearly the model failed."""
    other = "b" if model == "a" else "a"
    by_verdict = {f"{other}_much": 1.0, "both_bad": 1.0, other: 0.75}.get(said.verdict, 0.0)
    rating = said.rating_a if model == "a" else said.rating_b
    by_rating = 0.0 if rating is None or rating > MIDDLING else 0.5 + 0.5 * (MIDDLING - rating) / MIDDLING
    return max(by_verdict, by_rating)
