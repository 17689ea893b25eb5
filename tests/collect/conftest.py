"""A store, a clock that tests turn by hand, and people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tuition.collect import passwords, people, prompts
from tuition.collect.store import Store
from tuition.conversation import Message


@dataclass
class Clock:
    """Seconds since 1970, as a test says."""

    seconds: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def add_prompts(
    store: Store,
    count: int,
    *,
    overlap: int = 1,
    first: int = 0,
    source: str = "ours",
    consent: str = "terms of use, 2026",
    licence: str = "CC0-1.0",
) -> list[int]:
    """So many prompts, with consent; their ids."""
    new = [
        prompts.NewPrompt((Message("user", f"What is {n} and {n}?"),), f"made:{n}")
        for n in range(first, first + count)
    ]
    prompts.add(store, new, source=source, consent=consent, licence=licence, overlap=overlap, by=None)
    found = [prompts.prompt_of(store, prompt.messages) for prompt in new]
    return [prompt_id for prompt_id in found if prompt_id is not None]


def answered(text: str) -> list[dict[str, str]]:
    """One answer, as the page sends it."""
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store(tmp_path / "team.db", now=clock) as opened:
        yield opened


@pytest.fixture
def admin(store: Store) -> people.Person:
    return people.add_person(store, "Ada", "admin", by=None)


@pytest.fixture
def writer(store: Store) -> people.Person:
    return people.add_person(store, "Wim", "writer", by=None)


@pytest.fixture
def reviewer(store: Store) -> people.Person:
    return people.add_person(store, "Rita", "reviewer", by=None)


@pytest.fixture
def evaluator(store: Store) -> people.Person:
    return people.add_person(store, "Eva", "evaluator", by=None)


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same hash with little memory: the tests are about its use, not its cost."""
    from argon2 import PasswordHasher

    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", lambda: hasher)
    passwords.decoy.cache_clear()
