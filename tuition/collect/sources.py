"""Where prompts came from: under which licence, and how the people agreed who wrote them."""

from __future__ import annotations

from dataclasses import dataclass

from tuition.collect.store import Store
from tuition.collect.texts import plain_text


@dataclass(frozen=True, slots=True)
class Source:
    """Where prompts came from.

    Attributes:
        licence: under which their text may be used; empty: nobody said.
        consent: how the people who wrote them agreed; empty: nobody said, and nothing of it is exported.
    """

    id: int
    name: str
    licence: str
    consent: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of consent and licence nobody stated."""
        stated = {"consent": self.consent, "licence": self.licence}
        return tuple(name for name, text in stated.items() if not text.strip())

    @property
    def cleared(self) -> bool:
        """Whether consent and licence are both stated."""
        return not self.missing


def state_source(store: Store, name: str, *, licence: str = "", consent: str = "", by: int | None) -> Source:
    """The source of that name; what is given of licence and consent is stated for all its prompts."""
    name = plain_text(name, "the source", longest=200, empty=False).strip()
    stated = {"licence": licence.strip(), "consent": consent.strip()}
    with store.writing() as db:
        fresh = db.execute("INSERT OR IGNORE INTO source(name) VALUES (?)", (name,)).rowcount
        for column, text in stated.items():
            if text:
                plain_text(text, column, longest=2_000)
                db.execute(f"UPDATE source SET {column} = ? WHERE name = ?", (text, name))
        row = db.execute("SELECT * FROM source WHERE name = ?", (name,)).fetchone()
        if fresh or any(stated.values()):
            store.note("stated", f"source {row['id']}", by=by, name=name, **stated)
    return Source(*row)


def sources(store: Store) -> list[Source]:
    """All sources."""
    with store.reading() as db:
        return [Source(*row) for row in db.execute("SELECT * FROM source ORDER BY name")]
