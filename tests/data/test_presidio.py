"""Names and numbers of identity, with presidio itself where it is installed, and the refusal where it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuition.conversation import Conversation, Message
from tuition.data import presidio_check
from tuition.errors import Origin, UserError

TEXT = "I am Ada Lovelace, my SSN is 078-05-1123. Ada Lovelace!"


def talk(*texts: str) -> Conversation:
    return Conversation(tuple(Message("user", text) for text in texts), Origin("rows.jsonl", 3))


def test_presidio_is_asked_for_by_name_and_its_absence_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(UserError, match=r"presidio is not installed.*pip install 'tuition\[presidio\]'"):
        presidio_check("patterns")


def test_patterns_find_numbers_and_show_them_masked() -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra presidio is not installed")
    (found,) = presidio_check("patterns")(talk(TEXT))
    assert (found.code, found.origin.line, found.severity) == ("D070", 3, "warning")
    assert "turn 1" in found.message and "us ssn" in found.message
    assert "078-05-1123" not in found.message


def test_a_model_finds_names_once_a_turn(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra presidio is not installed")
    import spacy

    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}])
    pipeline.to_disk(tmp_path / "model")
    check = presidio_check(str(tmp_path / "model"))
    kinds = [finding.message for finding in check(talk("Hello", TEXT))]
    assert ["(person)" in kind for kind in kinds] == [True, False]
    assert all("turn 2" in kind and "Lovelace" not in kind for kind in kinds)


@pytest.mark.parametrize(
    ("model", "message"), [("no_such_model", "no such spaCy model"), ("blank", "has no ner")]
)
def test_a_model_that_is_missing_or_finds_no_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, message: str
) -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra presidio is not installed")
    import spacy

    monkeypatch.chdir(tmp_path)
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UserError, match=message):
        presidio_check(model)
