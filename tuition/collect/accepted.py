"""Accepted demonstrations as rows to learn from, each with where it came from, one at a time.

A row whose source states no consent or no licence is handed out as a refusal, never left out in silence.
What stood in the prompt is context; only what people wrote is learned.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuition.collect.sources import Source
from tuition.collect.store import Store, as_json

# What a demonstration was at an event is what the last event about it before then says.
_QUERY = """WITH decided AS (SELECT CAST(substr(target, 15) AS INTEGER) AS id, verb, max(id) AS event_id,
        CAST(json_extract(body, '$.rev') AS INTEGER) AS rev
        FROM event WHERE verb IN ('submitted', 'accepted', 'returned') AND target GLOB 'demonstration *' AND id <= ?
        GROUP BY target)
    SELECT d.id, decided.rev, d.extra, d.person_id, author.name AS author, r.turns, r.person_id AS writer_id,
    writer.name AS writer, r.guideline_version, r.event_id, r.created_at, first.seconds, first.edit_ratio,
    s.made_by AS suggested_by, p.id AS prompt_id, p.messages, p.tools, p.group_id, p.source_user, p.origin,
    so.id AS source_id, so.name AS source, so.licence, so.consent
    FROM decided JOIN demonstration d ON d.id = decided.id
    JOIN revision r ON r.demonstration_id = d.id AND r.rev = decided.rev
    JOIN revision first ON first.demonstration_id = d.id AND first.rev = 1
    LEFT JOIN suggestion s ON s.id = first.suggestion_id
    JOIN person author ON author.id = d.person_id JOIN person writer ON writer.id = r.person_id
    JOIN prompt p ON p.id = d.prompt_id JOIN source so ON so.id = p.source_id
    WHERE decided.verb = 'accepted' AND p.gold = 0 ORDER BY d.id"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted demonstration.

    Attributes:
        row: `{"messages": […]}`, with `tools` where the prompt has some.
        group: rows of one group belong on one side of a split: same prompt, same group, or asked by the same user.
        source: the source's name.
        provenance: who wrote, edited and accepted it under which guideline, and what its source states.
        refusal: why it may not be used; None where it may.
    """

    demonstration_id: int
    row: dict[str, Any]
    group: str
    source: str
    provenance: dict[str, Any]
    refusal: str | None


def read_accepted(store: Store, *, at: int | None = None) -> Iterator[Accepted]:
    """All accepted demonstrations in the order of their ids. Gold items are no data.

    Args:
        at: the number of an event: as they stood after it; None: as they stand now. Consent is asked for now.
    """
    with store.reading() as db:
        groups = prompt_groups(db)
        for row in db.execute(_QUERY, (latest_event(store) if at is None else at,)):
            yield _accepted(db, row, groups[row["prompt_id"]])


def latest_event(store: Store) -> int:
    """The number of the newest event; it names the state of the store. 0 where nothing happened yet."""
    with store.reading() as db:
        return int(db.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0])


def accepted_sha256(store: Store, *, at: int | None = None) -> str:
    """A digest of the rows that `read_accepted` gives: it changes with them and with nothing else."""
    digest = hashlib.sha256()
    for one in read_accepted(store, at=at):
        digest.update(as_json([one.demonstration_id, one.row, one.group, one.refusal]).encode())
    return digest.hexdigest()


def _accepted(db: sqlite3.Connection, row: sqlite3.Row, group: str) -> Accepted:
    messages = [_context(message) for message in json.loads(row["messages"])] + json.loads(row["turns"])
    tools = json.loads(row["tools"])
    return Accepted(
        demonstration_id=row["id"],
        row={"messages": messages, **({"tools": tools} if tools else {})},
        group=group,
        source=row["source"],
        provenance=_provenance(db, row, group),
        refusal=refusal_of(Source(row["source_id"], row["source"], row["licence"], row["consent"])),
    )


def _context(message: dict[str, Any]) -> dict[str, Any]:
    """A message of the prompt; an assistant's turn in it is not learned."""
    return {**message, "weight": 0} if message["role"] == "assistant" else message


def refusal_of(source: Source) -> str | None:
    """Why nothing of a source may be used; None where consent and licence are stated."""
    return f"source '{source.name}' states no {' and no '.join(source.missing)}" if source.missing else None


