"""An exported adapter is one for peft and transformers as they are, and its commands for other servers are whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tuition
from tuition.ship.commands import other_servers, vllm_of_adapter


@pytest.fixture(scope="module")
def adapter(lora_run: tuition.Run, tmp_path_factory: pytest.TempPathFactory, one_reader: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuition.ship.gate.run_reader", one_reader)
        return lora_run.export(tmp_path_factory.mktemp("out") / "helper", format="adapter")


def by_peft(folder: Path) -> Any:
    from peft import AutoPeftModelForCausalLM

    return AutoPeftModelForCausalLM.from_pretrained(folder)


def by_transformers(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("load", [by_peft, by_transformers])
def test_an_adapter_loads_in_plain_libraries_and_answers_as_the_run(
    lora_run: tuition.Run, adapter: Path, load: Callable[[Path], Any]
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    model, tokenizer = load(adapter).eval(), AutoTokenizer.from_pretrained(adapter)
    settings = GenerationConfig.from_pretrained(adapter, max_new_tokens=16, do_sample=False)
    for n in range(3):
        prompt = f"What is {n} and {n}?"
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            ids = model.generate(**asked, generation_config=settings)[0, asked["input_ids"].shape[1] :]
        assert tokenizer.decode(ids, skip_special_tokens=True) == lora_run.generate(prompt, max_new_tokens=16)


def test_vllm_is_told_the_tokenizer_the_template_and_the_stops_of_training(
    lora_run: tuition.Run, adapter: Path
) -> None:
    answerer = tuition.api.load(str(adapter), device="cpu")
    vllm, sglang, transformers = other_servers(answerer, "mine")
    assert vllm == (
        f"vllm serve {answerer.base} --enable-lora --lora-modules mine={adapter} --tokenizer {adapter} "
        f"--generation-config {adapter} --chat-template {adapter}/chat_template.jinja"
    )
    assert "--lora-paths mine=" in sglang
    assert transformers.endswith("--to mine-merged && transformers serve mine-merged")


def test_vllm_is_told_of_a_rank_above_its_own_limit(adapter: Path, tmp_path: Path) -> None:
    said = json.loads((adapter / "adapter_config.json").read_text()) | {"r": 40}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    assert vllm_of_adapter("base", tmp_path, "mine").endswith("--max-lora-rank 64")


def test_an_adapter_with_rows_of_new_tokens_is_merged_for_servers_that_lay_matrices_only(
    lora_run: tuition.Run, adapter: Path, tmp_path: Path
) -> None:
    said = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(said | {"trainable_token_indices": [7]}))
    answerer = tuition.api.load(str(adapter), device="cpu")
    answerer.name = str(tmp_path)
    assert all("tuition export" in line for line in other_servers(answerer, "mine"))
