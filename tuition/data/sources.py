"""From what the user names to rows: files here and elsewhere, patterns, folders and data sets of the hub.

A number behind a name, `replay.jsonl#0.1`, is its share: how often each of its rows is learned in an epoch.
Here shares only travel with the names; `splits.copies_of` says what they mean and `Reading` keeps to them.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuition.counting import counted
from tuition.data.datafiles import (
    SUFFIXES,
    Place,
    file_rows,
    is_data_name,
    is_plain_name,
    place_of,
    size_of,
)
from tuition.data.hub import hub_rows, hub_sha256, hub_splits, may_be_hub_name
from tuition.data.jsontext import Row, about_file
from tuition.data.remote import RemoteFile, is_remote, local_name, remote_files
from tuition.data.storefiles import STORE_SUFFIXES, is_store_name, store_path, store_rows, store_sha256
from tuition.errors import UserError
from tuition.files import sha256

__all__ = ["Row", "Sources", "content_sha256", "find_sources", "read_rows", "split_share"]

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
_SHARE = re.compile(r"(.+)#(\d+(?:\.\d+)?|\.\d+)")
_MOST_COPIES = 100
# what `datasets` and other tools write beside the data, about it
_NOT_ROWS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json")
_PROVENANCE = ".provenance.jsonl"  # what `tuition collect export` writes beside its rows, line by line


@dataclass(frozen=True)
class Sources:
    """What `read_rows` is to read, by its use.

    Attributes:
        train: names, each with its share behind it where it has one: `b.jsonl#0.3`.
        left_out: data files of a folder that name no split beside others that name the training split.
        replay: general data, of which `replay_share` of all training examples is learned beside `train`.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    replay_share: float = 0.0

    @property
    def unread(self) -> str:
        """What is to be said about files that were left out; empty where there are none."""
        names = ", ".join(self.left_out)
        return f"Not read, because they name no split beside files that do: {names}" if names else ""

    def with_validation(self, names: tuple[str, ...]) -> Sources:
        """The same with these held out instead."""
        return replace(self, validation=names)

    def held_out(self) -> tuple[str, ...]:
        """What a model is judged on: the test files, else the validation files, else all."""
        return self.test or self.validation or self.train

    def with_replay(self, specs: Sequence[str], share: float) -> Sources:
        """The same with a share of general data: files of plain text, or rows of any shape.

        Raises:
            UserError: as `find_sources`.
        """
        plain = tuple(spec for spec in specs if Path(spec).is_file() and is_plain_name(Path(spec)))
        rows = [spec for spec in specs if spec not in plain]
        names = (*plain, *(find_sources(rows).train if rows else ()))
        return replace(self, replay=names, replay_share=share) if specs else self


def find_sources(specs: Sequence[str]) -> Sources:
    """Resolve files, patterns (`data/*.jsonl`), folders, addresses, and hub names (`owner/name[:config][:split]`).

    Addresses, and patterns of them, are those of `remote.PROTOCOLS`: `s3://bucket/shards/*.jsonl.zst`.

    Files and patterns are training data, whatever their names. A folder's files are sorted by the words
    train, valid(ation), val, dev and test in their names; without a training file among them, the files
    that name no split are the training data. Folders that `datasets.save_to_disk` wrote are folders. A
    share, `#0.3`, holds for each training file that its name is resolved to.

    Raises:
        UserError: nothing is there, it is no data file, or its share is not above 0 and at most 100.
    """
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": [], "left_out": []}
    shares: dict[str, str] = {}  # name → as it is listed, with its share
    for spec in specs:
        if not spec.strip():
            step = "Name the files; a variable of the shell may be empty."
            raise UserError("an empty name names no data", where="data", next_step=step)
        try:
            name, share = split_share(spec)
            resolved = _resolve(name)
        except (OSError, ValueError) as error:  # a name too long for the disk, or with NUL in it
            raise UserError(
                f"no file can be found by that name ({error.__class__.__name__}: {str(error)[:80]})",
                where=repr(spec)[:80],
                next_step="Check the spelling, and the permissions of its folder.",
            ) from None
        for split, sources in resolved.items():
            listed = [_with_share(source, share if split == "train" else 1.0) for source in sources]
            for source, with_share in zip(sources, listed, strict=True):
                if split == "train" and shares.setdefault(source, with_share) != with_share:
                    step = "Name it once, with the share that is meant."
                    raise UserError(
                        f"named with two shares: {shares[source]} and {with_share}",
                        where=source,
                        next_step=step,
                    )
            found[split] += [source for source in dict.fromkeys(listed) if source not in found[split]]
    train, validation, test, left_out = (tuple(found[split]) for split in found)
    return Sources(train, validation, test, left_out)


def split_share(source: str) -> tuple[str, float]:
    """The name and the share of `name#share`; 1.0 where none is written. A file of that very name wins.

    Raises:
        UserError: the share is 0, or above 100.
    """
    written = _SHARE.fullmatch(source)
    if not written or Path(source).exists():
        return source, 1.0
    share = float(written[2])
    if not 0 < share <= _MOST_COPIES:
        step = f"Write a number above 0 and at most {_MOST_COPIES}: 0.3 learns 30 % of the rows, 2 learns each twice."
        raise UserError(f"a share of {written[2]} is not possible", where=source, next_step=step)
    return written[1], share


