"""`dtype: auto` is measured, never guessed from a name."""

from __future__ import annotations

import pytest
import torch
import transformers

from tuition.train import precision
from tuition.train.model import choose_dtype
from tuition.train.precision import multiplication_rates

CPU = torch.device("cpu")
WIDE = transformers.LlamaConfig(hidden_size=512, intermediate_size=1024)
NARROW = transformers.LlamaConfig(hidden_size=64, intermediate_size=128)


def rates(monkeypatch: pytest.MonkeyPatch, bfloat16: float) -> None:
    found = {torch.float32: 100.0, torch.bfloat16: bfloat16}
    monkeypatch.setattr(precision, "multiplication_rates", lambda *args: found)


def test_bfloat16_is_taken_where_it_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    rates(monkeypatch, 200.0)
    assert choose_dtype("auto", CPU, WIDE) == torch.bfloat16
    assert choose_dtype("float32", CPU, WIDE) == torch.float32
    assert choose_dtype("auto", CPU) == torch.float32  # nothing to learn: answers stay exact
    rates(monkeypatch, 110.0)
    assert choose_dtype("auto", CPU, WIDE) == torch.float32
    assert choose_dtype("bfloat16", CPU, WIDE) == torch.bfloat16


def test_a_narrow_model_is_not_worth_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    rates(monkeypatch, 1e9)
    assert choose_dtype("auto", CPU, NARROW) == torch.float32


def test_measuring_times_real_products_and_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = multiplication_rates(CPU, 64, 128)
    assert set(found) == {torch.float32, torch.bfloat16}
    assert all(0 < rate < float("inf") for rate in found.values())
    assert torch.equal(torch.get_rng_state(), before)
