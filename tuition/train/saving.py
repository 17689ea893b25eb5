"""Checkpoints written while training goes on: the step waits for a copy in memory, and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from tuition import files
from tuition.errors import Interrupted, UserError
from tuition.train.checkpoint import Identity, Progress, Snapshot, take_snapshot, write_snapshot
from tuition.train.distributed import ALONE, Ranks
from tuition.train.folder import RunFolder
from tuition.train.journal import Journal
from tuition.train.shelf import rotate


class Saver:
    """Writes checkpoints of one run in a thread, at most one at a time.

    Args:
        root: the folder of the checkpoints.
        identity: what a resume will compare.
        journal: brought to the disk before a checkpoint that counts on its lines.
        keep: how many of the newest stay, beside the best.
        stays: whether the checkpoint of a step stays for another reason, when this one is the newest.
        saved_step: the step of the checkpoint that a resume began with.
        ranks: all of them call `save`; where the model is shared out each writes its parts, else the first all.
        damaged: steps whose checkpoint it passed over.
    """

    def __init__(
        self,
        root: Path,
        identity: Identity,
        journal: Journal,
        *,
        keep: int,
        stays: Callable[[int, int], bool] = lambda step, newest: False,
        saved_step: int | None = None,
        ranks: Ranks = ALONE,
        damaged: frozenset[int] = frozenset(),
    ) -> None:
        self.root, self.identity, self.journal = root, identity, journal
        self.keep, self.stays, self.damaged = keep, stays, damaged
        self.saved_step, self.ranks = saved_step, ranks
        self.writers = ranks.apart() if ranks.sharded else ALONE
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._abandoned = False

    def save(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        """Take a copy, and write it while training goes on. Waits for the one before.

        Raises:
            UserError: the one before could not be written, or a weight is not finite.
        """
        self.wait()
        if progress.step in (0, self.saved_step):  # nothing was learned since
            return
        snapshot = take_snapshot(
            parameters,
            optimizer,
            copy(progress),
            self.identity,
            self.journal.position,
            self.ranks,
            self.writers,
        )
        if not (self.ranks.first or self.ranks.sharded):  # the first rank holds the same, and writes it
            self.saved_step = snapshot.step
            return
        # a daemon, so that a second signal leaves at once
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def _write(self, snapshot: Snapshot) -> None:
        try:
            self.writers.each(lambda: files.sync(self.journal.path) if self.ranks.first else None)
            write_snapshot(self.root, snapshot, go_on=self._go_on)
            self.saved_step = snapshot.step
            self.writers.each(lambda: self._rotate(snapshot) if self.ranks.first else None)
            self.damaged = frozenset()
        except BaseException as error:  # handed to the training thread, which stops at its next step
            self._error = error

    def _rotate(self, snapshot: Snapshot) -> None:
        damaged = self.damaged - {snapshot.step}
        rotate(self.root, snapshot, keep=self.keep, damaged=damaged, stays=self.stays)

    def _go_on(self) -> None:
        if self._abandoned:
            raise InterruptedError("the run was left at once")

    @property
    def failed(self) -> bool:
        """Something went wrong in the thread, and has not been said yet."""
        return self._error is not None

    def _say_what_failed(self) -> None:
        """Raise, once, what went wrong in the thread."""
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, OSError):
                raise trouble(error, self.root.parent) from error
            raise error

    def wait(self) -> None:
        """Return when nothing is being written.

        Raises:
            UserError: a checkpoint could not be written.
        """
        if self._thread is not None:
            try:
                self._thread.join()
            except KeyboardInterrupt:  # a second signal
                self._abandoned = True
                raise
            self._thread = None
        self._say_what_failed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):  # a second signal: leave; what is half-written is never used
            self._abandoned = True
        elif error is None or isinstance(error, Interrupted):
            self.wait()
        elif self._thread is not None:
            self._thread.join()


def trouble(error: OSError, run: Path) -> UserError:
    """What a failed write means to the user: the cause, what still stands, and what to do."""
    gone = not run.is_dir()
    mend = "Put the folder back where it was" if gone else "Make room or mend the disk"
    return UserError(
        f"{error.filename or 'a file of the run'} could not be written ({error.strerror or error}); "
        "the run stops, and older checkpoints stand",
        where=str(run),
        next_step=f"{mend}, then go on: {RunFolder(run).resume_command}",
    )


def bytes_to_write(trainable: int, parameters: int, *, checkpoints: int, full: bool) -> int:
    """The most that a run may hold on disk.

    A checkpoint holds weights and AdamW's two moments in float32; the model, or the adapter, is float32 too.
    """
    return checkpoints * 12 * trainable + 4 * (parameters if full else trainable)
