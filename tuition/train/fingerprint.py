"""What fixes the result of a run, as hashes: a resume goes on only where they all agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuition import files
from tuition.batch import Plan
from tuition.errors import UserError
from tuition.recipe import Recipe

# Settings that may change between sittings without changing the result.
_FREE = {
    "output_dir", "device", "micro_batch_size", "micro_batch_tokens", "activation_checkpointing",
    "share_prefixes", "compile",
    "save_every_steps", "eval_every_steps", "log_every_steps", "samples", "keep", "keep_checkpoints",
    "not_finite", "allow_unproved", "heartbeat_seconds", "masters", "parallel", "stream_gb",
    "report_to", "keep_every_epoch", "average_checkpoints", "average_of", "max_forgetting",
}  # fmt: skip
# Names of what is hashed by its content: a file that was renamed is the same file.
_NAMES = {"data", "val_data", "replay", "model", "revision", "chat_template"}


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def recipe_sha256(recipe: Recipe) -> str:
    """SHA-256 of the settings that decide the result."""
    settings = {k: v for k, v in recipe.model_dump(mode="json").items() if k not in _FREE | _NAMES}
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


def order_sha256(plan: Plan, step: int) -> str:
    """SHA-256 of the order in which the examples around this step come, see `Plan.order_around`."""
    return hashlib.sha256(plan.order_around(step).tobytes()).hexdigest()


def refuse_changed(
    written: Any, after: Mapping[str, str], settings: Mapping[str, list[Any]], folder: str
) -> None:
    """A resume goes on only with the very same data, template, tokenizer, model and recipe.

    Args:
        written: the hashes that the run's folder names, whatever it holds.
        settings: changed settings with their value before and now, as `changed_settings` gives them.

    Raises:
        UserError: naming each that changed, with both hashes.
    """
    before = written if isinstance(written, dict) else {}
    changed = [
        f"{name} was {str(before.get(name, 'unknown'))[:12]} and is {after[name][:12]}"
        for name in after
        if before.get(name) != after[name]
    ]
    if changed:
        bound = {k: v for k, v in settings.items() if k not in _FREE | _NAMES}
        named = "; ".join(f"{key} was {was!r} and is {now!r}" for key, (was, now) in bound.items())
        raise UserError(
            f"cannot be resumed, because it is not the same run any more: {'; '.join(changed)}"
            + (f" ({named})" if named else ""),
            where=folder,
            next_step="Put it back as it was, or start a new run with another output_dir",
        )


def changed_settings(before: Mapping[str, Any], recipe: Recipe) -> dict[str, list[Any]]:
    """Key → [value before, value now] of the settings that differ."""
    now = recipe.model_dump(mode="json")
    return {k: [before[k], now[k]] for k in now if k in before and before[k] != now[k]}
