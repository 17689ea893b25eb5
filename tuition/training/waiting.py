"""Data is prepared once, by the first rank; the others wait for its word in a file, and not in a collective.

A collective has a time limit, and reading a large corpus takes as long as it takes. So the first rank says every
few seconds that it is still at work, and the others give up only when it has not been heard of for long.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuition import files
from tuition.errors import UserError
from tuition.train.folder import RunFolder

_NAME = ".preparing.json"
_SECONDS_BETWEEN_WORDS = 5.0
_SECONDS_OF_SILENCE = 300.0


@contextmanager
def prepared_once(folder: RunFolder, *, first: bool, start: str, silence: float = _SECONDS_OF_SILENCE) -> Iterator[None]:
    """Inside, the data is prepared (the first rank), or is there to be opened (the others).

    Args:
        folder: of the run, on a disk that all ranks see.
        first: whether this is the rank that prepares.
        start: names this start of the ranks, so that no word of an earlier one counts.
        silence: seconds without a word after which the first rank is taken for dead.

    Raises:
        UserError: the first rank failed, or has not been heard of.
    """
    word = folder.path / _NAME
    if not first:
        _wait(word, start, silence)
        yield
        return
    stop = threading.Event()
    speaker = threading.Thread(target=_keep_saying, args=(word, start, stop), daemon=True)
    speaker.start()
    state = "failed"
    try:
        yield
        state = "ready"
    finally:
        stop.set()
        speaker.join()
        if word.parent.is_dir():
            _say(word, start, state, 0)


def forget_word(folder: RunFolder) -> None:
    """Remove the file, when all ranks have read it."""
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
    heard, since = {}, time.monotonic()
    while True:
        said = _read(word)
        if said != heard:
            heard, since = said, time.monotonic()
        if said.get("start") == start and said.get("state") == "ready":
            return
        if said.get("start") == start and said.get("state") == "failed":
            raise UserError("the first rank could not prepare the data; it says why", where=str(word.parent))
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
