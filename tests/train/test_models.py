"""Kinds of models that are built in other ways; `make prove` tries every one that transformers knows."""

from __future__ import annotations

import pytest
import torch

from tests.prove import models
from tuition.train import selfcheck
from tuition.train.learner import make_learner


@pytest.mark.parametrize(
    ("kind", "what"),
    [("gpt_oss", "shared"), ("deepseek_v3", "shared"), ("jetmoe", "shared"), ("bamba", "packed"),
     ("rembert", "alone"), ("prophetnet", "refused")],
)  # fmt: skip
def test_sinks_latent_keys_experts_and_states_are_learned_exactly_or_refused(kind: str, what: str) -> None:
    models.attention.register()
    tally = models.Tally()
    models.try_kind(kind, tally)
    assert not tally.wrong and kind in getattr(tally, what), tally


@pytest.mark.parametrize("device", ["a CPU", "a GPU"])
@pytest.mark.parametrize(("kind", "packs"), [("falcon_mamba", False), ("bloom", False), ("qwen3_moe", True)])
def test_a_small_leak_is_no_rounding_in_bfloat16_either(
    monkeypatch: pytest.MonkeyPatch, kind: str, packs: bool, device: str
) -> None:
    """On a GPU losses may move by another order of additions, and gradients decide."""
    if device == "a GPU":
        monkeypatch.setattr(selfcheck, "_most_leak", lambda loaded: 0.02)
        monkeypatch.setattr(selfcheck, "_LEAK", -1.0)
    models.attention.register()
    learner = make_learner(models.tiny(kind), torch.device("cpu"), torch.bfloat16, models.SETTINGS)
    assert selfcheck.choose_path(learner, models.examples()).packed == packs
    assert all(p.grad is None for p in learner.model.parameters())
