"""Several sides as one: examples end to end, figures added up."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tuition.batch.prepared.byplace import ByPlace
from tuition.batch.prepared.sides import typical_of
from tuition.conversation import Rendered


class Part(Protocol):
    """What a side is asked for here."""

    tokens: int
    learned_tokens: int
    lengths: dict[int, int]
    sha256: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Rendered: ...
    def example_lengths(self) -> npt.NDArray[np.int64]: ...


class JoinedSide(ByPlace):
    """The examples of several sides in order. Attributes are those of `PreparedSide`."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts: list[Part] = list(parts)
        self._starts = list(accumulate(map(len, self._parts), initial=0))
        self.tokens = sum(part.tokens for part in self._parts)
        self.learned_tokens = sum(part.learned_tokens for part in self._parts)
        self.lengths: dict[int, int] = sum_of_counts(part.lengths for part in self._parts)
        self.sha256 = hashlib.sha256("".join(part.sha256 for part in self._parts).encode()).hexdigest()

    def __len__(self) -> int:
        return self._starts[-1]

    def _example(self, place: int) -> Rendered:
        number = bisect_right(self._starts, place) - 1
        return self._parts[number][place - self._starts[number]]

    def example_lengths(self) -> npt.NDArray[np.int64]:
        """The length of each example in order: (examples,) int64, in tokens."""
        return np.concatenate([np.zeros(0, np.int64), *(part.example_lengths() for part in self._parts)])

    @property
    def typical(self) -> Rendered:
        """See `PreparedSide.typical`."""
        return typical_of(self, self.example_lengths())


def sum_of_counts(counts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Counts by number, added up."""
    whole: Counter[int] = Counter()
    for part in counts:
        whole.update(part)
    return dict(sorted(whole.items()))
