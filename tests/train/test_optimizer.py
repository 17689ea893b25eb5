"""Weights move, and the learning rate is a pure function of the step."""

from __future__ import annotations

import pytest
import torch

from tuition.recipe import OptimizerSettings
from tuition.train.optimizer import OPTIMIZERS, default_learning_rate, learning_rate_at


def settings(**changes: object) -> OptimizerSettings:
    return OptimizerSettings(**{"learning_rate": 1e-5, "warmup_steps": 0, **changes})  # type: ignore[arg-type]


def test_a_thousand_small_updates_move_a_weight_as_far_as_they_should() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = OPTIMIZERS["adamw"]({"weight": weight}, settings())
    for _ in range(1000):
        weight.grad = torch.ones(1)
        optimizer.step()
    assert float(weight.detach()) == pytest.approx(0.99, abs=1e-4)


def test_decay_spares_vectors() -> None:
    matrix, norm = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    optimizer = OPTIMIZERS["adamw"](
        {"matrix": matrix, "norm": norm}, settings(weight_decay=0.5, learning_rate=0.1)
    )
    matrix.grad, norm.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    assert norm.tolist() == [1.0, 1.0]
    assert float(matrix[0, 0].detach()) == pytest.approx(0.95)


def test_the_schedule_warms_up_peaks_and_falls() -> None:
    rates = [
        learning_rate_at(s, steps=100, settings=settings(warmup_steps=0.1)) / 1e-5 for s in range(1, 101)
    ]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.001)
    linear = [learning_rate_at(s, steps=10, settings=settings(lr_scheduler="linear")) for s in (1, 10)]
    assert linear == pytest.approx([1e-5, 1e-6])
    assert learning_rate_at(7, steps=10, settings=settings(lr_scheduler="constant")) == 1e-5
    assert learning_rate_at(10, steps=10, settings=settings(warmup_steps=100)) == 1e-5


def test_larger_models_take_smaller_rates_and_adapters_larger_ones() -> None:
    sizes = (3e6, 50e6, 600e6, 3e9, 8e9)
    full, lora = ([default_learning_rate(method, int(n)) for n in sizes] for method in ("full", "lora"))
    assert full == sorted(full, reverse=True)
    assert lora == sorted(lora, reverse=True)
    assert full[-1] == 1e-5
    assert all(b >= 5 * a for a, b in zip(full, lora, strict=True))
