"""The door of a model folder: what lies in it is looked at before any library opens it.

A model is data: tensors, numbers and a tokenizer. A folder that holds programs, points outside itself or
asks for absurd sizes is refused here by name. Nothing of it is run, and nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuition.errors import UserError
from tuition.render.modelcode import may_run_code
from tuition.render.modelfiles import (
    OBJECTS,
    check_growth,
    check_numbers,
    check_tensors,
    read_object,
    refuse,
    shards_of,
)

_OF_NUMBERS = ("config.json", "generation_config.json", "adapter_config.json")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".joblib", ".npy")
_READ = (".json", ".safetensors", ".jinja", ".txt", ".model", ".tiktoken", ".py")
_LARGEST = {".json": 256 << 20, ".jinja": 1 << 20, ".txt": 64 << 20, ".model": 64 << 20, ".py": 16 << 20}
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # a file of the hub's cache is named by its hash
# What a tokenizer and a configuration need; weights are fetched only where they are loaded.
_SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.py"]
_NOT_OURS = ["*/*", "consolidated*", "training_args*"]


class Opened:
    """A model folder that was looked at.

    Attributes:
        path: the local folder; that of the hub's cache for a name on the hub.
        code: True where it holds code that the user trusts: libraries may run it.
    """

    def __init__(self, path: Path, code: bool) -> None:
        self.path = path
        self.code = code

    @property
    def arguments(self) -> dict[str, Any]:
        """What every `from_pretrained` is called with: this folder only, and code only where it is trusted."""
        return {"trust_remote_code": self.code, "local_files_only": True}


def open_model(
    model: str, revision: str | None = None, *, weights: bool = False, trusted: str | None = None
) -> Opened:
    """Look at a local folder, or at the folder that a hub name is fetched to.

    Args:
        weights: its tensors are to be loaded too, so they are checked (and fetched).
        trusted: the setting `trust_remote_code`.

    Raises:
        UserError: there is no such model, or something in it is refused; the file is named.
    """
    check_local_folder(model)
    path = Path(model)
    if not (path / "config.json").exists() and (path / "snapshots").is_dir():
        snapshot = next(iter(sorted(path.glob("snapshots/*"))), path / "snapshots/COMMIT")
        raise refuse(
            path, "is a repository of the hub's cache, not a model", f"Name its snapshot: {snapshot}"
        )
    if not path.is_dir():
        path = _fetch(model, revision, weights=weights)
    check_entries(path)
    _check_objects(path)
    code = may_run_code(path, model, trusted)
    if weights:
        check_weights(path)
    return Opened(path, code)


def check_local_folder(model: str) -> None:
    """Refuse a path that is not a folder, before a hub is asked for it by mistake.

    Raises:
        UserError: the name looks like a path and is missing, or is a file.
    """
    if "\0" in model or "\n" in model:
        raise UserError(
            "no model can have that name", where=repr(model)[:80], next_step="Give a folder or a hub name"
        )
    path = Path(model)
    try:
        is_file, is_missing = path.exists() and not path.is_dir(), not path.exists()
    except OSError as error:  # a name too long for the disk
        raise UserError(
            f"no model can have that name ({error.strerror})",
            where=f"{model[:80]}…",
            next_step="Give a folder or a hub name",
        ) from None
    if is_file:
        raise UserError("the model is a file, not a folder", where=model, next_step="Name its folder")
    looks_local = model.startswith((".", "/", "~", "-")) or model.count("/") > 1 or "\\" in model
    if (looks_local or not model) and is_missing:
        raise UserError(
            "no such model folder",
            where=model,
            next_step="Give a local folder or a hub name such as owner/name",
        )


def check_weights(folder: Path) -> None:
    """Refuse a folder without sound safetensors.

    Raises:
        UserError: only pickles are there, or a file that the index names is missing, outside or damaged.
    """
    if (folder / "adapter_config.json").exists():
        raise refuse(
            folder / "adapter_config.json",
            "the folder is an adapter, whose weights belong over another model",
            "Merge it first: tuition export FOLDER --format hf --to DIR",
        )
    shards = shards_of(folder)
    if not shards:
        pickles = unread_pickles(folder)
        if pickles:
            raise refuse(
                folder / pickles[0],
                "is a pickle, which can run code when it is read, and there is no model.safetensors beside it",
                "Name a revision that has safetensors, or have it saved again with safe_serialization=True",
            )
        raise UserError(
            "the folder has no model.safetensors",
            where=str(folder),
            next_step="Name the folder that save_pretrained wrote, or a run's model/ folder",
        )
    check_tensors(folder, shards)


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer whose normalizer makes a long text of every character, again and again.

    Raises:
        UserError: naming tokenizer.json.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        check_growth(path)


def unread_pickles(folder: Path) -> list[str]:
    """Files that could run code when read. They are never opened."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICKLES and p.is_file())


# --- what may lie in the folder ---


