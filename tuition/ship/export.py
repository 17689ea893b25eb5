"""Exports: one function and one row of `EXPORTS` each. What was written is read by a fresh process first."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuition import files
from tuition.errors import UserError
from tuition.evaluate.load import Answerer
from tuition.recipe import ModelSettings
from tuition.ship import gate, llama_cpp
from tuition.ship.card import write_card
from tuition.ship.gate import RoundTrip
from tuition.ship.written import base_of_answerer, vocabulary_changed
from tuition.train.adapters import save_adapter
from tuition.train.folder import refuse_runs_own
from tuition.train.writing import disk_faults_of, save_model, save_tokenizer, set_stop_tokens


@dataclass(frozen=True, slots=True)
class Options:
    """How to export.

    Attributes:
        dtype: of the weights written.
        llama_cpp: the folder of the user's llama.cpp, for gguf and ollama; None: looked for.
        name: what the export is called.
    """

    dtype: torch.dtype
    llama_cpp: Path | None = None
    name: str = "model"


def export_hf(answerer: Answerer, folder: Path, options: Options) -> RoundTrip:
    """A plain transformers folder; a LoRA adapter is merged into its base."""
    expected = gate.expect(answerer)
    model = answerer.loaded.model
    if answerer.adapted:
        model = model.merge_and_unload(safe_merge=True)
    write_model_folder(
        model.to(options.dtype),
        answerer.tokenizer,
        folder,
        base=base_of_answerer(answerer),
        stop_ids=answerer.renderer.stop_ids,
        plain=answerer.renderer.template is None,
    )
    return gate.check(folder, expected, answerer, options.dtype)


def export_adapter(answerer: Answerer, folder: Path, options: Options) -> RoundTrip:
    """The LoRA adapter as peft, transformers and vLLM load it over its base."""
    if not answerer.adapted:
        raise UserError(
            "was trained in full, so it has no adapter", where=answerer.name, next_step="Use --format hf"
        )
    if answerer.rounded:
        raise UserError(
            "learned over a base in 4 bits, and laid over the base itself its adapter answers differently",
            where=answerer.name,
            next_step="Use --format hf: it is merged into the rounded numbers that it learned over",
        )
    expected = gate.expect(answerer)
    write_adapter_folder(answerer, folder)
    return gate.check(folder, expected, answerer, torch.float32)


def export_gguf(answerer: Answerer, folder: Path, options: Options) -> RoundTrip:
    """One .gguf file for llama.cpp, made by the user's own llama.cpp from a folder that passed the gate."""
    converter = llama_cpp.find_converter(options.llama_cpp)
    plain = files.fresh_folder(folder / "hf")
    trip = export_hf(answerer, plain, options)
    llama_cpp.convert(converter, plain, folder / f"{options.name}.gguf", options.dtype)
    files.remove_folder(plain)
    return trip


def export_ollama(answerer: Answerer, folder: Path, options: Options) -> RoundTrip:
    """A .gguf file and the Modelfile that `ollama create` reads."""
    template = answerer.renderer.template
    text = llama_cpp.modelfile(
        f"{options.name}.gguf",
        None if template is None else template.source,
        special_tokens=answerer.tokenizer.special_tokens_map,
        stops=[str(answerer.tokenizer.convert_ids_to_tokens(i)) for i in answerer.renderer.stop_ids],
    )
    trip = export_gguf(answerer, folder, options)
    files.write_text(folder / "Modelfile", text)
    return trip


EXPORTS: dict[str, Callable[[Answerer, Path, Options], RoundTrip]] = {
    "hf": export_hf,
    "adapter": export_adapter,
    "gguf": export_gguf,
    "ollama": export_ollama,
}


def export(
    answerer: Answerer, to: Path, *, format: str, dtype: torch.dtype, llama_cpp: Path | None = None
) -> RoundTrip:
    """Write `to` in the format given, appearing at once and whole, or not at all.

    Raises:
        UserError: `refuse_place` refuses the folder, the format is unknown, or what was written answers differently.
    """
    if format not in EXPORTS:
        raise UserError(f"unknown format '{format}'", next_step=f"Choose one of: {', '.join(EXPORTS)}")
    refuse_place(to)
    files.make_folder(to.parent)
    temporary = files.fresh_folder(to.with_name(f".{to.name}.tmp"))
    try:
        options = Options(dtype, llama_cpp, name=to.resolve().name)
        with disk_faults_of(temporary):
            trip = EXPORTS[format](answerer, temporary, options)
        write_card(temporary, answerer, trip, format=format, dtype=dtype, name=options.name)
        files.publish_folder(temporary, to)
    finally:
        if temporary.exists():
            files.remove_folder(temporary)
    return trip


def refuse_place(to: Path) -> None:
    """Refuse a folder that is there already, or that belongs to the files of a run.

    Raises:
        UserError: saying which.
    """
    if to.exists():
        raise UserError("exists already", where=str(to), next_step="Name a folder that does not exist yet")
    refuse_runs_own(to)


def write_adapter_folder(answerer: Answerer, folder: Path) -> None:
    """The adapter, its stop tokens, and the tokenizer and template that it learned with."""
    save_adapter(
        answerer.loaded.model,
        answerer.tokenizer,
        folder,
        base=answerer.base,
        stop_ids=answerer.renderer.stop_ids,
        revision=answerer.revision,
    )
    plain = answerer.renderer.template is None
    changed = vocabulary_changed(answerer.tokenizer, base_of_answerer(answerer))
    save_tokenizer(answerer.tokenizer, folder, base=answerer.base, vocabulary_changed=changed, plain=plain)
    _keep_one_template(folder)


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
    changed = vocabulary_changed(tokenizer, base)
    save_tokenizer(tokenizer, folder, base=base.model, vocabulary_changed=changed, plain=plain)
    _keep_one_template(folder)


def _keep_one_template(folder: Path) -> None:
    """Tools differ in which file they read a chat template from: an old one must not stand in the other."""
    template, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if not (template.exists() and config.exists()):
        return
    said = json.loads(config.read_text(encoding="utf-8"))
    if isinstance(said.get("chat_template"), str) and said["chat_template"] != template.read_text(
        encoding="utf-8"
    ):
        said["chat_template"] = template.read_text(encoding="utf-8")
        files.write_json(config, said)
