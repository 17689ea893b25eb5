"""Kinds of models that are built in other ways; `make prove` tries every one that transformers knows."""

from __future__ import annotations

import pytest

from tests.prove import models


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
