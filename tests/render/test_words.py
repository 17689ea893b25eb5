"""Word by word is what the tokenizers library makes of a text, or it is not done."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tests.conftest import TEXT
from tuition.render.words import words_of

GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def cutting(pattern: str, *more: Any) -> Any:
    """The pre-tokenizer that cuts by a pattern and spells bytes."""
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    return pre_tokenizers.Sequence(
        [split, *more, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def backend(cut: Any, **options: Any) -> Any:
    """A byte-level BPE with two added tokens."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = cut
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens(["<think>"])
    return tokenizer


BACKENDS = {
    "GPT-2": backend(GPT2),
    "Qwen": backend(cutting(QWEN)),
    "Llama 3": backend(cutting(LLAMA3)),
    "GPT-4o": backend(cutting(O200K)),
}
BACKENDS["Qwen"].normalizer = normalizers.NFC()
PIECES = [
    "<|end|>",
    "<think>",
    "  ",
    "\n\n",
    " the",
    "It's",
    "'S",
    "12345",
    "\t",
    "capital",
    "\r\n",
    "!?",
    "/",
    "\x00",
    "\x7f",
]


@pytest.mark.parametrize("name", BACKENDS)
@given(
    parts=st.lists(
        st.sampled_from(PIECES) | st.text(st.characters(max_codepoint=127), max_size=6), max_size=12
    )
)
def test_words_give_the_ids_that_the_library_gives(name: str, parts: list[str]) -> None:
    text = "".join(parts)
    words = words_of_once(name)
    assert words is not None
    assert words.ids(text).tolist() == BACKENDS[name].encode(text, add_special_tokens=False).ids


def words_of_once(name: str) -> Any:
    if name not in KEPT:
        KEPT[name] = words_of(BACKENDS[name])
    return KEPT[name]


KEPT: dict[str, Any] = {}


def lowercased() -> Any:
    tokenizer = backend(GPT2)
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def adding(*tokens: AddedToken) -> Any:
    tokenizer = backend(GPT2)
    tokenizer.add_tokens(list(tokens))
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        backend(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        backend(pre_tokenizers.Whitespace()),
        backend(cutting(r"\p{Han}+|.")),
        backend(cutting(r"[a-z]+")),  # what the pattern leaves between its matches is a word too
        backend(cutting(QWEN, pre_tokenizers.Digits(individual_digits=True))),
        backend(GPT2, dropout=0.1),
        lowercased(),
        adding(AddedToken("<a>", lstrip=True)),
        adding(AddedToken("cat", single_word=True)),
        adding(AddedToken("<think>more")),
        adding(AddedToken("k>x")),
    ],
)
def test_a_tokenizer_that_does_more_is_left_to_the_library(tokenizer: Any) -> None:
    assert words_of(tokenizer) is None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuition.render import words as module

    monkeypatch.setattr(module, "_WORDS_KEPT", 10)
    words = words_of(BACKENDS["GPT-2"])
    assert words is not None
    text = " ".join(f"word{n}" for n in range(100))
    assert words.ids(text).tolist() == BACKENDS["GPT-2"].encode(text, add_special_tokens=False).ids
    assert len(words._known) <= 10
