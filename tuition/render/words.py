"""Byte-level BPE word by word: each word is merged once, however often it is written.

Such a tokenizer cuts a text into words by a pattern and makes ids of each word alone, so the ids of a text
are the ids of its words in a row. Over ASCII, Python's own patterns cut as the library's do. That it holds
for a tokenizer is shown by trying it; where it does not, or a text is not ASCII, the library does the work.
"""

from __future__ import annotations

import itertools
import json
import re
import string
from typing import Any

import numpy as np
import numpy.typing as npt

_WORDS_KEPT = 200_000
_LONGEST_KEPT = 64
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_NORMALIZERS_OF_NO_ASCII = {"NFC", "NFD", "NFKC", "NFKD"}
_CLASSES = {
    "L": "a-zA-Z",
    "Lu": "A-Z",
    "Ll": "a-z",
    "Lt": "",
    "Lm": "",
    "Lo": "",
    "M": "",
    "N": "0-9",
    "Nd": "0-9",
}
_ESCAPES = re.compile(r"\\p\{(\w+)\}|\\(.)|\[\^?|\]|&&", re.DOTALL)
# How byte-level tokenizers spell the ASCII characters that do not print (GPT-2's table).
_SPELLED = {code: chr(256 + code) for code in range(33)} | {127: chr(256 + 33)}
_SORTS = "asrS1 \n\r\t'!/_\0"


class Words:
    """The ids of ASCII texts.

    Args:
        backend: a `tokenizers.Tokenizer` for which `pattern` is right; see `words_of`.
        pattern: cuts a text into words.
        added: the ids of the added tokens by spelling.
    """

    def __init__(self, backend: Any, pattern: re.Pattern[str], added: dict[str, int]) -> None:
        self._known = _Known(backend.model)
        self._pattern = pattern
        self._added = {token: _as_bytes([token_id]) for token, token_id in added.items()}
        self._borders = re.compile(f"({'|'.join(map(re.escape, added))})" if added else r"((?!))")

    def ids(self, text: str) -> npt.NDArray[np.int32]:
        """(tokens,) int32. The text must be ASCII."""
        parts = self._borders.split(text)
        found: list[bytes] = []
        for word_part, token in itertools.zip_longest(parts[::2], parts[1::2]):
            found.extend(map(self._known.__getitem__, self._pattern.findall(word_part)))
            if token is not None:
                found.append(self._added[token])
        return np.frombuffer(bytearray().join(found), dtype=np.int32)


class _Known(dict[str, bytes]):
    """Word → its ids as int32 in a row."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __missing__(self, word: str) -> bytes:
        ids = _as_bytes([token.id for token in self._model.tokenize(word.translate(_SPELLED))])
        if len(self) >= _WORDS_KEPT:
            self.clear()
        if len(word) <= _LONGEST_KEPT:
            self[word] = ids
        return ids


def words_of(backend: Any) -> Words | None:
    """The words of a tokenizer; None where it is of another kind, or does other than foreseen.

    Args:
        backend: a `tokenizers.Tokenizer`.
    """
    pattern = _pattern_of(backend)
    added = {token.content: token_id for token_id, token in backend.get_added_tokens_decoder().items()}
    if pattern is None or not _stand_apart(backend, list(added)):
        return None
    words = Words(backend, pattern, added)
    return words if _agree(words, backend, list(added)) else None


def _pattern_of(backend: Any) -> re.Pattern[str] | None:
    """How the tokenizer cuts ASCII into words; None where that is not known."""
    model, normalizer = backend.model, _state(backend.normalizer)
    if type(model).__name__ != "BPE" or model.dropout or model.continuing_subword_prefix:
        return None
    if model.end_of_word_suffix or (normalizer and normalizer["type"] not in _NORMALIZERS_OF_NO_ASCII):
        return None
    source = _word_pattern(_state(backend.pre_tokenizer))
    return None if source is None else _over_ascii(source)


def _state(component: Any) -> dict[str, Any] | None:
    return None if component is None else json.loads(component.__getstate__())


def _word_pattern(steps: dict[str, Any] | None) -> str | None:
    """The pattern of a pre-tokenizer that cuts once and then spells bytes."""
    match steps:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return _GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(source)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return source
    return None


def _over_ascii(source: str) -> re.Pattern[str] | None:
    """The pattern in Python's words, the same over ASCII; None where it says more than is understood."""
    depth, out, at = 0, [], 0
    for found in _ESCAPES.finditer(source):
        out.append(source[at : found.start()])
        at = found.end()
        name, escaped = found[1], found[2]
        if (
            found[0] == "&&"
            or (name and name not in _CLASSES)
            or (escaped and escaped.isalnum() and escaped not in "sSrntd")
        ):
            return None
        if name:
            signs = _CLASSES[name]
            out.append(signs if depth else f"[{signs}]" if signs else r"(?!)")
        else:
            depth += found[0].startswith("[") - (found[0] == "]")
            out.append(found[0])
    try:
        pattern = re.compile("".join([*out, source[at:]]), re.ASCII)
    except re.error:
        return None
    return None if pattern.groups else pattern


def _stand_apart(backend: Any, added: list[str]) -> bool:
    """True when no two added tokens can share a character, and none takes the blanks around it."""
    tokens = backend.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip or token.single_word or not token.content for token in tokens):
        return False
    beginnings = {token[:at] for token in added for at in range(1, len(token))}
    return not any(
        any(a != b and b in a for b in added) or any(a[at:] in beginnings for at in range(len(a)))
        for a in added
    )


def _agree(words: Words, backend: Any, added: list[str]) -> bool:
    """True when both make the same of every short text, up to what one sign of a sort stands for the others."""
    texts = ["".join(signs) for signs in itertools.product(_SORTS, repeat=3)]
    texts += [f"{a}{sign}{b}" for sign in map(chr, range(128)) for a, b in (("", ""), ("a", "a"), (" ", "1"))]
    texts += [f"a {token}{after}" for token in added if token.isascii() for after in ("a", " a", "\n\n a ")]
    texts.append(string.printable * 2)
    encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
    return all(
        words.ids(text).tolist() == encoding.ids for text, encoding in zip(texts, encoded, strict=True)
    )


def _as_bytes(ids: list[int]) -> bytes:
    return np.array(ids, dtype=np.int32).tobytes()
