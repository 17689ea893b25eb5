"""The model card: what the run knows, said; what it does not know, left out. There is no form to fill in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from tuition import files
from tuition.counting import counted
from tuition.evaluate.load import Answerer
from tuition.recipe import Recipe, load_recipe
from tuition.ship.cardfigures import evaluated
from tuition.ship.commands import vllm_of_adapter
from tuition.ship.gate import RoundTrip
from tuition.starter import display_name
from tuition.train.naming import run_of, step_of

_SETTINGS = (
    "method", "batch_size", "learning_rate", "lora_r", "lora_alpha", "loss",
    "train_on", "max_length", "too_long", "val_split", "seed",
)  # fmt: skip


def write_card(
    folder: Path, answerer: Answerer, trip: RoundTrip, *, format: str, dtype: torch.dtype, name: str
) -> None:
    """Write README.md from the recipe, the ledger's totals, the evaluation and the gate."""
    run, step = run_of(answerer.name), step_of(answerer.name)
    recipe = load_recipe(run.recipe) if run.holds_a_run() else None
    facts = run.read_facts() if run.holds_a_run() else {}
    base = recipe.model if recipe else answerer.base
    licence = licence_of(base, recipe.revision if recipe else answerer.revision)
    sections = [
        _front_matter(base, licence, format),
        _opening(name, base, recipe),
        _use(name, base, format, plain=answerer.renderer.template is None),
        _ends(answerer),
        _many_users(folder, answerer, name) if format == "adapter" else "",
        _data(recipe, facts) if recipe else "",
        _training(recipe, facts, step) if recipe else "",
        evaluated(run) if step is None else _not_evaluated(step),
        _licences(recipe, licence),
        f"## Checked\n\nExported in {str(dtype).removeprefix('torch.')}. Before this was called exported, {trip.sentence}.",
    ]
    files.write_text(folder / "README.md", "\n\n".join(section for section in sections if section) + "\n")


def licence_of(model: str, revision: str | None = None) -> str | None:
    """The licence that a model's own card states, read from its folder or the local cache; None: none is stated."""
    card = Path(model) / "README.md"
    if not Path(model).is_dir():
        from huggingface_hub import try_to_load_from_cache

        try:
            cached = try_to_load_from_cache(model, "README.md", revision=revision)
        except ValueError:  # not the name of a repository
            return None
        card = Path(cached) if isinstance(cached, str) else card
    if not card.is_file():
        return None
    head = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(head) < 3 or head[0].strip():
        return None
    try:
        said = yaml.safe_load(head[1])
    except yaml.YAMLError:
        return None
    licence = said.get("license") if isinstance(said, dict) else None
    return str(licence) if isinstance(licence, str) and licence else None


def _front_matter(base: str, licence: str | None, format: str) -> str:
    library = {"adapter": "peft", "hf": "transformers"}.get(format, "gguf")
    said = {"library_name": library, "pipeline_tag": "text-generation", "tags": ["tuition", "sft"]}
    if not Path(base).is_dir():  # a path means nothing to others
        said["base_model"] = base
    if licence:
        said["license"] = licence
    return f"---\n{yaml.safe_dump(said, sort_keys=True, allow_unicode=True)}---"


def _opening(name: str, base: str, recipe: Recipe | None) -> str:
    how = {
        "full": "in all its weights",
        "lora": "with a LoRA adapter",
        "qlora": "with a LoRA adapter over a base in 4 bits",
        "new_tokens": "in the rows of new tokens",
    }
    made = (
        f"`{display_name(base)}`, fine-tuned {how[recipe.method]} with tuition."
        if recipe
        else f"`{display_name(base)}`, written by tuition."
    )
    return f"# {name}\n\n{made}"


def _ends(answerer: Answerer) -> str:
    """What ends an answer, and what writes its prompt."""
    stops = " and ".join(
        f"`{answerer.tokenizer.convert_ids_to_tokens(i)}`" for i in answerer.renderer.stop_ids
    )
    written = (
        "It learned plain text: prompts are fed as they are"
        if answerer.renderer.template is None
        else "Prompts are written by the chat template in `chat_template.jinja`, as in training"
    )
    return f"{written}. An answer ends with {stops}." if stops else f"{written}."


def _many_users(folder: Path, answerer: Answerer, name: str) -> str:
    """vLLM's command, with the folder by the name that it will have."""
    command = vllm_of_adapter(display_name(answerer.base), folder, name).replace(str(folder), name)
    return f"For many users, with vLLM (not run here):\n\n```\n{command}\n```"


