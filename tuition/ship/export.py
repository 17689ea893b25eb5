"""Exports: one function and one row of `EXPORTS` each. What was written is loaded again and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tuition import files
from tuition.errors import UserError
from tuition.evaluate.load import Answerer
from tuition.recipe import ModelSettings
from tuition.render import load_tokenizer
from tuition.train.adapters import save_adapter
from tuition.train.model import LoadedModel, evaluating, save_model, save_tokenizer, set_stop_tokens

# The largest difference of a logit between what was trained and what was written, as a share of the
# largest logit (at least 1): rounding grows with the numbers.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}
_PROBE_TOKENS = 48


def export_hf(answerer: Answerer, folder: Path, dtype: torch.dtype) -> float:
    """A plain transformers folder; a LoRA adapter is merged into its base.

    Returns:
        the largest difference of a logit on the probe.
    """
    probe = _probe_ids(answerer)
    expected = probe_logits(answerer.loaded, probe)
    model = answerer.loaded.model
    if answerer.adapted:
        model = model.merge_and_unload(safe_merge=True)
    write_model_folder(
        model.to(dtype),
        answerer.tokenizer,
        folder,
        base=ModelSettings(
            model=answerer.base, revision=answerer.revision, trust_remote_code=answerer.trusted
        ),
        stop_ids=answerer.renderer.stop_ids,
        plain=answerer.renderer.template is None,
    )
    return _compare_with_reloaded(folder, probe, expected, dtype, code=answerer.trusted is not None)


def export_adapter(answerer: Answerer, folder: Path, dtype: torch.dtype) -> float:
    """The LoRA adapter as peft, transformers and vLLM load it over its base."""
    if not answerer.adapted:
        raise UserError(
            "was trained in full, so it has no adapter", where=answerer.name, next_step="Use --format hf"
        )
    save_adapter(
        answerer.loaded.model,
        answerer.tokenizer,
        folder,
        base=answerer.base,
        stop_ids=answerer.renderer.stop_ids,
        revision=answerer.revision,
    )
    plain = answerer.renderer.template is None
    save_tokenizer(answerer.tokenizer, folder, base=answerer.base, vocabulary_changed=True, plain=plain)
    return 0.0


EXPORTS: dict[str, Callable[[Answerer, Path, torch.dtype], float]] = {
    "hf": export_hf,
    "adapter": export_adapter,
}


def export(answerer: Answerer, to: Path, *, format: str, dtype: torch.dtype) -> float:
    """Write `to` in the format given, appearing at once and whole, or not at all.

    Raises:
        UserError: the folder exists, the format is unknown, or what was written answers differently.
    """
    if format not in EXPORTS:
        raise UserError(f"unknown format '{format}'", next_step=f"Choose one of: {', '.join(EXPORTS)}")
    if to.exists():
        raise UserError("exists already", where=str(to), next_step="Name a folder that does not exist yet")
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = files.fresh_folder(to.with_name(f".{to.name}.tmp"))
    try:
        difference = EXPORTS[format](answerer, temporary, dtype)
        files.publish_folder(temporary, to)
    finally:
        if temporary.exists():
            files.remove_folder(temporary)
    return difference


def write_model_folder(
    model: Any, tokenizer: Any, folder: Path, *, base: ModelSettings, stop_ids: tuple[int, ...], plain: bool
) -> None:
    """Weights, configuration, tokenizer, chat template and the stop tokens that were learned.

    Args:
        base: the model that this one came from.
        plain: the model learned plain text, so it is shipped without a chat template.
    """
    set_stop_tokens(model, tokenizer, stop_ids)
    save_model(model, folder, config_dropout_of=base.model)
    original = load_tokenizer(base.model, base.revision, trusted=base.trust_remote_code)
    changed = len(tokenizer) != len(original)
    save_tokenizer(tokenizer, folder, base=base.model, vocabulary_changed=changed, plain=plain)


def probe_logits(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    """(tokens, vocabulary) float32 on the CPU: what the model says to a probe row."""
    with evaluating(loaded.model):
        logits: torch.Tensor = loaded.model(input_ids=ids.to(loaded.device), use_cache=False).logits[0]
    return logits.float().cpu().clone()


def _compare_with_reloaded(
    folder: Path, probe: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, *, code: bool
) -> float:
    """The largest difference; `code` says that the user trusts the model's own code, which was saved with it."""
    from transformers import AutoModelForCausalLM

    reloaded = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, trust_remote_code=code, local_files_only=True
    )
    got = probe_logits(LoadedModel(reloaded, torch.device("cpu"), dtype), probe)
    difference = float((got - expected).abs().max())
    if not difference <= TOLERANCES[dtype] * max(1.0, float(expected.abs().max())):
        raise UserError(
            f"what was written answers differently from what was trained (a logit differs by {difference:.3g})",
            where=str(folder),
            next_step="Nothing was exported; export in float32, and report this if it stays",
        )
    return difference


def _probe_ids(answerer: Answerer) -> torch.Tensor:
    """(1, tokens): a fixed row of ordinary tokens."""
    vocabulary = answerer.loaded.model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary, (1, _PROBE_TOKENS), generator=generator)
