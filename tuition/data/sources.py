"""From what the user names to rows: files, patterns, folders and data sets of the hub."""

from __future__ import annotations

import difflib
import glob
import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from tuition.data.jsonfiles import read_json
from tuition.data.jsontext import Row, about_file, row_from_value
from tuition.data.tables import read_parquet, read_table
from tuition.errors import Origin, UserError
from tuition.files import sha256

__all__ = ["Row", "Sources", "content_sha256", "find_sources", "read_rows"]

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
}
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.+-]+){0,2}")


@dataclass(frozen=True)
class Sources:
    """What `read_rows` is to read, by its use.

    Attributes:
        left_out: data files of a folder that name no split beside others that name the training split.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def with_validation(self, names: tuple[str, ...]) -> Sources:
        """The same with these held out instead."""
        return replace(self, validation=names)


def find_sources(specs: Sequence[str]) -> Sources:
    """Resolve files, patterns (`data/*.jsonl`), folders, and hub names (`owner/name[:config][:split]`).

    Files and patterns are training data, whatever their names. A folder's files are sorted by the words
    train, valid(ation), val, dev and test in their names; without a training file among them, the files
    that name no split are the training data.

    Raises:
        UserError: nothing is there, or it is no data file.
    """
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": [], "left_out": []}
    for spec in specs:
        for split, sources in _resolve(spec).items():
            found[split] += [source for source in sources if source not in found[split]]
    return Sources(**{split: tuple(sources) for split, sources in found.items()})


def read_rows(source: str) -> Iterator[Row]:
    """The rows of one file or hub split, one verdict each; a bad row never ends the reading.

    Verdicts on the whole file are Rows with line 0 and no value.

    Raises:
        UserError: the file is missing or may not be read, or the hub does not answer.
    """
    path = Path(source)
    if not path.exists() and _may_be_hub_name(source):
        yield from _hub_rows(source)
        return
    _require_data_file(path, source)
    rows, complaints = 0, 0
    for row in _file_rows(path, source):
        rows += row.origin.line > 0
        complaints += row.origin.line == 0 and row.finding is not None and row.finding.severity == "error"
        yield row
    if not rows and not complaints:
        size = path.stat().st_size
        yield about_file("D050", source, "the file is empty" if not size else f"no rows in {size:,} bytes")


def content_sha256(source: str) -> str:
    """The SHA-256 of a file's bytes, or of a hub data set's name and revision.

    Raises:
        UserError: the file is missing, or the hub does not answer.
    """
    path = Path(source)
    if not path.exists() and _may_be_hub_name(source):
        return hashlib.sha256(f"{source}@{_hub_revision(source)}".encode()).hexdigest()
    _require_data_file(path, source)
    return sha256(path)


# --- from names to files ---


def _resolve(spec: str) -> dict[str, list[str]]:
    path = Path(spec)
    if path.is_dir():
        return _resolve_folder(path)
    if not path.exists() and any(character in spec for character in "*?["):
        matches = sorted(m for m in glob.glob(spec, recursive=True) if Path(m).is_file())  # noqa: PTH207
        if not matches:
            raise UserError(
                "no file matches the pattern", where=spec, next_step="List the folder and mend it."
            )
        return {"train": [m for m in matches if _require_data_file(Path(m), m)]}
    if not path.exists() and _may_be_hub_name(spec):
        return _resolve_hub(spec)
    _require_data_file(path, spec)
    return {"train": [spec]}


def _resolve_folder(folder: Path) -> dict[str, list[str]]:
    """The data files in and below a folder, by the split that their names say."""
    by_split: dict[str, list[str]] = {"train": [], "validation": [], "test": [], "left_out": []}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and _suffix(path) in _SUFFIXES and not any(p.startswith(".") for p in inside.parts):
            by_split[_split_of(inside)].append(str(path))
    if not any(by_split.values()):
        step = f"Put files there that end in {_one_of(_SUFFIXES)}."
        raise UserError("the folder holds no data files", where=str(folder), next_step=step)
    if not by_split["train"]:
        by_split["train"], by_split["left_out"] = by_split["left_out"], []
    return by_split


def _split_of(path: Path) -> str:
    """The split that a path names, the file name before its folders; `left_out` if none."""
    for part in reversed(path.parts):
        words = re.split(r"[^a-z]+", part.lower())
        if named := next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None):
            return named
    return "left_out"


def _suffix(path: Path) -> str:
    """The suffix that says the format: that before `.gz`."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _require_data_file(path: Path, source: str) -> bool:
    """True for a regular file with a suffix that is read.

    Raises:
        UserError: it is missing, no file, or of another kind.
    """
    if not path.exists():
        raise UserError("there is no such file", where=source, next_step=_nearest_name(path))
    if not path.is_file():
        raise UserError(
            "this is not a regular file", where=source, next_step="Save the data to a file first."
        )
    if _suffix(path) not in _SUFFIXES or path.name.lower().endswith(".parquet.gz"):
        step = f"Unpack or convert it to {_one_of(_SUFFIXES)} (text files also with .gz)."
        raise UserError(f"{path.suffix or 'a file without suffix'} is not read", where=source, next_step=step)
    return True


