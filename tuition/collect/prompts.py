"""Prompts: what people are asked to answer.

A prompt is a conversation that ends before the answer. The same conversation is kept once, whatever file it
comes from. Reading files is the data room's work; here prompts arrive as values.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from tuition.collect.refusals import NotFoundError
from tuition.collect.sources import Source, state_source
from tuition.collect.store import Store, as_json
from tuition.collect.texts import plain_text
from tuition.collect.words import query_of, words_of
from tuition.conversation import Message
from tuition.errors import UserError

ROWS_A_COMMIT = 500  # so that a long import lets others write in between
MOST_OVERLAP = 100
_OPENING_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """A prompt on its way into the store.

    Attributes:
        messages: the conversation before the answer.
        origin: where it stood, such as `prompts.jsonl:12`.
        expected: an answer that came with it, shown to reviewers and never to writers.
        source_user: who asked it, so that nobody stands on two sides of a split.
        group: prompts of one group stay on one side of a split.
        language: in which it is asked; empty where nobody said and it does not show.
        priority: higher is asked earlier.
    """

    messages: tuple[Message, ...]
    origin: str
    expected: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    source_user: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    language: str = ""
    priority: float = 0.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of the store; see `NewPrompt` for what it came with.

    Attributes:
        overlap: how many people are to answer it.
        taken: how many places are held or filled.
        answered: how many are filled.
        gold: it tests the people who answer, and is no training data.
        paused: nobody is given it.
    """

    id: int
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    opening: str
    source: Source
    source_user: str | None
    origin: str
    group: str | None
    expected: str
    tags: tuple[str, ...]
    language: str
    priority: float
    overlap: int
    taken: int
    answered: int
    gold: bool
    paused: bool


@dataclass(frozen=True, slots=True)
class Added:
    """What an import did.

    Attributes:
        beyond: user → prompts that were left out, because they had asked as many as one user may.
    """

    new: int
    known: int
    beyond: Mapping[str, int] = field(default_factory=dict)


def add(
    store: Store,
    prompts: Iterable[NewPrompt],
    *,
    source: str,
    licence: str = "",
    consent: str = "",
    tags: Sequence[str] = (),
    overlap: int = 1,
    per_user: int | None = None,
    by: int | None,
) -> Added:
    """Add prompts, committed some hundreds at a time; a known prompt gains the tags, a language where it has none,
    and nothing else.

    Args:
        source: its name; licence and consent, where given, hold for all of its prompts from now on.
        tags: for all of them, beside their own.
        overlap: how many people are to answer each.
        per_user: the most that one user of the source may have in the store; None: any number. The founding paper
            took 200, so that nobody's habits are learned as everybody's (InstructGPT, appendix A).

    Raises:
        UserError: a text cannot be kept, or the overlap is not 1 to 100.
    """
    if not 1 <= overlap <= MOST_OVERLAP:
        raise UserError(f"an overlap of {overlap} is not 1 to {MOST_OVERLAP}", next_step="Choose another")
    fates: Counter[str] = Counter()
    beyond: Counter[str] = Counter()
    source_id = state_source(store, source, licence=licence, consent=consent, by=by).id
    coming = iter(prompts)
    while some := list(islice(coming, ROWS_A_COMMIT)):
        with store.writing() as db:
            came = [_add_one(store, db, prompt, source_id, tags, overlap, per_user) for prompt in some]
            store.note("imported", f"source {source_id}", by=by, **Counter(came))
        fates.update(came)
        beyond.update(str(p.source_user) for p, fate in zip(some, came, strict=True) if fate == "beyond")
    return Added(fates["new"], fates["known"], dict(beyond))


def _add_one(
    store: Store,
    db: sqlite3.Connection,
    prompt: NewPrompt,
    source_id: int,
    tags: Sequence[str],
    overlap: int,
    per_user: int | None,
) -> str:
    """What became of it: new, known, or beyond what its user may ask."""
    messages = as_json([_message_json(message) for message in prompt.messages])
    plain_text(messages, "the prompt", longest=4_000_000)
    tools = as_json([dict(tool) for tool in prompt.tools])
    key = _key(messages, tools)
    row = (
        key, messages, tools, _opening(prompt.messages), source_id, prompt.source_user, prompt.origin, prompt.group,
        plain_text(prompt.expected, "the answer that came with it"), prompt.priority, overlap, store.now(),
        plain_text(prompt.language, "the language", longest=60).strip(),
    )  # fmt: skip
    known = db.execute("SELECT id FROM prompt WHERE key = ?", (key,)).fetchone()
    if known is None and _asked_enough(db, source_id, prompt.source_user, per_user):
        return "beyond"
    cursor = db.execute(
        """INSERT INTO prompt(key, messages, tools, opening, source_id, source_user, origin, group_id, expected,
        priority, overlap, created_at, language) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
        ON CONFLICT(key) DO UPDATE SET language = excluded.language WHERE language = '' AND excluded.language <> ''""",
        row,
    )
    prompt_id = int(known[0] if known else cursor.lastrowid or 0)
    if known is None:
        db.execute("INSERT INTO prompt_words(rowid, text) VALUES (?, ?)", (prompt_id, words_of(messages)))
    for tag in {*prompt.tags, *tags}:
        _add_tag(db, prompt_id, tag)
    return "new" if known is None else "known"


