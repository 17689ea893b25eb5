"""What several passes begin with, computed once before them, gives the gradients of each example alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.families import FAMILIES, largest_gap
from tests.train.test_device import alone
from tests.train.test_prefixes import CPU, SETTINGS, load, reference, row
from tuition.batch import Pack, Plan, make_packs
from tuition.conversation import Rendered
from tuition.errors import LeftInTheMiddle
from tuition.evaluate.heldout import held_out_loss
from tuition.recipe import AdapterSettings
from tuition.train import selfcheck
from tuition.train.adapters import lora
from tuition.train.compiled import compile_layers
from tuition.train.learner import Learner, make_learner
from tuition.train.loop import packs_of, train_step
from tuition.train.loss import step_loss, token_mean
from tuition.train.masters import Masters
from tuition.train.model import LoadedModel
from tuition.train.selfcheck import PathCheck
from tuition.train.trial import try_largest_step
from tuition.train.trunk import over_trunks

__all__ = ["alone"]  # a fixture


def prompted(seed: int = 0, count: int = 6) -> list[Rendered]:
    """Questions and answers of their own behind one prompt of 140 tokens; two answer the same question."""
    random = np.random.default_rng(seed)
    system = list(random.integers(10, 300, 140))
    asked = [list(random.integers(10, 300, 20)) for _ in range(count - 1)]
    ids = [[*system, *question, *random.integers(10, 300, 9)] for question in [*asked, asked[0]]]
    return [row([int(i) for i in one], learned=[162, 165, 168]) for one in ids]


def on_a_trunk(lanes: int = 1) -> list[Pack]:
    packs = make_packs(
        prompted(), token_mean, max_examples=None, token_budget=210 * lanes, share_prefixes=True,
        share_trunks=True, lanes=lanes,
    )  # fmt: skip
    assert len(packs) > 1
    assert len({pack.trunk for pack in packs}) == 1
    assert packs[0].trunk is not None
    return packs


def gradient(loaded: LoadedModel, packs: list[Pack]) -> dict[str, torch.Tensor]:
    whole = sum(pack.weight for pack in packs)
    over_trunks([loaded], lambda lane, pack: step_loss(lane, pack, whole).backward(), packs)
    return {name: p.grad.clone() for name, p in loaded.model.named_parameters() if p.requires_grad}


@pytest.fixture
def wanted(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The gradient of each example alone, in float64."""
    monkeypatch.setattr("tests.train.test_prefixes.rows", prompted)
    return lambda family, **more: reference(folders[family], "token_mean", **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_over_a_trunk_equal_the_reference_in_every_family(
    folders: dict[str, Path], family: str, wanted: Any
) -> None:
    loaded = load(folders[family])
    assert loaded.trunks
    assert largest_gap(gradient(loaded, on_a_trunk()), wanted(family)) < 1e-5


def test_activations_computed_twice_change_nothing(folders: dict[str, Path], wanted: Any) -> None:
    loaded = load(folders["llama"])
    loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert largest_gap(gradient(loaded, on_a_trunk()), wanted("llama")) < 1e-5


def test_bfloat16_gradients_over_a_trunk_lie_within_its_rounding(
    folders: dict[str, Path], wanted: Any
) -> None:
    loaded = load(folders["llama"])
    masters, packs = Masters(loaded.model, torch.bfloat16), on_a_trunk()
    whole = sum(pack.weight for pack in packs)
    low = replace(loaded, dtype=torch.bfloat16)
    over_trunks([low], lambda lane, pack: step_loss(lane, pack, whole).backward(), packs)
    got, exact = masters.gather(), wanted("llama", dtype=torch.bfloat16)
    gap = torch.cat([(got[name].double() - exact[name]).flatten() for name in exact])
    assert float(gap.norm() / torch.cat([g.flatten() for g in exact.values()]).norm()) < 0.03


def learner_of(folder: Path, *, lanes: int = 1) -> Learner:
    learner = make_learner(load(folder).model, CPU, torch.float32, SETTINGS)
    selfcheck.choose_path(learner, prompted())
    learner.lanes = lanes
    return learner


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_update_over_a_trunk_is_the_update_of_one_pass(folders: dict[str, Path], lanes: int) -> None:
    batch, plan, reports = prompted(), Plan(6, 6, 5, 0), []
    for budget, many in ((210 * lanes, lanes), (10**6, 1)):
        learner = learner_of(folders["llama"], lanes=many)
        packs = packs_of(learner, batch, token_mean, (None, budget))
        assert bool(packs[0].trunk) == (budget < 10**6)
        reports.append(train_step(learner, packs, batch, plan, SETTINGS, 1))
        assert all(lane.before is None for lane in learner.as_lanes())
    trunk, whole = reports
    assert trunk.loss == pytest.approx(whole.loss, rel=1e-6)
    assert trunk.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    assert trunk.tokens == whole.tokens == 6 * 168
    # two that ask the same are in passes of their own
    assert 5 * 140 <= trunk.shared_tokens <= whole.shared_tokens


def test_an_adapter_learns_the_same_over_a_trunk(folders: dict[str, Path]) -> None:
    """What is frozen below the first adapter gets no gradient, and neither do the trunk's keys there."""
    found = []
    for packs in (on_a_trunk(), make_packs(prompted(), token_mean, max_examples=1, token_budget=10**6)):
        loaded = load(folders["llama"])
        torch.manual_seed(0)
        adapted = lora(loaded.model, AdapterSettings(lora_r=2, lora_dropout=0.0), [])
        for name, p in adapted.named_parameters():
            p.requires_grad_("lora" in name and ".layers.0." not in name)
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
        found.append(gradient(replace(loaded, model=adapted), packs))
    assert found[0]
    assert largest_gap(found[0], {name: g.double() for name, g in found[1].items()}) < 1e-5


@pytest.mark.usefixtures("alone")
def test_compiled_layers_lend_and_continue_a_trunk_too(folders: dict[str, Path]) -> None:
    learner = learner_of(folders["llama"])
    plain = gradient(learner, on_a_trunk())
    path = compile_layers(learner, PathCheck(True, "", how="packed"), prompted(), backend="aot_eager")
    assert path.how == "packed; compiled"
    learner.masters.forget_gradients()
    assert largest_gap(gradient(learner, on_a_trunk()), plain) < 1e-5


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_pass_that_fails_leaves_no_trunk_behind(folders: dict[str, Path], lanes: int) -> None:
    learner = learner_of(folders["llama"], lanes=lanes)

    def fail(lane: LoadedModel, pack: Pack) -> None:
        assert lane.before is not None
        raise LeftInTheMiddle

    with pytest.raises(LeftInTheMiddle):
        over_trunks(learner.as_lanes(), fail, on_a_trunk(lanes))
    assert all(lane.before is None for lane in learner.as_lanes())
    assert all(getattr(p, "main_grad", p.grad) is None for p in learner.model.parameters())


def test_the_trial_takes_a_pass_and_the_trunk_below_it(folders: dict[str, Path]) -> None:
    learner = learner_of(folders["llama"])
    plan = Plan(examples=6, batch_size=6, steps=2, seed=0)
    trial = try_largest_step(
        learner, prompted(), prompted(1), plan, token_mean, (None, 210), checkpointing="off"
    )
    assert trial.token_budget == 210
    assert trial.tokens == 3 * 168  # two of them ask the same
    assert learner.before is None


def test_held_out_figures_do_not_depend_on_trunks(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"])
    figures = [
        held_out_loss(replace(loaded, trunks=trunks), prompted(), text_bytes=100, packing=(None, 210))
        for trunks in (True, False)
    ]
    assert figures[0].tokens == figures[1].tokens == 18
    assert figures[0].loss == pytest.approx(figures[1].loss, rel=1e-6)


def test_layers_that_do_not_say_which_they_are_share_within_a_pass_only(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"])
    for layer in loaded.model.model.layers:
        del layer.self_attn.layer_idx
    check = selfcheck.choose_path(loaded, prompted())
    assert loaded.shares
    assert not loaded.trunks
    assert "computed once a pass" in check.how


def test_the_self_check_sees_keys_that_reach_the_wrong_layer(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"])
    for layer in loaded.model.model.layers:
        layer.self_attn.layer_idx = 0
    selfcheck.choose_path(loaded, prompted())
    assert loaded.shares
    assert not loaded.trunks
