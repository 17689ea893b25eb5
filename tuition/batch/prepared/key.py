"""The name of prepared data: a hash over everything that decides what the examples are."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuition import files
from tuition.data import content_sha256, split_share


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
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for place in (
        "conversation.py",
        "batch/corpus.py",
        "batch/prepared",
        "batch/stream/units.py",
        "data",
        "render",
    ):
        for path in sorted((package / place).rglob("*.py")) or [package / place]:
            digest.update(f"{path.relative_to(package).as_posix()} {files.sha256(path)}\n".encode())
    for library in ("jinja2", "numpy", "tokenizers", "transformers"):
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str:
    """SHA-256 of the tokenizer as it works: its backend or vocabulary, and the parts its special tokens play.

    The backend does not know which token is BOS or EOS; what ends an answer, and templates, ask just that.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    roles = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    works = f"{type(tokenizer).__name__} {bool(tokenizer.split_special_tokens)}"
    return hashlib.sha256(f"{text}\0{roles}\0{works}".encode("utf-8", "surrogatepass")).hexdigest()


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
        files.make_folder(memo.parent)
        with suppress(FileExistsError, FileNotFoundError):  # another process writes it just now
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
