"""The head between hidden states and logits is found by numbers, and never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tuition.recipe import AdapterSettings
from tuition.train.adapters import lora
from tuition.train.head import Head, find_head
from tuition.train.model import base_of

PROBE = torch.arange(5, 25)[None]
SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def model_of(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **changes})
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def found(model: Any) -> Head:
    head = find_head(base_of(model), PROBE)
    assert isinstance(head, Head), head
    return head


@pytest.mark.parametrize(
    ("name", "changes", "scale", "softcap"),
    [
        ("Llama", {}, 1.0, None),
        ("Qwen2", {}, 1.0, None),
        ("Cohere", {"logit_scale": 0.0625}, 0.0625, None),
        ("Granite", {"logits_scaling": 8.0}, 0.125, None),
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 5.0}, 1.0, 5.0),
        ("Phi", {}, 1.0, None),  # has a bias
    ],
)
def test_factor_softcap_and_bias_of_a_family_are_found(
    name: str, changes: dict[str, Any], scale: float, softcap: float | None
) -> None:
    head = found(model_of(name, **changes))
    assert (head.scale, head.softcap) == (scale, softcap)
    assert (head.bias is not None) == (name == "Phi")


def test_a_lora_adapter_over_the_head_is_a_second_term() -> None:
    settings = AdapterSettings(lora_r=4, target_modules=("lm_head", "q_proj"))
    model = lora(model_of("Llama", tie_word_embeddings=False), settings, [])
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    assert len(found(model).terms(torch.zeros(3, 32))) == 2


def test_rows_of_new_tokens_that_learn_are_part_of_the_weight() -> None:
    model = lora(model_of("Llama", tie_word_embeddings=True), AdapterSettings(lora_r=4), [90, 91])
    for name, parameter in model.named_parameters():
        if "trainable_tokens_delta" in name:
            nn.init.normal_(parameter)
    found(model)


def test_a_head_that_does_more_is_left_to_the_model() -> None:
    class Odd(transformers.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits + output.logits.sin()
            return output

    torch.manual_seed(0)
    odd = Odd(transformers.LlamaConfig(**SMALL))
    assert find_head(odd, PROBE) == "its head does more than a linear layer, a scale and a softcap"
    deep = model_of("Llama", tie_word_embeddings=False)
    deep.lm_head = nn.Sequential(nn.Linear(32, 97))
    assert find_head(deep, PROBE) == "its head is a Sequential"


def test_the_probe_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = model_of("Llama").train()
    found(model)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
