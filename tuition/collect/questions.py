"""Questions about a prompt: a writer asks, whoever reviews answers, and all who write on it read both.

A question waits until somebody answers after it. What was asked and answered is never changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuition.collect import people, queue
from tuition.collect.prompts import prompt
from tuition.collect.store import Store
from tuition.collect.texts import plain_text

_LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class Remark:
    """One question or answer.

    Attributes:
        kind: question or answer.
        waits: a question that nobody has answered yet.
    """

    person: str
    kind: str
    text: str
    waits: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the prompt that it is about.

    Attributes:
        assignment_id: the asker's own, where they can read the answer.
        waits: nobody has answered it yet.
    """

    prompt_id: int
    assignment_id: int
    opening: str
    person: str
    text: str
    waits: bool


def ask(store: Store, assignment_id: int, person_id: int, text: str) -> None:
    """Ask about the prompt that one writes on.

    Raises:
        NotFoundError: the assignment is none of theirs.
        UserError: nothing is asked.
    """
    text = plain_text(text, "the question", longest=_LONGEST, empty=False).strip()
    held = queue.own(store, assignment_id, person_id)
    _add(store, held.prompt_id, person_id, "question", text)


def answer(store: Store, prompt_id: int, person_id: int, text: str) -> None:
    """Answer what was asked about a prompt so far.

    Raises:
        NotAllowedError: the person may not review.
        NotFoundError: there is no such prompt.
        UserError: nothing is said.
    """
    people.require(store, person_id, "review")
    text = plain_text(text, "the answer", longest=_LONGEST, empty=False).strip()
    prompt(store, prompt_id)
    _add(store, prompt_id, person_id, "answer", text)


def _add(store: Store, prompt_id: int, person_id: int, kind: str, text: str) -> None:
    """Put a remark behind the others; the same one sent twice is stored once."""
    with store.writing() as db:
        last = db.execute(
            "SELECT person_id, kind, text FROM remark WHERE prompt_id = ? ORDER BY id DESC LIMIT 1",
            (prompt_id,),
        ).fetchone()
        if last is not None and tuple(last) == (person_id, kind, text):
            return
        if kind == "answer":
            db.execute("UPDATE remark SET open = 0 WHERE prompt_id = ?", (prompt_id,))
        row = (prompt_id, person_id, kind, text, int(kind == "question"), store.now())
        db.execute(
            "INSERT INTO remark(prompt_id, person_id, kind, text, open, created_at) VALUES (?,?,?,?,?,?)", row
        )
        store.note(
            {"question": "asked", "answer": "answered"}[kind], f"prompt {prompt_id}", by=person_id, text=text
        )


def thread(store: Store, prompt_id: int) -> list[Remark]:
    """What was asked and answered about a prompt, the oldest first."""
    query = """SELECT p.name, r.kind, r.text, r.open = 1 FROM remark r JOIN person p ON p.id = r.person_id
        WHERE r.prompt_id = ? ORDER BY r.id"""
    with store.reading() as db:
        return [
            Remark(person, kind, text, bool(waits))
            for person, kind, text, waits in db.execute(query, (prompt_id,))
        ]


def waiting(store: Store, *, limit: int = 50) -> list[Asked]:
    """Questions that nobody has answered yet, the oldest first."""
    return _asked(store, "r.open = 1 GROUP BY r.id ORDER BY r.id LIMIT ?", limit)


def asked_by(store: Store, person_id: int, *, limit: int = 20) -> list[Asked]:
    """What a person asked about prompts that they have not answered yet, the newest first."""
    unsent = "r.person_id = ? AND r.kind = 'question' AND a.state IN ('claimed', 'expired')"
    return _asked(store, f"{unsent} GROUP BY r.id ORDER BY r.id DESC LIMIT ?", person_id, limit)


def _asked(store: Store, condition: str, *values: int) -> list[Asked]:
    query = f"""SELECT r.prompt_id, max(a.id), q.opening, p.name, r.text, r.open = 1 FROM remark r
        JOIN prompt q ON q.id = r.prompt_id JOIN person p ON p.id = r.person_id
        JOIN assignment a ON a.prompt_id = r.prompt_id AND a.person_id = r.person_id WHERE {condition}"""
    with store.reading() as db:
        return [
            Asked(prompt_id, assignment_id, opening, person, text, bool(waits))
            for prompt_id, assignment_id, opening, person, text, waits in db.execute(query, values)
        ]
