"""A model that answers: from a run folder, an adapter, a model folder or a hub name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.errors import UserError
from tuition.recipe import ModelSettings, Recipe, RenderSettings, load_recipe
from tuition.render import Renderer, choose_template, load_tokenizer
from tuition.train.adapters import load_adapter
from tuition.train.journal import RunFolder
from tuition.train.model import (
    LoadedModel,
    choose_device,
    choose_dtype,
    context_length,
    fit_embeddings,
    load_config,
    load_model,
)

_LONGEST_WITHOUT_LIMIT = 8192


@dataclass(slots=True)
class Answerer:
    """A model ready to answer, with the renderer that writes its prompts as training did.

    Attributes:
        name: what the user called it.
        base: the folder or name its tokenizer came from.
        adapted: True where a LoRA adapter lies over the base.
    """

    name: str
    base: str
    loaded: LoadedModel
    tokenizer: Any
    renderer: Renderer
    adapted: bool


def load_answerer(name: str, *, device: str = "auto", render: RenderSettings | None = None) -> Answerer:
    """Load what `name` means: a run folder, an adapter folder, a model folder or a hub name.

    Args:
        render: how prompts are written; None: as the run's recipe says, or the tokenizer's own template.

    Raises:
        UserError: there is nothing of the kind, or the run has no model yet.
    """
    folder = RunFolder(Path(name))
    if folder.holds_a_run():
        recipe = load_recipe(folder.recipe)
        source = _model_of(folder, recipe)
        render = render or recipe.section(RenderSettings)
        return _load(name, source, recipe.model if recipe.method == "lora" else None, device, render)
    adapter = Path(name) / "adapter_config.json"
    if adapter.exists():
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        return _load(name, name, base, device, render)
    return _load(name, name, None, device, render)


def render_settings_of(name: str) -> RenderSettings | None:
    """How a run writes its prompts; None for what is not a run folder."""
    folder = RunFolder(Path(name))
    return load_recipe(folder.recipe).section(RenderSettings) if folder.holds_a_run() else None


def _model_of(folder: RunFolder, recipe: Recipe) -> str:
    trained = folder.adapter if recipe.method == "lora" else folder.model
    if not trained.exists():
        raise UserError(
            "the run has no model yet",
            where=str(folder.path),
            next_step=f"Finish it: tuition train {folder.path} --resume",
        )
    return str(trained)


def _load(
    name: str, source: str, adapter_base: str | None, device: str, render: RenderSettings | None
) -> Answerer:
    base = adapter_base or source
    tokenizer = load_tokenizer(source)
    config = load_config(base)
    place = choose_device(device)
    dtype = choose_dtype("auto", place)
    model = load_model(ModelSettings(model=base), config, device=place, dtype=dtype)
    if adapter_base is not None:
        fit_embeddings(model, tokenizer)
        model = load_adapter(model, Path(source)).to(place)
    renderer = _renderer(tokenizer, config, render or RenderSettings())
    return Answerer(
        name=name,
        base=base,
        loaded=LoadedModel(model.eval(), place, dtype),
        tokenizer=tokenizer,
        renderer=renderer,
        adapted=adapter_base is not None,
    )


def _renderer(tokenizer: Any, config: Any, settings: RenderSettings) -> Renderer:
    """Serving's renderer: a tokenizer without a template of its own gets plain text here, never new tokens."""
    setting = settings.chat_template
    if setting == "auto" and not tokenizer.chat_template:
        setting = "none"
    longest = context_length(config) or _LONGEST_WITHOUT_LIMIT
    return Renderer(
        tokenizer,
        choose_template(setting, tokenizer),
        train_on=settings.train_on,
        max_length=longest,
        too_long="drop",
    )
