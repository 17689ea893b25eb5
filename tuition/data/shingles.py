"""Texts as numbers that can be compared: words, and a 64-bit number for each run of words.

Letters count without case, marks between words not at all. Scripts that write no spaces (Chinese, Japanese,
Thai) count a character as a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]

_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")
_ODD = np.random.default_rng(0).integers(0, 2**63, size=64, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def codes_of(words: Sequence[str]) -> Numbers:
    """A number for each word, the same in every process: (words,) uint64."""
    return mixed(np.array([crc32(word.encode("utf-8", "surrogatepass")) for word in words], np.uint64))


def runs_of(codes: Numbers, size: int) -> Numbers:
    """A number for each run of `size` words (at most 64), in order; none if there are fewer words.

    Args:
        codes: (words,) uint64, as `codes_of` gives them.

    Returns:
        (words - size + 1,) uint64.
    """
    count = len(codes) - size + 1
    if count < 1:
        return np.empty(0, np.uint64)
    runs = np.full(count, size, np.uint64)
    for offset in range(size):
        runs += codes[offset : offset + count] * _ODD[offset]
    return mixed(runs)


def mixed(numbers: Numbers) -> Numbers:
    """Each number scattered over all 64 bits, equal ones alike (the end of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scattered: Numbers = numbers ^ (numbers >> np.uint64(31))
    return scattered
