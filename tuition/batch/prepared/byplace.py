"""Examples that are made when they are asked for, by their place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from tuition.conversation import Rendered


class ByPlace(Sequence[Rendered]):
    """A sequence that knows its length and can make one example; slices and negative places follow from that."""

    @overload
    def __getitem__(self, index: int) -> Rendered: ...
    @overload
    def __getitem__(self, index: slice) -> list[Rendered]: ...
    def __getitem__(self, index: int | slice) -> Rendered | list[Rendered]:
        """One example, or those of a slice as a list.

        Raises:
            IndexError: there is no such example.
            UserError: where it lies is damaged.
        """
        # a range knows what Python says of negative places, of steps and of places beyond the end
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self._example(place) for place in places]
        return self._example(places)

    @abstractmethod
    def _example(self, place: int) -> Rendered:
        """The example at a place from 0 on."""