def read_rows(source: str, *, columns: Collection[str] = ()) -> Iterator[Row]:
    """All rows of one file or hub split, one verdict each; a bad row never ends the reading.

    Verdicts on the whole file are Rows with line 0 and no value.

    Args:
        source: the name without its share.
        columns: names that the user gave to columns: a table whose first line has one of them has a header.

    Raises:
        UserError: the file is missing or may not be read, or the hub does not answer.
    """
    place = place_of(source)
    if isinstance(place, Path):
        if is_store_name(source):
            yield from store_rows(source)
            return
        if not place.exists() and may_be_hub_name(source):
            yield from hub_rows(source)
            return
        if not (is_plain_name(place) and place.is_file()):
            _require_data_file(place, source)
    rows, complaints = 0, 0
    for row in file_rows(place, source, columns):
        rows += row.origin.line > 0
        complaints += row.origin.line == 0 and row.finding is not None and row.finding.severity == "error"
        yield row
    if not rows and not complaints:
        size = size_of(place)
        yield about_file(
            "D050", source, f"no rows in {counted(size, 'byte')}" if size else "the file is empty"
        )


def content_sha256(source: str) -> str:
    """The SHA-256 of a file's bytes, or of a hub data set's name and revision; of that and the share, if any.

    What lies elsewhere is known by its address and version, see `RemoteFile.sha256`.

    Raises:
        UserError: the file is missing, or the hub does not answer.
    """
    name, share = split_share(source)
    path = Path(name)
    if is_remote(name):
        content = RemoteFile(name).sha256()
    elif is_store_name(name):
        content = store_sha256(name)
    elif not path.exists() and may_be_hub_name(name):
        content = hub_sha256(name)
    else:
        if not (is_plain_name(path) and path.is_file()):
            _require_data_file(path, name)
        content = sha256(path)
    return content if share == 1.0 else hashlib.sha256(f"{content}#{share}".encode()).hexdigest()


def _with_share(name: str, share: float) -> str:
    return name if share == 1.0 else f"{name}#{share:g}"


# --- from names to files ---


def _resolve(spec: str) -> dict[str, list[str]]:
    if is_remote(spec):
        return {"train": [name for name in remote_files(spec) if _require_data_name(RemoteFile(name), name)]}
    if spec == "-":
        raise UserError(
            "standard input cannot be read twice", where=spec, next_step="Save the data to a file first."
        )
    spec = local_name(spec)
    path = Path(spec)
    if is_store_name(spec) and store_path(spec)[0].is_file():
        return {"train": [spec]}
    if path.is_dir():
        return _resolve_folder(path)
    if not path.exists() and any(character in spec for character in "*?["):
        matches = sorted(m for m in glob.glob(spec, recursive=True) if Path(m).is_file())  # noqa: PTH207  Path.glob takes no absolute pattern
        if not matches:
            raise UserError(
                "no file matches the pattern", where=spec, next_step="List the folder and mend it."
            )
        return {"train": [m for m in matches if _require_data_file(Path(m), m)]}
    if not path.exists() and may_be_hub_name(spec):
        return _resolve_hub(spec)
    _require_data_file(path, spec)
    return {"train": [spec]}


def _resolve_folder(folder: Path) -> dict[str, list[str]]:
    """The data files in and below a folder, by the split that their names say."""
    by_split: dict[str, list[str]] = {"train": [], "validation": [], "test": [], "left_out": []}
    for path in _data_files(folder):
        by_split[_split_of(path.relative_to(folder))].append(str(path))
    if not any(by_split.values()):
        step = f"Put files there that end in {_one_of(SUFFIXES)}."
        raise UserError("the folder holds no data files", where=str(folder), next_step=step)
    if not by_split["train"]:
        by_split["train"], by_split["left_out"] = by_split["left_out"], []
    return by_split


def _data_files(folder: Path) -> list[Path]:
    """The data files in and below a folder, hidden ones and descriptions of data sets aside.

    Where `datasets.save_to_disk` left its `state.json`, the files that it names are the data and no others:
    `datasets` keeps the results of its computations beside them.
    """
    saved = {path.parent: names for path in folder.rglob("state.json") if (names := _saved_files(path))}
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and is_data_name(path)
        and path.name not in _NOT_ROWS
        and not _is_provenance(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.name in saved.get(path.parent, (path.name,))
    ]


def _is_provenance(path: Path) -> bool:
    """Whether the file tells, line by line, where the rows of the one beside it came from."""
    rows = path.with_name(f"{path.name.removesuffix(_PROVENANCE)}.jsonl")
    return path.name.endswith(_PROVENANCE) and rows.is_file()


def _saved_files(state: Path) -> frozenset[str]:
    """The names of the data files that a `state.json` lists; none if it is not of `datasets`."""
    try:
        listed = json.loads(state.read_bytes()[: 1 << 20])["_data_files"]
        return frozenset(str(entry["filename"]) for entry in listed)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return frozenset()


def _split_of(path: Path) -> str:
    """The split that a path names, the file name before its folders; `left_out` if none."""
    for part in reversed(path.parts):
        words = re.split(r"[^a-z]+", part.lower())
        if named := next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None):
            return named
    return "left_out"


def _resolve_hub(spec: str) -> dict[str, list[str]]:
    splits = hub_splits(spec)
    if splits == [spec]:
        return {"train": splits}
    by_split: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for split in splits:
        by_split[_SPLIT_WORDS.get(split.split(":")[-1].split("_")[0], "train")].append(split)
    return by_split


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
    return _require_data_name(path, source)


def _require_data_name(path: Place, source: str) -> bool:
    """True for a name with a suffix that is read.

    Raises:
        UserError: it has another.
    """
    if not is_data_name(path):
        step = f"Unpack or convert it to {_one_of((*SUFFIXES, *STORE_SUFFIXES))} (text files also with .gz or .zst)."
        kind = Path(path.name).suffix or "a file without suffix"
        raise UserError(f"{kind} is not read", where=source, next_step=step)
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
