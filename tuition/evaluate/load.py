"""A model that answers: from a run folder, an adapter, a model folder or a hub name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from tuition import starter
from tuition.errors import UserError
from tuition.recipe import ModelSettings, RenderSettings, load_recipe
from tuition.render import ChatTemplate, Renderer, choose_template, load_tokenizer, on_day
from tuition.train.adapterfolder import check_adapter, read_adapter
from tuition.train.adapters import load_adapter
from tuition.train.model import (
    LoadedModel,
    choose_device,
    choose_dtype,
    context_length,
    fit_embeddings,
    load_config,
    load_model,
    quiet_transformers,
)
from tuition.train.naming import lay_over, run_of, step_of
from tuition.train.quantised import dequantise, quantise
from tuition.train.writing import set_stop_tokens, stop_tokens_in, stop_tokens_of

_LONGEST_WITHOUT_LIMIT = 8192


@dataclass(slots=True)
class Answerer:
    """A model ready to answer, with the renderer that writes its prompts as training did.

    Attributes:
        name: where it lies: a folder or a hub name.
        base: the folder or name that its weights, or those under its adapter, came from.
        revision: of a hub name.
        adapted: True where a LoRA adapter lies over the base.
        trusted: the model's own code that may run; see `trust_remote_code`.
        rounded: True where the base under the adapter was held in 4 bits: it has the rounded numbers here.
    """

    name: str
    base: str
    revision: str | None
    loaded: LoadedModel
    tokenizer: Any
    renderer: Renderer
    adapted: bool
    trusted: str | None
    rounded: bool = False

    @property
    def shown(self) -> str:
        """What the user calls it."""
        return starter.display_name(self.name)


def load_answerer(
    name: str,
    *,
    device: str = "auto",
    template: ChatTemplate | Literal["own"] | None = "own",
    revision: str | None = None,
    trusted: str | None = None,
) -> Answerer:
    """Load what `name` means: a run folder, an adapter folder, a model folder or a hub name.

    Args:
        template: how prompts are written; `own`: as the run was trained, or as the tokenizer's own
            template says, or plain text where there is none.
        revision: of a hub name.
        trusted: as `trust_remote_code`, given anew: the recipe in a folder trusts nothing by itself.

    Raises:
        UserError: there is nothing of the kind, or the run has no model yet.
    """
    quiet_transformers()
    wish = _Wish(device, template, trusted)
    if run_of(name).holds_a_run():
        return _load_run(name, wish)
    if (Path(name) / "adapter_config.json").exists():
        check_adapter(Path(name))
        return _load(name, _Source(name, adapter_base=_base_of_adapter(Path(name), trusted)), wish)
    return _load(name, _Source(name, revision=revision), wish)


@dataclass(frozen=True, slots=True)
class _Wish:
    """How a model is to answer; see `load_answerer`."""

    device: str
    template: ChatTemplate | Literal["own"] | None
    trusted: str | None


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a model lies.

    Attributes:
        folder: or hub name, of its tokenizer and of its weights or its adapter.
        adapter_base: the model under the adapter; None: there is no adapter.
        revision: of a hub name.
        held_in: the dtype from which the base was rounded to 4 bits; None: it was not.
        day: that its template is told; auto: today.
    """

    folder: str
    adapter_base: ModelSettings | None = None
    revision: str | None = None
    held_in: str | None = None
    day: str = "auto"


def _load_run(name: str, wish: _Wish) -> Answerer:
    """The model that a run kept, or the run as it was at the checkpoint that is named."""
    folder = run_of(name)
    folder.refuse_foreign()
    recipe = load_recipe(folder.recipe)
    source = _Source(
        str(folder.kept_model()),
        adapter_base=_base(recipe.model, recipe.revision, wish.trusted) if recipe.adapted else None,
        held_in=recipe.dtype if recipe.method == "qlora" else None,
        day=recipe.template_date,
    )
    if recipe.chat_template == "none" and wish.template == "own":
        wish = replace(wish, template=None)
    answerer = _load(name, source, wish)
    if step_of(name) is not None:
        lay_over(answerer.loaded.model, name, pissa=recipe.init_lora_weights == "pissa")
    return answerer


