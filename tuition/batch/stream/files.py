"""The examples of data that streams, as one side; behind it, which files are on the disk and which come next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuition import files
from tuition.batch.corpus import find_or_clear
from tuition.batch.plan import Plan
from tuition.batch.prepared import JoinedSide, Prepared, PreparedKey, PreparedSide, find_prepared
from tuition.batch.prepared.byplace import ByPlace
from tuition.batch.stream.units import Kept, Unit, unit_changed
from tuition.batch.stream.worker import Workers
from tuition.conversation import Rendered
from tuition.counting import counted
from tuition.errors import Origin, UserError

_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True, slots=True)
class StreamedFile:
    """A file that is learned from: its name, what decides its examples, and what stays of it."""

    unit: Unit
    key: PreparedKey
    kept: Kept


class Shelf:
    """The prepared files on the disk: as many as have room, those of now and next always.

    One rank puts them there and takes them away; the others wait for what they need.

    Args:
        root: the folder of prepared data.
        most_bytes: of all files together.
        workers: those who prepare; None: another rank does.
    """

    def __init__(
        self, root: Path, streamed: Sequence[StreamedFile], *, most_bytes: float, workers: Workers | None
    ) -> None:
        self._root, self._streamed, self._workers = root, streamed, workers
        self._most_bytes = most_bytes
        self._opened: dict[int, PreparedSide] = {}
        self._standing: tuple[list[int], list[int]] = ([], [])

    def refuse_too_little_room(self, together: int) -> None:
        """Refuse a bound below the largest files that are ever needed at once.

        Args:
            together: files that are shuffled together; those of the next window are prepared meanwhile.

        Raises:
            UserError: naming how many gigabytes they take.
        """
        sizes = sorted((file.kept.side.bytes for file in self._streamed), reverse=True)
        need = sum(sizes[: 2 * together])
        if need > self._most_bytes:
            raise UserError(
                f"the examples of {counted(min(2 * together, len(sizes)), 'file')}, those of now and next, take {need / 1e9:,.2f} GB",
                where="stream_gb",
                next_step=f"Set stream_gb: {np.ceil(need / 1e8) / 10:g} or more, or lower stream_files",
            )

    def stand_at(self, plan: Plan, step: int) -> None:
        """Make room for the files of this update and of those to come, and have the latter prepared meanwhile."""
        standing = plan.files_of(step)
        if standing == self._standing:
            return
        self._standing = standing
        now, after = standing
        self._opened = {n: side for n, side in self._opened.items() if n in now}
        if self._workers is None:
            return
        wanted = dict.fromkeys((*now, *after))
        self._make_room(wanted)
        for number in wanted:
            if not self._folder(number).exists():
                self._workers.begin(self._streamed[number].unit, self._streamed[number].key.name)

    def side(self, number: int) -> PreparedSide:
        """The training examples of a file.

        Raises:
            UserError: the file is not what it was, or cannot be read.
        """
        if number not in self._opened:
            self._opened[number] = self._open(number)
        return self._opened[number]

    def _open(self, number: int) -> PreparedSide:
        file = self._streamed[number]
        prepared = self._wait_for(file) if self._workers is None else self._have(file, self._workers)
        if prepared.train.sha256 != file.kept.side.sha256:
            raise unit_changed(file.unit)
        return prepared.train

    def _wait_for(self, file: StreamedFile) -> Prepared:
        """What another rank prepares."""
        while (prepared := find_prepared(self._root, file.key)) is None:
            time.sleep(_SECONDS_BETWEEN_LOOKS)  # torchrun ends this rank if the one that prepares has died
        return prepared

    def _have(self, file: StreamedFile, workers: Workers) -> Prepared:
        """What was prepared ahead, or is now."""
        while (prepared := find_or_clear(self._root, file.key, lambda text: None)) is None:
            workers.finish(file.unit, file.key.name)
        workers.settle(file.key.name)
        files.touch(prepared.folder)  # the one used longest ago makes room first
        return prepared

    def _make_room(self, wanted: Iterable[int]) -> None:
        """Take files away, the one used longest ago first, until those that are wanted have room."""
        there = {n for n in range(len(self._streamed)) if self._folder(n).exists()}
        total = sum(self._bytes(n) for n in there | set(wanted))
        for number in sorted(there - set(wanted), key=self._used_at):
            if total <= self._most_bytes:
                return
            with suppress(FileNotFoundError):  # another run over the same data took it away
                files.remove_folder(self._folder(number))
            total -= self._bytes(number)

    def _used_at(self, number: int) -> float:
        try:
            return self._folder(number).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _folder(self, number: int) -> Path:
        return self._root / self._streamed[number].key.name

    def _bytes(self, number: int) -> int:
        return self._streamed[number].kept.side.bytes


class _FileSide:
    """The training examples of one file, as `JoinedSide` asks for them."""

    def __init__(self, kept: Kept, side: Callable[[], PreparedSide]) -> None:
        self.tokens, self.learned_tokens = kept.side.tokens, kept.side.learned_tokens
        self.lengths, self.sha256 = kept.side.lengths, kept.side.sha256
        self._examples, self._kept, self._side = kept.side.examples, kept, side

    def __len__(self) -> int:
        return self._examples

    def __getitem__(self, index: int, /) -> Rendered:
        return self._side()[index]

    def example_lengths(self) -> npt.NDArray[np.int64]:
        return self._kept.example_lengths()


class StreamedSide(JoinedSide):
    """The training examples of all files. Asking for one brings its file back to the disk.

    Attributes:
        files: examples of each file, as `Plan.files` takes them.
    """

    def __init__(self, streamed: Sequence[StreamedFile], shelf: Shelf) -> None:
        super().__init__([_FileSide(file.kept, partial(shelf.side, n)) for n, file in enumerate(streamed)])
        self.files = tuple(file.kept.side.examples for file in streamed)
        self.shelf = shelf


def batch_of(examples: Sequence[Rendered], plan: Plan, step: int) -> list[Rendered]:
    """The examples of an update. Data that streams learns where the run stands.

    Raises:
        UserError: a file is not what it was, or cannot be read.
    """
    if isinstance(examples, StreamedSide):
        examples.shelf.stand_at(plan, step)
    return [examples[i] for i in plan.examples_of(step)]


class StandIns(ByPlace):
    """Examples as long as those of a side, made of the tokens of others: what a pass takes depends on lengths alone."""

    def __init__(self, lengths: npt.NDArray[np.int64], at_hand: Sequence[Rendered]) -> None:
        self._lengths = lengths
        self._ids = np.concatenate([example.ids for example in at_hand])
        self._supervised = np.concatenate([example.supervised for example in at_hand])

    def __len__(self) -> int:
        return len(self._lengths)

    def _example(self, place: int) -> Rendered:
        taken = np.arange(place, place + int(self._lengths[place])) % len(self._ids)
        supervised = self._supervised[taken].copy()
        supervised[0], supervised[-1] = 0.0, 1.0  # as in every example: the first never, at least one
        return Rendered(self._ids[taken], supervised, Origin("stand-in", place + 1))

    def example_lengths(self) -> npt.NDArray[np.int64]:
        """See `PreparedSide`."""
        return self._lengths


class StreamedFiles:
    """Data that streams, in the place of `Prepared`.

    Attributes:
        train: examples that are learned from.
        validation: examples that are held out; all of them stay on the disk.
        at_hand: the first training examples of each file.
        stand_ins: see `StandIns`.
    """

    def __init__(self, train: StreamedSide, kept: Sequence[Kept]) -> None:
        self.train = train
        self.validation = JoinedSide([one.validation for one in kept])
        self.at_hand = JoinedSide([one.at_hand for one in kept])
        self.stand_ins = StandIns(train.example_lengths(), self.at_hand)
        self._kept = kept

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        """The JSON objects of `<name>.jsonl` of every file, one by one."""
        return chain.from_iterable(one.prepared.records(name) for one in self._kept)

    def copy_records(self, name: str, to: Path) -> None:
        """Write these records of all files as `to`."""
        files.copy_joined((one.prepared.record_file(name) for one in self._kept), to)
