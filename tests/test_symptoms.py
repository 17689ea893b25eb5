"""Symptoms that people report of other trainers, each as the test that shows it cannot happen here.

A symptom that another test shows already is listed in docs/reliability.md with that test's name; the last test
here checks that the page names tests that exist.
"""

from __future__ import annotations

import ast
import gc
import re
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tuition
from tests.conftest import make_model, make_tokenizer
from tests.test_run import StopAt, lines, weights_of
from tuition.batch import Plan, make_packs
from tuition.conversation import Rendered
from tuition.errors import Interrupted, Origin
from tuition.evaluate.heldout import held_out_loss
from tuition.recipe import ModelSettings, OptimizerSettings
from tuition.screen import Watcher
from tuition.train.learner import Learner, make_learner
from tuition.train.loss import step_loss, token_losses, token_mean
from tuition.train.model import evaluating, load_config, load_model
from tuition.train.optimizer import OPTIMIZERS
from tuition.train.selfcheck import choose_path

SETTINGS = OptimizerSettings(learning_rate=1e-3, warmup_steps=0, lr_scheduler="constant", max_grad_norm=0)


def examples(*lengths: int) -> list[Rendered]:
    numbers = np.random.default_rng(0)
    made = []
    for length in lengths:
        supervised = np.ones(length, dtype=np.float32)
        supervised[0] = 0
        made.append(Rendered(numbers.integers(5, 300, length).astype(np.int32), supervised, Origin("f", 1)))
    return made


@pytest.fixture
def learner(llama: Path) -> Learner:
    cpu, folder = torch.device("cpu"), str(llama)
    model = load_model(
        ModelSettings(model=folder, dropout=0.1), load_config(folder), device=cpu, dtype=torch.float32
    )
    made = make_learner(model, cpu, torch.float32, SETTINGS)
    choose_path(made, examples(9, 14, 20))
    return made


def test_the_last_short_accumulation_of_an_epoch_is_divided_by_what_is_in_it(learner: Learner) -> None:
    """Updates at the end of an epoch are too small, because their gradient is divided by a full batch."""
    rows = examples(6, 3, 17, 9, 4, 11, 5, 8, 12, 7)
    plan = Plan(examples=len(rows), batch_size=8, steps=2, seed=0)
    tail = [rows[i] for i in plan.examples_of(2)]
    assert len(tail) == 2
    learner.model.eval()
    whole = sum(example.learned_tokens for example in tail)
    gradients = []
    for most in (1, None):
        learner.masters.forget_gradients()
        for pack in make_packs(tail, token_mean, max_examples=most, token_budget=10**6):
            step_loss(learner, pack, whole).backward()
        gradients.append(torch.cat([g.flatten() for g in learner.masters.gather().values()]))
    learner.masters.forget_gradients()
    total = torch.zeros(())
    for example in tail:
        logits = learner.model(input_ids=torch.from_numpy(example.ids.astype(np.int64))[None]).logits[0, :-1]
        targets = torch.from_numpy(example.ids[1:].astype(np.int64))
        total = total + torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (total / whole).backward()
    reference = torch.cat([g.flatten() for g in learner.masters.gather().values()])
    for gradient in gradients:
        assert torch.allclose(gradient, reference, atol=1e-6)


def test_a_held_out_loss_is_the_mean_over_tokens_and_not_over_batches(learner: Learner) -> None:
    """The held-out loss depends on how examples fall into batches: 6.0 reported where 9.2 is true."""
    rows = examples(2, 2, 60)
    losses = [
        held_out_loss(learner, rows, text_bytes=1, packing=packing).loss
        for packing in ((1, 10**6), (2, 10**6), (None, 10**6))
    ]
    with evaluating(learner.model):
        singles = [
            token_losses(learner, make_packs([r], token_mean, max_examples=1, token_budget=9)[0])
            for r in rows
        ]
    true = float(torch.cat(singles).double().mean())
    means = float(torch.stack([s.double().mean() for s in singles]).mean())
    assert abs(true - means) > 1e-3, "the two must differ for this to show anything"
    assert losses == pytest.approx([true] * 3, abs=1e-5)


