"""Weights that a library filled with other numbers than their file holds are seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import make_model
from tuition.errors import UserError
from tuition.recipe import ModelSettings
from tuition.train.model import load_config, load_model
from tuition.train.stored import refuse_other_numbers


def test_numbers_that_no_file_holds_are_refused_and_another_order_is_none(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(
            ModelSettings(model=str(folder)),
            load_config(str(folder)),
            device=torch.device("cpu"),
            dtype=dtype,
        )
        weights = dict(model.named_parameters())
        projection, embedding = (
            weights[name] for name in ("model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight")
        )
        with torch.no_grad():
            projection.copy_(projection.flip(0))  # as conversions of rotary layouts do
            embedding[-1] = 0.0  # as models do with a padding token
            refuse_other_numbers(model, folder, "base")
            embedding.normal_()
        with pytest.raises(
            UserError, match=r"base: transformers filled model.embed_tokens.weight with other"
        ):
            refuse_other_numbers(model, folder, "base")
