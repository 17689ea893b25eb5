"""Rendered examples on disk: written once, named by the hash of all that decided them, memory-mapped after.

A prepared folder is also a plain `datasets` folder: `datasets.load_from_disk(folder)["train"]` has
`input_ids` and `labels`, which other trainers take unchanged. Nothing in it is used before its SHA-256 was
seen to be right: the facts when the folder is opened, each block of examples when it is first touched. So
opening takes the same time whatever the size. Nothing here reads data, renders or imports torch.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tuition import files
from tuition.conversation import Rendered
from tuition.data import Side, content_sha256, split_share
from tuition.errors import Origin, UserError

NOT_LEARNED = -100
"""The label of a token that is context only: what PyTorch's cross-entropy ignores, and every trainer writes."""

_FORMAT = 1
_FACTS = "facts.json"
_ARROW = "data-00000-of-00001.arrow"
_SIDES: tuple[Side, ...] = ("train", "validation")

# A block is what is written, checked and mapped at once: about 2 MB, hashed in a few milliseconds.
_BLOCK_TOKENS = 2**18
_BLOCK_EXAMPLES = 2**12
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # Arrow IPC: continuation marker, then length 0

_SCHEMA = pa.schema([
    ("input_ids", pa.list_(pa.int32())),
    ("labels", pa.list_(pa.int32())),
    ("weights", pa.list_(pa.float32())),  # of the learned tokens; a single one where all weigh the same
    ("part", pa.int32()),
    ("line", pa.int64()),
    ("file", pa.binary()),  # text as bytes: names and ids may hold lone surrogates, which Arrow's strings refuse
    ("row_id", pa.binary()),
    ("group", pa.binary()),
    ("prompt_key", pa.binary()),
])  # fmt: skip


# --- the name ---


