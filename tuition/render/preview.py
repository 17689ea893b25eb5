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


def token_texts(example: Rendered, tokens: Tokens) -> list[TokenText]:
    """Each token with the text it adds, so that the texts joined give the whole.

    A character that spans several tokens is shown at the token that completes it; the ones before it are empty.
    """
    shown: list[TokenText] = []
    pending: list[int] = []
    for token, weight in zip(example.ids.tolist(), example.supervised.tolist(), strict=True):
        pending.append(token)
        text = tokens.text_of(pending)
        if text.endswith("\ufffd") and len(pending) < 8:  # an unfinished character
            shown.append(TokenText("", weight, token in tokens.special_ids))
            continue
        shown.append(TokenText(text, weight, token in tokens.special_ids))
        pending = []
    return shown


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
