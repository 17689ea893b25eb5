"""Finding prompts by their words, tags and sources."""

from __future__ import annotations

import pytest

from tuition.collect import Store, prompts
from tuition.conversation import Message

TEXTS = {
    "harbour": "Where does the OLD harbour wall end?",
    "händler": "Wo ist der Händler am Hafen?",
    "book": "日本語の本を一冊すすめてください",
    "code": "What does x_old = f(1) do?",
}


@pytest.fixture
def filled(store: Store) -> Store:
    system = Message("system", "Answer like a harbour master.")
    for name, text in TEXTS.items():
        new = prompts.NewPrompt((system, Message("user", text)), f"x:{name}", tags=(name,))
        prompts.add(store, [new], source="web" if name == "code" else "ours", by=None)
    return store


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("wall old", ["harbour"]),
        ("harb", ["harbour"]),
        ("harb old", []),  # only the last word may be a beginning
        ("handler", ["händler"]),
        ("ha\u0308ndler hafen", ["händler"]),  # as some systems write an umlaut, in two characters
        ("a\u19b1b \u1cf2", []),  # letters to Python, and none to the index
        ("日本", ["book"]),
        ("すすめ", ["book"]),
        ("old", ["code", "harbour"]),
        ("master", []),  # instructions are shared by many
        ('" OR NEAR(', []),
        ("?!", []),
        ("  ", ["code", "book", "händler", "harbour"]),
    ],
)
def test_prompts_are_found_by_their_words_the_newest_first(
    filled: Store, words: str, found: list[str]
) -> None:
    assert [p.tags[0] for p in prompts.find(filled, words=words)] == found


def test_words_tags_and_sources_narrow_each_other(filled: Store) -> None:
    def ids(**how: str) -> list[str]:
        return [p.tags[0] for p in prompts.find(filled, **how)]

    assert ids(words="old", source="web") == ["code"] == ids(tag="code", source="web")
    assert ids(words="old", tag="book") == [] == ids(tag="code", source="ours")
    assert ids(words="old", tag="harbour") == ["harbour"]
    newest, *_ = prompts.find(filled)
    assert [p.tags[0] for p in prompts.find(filled, words="old", before=newest.id)] == ["harbour"]
