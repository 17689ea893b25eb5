"""What fixes the result of a run, as hashes: a resume goes on only where they all agree."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tuition import files
from tuition.recipe import Recipe

# Settings that may change between sittings without changing the result.
_FREE = {
    "output_dir", "device", "micro_batch_size", "micro_batch_tokens", "activation_checkpointing",
    "share_prefixes",
    "save_every_steps", "eval_every_steps", "log_every_steps", "samples",
}  # fmt: skip


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def recipe_sha256(recipe: Recipe) -> str:
    """SHA-256 of the settings that decide the result."""
    settings = {k: v for k, v in recipe.model_dump(mode="json").items() if k not in _FREE}
    return text_sha256(json.dumps(settings, sort_keys=True))


def model_sha256(model: str, revision: str | None) -> str:
    """SHA-256 of a local model's weight files and configuration; of name and revision for a hub model."""
    folder = Path(model)
    if not folder.is_dir():
        return text_sha256(f"{model}@{revision}")
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        digest.update(path.name.encode())
        digest.update(files.sha256(path).encode())
    return digest.hexdigest()


def fingerprint_of(hashes: dict[str, str]) -> str:
    """One hash over all of them: the name of this run's result."""
    return text_sha256(json.dumps(hashes, sort_keys=True))