def span_markers_of(name: str) -> tuple[str, str] | None:
    """What stands around spans in the rows of a run that learned spans; None for every other model."""
    folder = run_of(name)
    recipe = load_recipe(folder.recipe) if folder.holds_a_run() else None
    return recipe.span_markers if recipe is not None and recipe.train_on == "spans" else None


def base_named_by(name: str) -> tuple[str, str | None] | None:
    """The model, and its revision, that a run or an adapter was trained from; None for a model by itself."""
    folder = run_of(name)
    if folder.holds_a_run():
        recipe = load_recipe(folder.recipe)
        return recipe.model, recipe.revision
    if (Path(name) / "adapter_config.json").exists():
        settings = _base_of_adapter(Path(name), None)
        return settings.model, settings.revision
    return None


def _base_of_adapter(folder: Path, trusted: str | None) -> ModelSettings:
    said = read_adapter(folder)
    base, revision = said.get("base_model_name_or_path"), said.get("revision")
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise UserError(
            "names no base model",
            where=str(folder / "adapter_config.json"),
            next_step="Write base_model_name_or_path into it",
        )
    return _base(base, revision, trusted)


def _base(model: str, revision: str | None, trusted: str | None) -> ModelSettings:
    try:
        return ModelSettings(model=model, revision=revision, trust_remote_code=trusted)
    except ValidationError:
        raise UserError(
            f"'{trusted}' names no code",
            where="trust_remote_code",
            next_step="Give NAME@COMMIT or FOLDER@sha256:SUM, as the refusal prints it",
        ) from None


def _load(name: str, source: _Source, wish: _Wish) -> Answerer:
    base = source.adapter_base or _base(source.folder, source.revision, wish.trusted)
    config = load_config(base.model, base.revision, trusted=wish.trusted)
    tokenizer = load_tokenizer(source.folder, source.revision, trusted=wish.trusted)
    device = choose_device(wish.device)
    dtype = choose_dtype("auto", device)
    model = _model(source, base, config, tokenizer, device, dtype)
    template = _own_template(tokenizer, source.day) if wish.template == "own" else wish.template
    renderer = _renderer(tokenizer, config, template)
    renderer.recall({"stop_ids": stop_tokens_of(model), "arguments_as_text": False})
    return Answerer(
        name=name,
        base=base.model,
        revision=base.revision,
        loaded=LoadedModel(model.eval(), device, dtype),
        tokenizer=tokenizer,
        renderer=renderer,
        adapted=source.adapter_base is not None,
        trusted=wish.trusted,
        rounded=source.held_in is not None,
    )


def _model(
    source: _Source,
    base: ModelSettings,
    config: Any,
    tokenizer: Any,
    device: torch.device,
    dtype: torch.dtype,
) -> Any:
    """The weights, with the adapter laid over them where there is one."""
    if source.held_in is None:
        model = load_model(base, config, device=device, dtype=dtype)
    else:
        held_in = choose_dtype(source.held_in, device)
        before = load_model(base, config, device=choose_device("cpu"), dtype=held_in)
        model = dequantise(quantise(before)).to(device, dtype)
    if source.adapter_base is not None:
        fit_embeddings(model, tokenizer)
        model = load_adapter(model, Path(source.folder)).to(device)
        set_stop_tokens(model, tokenizer, stop_tokens_in(Path(source.folder)))
    return model


def _own_template(tokenizer: Any, day: str) -> ChatTemplate | None:
    template = choose_template("auto", tokenizer) if tokenizer.chat_template else None
    return template if day == "auto" else on_day(template, day)


def _renderer(tokenizer: Any, config: Any, template: ChatTemplate | None) -> Renderer:
    positions = context_length(config)
    longest = positions or _LONGEST_WITHOUT_LIMIT
    settings = RenderSettings()
    return Renderer.from_settings(tokenizer, template, settings, max_length=longest, positions=positions)
