"""One side's examples, read from the memory map as they are asked for."""

from __future__ import annotations

import hashlib
import mmap
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tuition.batch.prepared.byplace import ByPlace
from tuition.batch.prepared.layout import ARROW, LENGTHS, NOT_LEARNED, SCHEMA, Block, damaged
from tuition.conversation import Rendered
from tuition.counting import counted
from tuition.errors import Origin, UserError

# Pages that were read stay counted as this process's memory until they are given back to the page cache.
_EXAMPLES_BETWEEN_RELEASES = 64
_TOKENS_ON_A_SCREEN = 120


class PreparedSide(ByPlace):
    """One side's examples, read from the memory map as they are asked for; memory does not grow with them.

    `ids` is a read-only view of the file; `supervised` is made from labels and weights, for each example anew.

    Attributes:
        tokens: tokens of all examples.
        learned_tokens: those of them that are learned.
        lengths: length in tokens → examples of that length.
        sha256: over every example in order, see `add_to_digest`.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.tokens = int(facts["tokens"])
        self.learned_tokens = int(facts["learned_tokens"])
        self.lengths: dict[int, int] = dict(facts["lengths"])
        self.sha256 = str(facts["sha256"])
        self._lengths_sha256 = str(facts["lengths_sha256"])
        self._shortest_at = int(facts["shortest_at"])
        self._blocks = [_block(block) for block in facts["blocks"]]
        self._starts = list(accumulate((block.examples for block in self._blocks), initial=0))
        if not (0 <= self._shortest_at < len(self) or not self._blocks):
            raise ValueError("the shortest example is none of them")
        self._folder = folder
        self._map = _map_file(folder / ARROW) if self._blocks else None
        self._columns: dict[int, _Columns] = {}
        self._until_release = _EXAMPLES_BETWEEN_RELEASES

    def __len__(self) -> int:
        return self._starts[-1]

    def example_lengths(self) -> npt.NDArray[np.int64]:
        """The length of each example in order, without reading one: (examples,) int64, in tokens.

        Raises:
            UserError: they are damaged.
        """
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        stored = (self._folder / LENGTHS).read_bytes()
        if hashlib.sha256(stored).hexdigest() != self._lengths_sha256 or len(stored) != 4 * len(self):
            raise damaged(self._folder.parent, f"{self._folder.name}/{LENGTHS} was changed")
        return np.frombuffer(stored, dtype="<u4").astype(np.int64)

    @property
    def typical(self) -> Rendered:
        """The first example of about the usual length, or of what a screen holds where that is less."""
        return typical_of(self, self.example_lengths())

    @property
    def shortest(self) -> Rendered:
        """The first of the shortest examples."""
        return self[self._shortest_at]

    def _example(self, place: int) -> Rendered:
        number = bisect_right(self._starts, place) - 1
        if number not in self._columns:
            self._columns[number] = self._open_block(number)
        self._until_release -= 1
        if not self._until_release:
            self._release()
        try:
            return self._columns[number].example(place - self._starts[number])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged_block(number, f"holds what is no example ({error})") from None

    def _open_block(self, number: int) -> _Columns:
        """The columns of a block, once it is seen to be what was written."""
        block = self._blocks[number]
        message = pa.py_buffer(self._map)[block.start : block.start + block.bytes]
        if hashlib.sha256(message).hexdigest() != block.sha256:
            raise self._damaged_block(number, "was changed")
        try:
            batch = pa.ipc.read_record_batch(message, SCHEMA)
            if batch.num_rows != block.examples:
                raise self._damaged_block(number, f"holds {counted(batch.num_rows, 'example')}")
            batch.validate(full=True)  # a hostile folder has hashes that fit and offsets that do not
        except (pa.ArrowException, OSError) as error:
            raise self._damaged_block(number, f"cannot be read ({error})") from None
        self._release()
        return _Columns.of(batch)

    def _damaged_block(self, number: int, what: str) -> UserError:
        first, last = self._starts[number], self._starts[number + 1] - 1
        file = f"{self._folder.name}/{ARROW}"
        return damaged(self._folder.parent, f"{file} {what} in the block of examples {first:,} to {last:,}")

    def _release(self) -> None:
        """Give mapped pages back to the page cache; views stay valid and read them again from there."""
        self._until_release = _EXAMPLES_BETWEEN_RELEASES
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):  # not every system takes it
            self._map.madvise(mmap.MADV_DONTNEED)


def typical_of(examples: Sequence[Rendered], lengths: npt.NDArray[np.int64]) -> Rendered:
    """The first example of about the usual length, or of what a screen holds where that is less."""
    wanted = min(int(np.median(lengths)), _TOKENS_ON_A_SCREEN)
    return examples[int(np.abs(lengths - wanted).argmin())]


@runtime_checkable
class _KnowsLengths(Protocol):
    def example_lengths(self) -> npt.NDArray[np.int64]: ...


def lengths_of(examples: Sequence[Rendered]) -> npt.NDArray[np.int64]:
    """The length of each example in tokens: (examples,) int64. Prepared ones are not read for it."""
    if isinstance(examples, _KnowsLengths):
        return examples.example_lengths()
    return np.fromiter((len(example) for example in examples), dtype=np.int64, count=len(examples))


def _block(facts: Mapping[str, Any]) -> Block:
    block = Block(**facts)
    if not all(type(number) is int and number >= 0 for number in (block.start, block.bytes, block.examples)):
        raise ValueError("a block's place is no number")
    return block


def _map_file(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _view(numbers: Any) -> npt.NDArray[Any]:
    """An Arrow array seen as NumPy's, nothing copied. Arrow's own `to_numpy` imports pandas, half a second."""
    return np.from_dlpack(numbers)


@dataclass(frozen=True, slots=True)
class _Lists:
    """Lists end to end: `values[offsets[i]:offsets[i + 1]]` is the i-th. Both are views of the file."""

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int32]

    @classmethod
    def of(cls, column: Any) -> _Lists:
        return cls(_view(column.values), _view(column.offsets))

    def __getitem__(self, place: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[place] : self.offsets[place + 1]]


@dataclass(frozen=True, slots=True)
class _Columns:
    """One block as views of the file, a column each; see `SCHEMA`."""

    ids: _Lists
    labels: _Lists
    weights: _Lists
    part: npt.NDArray[np.int32]
    line: npt.NDArray[np.int64]
    texts: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, batch: Any) -> _Columns:
        return cls(
            ids=_Lists.of(batch.column("input_ids")),
            labels=_Lists.of(batch.column("labels")),
            weights=_Lists.of(batch.column("weights")),
            part=_view(batch.column("part")),
            line=_view(batch.column("line")),
            texts={name: batch.column(name) for name in ("file", "row_id", "group", "prompt_key")},
        )

    def example(self, place: int) -> Rendered:
        """The example at a place of the block."""
        labels = self.labels[place]
        supervised = np.zeros(len(labels), dtype=np.float32)
        supervised[labels != NOT_LEARNED] = self.weights[place]  # a single weight is spread over all of them
        return Rendered(
            ids=self.ids[place],
            supervised=supervised,
            origin=Origin(
                self._text("file", place) or "", int(self.line[place]), self._text("row_id", place)
            ),
            part=int(self.part[place]),
            group=self._text("group", place),
            prompt_key=self._text("prompt_key", place) or "",
        )

    def _text(self, name: str, place: int) -> str | None:
        encoded = self.texts[name][place].as_py()
        return None if encoded is None else str(encoded, "utf-8", "surrogatepass")