def _nearest_name(path: Path) -> str:
    """A next step that names what is there instead."""
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    wanted = path.relative_to(folder).parts[0] if folder in path.parents else path.name
    names = [entry.name for entry, _ in zip(folder.iterdir(), range(10_000), strict=False)]
    near = difflib.get_close_matches(wanted, names, n=1)
    if near:
        return f"Did you mean {folder / near[0]}?"
    return f"{folder.resolve()} has no name like it; check the spelling."


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


# --- from files to rows ---


def _file_rows(path: Path, source: str) -> Iterator[Row]:
    """The rows of a file, by its suffix, unless its first bytes say that it is something else."""
    suffix = _suffix(path)
    try:
        kind = _foreign_kind(_head(path), suffix)
        if kind:
            yield about_file("D059", source, f"the file is {kind}")
        elif suffix == ".parquet":
            yield from read_parquet(path, source)
        elif suffix in (".csv", ".tsv"):
            yield from read_table(lambda: _open(path), source, "\t" if suffix == ".tsv" else ",")
        else:
            yield from read_json(lambda: _open(path), source)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield about_file("D062", source, str(error))
    except OSError as error:
        step = "Check the file's permissions and the disk."
        raise UserError(error.strerror or str(error), where=source, next_step=step) from error


def _open(path: Path) -> BinaryIO:
    """The file's text as bytes, decompressed."""
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _head(path: Path) -> bytes:
    with _open(path) as stream:
        return stream.read(512)


_SIGNATURES: dict[bytes, str] = {
    b"version https://git-lfs": "a Git-LFS pointer, not the data (git lfs pull fetches it)",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "XML",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "compressed with gzip (its name must end in .gz)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd (zstd -d unpacks it)",
    b"PAR1": "Parquet (its name must end in .parquet)",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF document",
    b"\xff\xfe": "UTF-16 text (iconv -f utf-16 -t utf-8 converts it)",
    b"\xfe\xff": "UTF-16 text (iconv -f utf-16 -t utf-8 converts it)",
    **{bytes([0x80, protocol]): "a Python pickle, which could run code" for protocol in range(2, 6)},
}


def _foreign_kind(head: bytes, suffix: str) -> str | None:
    """What the first bytes say the file is, if that is not what its suffix says."""
    start = head.lstrip().lower()
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature.lower()) and not (signature == b"PAR1" and suffix == ".parquet"):
            return kind
    return None


# --- the hub ---


def _may_be_hub_name(spec: str) -> bool:
    """True for `owner/name` and `name`, with `:config:split`, unless the local disk is clearly meant."""
    path = Path(spec)
    if not _HUB_NAME.fullmatch(spec) or _suffix(path) in (*_SUFFIXES, ".txt", ".gz", ".zst", ".zip"):
        return False
    if len(path.parts) > 1:
        return not path.parent.is_dir()
    return not difflib.get_close_matches(spec, [entry.name for entry in Path().iterdir()], n=1, cutoff=0.8)


def _hub_parts(source: str) -> tuple[str, str | None, str | None]:
    """Name, config and split of `name`, `name:split` and `name:config:split`."""
    name, *rest = source.split(":")
    return name, rest[0] if len(rest) == 2 else None, rest[-1] if rest else None


def _resolve_hub(spec: str) -> dict[str, list[str]]:
    name, _, split = _hub_parts(spec)
    if split:
        return {"train": [spec]}
    import datasets

    splits = _ask_hub(spec, lambda: datasets.get_dataset_split_names(name))
    by_split: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for split in splits:
        by_split[_SPLIT_WORDS.get(split.split("_")[0], "train")].append(f"{name}:{split}")
    return by_split


def _hub_rows(source: str) -> Iterator[Row]:
    import datasets

    name, config, split = _hub_parts(source)

    def load() -> Any:
        return datasets.load_dataset(name, config, split=split or "train", streaming=True)

    rows = iter(_ask_hub(source, load))
    number = 0
    while (value := _ask_hub(source, lambda: next(rows, None))) is not None:
        number += 1
        yield row_from_value(value, Origin(source, number))


def _hub_revision(source: str) -> str:
    import huggingface_hub

    return str(_ask_hub(source, lambda: huggingface_hub.dataset_info(_hub_parts(source)[0]).sha))


def _ask_hub(source: str, question: Callable[[], Any]) -> Any:
    """The hub's answer; its many exceptions (network, permission, names, damaged files) as one.

    Raises:
        UserError: the hub did not answer, or not with data.
    """
    try:
        return question()
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
        raise UserError(
            f"there is no such file, and the hub gives no such data set ({reason})",
            where=source,
            next_step="Check the spelling, the network and your login, or give a folder of downloaded files.",
        ) from error
