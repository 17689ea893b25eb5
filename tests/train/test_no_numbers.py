"""Weights that are no numbers are refused by name where they come in, and never trained from or answered with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tuition
from tuition.errors import UserError
from tuition.evaluate.load import load_answerer
from tuition.train.model import refuse_no_numbers


def poison(folder: Path, file: str, tensor: str, value: float) -> None:
    """Write one number over in a file of weights."""
    weights = load_file(folder / file)
    weights[tensor].view(-1)[-1] = value
    save_file(weights, folder / file, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_base_model_with_one_bad_number_is_refused_by_the_tensors_name(
    settings: dict[str, Any], llama: Path, tmp_path: Path, value: float
) -> None:
    bad = shutil.copytree(llama, tmp_path / "bad")
    poison(bad, "model.safetensors", "model.layers.1.mlp.up_proj.weight", value)
    said = r"bad: model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinite numbers.*copy or download it again"
    with pytest.raises(UserError, match=said):
        tuition.train(**settings | {"model": str(bad)})
    assert not Path(settings["output_dir"]).exists()
    with pytest.raises(UserError, match=said):
        load_answerer(str(bad))


def test_an_adapter_with_one_bad_number_is_refused(settings: dict[str, Any]) -> None:
    run = tuition.train(**settings | {"method": "lora", "max_steps": 1, "samples": 0})
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    poison(run.path / "adapter", "adapter_model.safetensors", name, float("nan"))
    with pytest.raises(UserError, match=r"adapter: .*q_proj\.lora_A.* holds NaN or infinite numbers"):
        load_answerer(str(run.path))


def test_numbers_whose_sum_is_too_large_are_numbers() -> None:
    refuse_no_numbers([("large", torch.nn.Parameter(torch.full((4,), 3e38)))], "here")
