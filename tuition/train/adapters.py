"""Ways to learn less than all weights: one function and one row of `ADAPTERS` each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tuition import files
from tuition.counting import counted
from tuition.errors import UserError, one_line
from tuition.recipe import AdapterSettings, LearnedSettings
from tuition.train.adapterfolder import WEIGHTS, check_adapter, fault_of_pattern
from tuition.train.libraries import peft
from tuition.train.model import refuse_no_numbers
from tuition.train.quantised import quantise
from tuition.train.tensorfile import tensor_pieces
from tuition.train.writing import set_stop_tokens


def full(model: Any, settings: AdapterSettings, new_tokens: Sequence[int]) -> Any:
    """Every weight learns."""
    model.requires_grad_(True)
    return model


def lora(model: Any, settings: AdapterSettings, new_tokens: Sequence[int]) -> Any:
    """LoRA (Hu et al. 2021) through peft; rows of new tokens are learned whole, in and out.

    With rsLoRA (Kalajdzievski 2023), DoRA (Liu et al. 2024) or a start from the weights' own strongest
    directions (PiSSA, Meng et al. 2024), where the settings say so.

    Raises:
        UserError: `target_modules` names nothing in this model.
    """
    targets = settings.target_modules
    adapted = _with_peft(
        model,
        new_tokens,
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        init_lora_weights="pissa" if settings.init_lora_weights == "pissa" else True,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    if settings.init_lora_weights == "pissa":
        adapted.pissa_start = _lora_tensors(adapted)
    return adapted


def qlora(model: Any, settings: AdapterSettings, new_tokens: Sequence[int]) -> Any:
    """LoRA over a base in 4 bits (Dettmers et al. 2023)."""
    return lora(quantise(model), settings, new_tokens)


def rows_of_new_tokens(model: Any, settings: AdapterSettings, new_tokens: Sequence[int]) -> Any:
    """Only the rows of the tokens that the chat template brought, in and out.

    Raises:
        UserError: it brought none.
    """
    if not new_tokens:
        raise UserError(
            "the tokenizer knew every token of the chat template, so there is no new one to learn",
            where="method: new_tokens",
            next_step="Set method: lora or full",
        )
    return _with_peft(model, new_tokens, target_modules="dummy-target-modules")  # peft's word for none


ADAPTERS: dict[str, Callable[[Any, AdapterSettings, Sequence[int]], Any]] = {
    "full": full,
    "lora": lora,
    "qlora": qlora,
    "new_tokens": rows_of_new_tokens,
}


def choose_learned(model: Any, settings: LearnedSettings) -> None:
    """Of the weights that the method lets learn, keep those that `train_only` names and `freeze` does not.

    Raises:
        UserError: a pattern fits no weight, can take forever, or nothing is left to learn.
    """
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if settings.train_only:
        chosen = _named(learning, settings.train_only, "train_only")
        for name in learning.keys() - chosen:
            learning.pop(name).requires_grad_(False)
    for name in _named(learning, settings.freeze, "freeze"):
        learning.pop(name).requires_grad_(False)
    if not learning:
        raise UserError("no weight is left to learn", where="freeze", next_step="Name fewer weights")


def round_frozen(model: Any, dtype: torch.dtype) -> None:
    """Weights that do not learn need no masters: from here on they are what the model computes with."""
    for p in model.parameters():
        if not p.requires_grad and p.is_floating_point():
            p.data = p.data.to(dtype)


def _named(learning: Mapping[str, Any], patterns: Sequence[str], key: str) -> set[str]:
    """The weights whose names any of the patterns fits."""
    chosen: set[str] = set()
    for pattern in patterns:
        if fault := fault_of_pattern(pattern):
            raise UserError(f"'{pattern}' {fault}", where=key, next_step="Write a simpler expression")
        fitting = {name for name in learning if re.search(pattern, name)}
        if not fitting:
            some = ", ".join(list(learning)[:3])
            raise UserError(
                f"'{pattern}' fits no weight that learns",
                where=key,
                next_step=f"Weights are called as in {some}",
            )
        chosen |= fitting
    return chosen


def _with_peft(model: Any, new_tokens: Sequence[int], **config: Any) -> Any:
    library = peft()
    try:
        return library.get_peft_model(
            model,
            library.LoraConfig(
                task_type="CAUSAL_LM",
                trainable_token_indices=_rows_of(model, new_tokens) or None,
                ensure_weight_tying=bool(new_tokens) and _is_tied(model),
                **config,
            ),
        )
    except ValueError as error:
        raise UserError(
            f"the adapter does not fit the model ({one_line(error)})",
            where="target_modules",
            next_step=(
                "Name linear layers of this model, without those"
                if config.get("target_modules") == "all-linear"
                else "Set target_modules: all-linear, or names of linear layers in this model"
            ),
        ) from error


def load_adapter(model: Any, folder: Path) -> Any:
    """The base model with the adapter of a run laid over it.

    Raises:
        UserError: the adapter is not safetensors, is damaged, or lacks a tensor.
    """
    from safetensors import safe_open

    file = check_adapter(folder)
    try:
        adapted = peft().PeftModel.from_pretrained(
            model, str(folder), use_safetensors=True, local_files_only=True
        )
        with safe_open(file, framework="pt") as stored:
            missing = sorted(set(peft().get_peft_model_state_dict(adapted)) - set(stored.keys()))
    except Exception as error:  # damage ends in exceptions of several libraries
        raise UserError(
            f"the adapter cannot be loaded ({one_line(error)})", where=str(folder), next_step="Copy it again"
        ) from error
    missing = [name for name in missing if "lora_" in name or "token" in name]
    if missing:
        raise UserError(
            f"the adapter lacks {counted(len(missing), 'tensor')}, the first is {missing[0]}",
            where=str(folder),
            next_step="Copy it again; they would be left at their start values",
        )
    laid_over = (entry for entry in adapted.named_parameters() if "lora_" in entry[0] or "token" in entry[0])
    refuse_no_numbers(laid_over, str(folder))
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
    if getattr(model, "pissa_start", None):
        _save_pissa(model, folder)
    else:
        model.save_pretrained(str(folder))
    set_stop_tokens(model, tokenizer, stop_ids)
    model.generation_config.save_pretrained(str(folder))
    # peft leaves a form to fill in; a card that says nothing is worse than none
    files.write_text(folder / "README.md", _CARD.format(base=resolved))


def _save_pissa(model: Any, folder: Path) -> None:
    """As an ordinary adapter over the unchanged base, of twice the rank: what is there now less the start.

    The run took the start out of the base; nobody else's base has that.
    """
    (config,) = model.peft_config.values()
    before = config.r, config.lora_alpha, config.init_lora_weights
    now, start = peft().get_peft_model_state_dict(model), model.pissa_start
    for name, tensor in start.items():
        was = tensor.to(now[name].device)
        pair = (now[name], was) if ".lora_A." in name else (now[name], -was)
        now[name] = torch.cat(pair, dim=0 if ".lora_A." in name else 1).contiguous()
    scale = math.sqrt(2) if config.use_rslora else 2
    config.r, config.lora_alpha, config.init_lora_weights = 2 * config.r, scale * config.lora_alpha, True
    try:
        model.save_pretrained(str(folder))  # the configuration, and weights that the next line replaces
        numbers = {name: tensor.detach().cpu().contiguous() for name, tensor in now.items()}
        files.write_new(folder / WEIGHTS, tensor_pieces(numbers))
    finally:
        config.r, config.lora_alpha, config.init_lora_weights = before


def _lora_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the two matrices of every adapted layer, as peft names them in a file."""
    state = peft().get_peft_model_state_dict(model)
    return {n: t.detach().clone() for n, t in state.items() if ".lora_A." in n or ".lora_B." in n}


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
