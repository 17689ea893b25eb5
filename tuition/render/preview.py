"""One example as spans of text, learned or not: the cheapest defence against a wrong mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuition.conversation import Rendered
from tuition.render.tokens import Tokens


@dataclass(frozen=True, slots=True)
class TokenText:
    """One token as text. `supervised` is its weight, 0 where it is context; `special` marks control tokens."""

    text: str
    supervised: float
    special: bool


class Spelling:
    """The text of tokens, each id asked for once: a data set has many tokens and few different ones."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self._texts: dict[int, str] = {}

    def text_of(self, token: int) -> str:
        """The text that one token adds; it ends in U+FFFD where the token alone is no whole character."""
        if token not in self._texts:
            self._texts[token] = self.tokens.text_of([token])
        return self._texts[token]

    def texts_of(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds, so that the texts joined give the whole.

        A character that spans several tokens is shown at the token that completes it; the ones before it
        are empty.
        """
        texts: list[str] = []
        pending: list[int] = []
        for token in ids:
            pending.append(token)
            text = self.text_of(token) if len(pending) == 1 else self.tokens.text_of(pending)
            if text.endswith("\ufffd") and len(pending) < 8:  # an unfinished character
                texts.append("")
                continue
            texts.append(text)
            pending = []
        if pending:  # the example ends within a character
            texts[-1] = self.tokens.text_of(pending)
        return texts


def token_texts(example: Rendered, tokens: Tokens) -> list[TokenText]:
    """Each token with the text it adds, as `Spelling.texts_of` has it."""
    ids = example.ids.tolist()
    texts = Spelling(tokens).texts_of(ids)
    return [
        TokenText(text, weight, token in tokens.special_ids)
        for text, weight, token in zip(texts, example.supervised.tolist(), ids, strict=True)
    ]


def learned_texts(example: Rendered, tokens: Tokens) -> list[str]:
    """The text of each run of learned tokens, in order."""
    learned = example.supervised > 0
    starts = np.flatnonzero(np.diff(np.concatenate([[False], learned]).astype(np.int8)) == 1)
    ends = np.flatnonzero(np.diff(np.concatenate([learned, [False]]).astype(np.int8)) == -1) + 1
    return [tokens.decode(example.ids[a:b]) for a, b in zip(starts, ends, strict=True)]


def preview_json(example: Rendered, tokens: Tokens) -> dict[str, Any]:
    """The object that `preview --json` prints for an example."""
    return {
        "file": example.origin.file,
        "line": example.origin.line,
        "part": example.part,
        "ids": example.ids.tolist(),
        "supervised": [round(weight, 6) for weight in example.supervised.tolist()],
        "text": tokens.decode(example.ids),
        "learned": learned_texts(example, tokens),
    }


def example_json(example: Rendered, tokens: Tokens) -> dict[str, Any]:
    """The object of `example.json`, which the report shows highlighted."""
    shown: Sequence[TokenText] = token_texts(example, tokens)
    return {
        "tokens": [{"text": t.text, "supervised": t.supervised, "special": t.special} for t in shown],
        "file": example.origin.file,
        "line": example.origin.line,
    }
