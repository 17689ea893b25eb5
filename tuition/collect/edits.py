"""How much of a suggested text a person changed: 0 left as it was, 1 nothing of it left."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

_MOST_WORDS = 4_000  # comparing takes the square of the words; longer texts are compared by lines


def edit_ratio(suggested: str, written: str) -> float:
    """1 − the share of words (with the blanks between them) that both have in the same order."""
    before, after = _words(suggested), _words(written)
    if max(len(before), len(after)) > _MOST_WORDS:
        before, after = suggested.splitlines(), written.splitlines()
    if not before and not after:
        return 0.0
    return 1.0 - SequenceMatcher(None, before, after, autojunk=False).ratio()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|[^\w\s]", text)