def check_entries(folder: Path) -> None:
    """Every file that a library may open is a regular one, within the folder and of a size that can be.

    Raises:
        UserError: naming the file.
    """
    home, blobs = folder.resolve(), _blobs_of(folder)
    for entry in _entries(folder):
        target = _target(entry)
        if not target.is_relative_to(home) and target.parent not in blobs:
            raise refuse(
                entry,
                "points outside the model folder",
                "Put the file itself there, or make a copy without links: cp -rL FOLDER COPY",
            )
        if not entry.exists():
            raise refuse(entry, "is a link to nothing", "Copy or download the model again")
        if not entry.is_file():
            raise refuse(entry, "is not a regular file", "Remove it, or put the file itself there")
        largest = _LARGEST.get(entry.suffix)
        if largest is not None and entry.stat().st_size > largest:
            raise refuse(
                entry,
                f"is larger than {largest >> 20} MiB, which no model needs",
                "Copy or download the model again",
            )


def _entries(folder: Path) -> Iterator[Path]:
    """Top-level files of the kinds that libraries open, the templates below, and the programs."""
    for entry in sorted(folder.iterdir()):
        if entry.suffix in _READ and not entry.is_dir():
            yield entry
    yield from sorted(folder.glob("additional_chat_templates/*.jinja"))
    yield from sorted(folder.glob("*/*.py"))


def _target(entry: Path) -> Path:
    try:
        return entry.resolve()
    except (OSError, RuntimeError):
        raise refuse(entry, "is a link to itself", "Copy or download the model again") from None


def _blobs_of(folder: Path) -> set[Path]:
    """Where files of a folder may lie besides: with the hub's cache, in the `blobs` of one repository.

    That is the repository whose snapshot the folder is, or a part of one; or the only one that the links of an
    ordinary folder lead to, as the hub's downloader laid it (`--local-dir`).
    """
    beside = set(_blobs_beside(folder.resolve()))
    linked = {_target(entry) for entry in _entries(folder) if entry.is_symlink()}
    elsewhere = {
        target.parent for target in linked if _BLOB.fullmatch(target.name) and _holds_blobs(target.parent)
    }
    return beside or (elsewhere if len(elsewhere) == 1 else set())


def _blobs_beside(folder: Path) -> Iterator[Path]:
    """The `blobs` of the repository that a folder is a snapshot of, or a part of one."""
    for place in (folder, *folder.parents):
        blobs = place.parent.parent / "blobs"
        if place.parent.name == "snapshots" and _holds_blobs(blobs):
            yield blobs


def _holds_blobs(folder: Path) -> bool:
    return folder.name == "blobs" and folder.parent.name.startswith("models--")


def _check_objects(folder: Path) -> None:
    for name in OBJECTS:
        path = folder / name
        if not path.exists():
            continue
        content = read_object(path)
        if name in _OF_NUMBERS:
            check_numbers(path, content)
            _refuse_wrong_ids(path, content)
        if name == "config.json":
            _refuse_kernels(path, content)


def _refuse_wrong_ids(path: Path, content: dict[str, Any]) -> None:
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = content.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(token) is int and -1 <= token < 2**31 for token in ids):
            raise refuse(path, f"{key} is {str(value)[:60]}, which is no token", "Copy the model again")


def _refuse_kernels(path: Path, config: dict[str, Any]) -> None:
    """Configurations may name compiled code of the hub, for attention and for quantised weights."""
    for part in [config, *(value for value in config.values() if isinstance(value, dict))]:
        for key, value in part.items():
            named = value.values() if isinstance(value, dict) else [value]
            if key.endswith("_implementation") and any("/" in str(name) for name in named):
                raise refuse(
                    path,
                    f"asks for a kernel from the hub ({key}: {str(value)[:80]})",
                    f"Remove {key} from it; tuition chooses the attention itself",
                )
        if part.get("use_kernels"):
            raise refuse(path, "asks for kernels from the hub (use_kernels)", "Remove use_kernels from it")
        if part.get("quantization_config"):
            raise refuse(
                path,
                "its weights are quantised (quantization_config), which needs kernels from elsewhere and cannot be trained",
                "Name the model that it was quantised from",
            )
        weights = part.get("transformers_weights")
        if weights is not None and Path(str(weights)).name != weights:
            raise refuse(
                path,
                f"its weights point outside the model folder ({str(weights)[:80]})",
                "Copy the model again",
            )


# --- the hub ---


def _fetch(model: str, revision: str | None, *, weights: bool) -> Path:
    """The folder in the hub's cache. Pickles are not downloaded.

    Raises:
        UserError: the hub has no such model, or does not answer and the cache has none.
    """
    from huggingface_hub import snapshot_download

    try:
        path = Path(
            snapshot_download(model, revision=revision, allow_patterns=_SMALL, ignore_patterns=_NOT_OURS)
        )
        if weights:
            shards = shards_of(path) or [path / "model.safetensors"]
            names = [shard.name for shard in shards]
            path = Path(snapshot_download(model, revision=path.name, allow_patterns=names))
    except UserError:
        raise
    except Exception as error:  # network, permission, names: the hub's library has many exceptions
        raise UserError(
            f"there is no such folder, and the hub {_no(error)}",
            where=model,
            next_step="Check the spelling, the network and your login, or give a local folder",
        ) from None
    return path


def _no(error: Exception) -> str:
    """Why the hub gave nothing, in a few words."""
    words = " ".join(str(error).split())
    if any(sign in words for sign in ("Name or service not known", "ConnectError", "outgoing traffic")):
        return "could not be reached"
    return f"gives no such model ({words.split('. ')[0][:200] or type(error).__name__})"
