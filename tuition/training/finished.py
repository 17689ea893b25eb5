"""Whether a resume has anything left to do: a run that is finished and whole is not worked on again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tuition import files
from tuition.batch.corpus import data_sha256_now
from tuition.batch.prepared import tokenizer_sha256
from tuition.errors import UserError
from tuition.recipe import DataSettings, Recipe
from tuition.train.fingerprint import changed_settings, model_sha256, text_sha256
from tuition.train.folder import RunFolder
from tuition.training.material import read_tokenizer


def is_finished(folder: RunFolder, recipe: Recipe) -> bool:
    """The run came to its end, all that its end leaves is there and whole, and it is this run that is asked for.

    Args:
        recipe: as it is given now. What it asks for that the run did not have is for the resume to do or to refuse.

    Raises:
        UserError: run.json or recipe.yaml is damaged.
    """
    facts = folder.read_facts()
    return (
        facts.get("status") == "finished"
        and _is_whole(folder, facts)
        and not _is_changed(folder, facts, recipe)
        and not _has_other_contents(facts, recipe)
    )


def _is_whole(folder: RunFolder, facts: dict[str, Any]) -> bool:
    parts = [
        folder.recipe,
        folder.samples,
        folder.report,
        *([folder.general] if "forgetting" in facts else []),
    ]
    kept = next((kept for kept in (folder.adapter, folder.model) if kept.exists()), None)
    return kept is not None and all(part.exists() for part in parts) and not files.manifest_faults(kept)


def _is_changed(folder: RunFolder, facts: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a setting is another; what was found for `auto` is what `auto` asks for, and a folder may be moved."""
    found = facts.get("found_settings") or ()
    changed = changed_settings(folder.read_recipe(), recipe)
    return any(
        key != "output_dir" and not (now == "auto" and key in found) for key, (_, now) in changed.items()
    )


def _has_other_contents(facts: dict[str, Any], recipe: Recipe) -> bool:
    """Whether data, template, tokenizer or model are no more what was learned from, by name the same or not."""
    hashes = facts.get("hashes")
    if not isinstance(hashes, dict):
        return True
    return any(hashes.get(name) != now for name, now in _hashes_now(recipe))


def _hashes_now(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Those of run.json that are known without rendering; of what is gone, nothing can be learned, and none is told."""
    with suppress(UserError):
        yield "data", data_sha256_now(recipe.section(DataSettings))
    with suppress(UserError):
        tokenizer, template, _ = read_tokenizer(recipe)
        yield "template", text_sha256(template.source if template else "")
        yield "tokenizer", tokenizer_sha256(tokenizer)
        yield "model", model_sha256(recipe.model, recipe.revision)
