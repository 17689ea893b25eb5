"""Kinds of models that are built in other ways; `make prove` tries every one that transformers knows."""

from __future__ import annotations

import pytest
import torch

from tests.prove import models
from tuition.train.learner import make_learner
from tuition.train.selfcheck import choose_path


@pytest.mark.parametrize(
    ("kind", "what"),
    [("gpt_oss", "shared"), ("deepseek_v3", "shared"), ("jetmoe", "shared"), ("bamba", "packed"),
     ("rembert", "alone"), ("prophetnet", "refused")],
)  # fmt: skip
def test_sinks_latent_keys_experts_and_states_are_learned_exactly_or_refused(kind: str, what: str) -> None:
    models.attention.register()
    tally = models.Tally()
    models._try(kind, tally)
    assert not tally.wrong and kind in getattr(tally, what), tally


@pytest.mark.parametrize(("kind", "packs"), [("falcon_mamba", False), ("bloom", False), ("qwen3_moe", True)])
def test_a_small_leak_is_no_rounding_in_bfloat16_either(kind: str, packs: bool) -> None:
    models.attention.register()
    learner = make_learner(models.tiny(kind), torch.device("cpu"), torch.bfloat16, models._SETTINGS)
    assert choose_path(learner, models.examples()).packed == packs
