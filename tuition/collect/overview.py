"""Counts for people who run a project: how far it is, who did what, and what is still missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from tuition.collect.store import Store
from tuition.errors import UserError

_MIXES = {"tag": "target mix", "language": "target mix of languages"}


@dataclass(frozen=True, slots=True)
class Progress:
    """The whole project.

    Attributes:
        open_places: answers that are still wanted.
        claimed: places that somebody holds now.
        skipped: prompts that somebody left, with a reason.
        flags: that nobody has resolved.
    """

    prompts: int
    open_places: int
    claimed: int
    submitted: int
    accepted: int
    returned: int
    skipped: int
    flags: int
    judged: int


@dataclass(frozen=True, slots=True)
class PersonProgress:
    """What one person did.

    Attributes:
        submitted: demonstrations that they wrote; `accepted` and `returned` are of these.
        reviewed: decisions on texts of others, and second readings.
        median_seconds: a demonstration's time from sight to sending.
    """

    id: int
    name: str
    role: str
    submitted: int
    accepted: int
    returned: int
    skipped: int
    reviewed: int
    judged: int
    median_seconds: float | None


@dataclass(frozen=True, slots=True)
class Share:
    """One source, tag or language.

    Attributes:
        target: the share of accepted demonstrations that is wanted, 0 to 1; None: nobody said.
    """

    name: str
    prompts: int
    accepted: int
    share: float
    target: float | None


def progress(store: Store) -> Progress:
    """How far the project is."""
    with store.reading() as db:

        def count(query: str) -> int:
            return int(db.execute(query).fetchone()[0] or 0)

        by_status = dict(db.execute("SELECT status, count(*) FROM demonstration GROUP BY status").fetchall())
        return Progress(
            prompts=count("SELECT value FROM tally WHERE key = 'prompts'"),
            open_places=count("SELECT value FROM tally WHERE key = 'wanted'"),
            claimed=count("SELECT count(*) FROM assignment WHERE state = 'claimed'"),
            submitted=by_status.get("submitted", 0),
            accepted=by_status.get("accepted", 0),
            returned=by_status.get("returned", 0),
            skipped=count("SELECT count(*) FROM assignment WHERE state = 'skipped'"),
            flags=count("SELECT count(*) FROM flag WHERE resolved_at IS NULL"),
            judged=count("SELECT count(*) FROM judgement WHERE state = 'judged'"),
        )


def by_person(store: Store, *, only: int | None = None) -> list[PersonProgress]:
    """What each person did, in the order of coming; or `only` this one."""
    query = """SELECT p.id, p.name, p.role,
        (SELECT count(*) FROM demonstration d WHERE d.person_id = p.id) AS submitted,
        (SELECT count(*) FROM demonstration d WHERE d.person_id = p.id AND d.status = 'accepted') AS accepted,
        (SELECT count(*) FROM demonstration d WHERE d.person_id = p.id AND d.status = 'returned') AS returned,
        (SELECT count(*) FROM assignment a WHERE a.person_id = p.id AND a.state = 'skipped') AS skipped,
        (SELECT count(*) FROM review r WHERE r.person_id = p.id) AS reviewed,
        (SELECT count(*) FROM judgement j WHERE j.person_id = p.id AND j.state = 'judged') AS judged
        FROM person p WHERE ?1 IS NULL OR p.id = ?1 ORDER BY p.id"""
    with store.reading() as db:
        return [
            PersonProgress(**dict(row), median_seconds=_median_seconds(db, row["id"]))
            for row in db.execute(query, (only,)).fetchall()
        ]


def _median_seconds(db: sqlite3.Connection, person_id: int) -> float | None:
    """By two steps along the index of seconds, which holds them in order."""
    timed = "FROM revision WHERE person_id = ? AND seconds > 0"
    (count,) = db.execute(f"SELECT count(*) {timed}", (person_id,)).fetchone()
    middle = db.execute(
        f"SELECT seconds {timed} ORDER BY seconds LIMIT ? OFFSET ?",
        (person_id, 2 - count % 2, max(0, count - 1) // 2),
    ).fetchall()
    return sum(row[0] for row in middle) / len(middle) if middle else None


def by_source(store: Store) -> list[Share]:
    """Prompts and accepted demonstrations by source."""
    query = """SELECT s.name, coalesce(all_of.value, 0), coalesce(accepted.value, 0) FROM source s
        LEFT JOIN tally all_of ON all_of.key = 'source ' || s.id
        LEFT JOIN tally accepted ON accepted.key = 'accepted source ' || s.id"""
    return _shares(store, {}, query)


def by_tag(store: Store) -> list[Share]:
    """Prompts and accepted demonstrations by tag, those of the target mix first."""
    query = """SELECT substr(t.key, 5), t.value, coalesce(accepted.value, 0) FROM tally t
        LEFT JOIN tally accepted ON accepted.key = 'accepted ' || t.key WHERE t.key GLOB 'tag *' AND t.value > 0"""
    return _shares(store, target_mix(store), query)


def by_language(store: Store) -> list[Share]:
    """Likewise by the language in which it is asked, named or as it seems; what does not show is in none."""
    query = """SELECT substr(t.key, 10), t.value, coalesce(accepted.value, 0) FROM tally t
        LEFT JOIN tally accepted ON accepted.key = 'accepted ' || t.key
        WHERE t.key GLOB 'language *' AND t.value > 0"""
    return _shares(store, target_mix(store, "language"), query)


def _shares(store: Store, mix: Mapping[str, float], query: str) -> list[Share]:
    with store.reading() as db:
        counted = {name: (asked, accepted) for name, asked, accepted in db.execute(query)}
        (whole,) = db.execute("SELECT count(*) FROM demonstration WHERE status = 'accepted'").fetchone()
    shares = []
    for name in sorted({*counted, *mix}, key=lambda name: (-mix.get(name, 0.0), name)):
        asked, accepted = counted.get(name, (0, 0))
        shares.append(Share(name, asked, accepted, accepted / max(1, whole), mix.get(name)))
    return shares


def target_mix(store: Store, kind: str = "tag") -> dict[str, float]:
    """Tag or language → the share of demonstrations that is wanted of it."""
    return dict(store.setting(_MIXES[kind], {}))


def set_target_mix(store: Store, mix: Mapping[str, float], kind: str = "tag", *, by: int | None) -> None:
    """State the wanted shares, 0 to 1 each; tags may overlap, so they need not sum to 1.

    Args:
        kind: tag or language.

    Raises:
        UserError: a share is not within 0 to 1.
    """
    for name, share in mix.items():
        if not 0 <= share <= 1:
            raise UserError(f"the share of '{name}' is {share}", next_step="Write a share from 0 to 1")
    store.set_setting(_MIXES[kind], dict(mix), by=by)
