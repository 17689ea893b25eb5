"""Which row had a mark first: a hash table of flat numbers, a tenth of a dict's memory."""

from __future__ import annotations

from array import array

_EMPTY = 0
_MASK_64 = (1 << 64) - 1
_SCRAMBLE = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: Knuth's multiplicative hashing


class FirstSeen:
    """Remembers the first number that came with each mark. Costs 18 to 36 bytes a mark."""

    def __init__(self) -> None:
        self._bits = 10
        self._marks, self._numbers = _tables(self._bits)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def note(self, mark: int, number: int) -> int:
        """The first number that came with this mark: an earlier one, or this.

        Args:
            mark: a hash of any size and sign; its lower 64 bits count.
            number: below 2**32.
        """
        mark = mark & _MASK_64 or 1
        place = self._place(mark)
        if self._marks[place] == mark:
            return self._numbers[place]
        self._marks[place], self._numbers[place] = mark, number
        self._count += 1
        if 2 * self._count > len(self._marks):
            self._grow()
        return number

    def find(self, mark: int) -> int | None:
        """The first number that came with this mark, if any did."""
        mark = mark & _MASK_64 or 1
        place = self._place(mark)
        return self._numbers[place] if self._marks[place] == mark else None

    def _place(self, mark: int) -> int:
        """Where the mark stands, or would stand."""
        marks, last = self._marks, len(self._marks) - 1
        place = ((mark * _SCRAMBLE) & _MASK_64) >> (64 - self._bits)
        while marks[place] not in (_EMPTY, mark):
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        marks, numbers = self._marks, self._numbers
        self._bits += 1
        self._marks, self._numbers = _tables(self._bits)
        for mark, number in zip(marks, numbers, strict=True):
            if mark != _EMPTY:
                place = self._place(mark)
                self._marks[place], self._numbers[place] = mark, number


def _tables(bits: int) -> tuple[array[int], array[int]]:
    return array("Q", bytes(8 << bits)), array("I", bytes(4 << bits))