def _key(messages: str, tools: str) -> str:
    """What a conversation is known again by, of its JSON as it is kept."""
    return hashlib.sha256(f"{messages}\0{tools}".encode()).hexdigest()


def _asked_enough(db: sqlite3.Connection, source_id: int, user: str | None, per_user: int | None) -> bool:
    if user is None or per_user is None:
        return False
    asked = db.execute(
        "SELECT count(*) FROM prompt WHERE source_id = ? AND source_user = ?", (source_id, user)
    ).fetchone()
    return int(asked[0]) >= per_user


def _message_json(message: Message) -> dict[str, Any]:
    """What is set of a message; weights are no part of a question."""
    fields = {key: value for key, value in asdict(message).items() if value not in (None, ())}
    fields.pop("weight", None)
    return {"content": "", **fields}


def read_messages(text: str) -> tuple[Message, ...]:
    """The messages that were kept as JSON."""
    return tuple(
        Message(**{**fields, "tool_calls": tuple(fields.get("tool_calls", ()))})
        for fields in json.loads(text)
    )


def _opening(messages: Sequence[Message]) -> str:
    """The beginning of what is asked last, on one line: how a prompt is known in lists."""
    asked = [message.content for message in messages if message.role == "user"] or [messages[-1].content]
    text = " ".join(asked[-1].split())
    return text if len(text) <= _OPENING_CHARACTERS else f"{text[: _OPENING_CHARACTERS - 1].rstrip()}…"


# --- looking ---


