"""Near duplicates: rows that say almost the same as an earlier one.

MinHash (Broder, 1997): of a row's runs of five words, 128 seeded hash functions each keep the smallest value;
the share of functions on which two rows agree estimates how many of their runs they share (Jaccard), with a
standard error of 0.04 or less. Rows are compared only where a whole band of values agrees, and each row of a
bucket only with the bucket's first and with the row before it, so time grows with the rows and never with
their pairs. Memory: 256 bytes a row and its origin; the texts are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from tuition.conversation import Conversation
from tuition.data.across import fingerprint
from tuition.data.catalogue import finding
from tuition.data.shingles import Numbers, codes_of, mixed, runs_of, words_of
from tuition.data.turns import spoken
from tuition.errors import Finding, Origin

_RUN_WORDS = 5
_FUNCTIONS = 128
_RUNS_AT_ONCE = 8192  # a megabyte of text in one row makes 8 MiB of numbers at a time
_PAIRS_AT_ONCE = 65_536
_FOUND_AT_LEAST = 0.99  # of the pairs exactly at the threshold, so many share a band

Sketches = npt.NDArray[np.uint16]


def near_duplicates(
    conversations: Iterable[Conversation], threshold: float = 0.8, *, seed: int = 0
) -> Iterator[Finding]:
    """D037 for each conversation that is nearly an earlier one, see `near_pairs`."""
    for origin, earlier, likeness in near_pairs(conversations, threshold, seed=seed):
        yield finding("D037", origin, f"about {likeness:.0%} of it stands at {earlier}")


def near_pairs(
    conversations: Iterable[Conversation], threshold: float = 0.8, *, seed: int = 0
) -> Iterator[tuple[Origin, Origin, float]]:
    """Each conversation that shares `threshold` of its runs of five words with an earlier one: its origin, the
    earlier one's, and the share.

    Exact copies are passed over: `Reading` reports them as D030.

    Args:
        threshold: above 0 and at most 1: shared runs ÷ runs of both, as estimated.
        seed: of the hash functions; equal input and seed give equal pairs.
    """
    origins, sketches = _sketched(conversations, seed)
    earlier, likeness = _earlier_likeness(sketches, threshold)
    for row in np.flatnonzero(earlier >= 0):
        yield origins[row], origins[earlier[row]], float(likeness[row])


def _sketched(conversations: Iterable[Conversation], seed: int) -> tuple[list[Origin], Sketches]:
    """The origins of the conversations that hold words and are no exact copies, and their sketches."""
    factors, summands = _functions(seed)
    origins: list[Origin] = []
    seen: set[int] = set()
    sketches = bytearray()
    for conversation in conversations:
        words = [word for text in spoken(conversation) for word in words_of(text)]
        mark = fingerprint(conversation)
        if words and mark not in seen:
            seen.add(mark)
            origins.append(conversation.origin)
            sketches += _sketch(
                runs_of(codes_of(words), min(_RUN_WORDS, len(words))), factors, summands
            ).tobytes()
    return origins, np.frombuffer(sketches, np.uint16).reshape(len(origins), _FUNCTIONS)


def _functions(seed: int) -> tuple[Numbers, Numbers]:
    numbers = np.random.default_rng(seed).integers(0, 2**63, size=(2, _FUNCTIONS, 1), dtype=np.uint64)
    return numbers[0] * np.uint64(2) + np.uint64(1), numbers[1]


def _sketch(runs: Numbers, factors: Numbers, summands: Numbers) -> Sketches:
    """The smallest value of each function, of which 16 bits are kept: (128,) uint16."""
    smallest = np.full(_FUNCTIONS, 2**64 - 1, np.uint64)
    for start in range(0, len(runs), _RUNS_AT_ONCE):
        values = runs[start : start + _RUNS_AT_ONCE] * factors + summands
        smallest = np.minimum(smallest, values.min(axis=1))
    return mixed(smallest).astype(np.uint16)


def _earlier_likeness(
    sketches: Sketches, threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each row an earlier row that is as like it as asked for, or -1, and how like: (rows,) each."""
    earlier = np.full(len(sketches), -1, np.int64)
    likeness = np.zeros(len(sketches))
    width = _band_width(threshold)
    for start in range(0, _FUNCTIONS - width + 1, width):
        firsts, befores, rows = _bucket_mates(sketches[:, start : start + width])
        for mates in (firsts, befores):
            waiting = earlier[rows] < 0
            for a, b in _pieces(mates[waiting], rows[waiting]):
                agree = (sketches[a] == sketches[b]).mean(axis=1)
                alike = agree >= threshold
                earlier[b[alike]], likeness[b[alike]] = a[alike], agree[alike]
    return earlier, likeness


def _band_width(threshold: float) -> int:
    """The widest band that still finds nearly all pairs at the threshold: wide bands compare fewer others."""
    widths = range(_FUNCTIONS, 1, -1)
    return next((w for w in widths if 1 - (1 - threshold**w) ** (_FUNCTIONS // w) >= _FOUND_AT_LEAST), 1)


def _bucket_mates(
    band: Sketches,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each row that is not the first of its bucket, with that first row and the row before it in the bucket."""
    keys = np.zeros(len(band), np.uint64)
    for column in band.T:
        keys = mixed(keys * np.uint64(31) + column)
    order = np.argsort(keys, kind="stable")
    begins = np.append(True, keys[order][1:] != keys[order][:-1])[: len(order)]
    places = np.flatnonzero(~begins)
    first_places = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    return order[first_places[places]], order[places - 1], order[places]


def _pieces(
    a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    for start in range(0, len(a), _PAIRS_AT_ONCE):
        yield a[start : start + _PAIRS_AT_ONCE], b[start : start + _PAIRS_AT_ONCE]
