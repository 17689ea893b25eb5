"""Which prompts a run learned from, as numbers small enough to keep with it: so that later questions can be held
against them. It keeps no text.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tuition.foreign import lines_of

_DIGITS = 16  # of a prompt's key, hence 64 bits: one question in 10¹³ is taken for one of a million others
_PROMPTS_A_LINE = 4096


class LearnedPrompts:
    """Prompts as they are learned from, 8 bytes a row."""

    def __init__(self) -> None:
        self._keys = array("Q")

    def add(self, prompt_key: str) -> None:
        """Note the prompt of a training row."""
        self._keys.append(int(_short(prompt_key), 16))

    def to_rows(self) -> Iterator[dict[str, list[str]]]:
        """The lines of `prompts.jsonl`: the beginning of each prompt's key, once."""
        keys = np.unique(np.array(self._keys, dtype=np.uint64)).tolist()
        for start in range(0, len(keys), _PROMPTS_A_LINE):
            yield {"prompts": [f"{key:0{_DIGITS}x}" for key in keys[start : start + _PROMPTS_A_LINE]]}


class LearnedFrom:
    """The prompts of `prompts.jsonl`, to be asked for."""

    def __init__(self, file: Path) -> None:
        """
        Raises:
            OSError: the file is missing or cannot be read.
            ValueError: it holds something else.
        """
        try:
            rows = [json.loads(line) for line in lines_of(file)]
        except RecursionError:
            raise ValueError("a line is nested too deep") from None
        if not all(isinstance(row, dict) and isinstance(row.get("prompts"), list) for row in rows):
            raise ValueError("it holds no prompts")
        self._keys = {str(key) for row in rows for key in row["prompts"]}

    def __contains__(self, prompt_key: str) -> bool:
        return _short(prompt_key) in self._keys


def _short(prompt_key: str) -> str:
    return prompt_key[:_DIGITS]
