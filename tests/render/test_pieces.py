"""A text is parted only where its pieces have the ids of the whole."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken

from tests.conftest import make_tokenizer
from tests.render.helpers import talk
from tuition.render import choose_template, renderer
from tuition.render.pieces import Pieces
from tuition.render.tokens import Tokens

TEXT = "<|user|>\nHi <|end|>\n<|assistant|>\n  Yo<|end|>\n"
WITHOUT_END = ["<|user|>\nHi <|end|>\n", "<|assistant|>\n  Yo<|end|>\n"]


def pieces_of(tokenizer: Any) -> Pieces:
    return Pieces(Tokens(tokenizer), choose_template("auto", tokenizer))


def test_pieces_begin_at_the_control_tokens_that_the_template_names() -> None:
    assert pieces_of(make_tokenizer()).split(TEXT) == [
        "<|user|>\nHi ",
        "<|end|>\n",
        "<|assistant|>\n  Yo",
        "<|end|>\n",
    ]


def test_the_ids_of_pieces_are_the_ids_of_the_whole() -> None:
    tokenizer = make_tokenizer()
    whole = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert pieces_of(tokenizer).encode_text(TEXT, "").tolist() == whole


@pytest.mark.parametrize(
    "token",
    [AddedToken("<|end|>", special=True, lstrip=True), AddedToken("<|end|>", special=True, single_word=True)],
)
def test_a_token_that_reads_what_stands_before_it_parts_nothing(token: AddedToken) -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.add_special_tokens([token])
    assert pieces_of(tokenizer).split(TEXT) == WITHOUT_END


def test_a_token_that_another_may_swallow_parts_nothing() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([" <|end"])
    assert pieces_of(tokenizer).split(TEXT) == WITHOUT_END


def test_chunks_are_bounded_by_rows_and_by_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "_CHUNK_ROWS", 3)
    monkeypatch.setattr(renderer, "_CHUNK_CHARACTERS", 10)
    rows = [talk(("user", text)) for text in ("a", "b", "c", "d", "e" * 10, "f", "g")]
    assert [len(chunk) for chunk in renderer._chunks(rows)] == [3, 2, 2]
