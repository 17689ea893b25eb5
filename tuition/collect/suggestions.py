"""Suggestions: what a model would answer, shown to the writer who asked, and how much of it they changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

from tuition.collect import queue
from tuition.collect.refusals import NotFoundError
from tuition.collect.store import Store
from tuition.collect.texts import Turns, plain_text

_MOST_WORDS = 4_000  # comparing takes the square of the words; longer texts are compared by lines


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A model's answer that the writer of an assignment was shown."""

    id: int
    assignment_id: int
    made_by: str
    text: str


def suggest(store: Store, assignment_id: int, person_id: int, *, made_by: str, text: str) -> Suggestion:
    """Keep a model's answer that a writer asked for, to begin from and to be measured against.

    Raises:
        NotFoundError: the assignment is not theirs.
    """
    plain_text(text, "the suggestion")
    with store.writing() as db:
        queue.own(store, assignment_id, person_id)
        row = (assignment_id, plain_text(made_by, "the model's name", longest=500), text, store.now())
        cursor = db.execute(
            "INSERT INTO suggestion(assignment_id, made_by, text, created_at) VALUES (?,?,?,?)", row
        )
        found = int(cursor.lastrowid or 0)
        store.note(
            "suggested", f"assignment {assignment_id}", by=person_id, made_by=made_by, suggestion=found
        )
    return Suggestion(found, assignment_id, made_by, text)


def latest(store: Store, assignment_id: int) -> Suggestion | None:
    """The newest answer that the writer of an assignment was shown."""
    query = """SELECT id, assignment_id, made_by, text FROM suggestion WHERE assignment_id = ?
        ORDER BY id DESC LIMIT 1"""
    with store.reading() as db:
        row = db.execute(query, (assignment_id,)).fetchone()
    return None if row is None else Suggestion(*row)


def edit_ratio_of(store: Store, suggestion_id: int, demonstration_id: int, turns: Turns) -> float:
    """How much of a suggestion is changed in the first turn of the demonstration that it was made for.

    Raises:
        NotFoundError: it was made for another.
    """
    query = """SELECT s.text FROM suggestion s JOIN demonstration d ON d.assignment_id = s.assignment_id
        WHERE s.id = ? AND d.id = ?"""
    with store.reading() as db:
        row = db.execute(query, (suggestion_id, demonstration_id)).fetchone()
    if row is None:
        raise NotFoundError("there is no such suggestion for this task", next_step="Ask for one anew")
    return edit_ratio(row["text"], turns[0]["content"])


def edit_ratio(suggested: str, written: str) -> float:
    """How much of a suggested text a person changed: 0 left as it was, 1 nothing of it left.

    1 − the share of words (with the blanks between them) that both have in the same order.
    """
    before, after = _words(suggested), _words(written)
    if max(len(before), len(after)) > _MOST_WORDS:
        before, after = suggested.splitlines(), written.splitlines()
    if not before and not after:
        return 0.0
    return 1.0 - SequenceMatcher(None, before, after, autojunk=False).ratio()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|[^\w\s]", text)
