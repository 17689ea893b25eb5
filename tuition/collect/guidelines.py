"""Guidelines: what people are told about a good answer, in versions that are never changed afterwards.

Each demonstration names the version that its author saw. Version 0 comes with the program.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuition.collect.refusals import ConflictError, NotFoundError
from tuition.collect.store import Store
from tuition.collect.texts import plain_text

DEFAULT = """\
# A good answer

**Helps.** It does what was asked, for the person who asked. Where the request is unclear it takes the likeliest meaning and says so, or asks.

**Is true.** It invents nothing and leaves no false impression. What is not known is said to be unknown.

**Does no harm.** It does not help to hurt people, belittles nobody, and gives away nothing private.

When these pull apart, weigh them as a careful person in that trade would.

## When two answers are compared

Prefer the one that you would be gladder to get from somebody whose work it is to help you. Length is no merit by itself. A tie is an honest answer; so is "both bad".

## When to skip

Skip what you cannot understand or cannot judge, and say why in a few words: the reason is read.
"""


@dataclass(frozen=True, slots=True)
class Guideline:
    """One version. `person` is who wrote it; None for version 0."""

    version: int
    text: str
    person: str | None
    created_at: float


def current(store: Store) -> Guideline:
    """The newest version."""
    return history(store)[0]


def version(store: Store, number: int) -> Guideline:
    """One version.

    Raises:
        NotFoundError: there is none of that number.
    """
    found = next((guideline for guideline in history(store) if guideline.version == number), None)
    if found is None:
        raise NotFoundError(f"there is no version {number} of the guidelines", next_step="See the list")
    return found


def history(store: Store) -> list[Guideline]:
    """All versions, the newest first."""
    query = """SELECT g.version, g.text, p.name, g.created_at FROM guideline g
        LEFT JOIN person p ON p.id = g.person_id ORDER BY g.version DESC"""
    with store.reading() as db:
        return [*(Guideline(*row) for row in db.execute(query)), Guideline(0, DEFAULT, None, 0.0)]


def save(store: Store, text: str, *, after: int, by: int) -> Guideline:
    """A new version.

    Args:
        after: the version that was edited.

    Raises:
        ConflictError: somebody else has saved a newer one meanwhile.
    """
    plain_text(text, "the guidelines", longest=100_000, empty=False)
    with store.writing() as db:
        newest = current(store)
        if newest.text == text:
            return newest
        if newest.version != after:
            raise ConflictError(
                f"{newest.person} has saved version {newest.version} meanwhile",
                next_step="Read it, then put your change into it",
            )
        row = (after + 1, text, by, store.now())
        db.execute("INSERT INTO guideline VALUES (?,?,?,?)", row)
        store.note("saved", f"guideline {after + 1}", by=by)
        return current(store)
