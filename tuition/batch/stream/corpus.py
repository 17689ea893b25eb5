"""The examples of a run whose data streams: every file seen once before step 1, and as many kept as have room."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from tuition import files
from tuition.batch.corpus import DAYS_KEPT, Corpus, Tell, cache_folder
from tuition.batch.plan import file_windows
from tuition.batch.prepared import PreparedKey, remove_unused
from tuition.batch.stream.files import Shelf, StreamedFile, StreamedFiles, StreamedSide
from tuition.batch.stream.units import KEPT, Job, Kept, Unit, keys_of
from tuition.batch.stream.worker import Workers
from tuition.conversation import Conversation
from tuition.counting import counted
from tuition.data import Sources, Totals
from tuition.errors import UserError
from tuition.recipe import DataSettings, ModelSettings, RenderSettings
from tuition.render import Renderer
from tuition.render.evidence import Evidence

_CONVERSATIONS_KEPT = 256
_MOST_PROCESSES = 4  # each takes a few hundred megabytes


def stream_corpus(
    sources: Sources,
    renderer: Renderer,
    *,
    model: ModelSettings,
    data: DataSettings,
    render: RenderSettings,
    seed: int,
    leads: bool = True,
    root: Path | None = None,
    tell: Tell = lambda text: None,
) -> Corpus:
    """The examples of these sources, of which only some are on the disk at a time.

    Args:
        model, render: with every `auto` resolved: other processes make the renderer anew from them.
        leads: this rank prepares; the others find what it prepared.
        root, tell: as in `prepare_corpus`.

    Raises:
        UserError: nothing is left to learn from, a file cannot be read, or the disk has no room.
    """
    folder = root or cache_folder()
    files.make_folder(folder / KEPT)
    units = [Unit(train=(name,)) for name in sources.train]
    held_out = [Unit(validation=sources.validation)] if sources.validation else []
    job = Job(model, data, render, renderer.positions, seed, str(folder))
    keys = keys_of(job, [*units, *held_out], renderer)
    workers = Workers(job, max(1, min(_MOST_PROCESSES, (os.cpu_count() or 1) // 2))) if leads else None
    kept = _see_all(folder, [*units, *held_out], keys, data, seed, workers, tell)
    of_files = (units, keys[: len(units)], kept[: len(units)])  # behind them stands what is held out by name
    streamed = [StreamedFile(*each) for each in zip(*of_files, strict=True)]
    if not any(one.side.examples for one in kept):
        raise UserError(
            "no row of all files can be learned from",
            where=", ".join(sources.train)[:200],
            next_step="`tuition check` shows every finding",
        )
    shelf = Shelf(folder, streamed, most_bytes=data.stream_gb * 1e9, workers=workers)
    shelf.refuse_too_little_room(data.stream_files)
    whole = StreamedFiles(StreamedSide(streamed, shelf), kept)
    if leads and root is None:
        _remove_unused(folder, kept)
    return _account(whole, keys, renderer)


def _see_all(
    folder: Path,
    units: Sequence[Unit],
    keys: Sequence[PreparedKey],
    data: DataSettings,
    seed: int,
    workers: Workers | None,
    tell: Tell,
) -> list[Kept]:
    """What stays of each unit, found or made now; the files that are needed first are made last, so that they are there."""
    kept = [Kept.find(folder, key) for key in keys]
    files_in_order = _first_order(sum(bool(unit.train) for unit in units), data, seed)
    held_out = range(len(files_in_order), len(units))
    missing = [number for number in (*held_out, *reversed(files_in_order)) if kept[number] is None]
    if missing and workers is None:
        raise UserError(
            "is not prepared, and only the first rank prepares",
            where=str(units[missing[0]]),
            next_step="Put TUITION_CACHE on a disk that all machines see",
        )
    if missing:
        unknown = counted(len(missing), "file is", "files are")
        tell(f"{unknown} not known in {folder}: every row is read now, which may take a while")
    key_of = {keys[number].name: keys[number] for number in missing}
    asked = [(units[number], keys[number].name) for number in missing]
    made: dict[str, Kept] = {}
    room = _Room(folder, data.stream_gb * 1e9)
    for count, name in enumerate(workers.prepare_all(asked) if workers else (), 1):
        made[name] = _just_made(folder, key_of[name])
        room.take(name, made[name].side.bytes)
        tell(f"{count:,} of {counted(len(missing), 'file')} read, checked and rendered")
    return [made[key.name] if one is None else one for key, one in zip(keys, kept, strict=True)]


def _just_made(folder: Path, key: PreparedKey) -> Kept:
    found = Kept.find(folder, key)
    assert found is not None, key.name
    return found


def _first_order(count: int, data: DataSettings, seed: int) -> list[int]:
    """The numbers of the files in the order of the first epoch."""
    windows = file_windows((1,) * count, data.stream_files, seed, 0)
    return [number for window in windows for number in window.files]


class _Room:
    """What was prepared in this start, within its bound."""

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._taken: dict[str, int] = {}

    def take(self, name: str, count: int) -> None:
        """Count a file in; the first ones are taken away where all are too many."""
        self._taken[name] = count
        while sum(self._taken.values()) > self._most_bytes and len(self._taken) > 1:
            first = next(iter(self._taken))
            del self._taken[first]
            if (self._folder / first).exists():
                files.remove_folder(self._folder / first)


def _account(whole: StreamedFiles, keys: Sequence[PreparedKey], renderer: Renderer) -> Corpus:
    """The corpus with the accounts of all files as one."""
    summaries = list(whole.records("summary"))
    taught = [summary["renderer"] for summary in summaries]
    renderer.recall(
        {
            "stop_ids": list(dict.fromkeys(stop for one in taught for stop in one["stop_ids"])),
            "arguments_as_text": any(one["arguments_as_text"] for one in taught),
        }
    )
    return Corpus(
        whole,
        tuple(pair for key in keys for pair in (*key.train, *key.validation)),
        Totals.joined([Totals.from_json(summary["totals"]) for summary in summaries]),
        Evidence.joined([Evidence.from_json(summary["evidence"]) for summary in summaries]),
        {name: shape for summary in summaries for name, shape in summary["shapes"].items()},
        _first(row["held_out"] for row in whole.records("shown")),
        _first(row["learned_from"] for row in whole.records("shown")),
    )


def _first(lists: Iterable[list[dict[str, object]]]) -> tuple[Conversation, ...]:
    conversations = (Conversation.from_json(value) for values in lists for value in values)
    return tuple(islice(conversations, _CONVERSATIONS_KEPT))


def _remove_unused(folder: Path, kept: Sequence[Kept]) -> None:
    for one in kept:
        files.touch(one.prepared.folder)
    remove_unused(folder / KEPT, kept[0].prepared, days=DAYS_KEPT)
