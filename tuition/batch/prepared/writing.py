"""Writing prepared data: example by example, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tuition import files
from tuition.batch.prepared.key import PreparedKey
from tuition.batch.prepared.layout import ARROW, FACTS, FORMAT, LENGTHS, NOT_LEARNED, SCHEMA, SIDES, Block
from tuition.batch.prepared.opening import Prepared, open_prepared
from tuition.conversation import Rendered
from tuition.data import Side

# A block is what is written, checked and mapped at once: about 2 MB, hashed in a few milliseconds.
BLOCK_TOKENS = 2**18
BLOCK_EXAMPLES = 2**12
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # Arrow IPC: continuation marker, then length 0


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
    files.make_folder(root)
    _remove_abandoned(root)
    final = root / key.name
    temporary = files.fresh_folder(root / f".{key.name}.{os.getpid()}.tmp")
    try:
        sides = _write_sides(temporary, key, examples)
        for name, rows in records.items():
            _write_records(temporary / f"{name}.jsonl", rows)
        files.write_json(
            temporary / FACTS, {"format": FORMAT, "name": key.name, "key": asdict(key), "sides": sides}
        )
        _publish(temporary, final)
    finally:
        with suppress(OSError):
            files.remove_tree(temporary)
    return open_prepared(final)


def _remove_abandoned(root: Path) -> None:
    """Remove what killed processes left half-written: nothing in it was touched for a day."""
    for folder in root.glob(f".{'[0-9a-f]' * 32}.*.tmp"):
        with suppress(OSError):  # its writer may be finishing just now
            newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if time.time() - newest > 24 * 3600:
                files.remove_tree(folder)


def remove_unused(root: Path, used: Prepared, *, days: int) -> None:
    """Remove prepared data that nothing opened for so many days, and note that `used` was opened now."""
    files.touch(used.folder)
    for folder in root.glob("[0-9a-f]" * 32):
        with suppress(OSError):  # another process may be removing it just now
            if time.time() - folder.stat().st_mtime > days * 24 * 3600:
                files.remove_folder(folder)


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
    files.write_json(folder / "dataset_dict.json", {"splits": [side for side in SIDES if side in writers]})
    return facts


def _write_dataset_state(folder: Path, side: Side, *, fingerprint: str) -> None:
    """What `datasets.load_from_disk` asks for beside the Arrow file."""
    files.write_json(folder / "dataset_info.json", {})
    files.write_json(
        folder / "state.json",
        {
            "_data_files": [{"filename": ARROW}],
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
    files.write_new(path, (json.dumps(row, allow_nan=False).encode("ascii") + b"\n" for row in rows))


class _SideWriter:
    """One side on its way to disk: an Arrow IPC stream of blocks, and what is counted along the way."""

    def __init__(self, folder: Path) -> None:
        files.make_folder(folder)
        self._stream = files.NewFile(folder / ARROW)
        self._stream.write(SCHEMA.serialize())
        self._pending: list[Rendered] = []
        self._pending_tokens = 0
        self._blocks: list[Block] = []
        self._folder = folder
        self._lengths = array("I")
        self._learned_tokens = 0
        self._shortest, self._shortest_at = 0, -1
        self._digest = hashlib.sha256()

    def add(self, example: Rendered) -> None:
        """Take the next example; write a block when there is a full one."""
        self._count(example)
        self._pending.append(example)
        self._pending_tokens += len(example)
        if self._pending_tokens >= BLOCK_TOKENS or len(self._pending) >= BLOCK_EXAMPLES:
            self._write_block()

    def finish(self) -> dict[str, Any]:
        """Write what is left; the facts about this side."""
        if self._pending:
            self._write_block()
        self._stream.write(END_OF_STREAM)
        self._stream.finish()
        lengths = np.asarray(self._lengths, dtype="<u4").tobytes()
        files.write_new(self._folder / LENGTHS, [lengths])
        return {
            "examples": len(self._lengths),
            "tokens": sum(self._lengths),
            "learned_tokens": self._learned_tokens,
            "shortest_at": self._shortest_at,
            "sha256": self._digest.hexdigest(),
            "lengths": sorted(Counter(self._lengths).items()),
            "lengths_sha256": hashlib.sha256(lengths).hexdigest(),
            "blocks": [asdict(block) for block in self._blocks],
        }

    def close(self) -> None:
        """Let go of the file, whatever happened."""
        self._stream.close()

    def _count(self, example: Rendered) -> None:
        if self._shortest_at < 0 or len(example) < self._shortest:
            self._shortest, self._shortest_at = len(example), len(self._lengths)
        self._lengths.append(len(example))
        self._learned_tokens += example.learned_tokens
        add_to_digest(self._digest, example)

    def _write_block(self) -> None:
        message = _as_batch(self._pending).serialize()
        self._blocks.append(
            Block(
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
    """Examples as one Arrow record batch of `SCHEMA`."""
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
        schema=SCHEMA,
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