def prompt(store: Store, prompt_id: int) -> Prompt:
    """One prompt.

    Raises:
        NotFoundError: there is none of that id.
    """
    with store.reading() as db:
        row = db.execute("SELECT * FROM prompt WHERE id = ?", (prompt_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"there is no prompt {prompt_id}", next_step="See the list of prompts")
        return _prompt(db, row)


def prompt_of(
    store: Store, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> int | None:
    """The id of the prompt with these messages; None where the store has none."""
    kept = as_json([_message_json(message) for message in messages]), as_json([dict(tool) for tool in tools])
    with store.reading() as db:
        row = db.execute("SELECT id FROM prompt WHERE key = ?", (_key(*kept),)).fetchone()
    return None if row is None else int(row[0])


def find(
    store: Store,
    *,
    words: str = "",
    tag: str = "",
    source: str = "",
    gold: bool = False,
    before: int | None = None,
    limit: int = 50,
) -> list[Prompt]:
    """Prompts, the newest first, a page at a time.

    Args:
        words: each must stand in the prompt, at least its beginning.
        gold: only those that test the people who answer.
        before: only ids below this one: the last of the page before.
    """
    wanted = query_of(words)
    if words.strip() and not wanted:
        return []
    # what is rarest drives: each of these gives the ids from the newest on and reads no prompt that is not shown
    table, id_ = (
        ("prompt_words w CROSS JOIN prompt p ON p.id = w.rowid", "w.rowid") if wanted
        else ("prompt_tag t CROSS JOIN prompt p ON p.id = t.prompt_id", "t.prompt_id") if tag
        else ("prompt p", "p.id")
    )  # fmt: skip
    tagged = (
        f"EXISTS (SELECT 1 FROM prompt_tag WHERE tag = ? AND prompt_id = {id_})" if wanted else "t.tag = ?"
    )
    where, values = ["1"], []
    for condition, value in (
        ("prompt_words MATCH ?", wanted),
        (tagged, tag),
        ("p.source_id = (SELECT id FROM source WHERE name = ?)", source),
        ("p.gold = ?", gold),
        (f"{id_} < ?", before),
    ):
        if value:
            where.append(condition)
            values.append(value)
    query = f"SELECT {id_} FROM {table} WHERE {' AND '.join(where)} ORDER BY {id_} DESC LIMIT ?"
    with store.reading() as db:
        return [prompt(store, row[0]) for row in db.execute(query, (*values, limit)).fetchall()]


def each(store: Store) -> Iterator[int]:
    """The ids of all prompts that are asked, in their order: none that is gold, or paused."""
    with store.reading() as db:
        rows = db.execute(
            "SELECT id FROM prompt WHERE gold = 0 AND paused = 0 ORDER BY priority DESC, id"
        ).fetchall()
    yield from (row[0] for row in rows)


def tags(store: Store) -> list[str]:
    """All tags in use."""
    with store.reading() as db:
        found = db.execute(
            "SELECT substr(key, 5) FROM tally WHERE key GLOB 'tag *' AND value > 0 ORDER BY key"
        )
        return [tag for (tag,) in found]


def _prompt(db: sqlite3.Connection, row: sqlite3.Row) -> Prompt:
    source = db.execute("SELECT * FROM source WHERE id = ?", (row["source_id"],)).fetchone()
    tagged = db.execute("SELECT tag FROM prompt_tag WHERE prompt_id = ? ORDER BY tag", (row["id"],))
    (answered,) = db.execute(
        "SELECT count(*) FROM assignment WHERE prompt_id = ? AND state = 'submitted' AND extra = 0",
        (row["id"],),
    ).fetchone()
    return Prompt(
        id=row["id"],
        messages=read_messages(row["messages"]),
        tools=tuple(json.loads(row["tools"])),
        opening=row["opening"],
        source=Source(*source),
        source_user=row["source_user"],
        origin=row["origin"],
        group=row["group_id"],
        expected=row["expected"],
        tags=tuple(tag for (tag,) in tagged),
        language=row["language"],
        priority=row["priority"],
        overlap=row["overlap"],
        taken=row["taken"],
        answered=answered,
        gold=bool(row["gold"]),
        paused=bool(row["paused"]),
    )


# --- changing ---


def set_tags(store: Store, prompt_id: int, tags: Sequence[str], *, by: int | None) -> None:
    """Replace a prompt's tags; the event keeps the old ones."""
    with store.writing() as db:
        before = prompt(store, prompt_id).tags
        db.execute("DELETE FROM prompt_tag WHERE prompt_id = ?", (prompt_id,))
        for tag in set(tags):
            _add_tag(db, prompt_id, tag)
        store.note("tagged", f"prompt {prompt_id}", by=by, before=list(before), after=sorted(set(tags)))


def _add_tag(db: sqlite3.Connection, prompt_id: int, tag: str) -> None:
    tag = plain_text(tag, "a tag", longest=60).strip()
    if tag:
        db.execute("INSERT OR IGNORE INTO prompt_tag VALUES (?, ?)", (tag, prompt_id))


def change(
    store: Store,
    prompt_id: int,
    *,
    priority: float | None = None,
    overlap: int | None = None,
    paused: bool | None = None,
    gold: bool | None = None,
    expected: str | None = None,
    by: int | None,
) -> None:
    """Change how a prompt is asked; what is None stays. A gold prompt is asked of everybody; one that
    is gold no more is answered as it is, unless another overlap is given.

    Args:
        expected: a good answer, which reviewers are shown.

    Raises:
        NotFoundError: there is no such prompt.
        UserError: the overlap is below the places that are held or filled, or above 100.
    """
    overlap = MOST_OVERLAP if gold else overlap
    with store.writing() as db:
        before = prompt(store, prompt_id)
        taken = before.taken
        if before.gold and gold is False and overlap in (None, MOST_OVERLAP):
            overlap = max(1, taken)  # it was everybody's as a test, and is nobody's more
        if overlap is not None and not max(1, taken) <= overlap <= MOST_OVERLAP:
            step = f"Choose {max(1, taken)} to {MOST_OVERLAP}"
            raise UserError(f"an overlap of {overlap} does not fit", next_step=step)
        if expected is not None:
            plain_text(expected, "the answer that is expected")
        changed = {
            "priority": priority,
            "overlap": overlap,
            "paused": paused,
            "gold": gold,
            "expected": expected,
        }
        changed = {column: value for column, value in changed.items() if value is not None}
        for column, value in changed.items():
            db.execute(f"UPDATE prompt SET {column} = ? WHERE id = ?", (value, prompt_id))
        store.note("changed", f"prompt {prompt_id}", by=by, **changed)