def test_dropout_is_on_again_after_an_evaluation(learner: Learner) -> None:
    """The model trains without dropout from its first evaluation on."""
    learner.model.train()
    held_out_loss(learner, examples(9, 5), text_bytes=1, packing=(None, 10**6))
    assert all(module.training for module in learner.model.modules())


def test_the_update_is_adamw_as_it_was_published() -> None:
    """The step counter of a home-made AdamW never grew, so its bias correction stayed that of step 1."""
    settings = OptimizerSettings(learning_rate=0.01, weight_decay=0.1)
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    optimizer = OPTIMIZERS["adamw"]({"weight": weight}, settings)
    expected = weight.detach().double().numpy().copy()
    first, second = np.zeros_like(expected), np.zeros_like(expected)
    for step in range(1, 6):
        gradient = np.array([[0.3 * step, -1.0 / step]])
        weight.grad = torch.from_numpy(gradient).float()
        optimizer.step()
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        expected *= 1 - 0.01 * 0.1
        expected -= 0.01 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert weight.detach().numpy() == pytest.approx(expected, rel=1e-5)


def test_tied_weights_are_saved_once_and_come_back_tied(settings: dict[str, Any], tmp_path: Path) -> None:
    """The first save dies hours into the run, because two names share one tensor."""
    base = make_model(tmp_path / "tied", tokenizer=make_tokenizer(), tie_word_embeddings=True)
    settings |= {"model": str(base), "save_every_steps": 1, "samples": 0, "max_steps": 4}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=StopAt(2))
    resumed = tuition.train(settings["output_dir"], resume=True)
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())
    assert "lm_head.weight" not in weights_of(resumed.path)


def test_a_run_that_is_resumed_twice_takes_each_example_once_an_epoch(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """After a second resume the data starts again from its beginning, or comes in another order."""
    settings |= {"samples": 0, "dropout": 0.1}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=StopAt(3))
    with pytest.raises(Interrupted):
        tuition.train(settings["output_dir"], resume=True, watcher=StopAt(8))
    resumed = tuition.train(settings["output_dir"], resume=True)
    seen = [
        [(row["step"], row.get("learned_tokens")) for row in lines(r.path / "metrics.jsonl")]
        for r in (whole, resumed)
    ]
    assert seen[0] == seen[1]
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())


def test_memory_does_not_climb_from_step_to_step(settings: dict[str, Any]) -> None:
    """Memory of the process grows with every step, until the machine kills it."""

    class Traced(Watcher):
        seen: dict[int, int] = {}  # noqa: RUF012

        def step(self, report: Any) -> None:
            if report.step == 40:
                tracemalloc.start()
            if report.step in (60, 160):
                for thread in threading.enumerate():
                    if thread.name == "checkpoint":  # it holds a copy while it writes, longer on a slow disk
                        thread.join()
                # Python's cache of attributes keeps up to 4,096 names that torch asked for, and fills slowly
                getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()
                gc.collect()
                self.seen[report.step] = tracemalloc.get_traced_memory()[0]

    try:
        tuition.train(
            **{**settings, "max_steps": 161, "samples": 0, "save_every_steps": 10}, watcher=Traced()
        )
    finally:
        tracemalloc.stop()
    assert Traced.seen[160] - Traced.seen[60] < 50_000  # bytes over 100 steps and ten checkpoints


def test_no_worker_process_is_ever_forked() -> None:
    """Workers that are forked after the tokenizer was used deadlock, and a killed one hangs the run."""
    package = Path(tuition.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"multiprocessing", "concurrent.futures", "DataLoader", "fork"} & set(names), path


def test_the_docs_name_tests_that_exist() -> None:
    root = Path(__file__).parent
    pages = [path.read_text(encoding="utf-8") for path in (root.parent / "docs").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"`(test_[a-z0-9]+_[a-z0-9_]+)`", page)}
    files_named = {name for page in pages for name in re.findall(r"`(tests/[a-z0-9_/]+\.py)", page)}
    there = {
        node.name
        for path in root.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(named) > 30
    assert named - there == set()
    assert [name for name in files_named if not (root.parent / name).is_file()] == []