@dataclass(frozen=True, slots=True)
class Usable:
    """How many accepted demonstrations may be trained on.

    Attributes:
        accepted: in all, without gold items.
        refused: source → how many of its are refused, since it does not state consent and licence.
        missing: what those sources do not state.
    """

    accepted: int
    refused: dict[str, int]
    missing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """`0 of 3 accepted can be trained on: state consent and licence for prompts.jsonl`; empty where all can."""
        if not self.refused:
            return ""
        left = self.accepted - sum(self.refused.values())
        what, where = " and ".join(self.missing), ", ".join(self.refused)
        return f"{left:,} of {self.accepted:,} accepted can be trained on: state {what} for {where}"


def usable(store: Store) -> Usable:
    """What a run would be refused of what is accepted, before it is started."""
    query = """SELECT so.*, t.value FROM source so JOIN tally t ON t.key = 'usable source ' || so.id
        WHERE t.value > 0 ORDER BY so.name"""
    with store.reading() as db:
        counted = [(Source(*row[:4]), row[4]) for row in db.execute(query)]
    unstated = [(source, count) for source, count in counted if source.missing]
    return Usable(
        accepted=sum(count for _, count in counted),
        refused={source.name: count for source, count in unstated},
        missing=tuple(sorted({name for source, _ in unstated for name in source.missing})),
    )


def _provenance(db: sqlite3.Connection, row: sqlite3.Row, group: str) -> dict[str, Any]:
    reviewers = db.execute(
        """SELECT DISTINCT p.name FROM event e JOIN person p ON p.id = e.person_id
        WHERE e.target = ? AND e.verb = 'accepted' AND e.verb IN ('submitted', 'accepted', 'returned')
        ORDER BY p.name""",  # who read it a second time decided nothing; the last condition names the index
        (f"demonstration {row['id']}",),
    )
    tags = db.execute("SELECT tag FROM prompt_tag WHERE prompt_id = ? ORDER BY tag", (row["prompt_id"],))
    return {
        "demonstration": row["id"],
        "revision": row["rev"],
        "author": row["author"],
        "edited_by": row["writer"] if row["writer_id"] != row["person_id"] else None,
        "accepted_by": [name for (name,) in reviewers],
        "guideline": row["guideline_version"],
        "event": row["event_id"],
        "written_at": iso(row["created_at"]),
        "seconds": round(row["seconds"], 1),
        "suggested_by": row["suggested_by"],
        "edit_ratio": None if row["edit_ratio"] is None else round(row["edit_ratio"], 4),
        "late": bool(row["extra"]),
        "prompt": row["prompt_id"],
        "prompt_from": row["origin"],
        "tags": [tag for (tag,) in tags],
        "group": group,
        "source": row["source"],
        "licence": row["licence"],
        "consent": row["consent"],
    }


def iso(seconds: float) -> str:
    """A time as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def prompt_groups(db: sqlite3.Connection) -> dict[int, str]:
    """Prompt → its group: the smallest prompt id among all that a user or a group name links, however far."""
    linked = db.execute(
        """SELECT id, source_id, source_user, group_id FROM prompt
        WHERE source_user IS NOT NULL OR group_id IS NOT NULL ORDER BY id"""
    ).fetchall()
    roots = _Roots()
    for row in linked:
        for kind in ("source_user", "group_id"):
            if row[kind] is not None:
                roots.join(f"prompt {row['id']}", f"{kind} {row['source_id']} {row[kind]}")
    smallest: dict[str, int] = {}
    for row in linked:
        smallest.setdefault(roots.find(f"prompt {row['id']}"), row["id"])
    groups = {row["id"]: str(smallest[roots.find(f"prompt {row['id']}")]) for row in linked}
    return _OwnGroup(groups)


class _OwnGroup(dict[int, str]):
    """A prompt that nothing links is a group of its own."""

    def __missing__(self, prompt_id: int) -> str:
        return str(prompt_id)


class _Roots:
    """Which names belong together, however far they are linked (union-find with halved paths)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def find(self, name: str) -> str:
        while (above := self._above.setdefault(name, name)) != name:
            self._above[name] = self._above[above]
            name = self._above[name]
        return name

    def join(self, one: str, other: str) -> None:
        self._above[self.find(one)] = self.find(other)
