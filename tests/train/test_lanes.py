"""Passes that are run at once give what they give one after the other, the same bits each time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_model, make_tokenizer
from tuition.batch import Plan, make_packs
from tuition.batch.balance import Work
from tuition.conversation import Rendered
from tuition.errors import LeftInTheMiddle, Origin
from tuition.recipe import ModelSettings, OptimizerSettings
from tuition.train import loop
from tuition.train.lanes import side_by_side
from tuition.train.learner import Learner, make_learner
from tuition.train.loss import token_mean
from tuition.train.masters import Masters
from tuition.train.model import load_config, load_model
from tuition.train.selfcheck import choose_path

CPU = torch.device("cpu")
SETTINGS = OptimizerSettings(learning_rate=1e-3, warmup_steps=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("lanes"), tokenizer=make_tokenizer(), tie_word_embeddings=True)


def rows(*, common: int = 0, lengths: tuple[int, ...] = (40, 70, 33, 90, 55, 61)) -> list[Rendered]:
    """Examples of these lengths whose first tokens are the same."""
    random = np.random.default_rng(0)
    prefix, made = random.integers(5, 300, common), []
    for length in lengths:
        supervised = np.zeros(common + length, dtype=np.float32)
        supervised[common + 4 :] = 1.0
        ids = np.concatenate([prefix, random.integers(5, 300, length)]).astype(np.int32)
        made.append(Rendered(ids, supervised, Origin("f", 1)))
    return made


def learner_of(folder: Path, dtype: torch.dtype, lanes: int, monkeypatch: pytest.MonkeyPatch) -> Learner:
    monkeypatch.setattr("tuition.train.selfcheck.lanes_of", lambda device, weights: lanes)
    torch.manual_seed(0)
    model = load_model(
        ModelSettings(model=str(folder)), load_config(str(folder)), device=CPU, dtype=torch.float32
    )
    learner = make_learner(model, CPU, dtype, SETTINGS)
    check = choose_path(learner, rows())
    assert learner.lanes == lanes
    assert (f"{lanes} passes at a time" in check.how) == (lanes > 1)
    return learner


def two_steps(learner: Learner, batch: list[Rendered], token_budget: int) -> tuple[list[float], Any]:
    """Losses and norms of two updates, and the gradient of the first as the optimizer saw it."""
    seen: dict[str, torch.Tensor] = {}
    found: list[float] = []

    move = learner.masters.update

    def look(optimizer: Any, *, shrink: float) -> None:
        for name, gradient in learner.masters.gather().items():
            seen.setdefault(name, gradient.float() * shrink)
        move(optimizer, shrink=shrink)

    learner.masters.update = look
    for number in (1, 2):
        packs = loop.packs_of(learner, batch, token_mean, (None, token_budget))
        report = loop.train_step(learner, packs, batch, Plan(6, 6, 10, 0), SETTINGS, number)
        found += [report.loss, report.grad_norm]
    return found, seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("common", [0, 50])
@pytest.mark.parametrize("token_budget", [4096, 300])
def test_lanes_change_no_loss_and_no_gradient(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, common: int, token_budget: int
) -> None:
    batch = rows(common=common)
    one, two, again = (
        two_steps(learner_of(folder, dtype, lanes, monkeypatch), batch, token_budget) for lanes in (1, 2, 2)
    )
    near = 1e-5 if dtype == torch.float32 else 5e-3
    assert two[0] == pytest.approx(one[0], rel=near)
    assert two[0] == again[0]
    assert (
        one[1].keys()
        == two[1].keys()
        == dict(learner_of(folder, dtype, 1, monkeypatch).masters.parameters).keys()
    )
    for name, gradient in two[1].items():
        assert torch.equal(gradient, again[1][name]), name
        if dtype == torch.float32:
            assert float((gradient - one[1][name]).abs().max()) <= 1e-5 * float(one[1][name].abs().max())
        else:
            assert float((gradient - one[1][name]).norm() / one[1][name].norm()) < 0.03, name


def test_weights_that_are_lent_are_the_models_own_numbers_and_keep_their_gradients_apart() -> None:
    model = torch.nn.Linear(2, 2, bias=False)
    masters = Masters(model, torch.float32)
    lent = masters.lend()[id(model.weight)]
    model.weight.grad, lent.grad = torch.full((2, 2), 1.0), torch.full((2, 2), 2.0)
    assert lent.data_ptr() == model.weight.data_ptr()
    assert [float(norm) for norm in masters.norms()] == [6.0]
    masters.join()
    assert model.weight.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert lent.grad is None


@pytest.mark.parametrize("common", [0, 50])
@pytest.mark.parametrize("token_budget", [4096, 300])
def test_packs_for_lanes_hold_every_example_and_are_about_as_long_as_one_another(
    common: int, token_budget: int
) -> None:
    batch = rows(common=common)
    whole = make_packs(batch, token_mean, max_examples=None, token_budget=10**9)
    packs = make_packs(
        batch, token_mean, max_examples=None, token_budget=token_budget, share_prefixes=True, lanes=2
    )
    assert sum(pack.tokens for pack in packs) == whole[0].tokens
    assert sum(len(pack.rows) for pack in packs) == len(whole[0].rows)
    lengths = [len(pack.ids) for pack in packs]
    assert max(lengths) <= token_budget // 2
    if token_budget == 4096:
        assert len(packs) == 2
        assert max(lengths) < 1.3 * min(lengths)


def test_lanes_that_run_at_once_cost_about_the_same_where_some_examples_learn_more_than_others() -> None:
    batch = rows(lengths=(60, 60, 60, 60))
    for example in batch[::2]:
        example.supervised[:-4] = 0.0
    packs = make_packs(
        batch, token_mean, max_examples=None, token_budget=4096, lanes=2, work=Work(learned=2.0)
    )
    assert [len(pack.ids) for pack in packs] == [118, 118]
    assert len(packs[0].targets) == len(packs[1].targets)


def test_a_step_that_one_example_dominates_is_left_to_all_cores_together() -> None:
    batch = rows(lengths=(300, 20))
    assert len(make_packs(batch, token_mean, max_examples=None, token_budget=4096, lanes=2)) == 1


def test_results_come_in_the_order_of_the_jobs_and_each_lane_does_its_own() -> None:
    threads = torch.get_num_threads()
    found = side_by_side(["a", "b"], lambda lane, job: f"{lane}{job}", range(5))
    assert found == ["a0", "b1", "a2", "b3", "a4"]
    assert torch.get_num_threads() == threads


def test_what_fails_in_another_lane_is_raised_here() -> None:
    def work(lane: int, job: int) -> None:
        if job == 1:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        side_by_side([0, 1], work, range(6))


def test_a_lane_is_broken_off_when_the_first_is() -> None:
    began, ended = threading.Event(), []

    def work(lane: int, job: int) -> None:
        if lane == 0:
            began.wait()
            raise LeftInTheMiddle
        try:
            began.set()
            while True:
                time.sleep(0.001)
        except LeftInTheMiddle:
            ended.append(lane)
            raise

    with pytest.raises(LeftInTheMiddle):
        side_by_side([0, 1], work, range(2))
    assert ended == [1]


def test_a_stop_while_lanes_are_started_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may come before the last thread was started, which then cannot be waited for."""
    start = threading.Thread.start

    def and_be_asked_to_stop(thread: threading.Thread) -> None:
        start(thread)
        raise LeftInTheMiddle

    monkeypatch.setattr(threading.Thread, "start", and_be_asked_to_stop)
    with pytest.raises(LeftInTheMiddle):
        side_by_side([0, 1, 2], lambda lane, job: None, range(3))


def test_a_model_that_draws_random_numbers_or_changes_itself_has_one_lane(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuition.train.selfcheck.lanes_of", lambda device, weights: 2)
    for change in ({"attention_dropout": 0.1}, {"rope_type": "dynamic"}):
        config = load_config(str(folder))
        model = load_model(ModelSettings(model=str(folder)), config, device=CPU, dtype=torch.float32)
        if "rope_type" in change:
            model.model.rotary_emb.rope_type = "dynamic"
        else:
            model.config.attention_dropout = 0.1
        learner = make_learner(model, CPU, torch.float32, SETTINGS)
        choose_path(learner, rows())
        assert learner.lanes == 1, change