def _use(name: str, base: str, format: str, *, plain: bool) -> str:
    if format == "gguf":
        return f"## Use\n\n```\nllama-cli -m {name}.gguf -cnv\n```"
    if format == "ollama":
        return f"## Use\n\n```\nollama create {name} -f Modelfile\nollama run {name}\n```"
    load = f'tokenizer, model = AutoTokenizer.from_pretrained("{name}"), AutoModelForCausalLM.from_pretrained("{name}")'
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if format == "adapter":
        imports = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer"
        load = load.replace("AutoModelForCausalLM", "AutoPeftModelForCausalLM")
    ask = (
        'ids = tokenizer("Your prompt", return_tensors="pt")'
        if plain
        else "ids = tokenizer.apply_chat_template(\n"
        '    [{"role": "user", "content": "Your question"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"\n)'
    )
    answer = (
        "out = model.generate(**ids, max_new_tokens=256, do_sample=False)\n"
        'print(tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True))'
    )
    return f"## Use\n\n```python\n{imports}\n\n{load}\n{ask}\n{answer}\n```"


def _data(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    data = facts.get("data", {})
    sources = ", ".join(f"`{_public(source)}`" for source in (*recipe.data, *recipe.replay))
    lines = [f"Learned from {sources}."]
    if data:
        lines.append(
            f"{counted(data['rows_in'], 'row was', 'rows were')} read, {data['kept']:,} kept and {data['rejected']:,} rejected, each "
            f"with its reason in the run's ledger; {counted(data['train_examples'], 'example')} to learn from and "
            f"{data['validation_examples']:,} held out: {data['tokens']:,} tokens, of which {data['learned_tokens']:,} are to be learned."
        )
    return "## Data\n\n" + " ".join(lines)


def _licences(recipe: Recipe | None, base: str | None) -> str:
    """What the cards of base and data state; where they state nothing, that."""
    said = [f"The base model's card states `{base}`." if base else "The base model's card states no licence."]
    sources = (*recipe.data, *recipe.replay) if recipe else ()
    stated = {source: _dataset_licence(source) for source in sources}
    for source, licence in stated.items():
        name = _public(source)
        said.append(f"The card of `{name}` states `{licence}`." if licence else f"`{name}` has no card.")
    if base is None or None in stated.values():
        said.append("Ask whoever gave them to you before you pass this model on.")
    return f"## Licences\n\n{' '.join(said)}"


def _public(source: str) -> str:
    """A file by its name alone: where it lies on somebody's disk is nobody's business."""
    return Path(source).name if Path(source).exists() or source.startswith(("/", ".")) else source


def _dataset_licence(source: str) -> str | None:
    return licence_of(source) if Path(source).is_dir() else None


def _not_evaluated(step: int) -> str:
    """The run's figures are those of the model that it kept, and are not lent to another."""
    return (
        f"## Evaluation\n\nThese are the weights of step {step}. The run evaluated the model that it kept: "
        "whether these are better than their base is not known."
    )


def _training(recipe: Recipe, facts: Mapping[str, Any], step: int | None) -> str:
    """The settings; and what the run measured at the step that was best, where its model is what is shipped."""
    settings = recipe.model_dump(mode="json")
    lora_only = {"lora_r", "lora_alpha"} if recipe.method in ("full", "new_tokens") else set()
    rows = [
        f"| `{key}` | {settings[key]} |"
        for key in _SETTINGS
        if key in settings and settings[key] is not None and key not in lora_only
    ]
    result, plan = facts.get("result") or {}, facts.get("plan") or {}
    if plan:
        updates = result.get("step", plan["steps"])  # fewer than planned, where it was stopped early
        rows.insert(
            1, f"| epochs | {updates / plan['steps_per_epoch']:.3g}, in {counted(updates, 'update')} |"
        )
    if result.get("tokens") and step is None:
        rows.append(
            f"| tokens gone through | {result['tokens']:,}, of them learned {result['learned_tokens']:,} |"
        )
    if step is not None:
        rows.append(f"| checkpoint | step {step} of {facts['plan']['steps']} |")
    elif result.get("best_eval_loss") is not None:
        rows.append(
            f"| loss on held-out rows | {result['best_eval_loss']:.4f} at step {result['best_step']} |"
        )
    if facts.get("versions"):
        rows.append("| versions | " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()) + " |")
    return "## Training\n\n| | |\n|---|---|\n" + "\n".join(rows)
