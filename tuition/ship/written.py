"""What stands in the files of an export, looked at without loading a model: shards, dtypes, tokenizer files.

A loader forgives much of this in silence (a tensor of another dtype is cast, a tokenizer file of another
model is read), so each is named here by its file before a fresh process loads the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open

from tuition.counting import counted
from tuition.errors import UserError, one_line
from tuition.evaluate.load import Answerer
from tuition.recipe import ModelSettings
from tuition.render import load_tokenizer
from tuition.train.tokenizerfiles import readable_by_version_4
from tuition.train.writing import TOKENIZER_FILES

_STORED = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8", "F8_E5M2": "float8",
}  # fmt: skip


def refuse(where: Path, what: str) -> NoReturn:
    """Say that an export is not what was trained.

    Args:
        where: the file that says so, or the whole folder.

    Raises:
        UserError: always.
    """
    raise UserError(
        what,
        where=where.name if where.suffix else "the export",
        next_step="Nothing was exported; report this, with the model's name, if it happens again",
    )


def check_files(folder: Path, answerer: Answerer, dtype: torch.dtype) -> None:
    """Whether every file is there, holds the tensors it should in the dtype asked for, and the base's tokenizer.

    Raises:
        UserError: one is missing or altered; it is named.
    """
    _check_there(folder)
    _check_shards(folder)
    _check_dtypes(folder, str(dtype).removeprefix("torch."))
    _check_tokenizer_files(folder, answerer)


def _check_there(folder: Path) -> None:
    configuration = "adapter_config.json" if _is_adapter(folder) else "config.json"
    for name in (configuration, "generation_config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            refuse(folder / name, "is missing from what was written")


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists()


def _check_shards(folder: Path) -> None:
    """The index, where there is one, promises tensors: each must stand in the shard that it names."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        whole = folder / ("adapter_model.safetensors" if _is_adapter(folder) else "model.safetensors")
        if not whole.is_file():
            refuse(whole, "is missing: there are no weights")
        return
    promised: dict[str, list[str]] = {}
    for tensor, shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
        promised.setdefault(shard, []).append(tensor)
    for shard, tensors in promised.items():
        if not (folder / shard).is_file():
            refuse(
                folder / shard,
                f"this shard is missing, with {counted(len(tensors), 'tensor')}: first {tensors[0]}",
            )
        absent = sorted(set(tensors) - {name for name, _ in _tensors_of(folder / shard)})
        if absent:
            refuse(
                folder / shard,
                f"{counted(len(absent), 'tensor is', 'tensors are')} missing from this shard: first {absent[0]}",
            )


def _check_dtypes(folder: Path, wanted: str) -> None:
    for file in sorted(folder.glob("*.safetensors")):
        for name, stored in _tensors_of(file):
            found = _STORED.get(stored)
            if found is not None and found != wanted:
                refuse(file, f"{name} is stored in {found}, and the export is of {wanted}")
    config = folder / "config.json"
    said = json.loads(config.read_text(encoding="utf-8")).get("dtype") if config.exists() else None
    if isinstance(said, str) and said != wanted:
        refuse(config, f"it says dtype: {said}, and the weights are stored in {wanted}")


def _tensors_of(file: Path) -> Iterator[tuple[str, str]]:
    """Name and stored dtype of each tensor, from the head of the file alone."""
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  it is no dictionary
                yield name, tensors.get_slice(name).get_dtype()
    except Exception as error:  # damage ends in exceptions of several kinds
        refuse(file, f"cannot be read ({one_line(error)})")


def _check_tokenizer_files(folder: Path, answerer: Answerer) -> None:
    source = tokenizer_source(answerer)
    for name in TOKENIZER_FILES:
        if source is None or name == "chat_template.jinja" or not (source / name).is_file():
            continue
        if not (folder / name).is_file():
            refuse(folder / name, "this file of the base model's tokenizer is missing")
        same = (
            _settings(folder / name) == _settings(source / name)
            if name == "tokenizer_config.json"
            else (folder / name).read_bytes() == (source / name).read_bytes()
        )
        if not same:
            refuse(folder / name, "it differs from the base model's, and no token was added in training")


def _settings(file: Path) -> dict[str, Any]:
    """What a tokenizer_config.json says; its chat template is looked at by its own check."""
    said = readable_by_version_4(json.loads(file.read_text(encoding="utf-8")))
    return {key: value for key, value in said.items() if key != "chat_template"}


def base_of_answerer(answerer: Answerer) -> ModelSettings:
    """The model that this one came from."""
    return ModelSettings(model=answerer.base, revision=answerer.revision, trust_remote_code=answerer.trusted)


def vocabulary_changed(tokenizer: Any, base: ModelSettings) -> bool:
    """Whether training added tokens to the base's."""
    before = load_tokenizer(base.model, base.revision, trusted=base.trust_remote_code)
    return len(tokenizer) != len(before)


def tokenizer_source(answerer: Answerer) -> Path | None:
    """The folder whose tokenizer files an export holds as they are; None where they are written anew."""
    source = Path(answerer.base)
    if not source.is_dir() or vocabulary_changed(answerer.tokenizer, base_of_answerer(answerer)):
        return None
    return source
