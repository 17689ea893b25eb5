"""Data is prepared once, by the first rank; the others wait for its word in a file, and not in a collective.

A collective has a time limit, and reading a large corpus takes as long as it takes. So the first rank says every
few seconds that it is still at work, and the others give up only when it has not been heard of for long.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition import files
from tuition.errors import UserError
from tuition.train.folder import RunFolder

_NAME = ".preparing.json"
_SECONDS_BETWEEN_WORDS = 5.0
_SECONDS_OF_SILENCE = 300.0


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a run's ranks, as torchrun told it to this one, known before they have met.

    Attributes:
        rank: which this is; 0 prepares.
        world: how many there are.
        name: of this start, so that no word of an earlier one counts.
        restarts: how often torchrun has started them again.
    """

    rank: int = 0
    world: int = 1
    name: str = ""
    restarts: int = 0

    @property
    def many(self) -> bool:
        """More than one."""
        return self.world > 1


ALONE = Start()


def start_of_environment() -> Start:
    """What torchrun says; one rank alone without it."""
    told = os.environ
    restarts = int(told.get("TORCHELASTIC_RESTART_COUNT", "0"))
    name = f"{told.get('TORCHELASTIC_RUN_ID', '')}-{told.get('MASTER_PORT', '')}-{restarts}"
    return Start(int(told.get("RANK", "0")), int(told.get("WORLD_SIZE", "1")), name, restarts)


@contextmanager
def prepared_once(folder: RunFolder, start: Start, *, silence: float = _SECONDS_OF_SILENCE) -> Iterator[None]:
    """Inside, the data is prepared (the first rank), or is there to be opened (the others).

    Args:
        folder: of the run, on a disk that all ranks see.
        silence: seconds without a word after which the first rank is taken for dead.

    Raises:
        UserError: the first rank failed, or has not been heard of.
    """
    word = folder.path / _NAME
    if not start.many:
        yield
        return
    if start.rank > 0:
        _wait(word, start.name, silence)
        yield
        return
    stop = threading.Event()
    speaker = threading.Thread(target=_keep_saying, args=(word, start.name, stop), daemon=True)
    speaker.start()
    state = "failed"
    try:
        yield
        state = "ready"
    finally:
        stop.set()
        speaker.join()
        if word.parent.is_dir():
            _say(word, start.name, state, 0)


def forget_word(folder: RunFolder, start: Start) -> None:
    """Remove the file: all ranks have read it, or are told by its absence that nothing came of it."""
    if start.many and start.rank == 0:
        files.remove_file(folder.path / _NAME)


def tidy(folder: RunFolder) -> None:
    """Remove what ranks left in the folder that were ended before the run had begun.

    Raises:
        UserError: another process is at work there.
    """
    if folder.path.is_dir() and not folder.holds_a_run():
        with folder.claimed():
            files.remove_file(folder.path / _NAME)


def _keep_saying(word: Path, start: str, stop: threading.Event) -> None:
    count = 0
    while True:
        _say(word, start, "preparing", count)
        count += 1
        if stop.wait(_SECONDS_BETWEEN_WORDS):
            return


def _say(word: Path, start: str, state: str, count: int) -> None:
    files.write_json(word, {"start": start, "state": state, "count": count})


def _wait(word: Path, start: str, silence: float) -> None:
    heard: dict[str, Any] = {}
    since = time.monotonic()
    while True:
        said = _read(word)
        ours, before = said.get("start") == start, heard.get("start") == start
        if ours and said["state"] == "ready":
            return
        if (ours and said["state"] == "failed") or (before and not said):
            raise UserError(
                "the first rank could not prepare the data",
                where=str(word.parent),
                next_step="Mend what it says",
            )
        if said != heard:
            heard, since = said, time.monotonic()
        if time.monotonic() - since > silence:
            raise UserError(
                f"the first rank has not been heard of for {silence:,.0f} seconds",
                where=str(word),
                next_step="Put output_dir on a disk that all machines see, and start again",
            )
        time.sleep(0.05)


def _read(word: Path) -> dict[str, Any]:
    try:
        said = json.loads(word.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