@dataclass(frozen=True, slots=True)
class PreparedKey:
    """All that decides what the examples are. Prepared data is named by its hash.

    Attributes:
        train: source and SHA-256 of its content, of each source that is learned from, in order.
        validation: the same for the sources that are held out.
        template: the chat template's text; None renders plain text.
        tokenizer: SHA-256 of the tokenizer as it works.
        settings: the recipe's data and render sections and the seed, as JSON values.
        code: see `code_sha256`.
    """

    train: tuple[tuple[str, str], ...]
    validation: tuple[tuple[str, str], ...]
    template: str | None
    tokenizer: str
    settings: Mapping[str, Any]
    code: str

    @property
    def name(self) -> str:
        """128 bits of SHA-256 over all of it, as hexadecimal digits: the folder's name."""
        text = json.dumps(asdict(self), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def code_sha256() -> str:
    """SHA-256 of the source that makes examples, and of the versions of the libraries it makes them with."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for place in ("conversation.py", "batch/prepared.py", "data", "render"):
        for path in sorted((package / place).rglob("*.py")) or [package / place]:
            digest.update(f"{path.relative_to(package).as_posix()} {files.sha256(path)}\n".encode())
    for library in ("jinja2", "numpy", "tokenizers", "transformers"):
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()


def hash_sources(sources: Sequence[str], memo: Path) -> tuple[tuple[str, str], ...]:
    """Each source with the SHA-256 of its content, as `PreparedKey` takes them.

    A file that has the size, times and inode it had when it was last hashed is not read again, as git does
    with its index: a second start then takes no longer for a terabyte than for a line.

    Args:
        memo: a JSON file that remembers; a missing or damaged one only costs the reading.
    """
    known, fresh, hashes = _read_memo(memo), {}, []
    for source in sources:
        name, _ = split_share(source)  # the share stands in the source itself, beside the hash
        place = str(Path(name).absolute())
        stamp = _stamp(name)  # taken before hashing: what is changed meanwhile fails to match next time
        seen = known.get(place)
        if stamp is not None and seen is not None and seen["stamp"] == stamp:
            hashes.append((source, str(seen["sha256"])))
            continue
        hashes.append((source, content_sha256(name)))
        if stamp is not None:
            fresh[place] = {"stamp": stamp, "sha256": hashes[-1][1]}
    if fresh:
        memo.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(memo, known | fresh)
    return tuple(hashes)


def _stamp(source: str) -> list[int] | None:
    """What changes when a file does; None for what is no file, or was written too recently to tell.

    A second write within one tick of the file system's clock leaves the stamp as it is, so a stamp is
    trusted from two seconds on (FAT's tick, the longest there is).
    """
    try:
        seen = Path(source).stat()
    except OSError:
        return None
    if time.time() - max(seen.st_mtime, seen.st_ctime) < 2:
        return None
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def _read_memo(memo: Path) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
        return {place: {"stamp": seen["stamp"], "sha256": seen["sha256"]} for place, seen in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


# --- writing ---


def write_prepared(
    root: Path,
    key: PreparedKey,
    examples: Iterable[tuple[Side, Rendered]],
    *,
    records: Mapping[str, Iterable[Mapping[str, Any]]],
) -> Prepared:
    """Write examples to `root/<key.name>/`, which appears at once and whole, or not at all.

    Examples are taken one by one and at most a block of each side is held, so memory does not grow.

    Args:
        root: the folder that holds all prepared data; made where it is missing.
        examples: each with its side, in order.
        records: name → JSON objects that belong to the examples, such as the ledger; written to
            `<name>.jsonl`. They are asked for after the last example, when a ledger is complete.

    Raises:
        OSError: disk full or no permission; nothing is left then.
    """
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    final = root / key.name
    temporary = files.fresh_folder(root / f".{key.name}.{os.getpid()}.tmp")
    try:
        sides = _write_sides(temporary, key, examples)
        for name, rows in records.items():
            _write_records(temporary / f"{name}.jsonl", rows)
        files.write_json(
            temporary / _FACTS, {"format": _FORMAT, "name": key.name, "key": asdict(key), "sides": sides}
        )
        _publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_prepared(final)


def _remove_abandoned(root: Path) -> None:
    """Remove what killed processes left half-written: nothing in it was touched for a day."""
    for folder in root.glob(f".{'[0-9a-f]' * 32}.*.tmp"):
        with suppress(OSError):  # its writer may be finishing just now
            newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if time.time() - newest > 24 * 3600:
                shutil.rmtree(folder)


def _publish(temporary: Path, final: Path) -> None:
    try:
        files.publish_folder(temporary, final)
    except OSError:
        if not (final / files.MANIFEST).exists():
            raise
        # another process prepared the same meanwhile: the same key, hence the same examples


def _write_sides(
    folder: Path, key: PreparedKey, examples: Iterable[tuple[Side, Rendered]]
) -> dict[str, dict[str, Any]]:
    """Both sides' files, and the facts about each. A side without examples has no files."""
    writers: dict[Side, _SideWriter] = {}
    try:
        for side, example in examples:
            if side not in writers:
                writers[side] = _SideWriter(folder / side)
            writers[side].add(example)
        facts: dict[str, dict[str, Any]] = {side: writer.finish() for side, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.close()
    for side in writers:
        _write_dataset_state(folder / side, side, fingerprint=f"{key.name}-{side}")
    files.write_json(folder / "dataset_dict.json", {"splits": [side for side in _SIDES if side in writers]})
    return facts


def _write_dataset_state(folder: Path, side: Side, *, fingerprint: str) -> None:
    """What `datasets.load_from_disk` asks for beside the Arrow file."""
    files.write_json(folder / "dataset_info.json", {})
    files.write_json(
        folder / "state.json",
        {
            "_data_files": [{"filename": _ARROW}],
            "_fingerprint": fingerprint,
            "_format_columns": ["input_ids", "labels"],  # trainers that feed every column see just these
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": side,
        },
    )


def _write_records(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, in ASCII: lone surrogates in a row's id then cannot fail the whole."""
    with path.open("w", encoding="ascii") as stream:
        for row in rows:
            stream.write(json.dumps(row, allow_nan=False) + "\n")


class _SideWriter:
    """One side on its way to disk: an Arrow IPC stream of blocks, and what is counted along the way."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._stream = (folder / _ARROW).open("wb")
        self._stream.write(_SCHEMA.serialize())
        self._pending: list[Rendered] = []
        self._pending_tokens = 0
        self._blocks: list[_Block] = []
        self._lengths: Counter[int] = Counter()
        self._learned_tokens = 0
        self._shortest, self._shortest_at = 0, -1
        self._digest = hashlib.sha256()

    def add(self, example: Rendered) -> None:
        """Take the next example; write a block when there is a full one."""
        self._count(example)
        self._pending.append(example)
        self._pending_tokens += len(example)
        if self._pending_tokens >= _BLOCK_TOKENS or len(self._pending) >= _BLOCK_EXAMPLES:
            self._write_block()

    def finish(self) -> dict[str, Any]:
        """Write what is left; the facts about this side."""
        if self._pending:
            self._write_block()
        self._stream.write(_END_OF_STREAM)
        return {
            "examples": self._lengths.total(),
            "tokens": sum(length * count for length, count in self._lengths.items()),
            "learned_tokens": self._learned_tokens,
            "shortest_at": self._shortest_at,
            "sha256": self._digest.hexdigest(),
            "lengths": sorted(self._lengths.items()),
            "blocks": [asdict(block) for block in self._blocks],
        }

    def close(self) -> None:
        """Let go of the file, whatever happened."""
        self._stream.close()

    def _count(self, example: Rendered) -> None:
        if self._shortest_at < 0 or len(example) < self._shortest:
            self._shortest, self._shortest_at = len(example), self._lengths.total()
        self._lengths[len(example)] += 1
        self._learned_tokens += example.learned_tokens
        add_to_digest(self._digest, example)

    def _write_block(self) -> None:
        message = _as_batch(self._pending).serialize()
        self._blocks.append(
            _Block(
                start=self._stream.tell(),
                bytes=message.size,
                examples=len(self._pending),
                sha256=hashlib.sha256(message).hexdigest(),
            )
        )
        self._stream.write(message)
        self._pending, self._pending_tokens = [], 0


def add_to_digest(digest: Any, example: Rendered) -> None:
    """Feed one example to a hashlib object: its length, ids and supervised, to the bit."""
    digest.update(len(example).to_bytes(8, "little"))
    digest.update(example.ids.tobytes())
    digest.update(example.supervised.tobytes())


def _as_batch(examples: Sequence[Rendered]) -> Any:
    """Examples as one Arrow record batch of `_SCHEMA`."""
    ids = np.concatenate([example.ids for example in examples])
    supervised = np.concatenate([example.supervised for example in examples])
    labels = np.where(supervised != 0, ids, np.int32(NOT_LEARNED))
    lengths = [len(example) for example in examples]
    weights = [_weights(example.supervised) for example in examples]
    origins = [example.origin for example in examples]
    return pa.record_batch(
        [
            _as_lists(ids, lengths),
            _as_lists(labels, lengths),
            _as_lists(np.concatenate(weights), [len(kept) for kept in weights]),
            pa.array([example.part for example in examples], pa.int32()),
            pa.array([origin.line for origin in origins], pa.int64()),
            _as_texts(origin.file for origin in origins),
            _as_texts(origin.row_id for origin in origins),
            _as_texts(example.group for example in examples),
            _as_texts(example.prompt_key for example in examples),
        ],
        schema=_SCHEMA,
    )


def _weights(supervised: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weights of the learned tokens: one where they are all the same, else (learned,) float32."""
    weights: npt.NDArray[np.float32] = supervised[supervised != 0]
    return weights[:1] if len(weights) and (weights == weights[0]).all() else weights


def _as_lists(values: npt.NDArray[Any], lengths: Sequence[int]) -> Any:
    offsets = np.fromiter(accumulate(lengths, initial=0), dtype=np.int32, count=len(lengths) + 1)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _as_texts(texts: Iterable[str | None]) -> Any:
    encoded = [None if text is None else text.encode("utf-8", "surrogatepass") for text in texts]
    return pa.array(encoded, pa.binary())


# --- opening ---


def find_prepared(root: Path, key: PreparedKey) -> Prepared | None:
    """The prepared data of that key, opened; None where there is none.

    Raises:
        UserError: it is there and damaged, or is not what its name says.
    """
    folder = root / key.name
    if not folder.exists():
        return None
    prepared = open_prepared(folder)
    if prepared.name != key.name:
        raise UserError(
            f"holds prepared data of another name, {prepared.name}",
            where=str(folder),
            next_step="Remove the folder; the data is then prepared again",
        )
    return prepared


def open_prepared(folder: Path, *, verify: Literal["quick", "full"] = "quick") -> Prepared:
    """Open prepared data.

    Args:
        verify: quick: all files are there in full length and the facts have their SHA-256; each block of
            examples follows when it is first touched. full: every file is hashed now.

    Raises:
        UserError: naming every file that is damaged or missing, or another version's format.
    """
    manifest = _read_manifest(folder)
    faults = [
        fault
        for name, entry in manifest.items()
        if (fault := _fault_of(folder, name, entry, hashed=verify == "full" or name == _FACTS))
    ]
    if faults:
        raise _damaged(folder, "; ".join(faults))
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if facts["format"] == _FORMAT:
            return Prepared(folder, facts, manifest)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise _damaged(folder, f"{_FACTS} cannot be read ({error})") from None
    raise UserError(
        f"was prepared by another version of tuition (format {facts['format']}, here it is {_FORMAT})",
        where=str(folder),
        next_step="Prepare the data again",
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the manifest says of one file."""

    sha256: str
    bytes: int


def _read_manifest(folder: Path) -> dict[str, _Entry]:
    """What the folder must hold. Files beside these are left alone: `datasets` keeps its caches there."""
    try:
        listed = json.loads((folder / files.MANIFEST).read_text(encoding="utf-8"))["files"]
        manifest = {str(k): _Entry(str(v["sha256"]), int(v["bytes"])) for k, v in listed.items()}
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise UserError(
                "there is no prepared data", where=str(folder), next_step="`tuition prepare` writes it"
            ) from None
        raise _damaged(folder, f"{files.MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"{files.MANIFEST} cannot be read ({error})") from None
    if _FACTS not in manifest:
        raise UserError(
            f"is not prepared data: {files.MANIFEST} lists no {_FACTS}",
            where=str(folder),
            next_step="Name a folder that `tuition prepare` wrote",
        )
    return manifest


def _fault_of(folder: Path, name: str, entry: _Entry, *, hashed: bool) -> str | None:
    """What is wrong with one file, as a sentence without its full stop."""
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != entry.bytes:
        return f"{name} has {path.stat().st_size:,} bytes instead of {entry.bytes:,}"
    if hashed and files.sha256(path) != entry.sha256:
        return f"{name} does not have the SHA-256 that {files.MANIFEST} says"
    return None


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        f"the prepared data is damaged: {what}",
        where=str(folder),
        next_step="Remove the folder; the data is then prepared again",
    )


# --- reading ---


class Prepared:
    """A prepared folder, opened.

    Attributes:
        folder: where it lies.
        name: see `PreparedKey.name`.
        train: examples that are learned from.
        validation: examples that are held out.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], manifest: Mapping[str, _Entry]) -> None:
        self.folder = folder
        self.name = str(facts["name"])
        self.train, self.validation = (
            PreparedSide(folder / side, facts["sides"].get(side, _NO_EXAMPLES)) for side in _SIDES
        )
        self._manifest = manifest

    def __repr__(self) -> str:
        return f"Prepared({str(self.folder)!r})"

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        """The JSON objects of `<name>.jsonl`, one by one, after the file's SHA-256 was seen to be right.

        Raises:
            UserError: the file is damaged.
            KeyError: no records of that name were written.
        """
        file = f"{name}.jsonl"
        if fault := _fault_of(self.folder, file, self._manifest[file], hashed=True):
            raise _damaged(self.folder, fault)
        with (self.folder / file).open(encoding="ascii") as lines:
            yield from map(json.loads, lines)


@dataclass(frozen=True, slots=True)
class _Block:
    """Where a block of examples lies in its file, and the hash that it must have."""

    start: int
    bytes: int
    examples: int
    sha256: str


_NO_EXAMPLES: dict[str, Any] = {
    "tokens": 0, "learned_tokens": 0, "lengths": (), "sha256": hashlib.sha256().hexdigest(),
    "shortest_at": -1, "blocks": (),
}  # fmt: skip

# Pages that were read stay counted as this process's memory until they are given back to the page cache.
_EXAMPLES_BETWEEN_RELEASES = 64


class PreparedSide(Sequence[Rendered]):
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
        self._shortest_at = int(facts["shortest_at"])
        self._blocks = [_Block(**block) for block in facts["blocks"]]
        self._starts = list(accumulate((block.examples for block in self._blocks), initial=0))
        self._folder = folder
        self._map = _map_file(folder / _ARROW) if self._blocks else None
        self._columns: dict[int, _Columns] = {}
        self._until_release = _EXAMPLES_BETWEEN_RELEASES

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Rendered: ...
    @overload
    def __getitem__(self, index: slice) -> list[Rendered]: ...
    def __getitem__(self, index: int | slice) -> Rendered | list[Rendered]:
        """One example, or those of a slice as a list.

        Raises:
            IndexError: there is no such example.
            UserError: its block is damaged.
        """
        # a range knows what Python says of negative places, of steps and of places beyond the end
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self._example(place) for place in places]
        return self._example(places)

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
        return self._columns[number].example(place - self._starts[number])

    def _open_block(self, number: int) -> _Columns:
        """The columns of a block, once it is seen to be what was written."""
        block = self._blocks[number]
        message = pa.py_buffer(self._map)[block.start : block.start + block.bytes]
        if hashlib.sha256(message).hexdigest() != block.sha256:
            raise self._damaged_block(number, "was changed")
        try:
            batch = pa.ipc.read_record_batch(message, _SCHEMA)
            batch.validate(full=True)  # a hostile folder has hashes that fit and offsets that do not
        except (pa.ArrowException, OSError) as error:
            raise self._damaged_block(number, f"cannot be read ({error})") from None
        self._release()
        return _Columns.of(batch)

    def _damaged_block(self, number: int, what: str) -> UserError:
        first, last = self._starts[number], self._starts[number + 1] - 1
        file = f"{self._folder.name}/{_ARROW}"
        return _damaged(self._folder.parent, f"{file} {what} in the block of examples {first:,} to {last:,}")

    def _release(self) -> None:
        """Give mapped pages back to the page cache; views stay valid and read them again from there."""
        self._until_release = _EXAMPLES_BETWEEN_RELEASES
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):  # Windows trims by itself
            self._map.madvise(mmap.MADV_DONTNEED)


def _map_file(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True, slots=True)
class _Lists:
    """Lists end to end: `values[offsets[i]:offsets[i + 1]]` is the i-th. Both are views of the file."""

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int32]

    @classmethod
    def of(cls, column: Any) -> _Lists:
        return cls(column.values.to_numpy(), column.offsets.to_numpy())

    def __getitem__(self, place: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[place] : self.offsets[place + 1]]


@dataclass(frozen=True, slots=True)
class _Columns:
    """One block as views of the file, a column each; see `_SCHEMA`."""

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
            part=batch.column("part").to_numpy(),
            line=batch.column("line").to_numpy(),
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
