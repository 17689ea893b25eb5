"""Ways to learn less than all weights: one function and one row of `ADAPTERS` each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuition import files
from tuition.errors import UserError
from tuition.recipe import AdapterSettings
from tuition.train.adapterfolder import check_adapter
from tuition.train.model import one_line, set_stop_tokens


def full(model: Any, settings: AdapterSettings, new_tokens: Sequence[int]) -> Any:
    """Every weight learns."""
    model.requires_grad_(True)
    return model


def lora(model: Any, settings: AdapterSettings, new_tokens: Sequence[int]) -> Any:
    """LoRA (Hu et al. 2021) through peft; rows of new tokens are learned whole, in and out.

    Raises:
        UserError: `target_modules` names nothing in this model.
    """
    from peft import LoraConfig, get_peft_model

    targets = settings.target_modules
    config = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
        trainable_token_indices=_rows_of(model, new_tokens) or None,
        ensure_weight_tying=bool(new_tokens) and _is_tied(model),
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(
            f"the adapter does not fit the model ({' '.join(str(error).split())[:200]})",
            where="target_modules",
            next_step="Set target_modules: all-linear, or names of linear layers in this model",
        ) from error


ADAPTERS: dict[str, Callable[[Any, AdapterSettings, Sequence[int]], Any]] = {"full": full, "lora": lora}


def load_adapter(model: Any, folder: Path) -> Any:
    """The base model with the adapter of a run laid over it.

    Raises:
        UserError: the adapter is not safetensors, is damaged, or lacks a tensor.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    file = check_adapter(folder)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), use_safetensors=True, local_files_only=True)
        with safe_open(file, framework="pt") as stored:
            missing = sorted(set(get_peft_model_state_dict(adapted)) - set(stored.keys()))
    except Exception as error:  # damage ends in exceptions of several libraries
        raise UserError(
            f"the adapter cannot be loaded ({one_line(error)})", where=str(folder), next_step="Copy it again"
        ) from error
    missing = [name for name in missing if "lora_" in name or "token" in name]
    if missing:
        raise UserError(
            f"the adapter lacks {len(missing)} tensors, the first is {missing[0]}",
            where=str(folder),
            next_step="Copy it again; they would be left at their start values",
        )
    return adapted


def save_adapter(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    base: str,
    stop_ids: Sequence[int],
    revision: str | None = None,
) -> None:
    """Write the adapter as peft, transformers and vLLM load it, with the stop tokens that were learned.

    The base is named by its absolute path where it is a folder, so that the adapter finds it from anywhere.
    """
    resolved = str(Path(base).resolve()) if Path(base).is_dir() else base
    for config in model.peft_config.values():
        config.base_model_name_or_path = resolved
        config.revision = revision
    model.save_pretrained(str(folder))
    set_stop_tokens(model, tokenizer, stop_ids)
    model.generation_config.save_pretrained(str(folder))
    # peft leaves a form to fill in; a card that says nothing is worse than none
    files.write_text(folder / "README.md", _CARD.format(base=resolved))


_CARD = """---
base_model: {base}
library_name: peft
---

A LoRA adapter over `{base}`, trained with tuition. The run folder beside it holds the recipe, the
ledger of the data and the report.
"""


def _rows_of(model: Any, tokens: Sequence[int]) -> dict[str, list[int]]:
    """The embedding and head modules whose rows for `tokens` must be learned, as peft names them."""
    if not tokens:
        return {}
    rows = {_leaf_name(model, model.get_input_embeddings()): list(tokens)}
    if not _is_tied(model):
        rows[_leaf_name(model, model.get_output_embeddings())] = list(tokens)
    return rows


def _is_tied(model: Any) -> bool:
    return bool(model.get_input_embeddings().weight is model.get_output_embeddings().weight)


def _leaf_name(model: Any, wanted: Any) -> str:
    return str(next(name for name, module in model.named_modules() if module is wanted).split(".")[-1])
