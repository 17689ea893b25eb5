"""Float32 masters beside bfloat16 copies: every weight moves, and no bit of a gradient's sum is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_model, make_tokenizer
from tuition.batch import Plan, make_packs
from tuition.conversation import Rendered
from tuition.errors import Origin, UserError
from tuition.recipe import AdapterSettings, ModelSettings, OptimizerSettings
from tuition.train import gradients as gradients_of_weights
from tuition.train import loop, trial
from tuition.train.adapters import ADAPTERS
from tuition.train.distributed import ALONE
from tuition.train.learner import Learner, make_learner
from tuition.train.loss import step_loss, token_losses, token_mean
from tuition.train.masters import Masters
from tuition.train.memory import checkpoint_activations
from tuition.train.model import load_config, load_model
from tuition.train.reports import StepReport
from tuition.train.selfcheck import choose_path
from tuition.train.trial import try_largest_step

CPU = torch.device("cpu")
BF16, FP32 = torch.bfloat16, torch.float32
SETTINGS = OptimizerSettings(learning_rate=1e-6, warmup_steps=0, lr_scheduler="constant", max_grad_norm=0)
EVERYTHING = {"max_examples": None, "token_budget": 10**6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(
        tmp_path_factory.mktemp("masters"), tokenizer=make_tokenizer(), tie_word_embeddings=True
    )


def learner_of(folder: Path, dtype: torch.dtype, method: str = "full", masters: str = "float32") -> Learner:
    torch.manual_seed(0)
    stored = dtype if method == "lora" else FP32
    model = load_model(ModelSettings(model=str(folder)), load_config(str(folder)), device=CPU, dtype=stored)
    model = ADAPTERS[method](model, AdapterSettings(lora_r=4), [])
    learner = make_learner(model, CPU, dtype, SETTINGS.model_copy(update={"masters": masters}))
    choose_path(learner, rows())
    return learner


def rows(lengths: tuple[int, ...] = (9, 20, 12, 31)) -> list[Rendered]:
    random = np.random.default_rng(0)
    made = []
    for length in lengths:
        supervised = np.zeros(length, dtype=np.float32)
        supervised[4:] = 1.0
        made.append(Rendered(random.integers(5, 300, length).astype(np.int32), supervised, Origin("f", 1)))
    return made


def step(learner: Learner, number: int = 1, most: int | None = None) -> StepReport:
    batch = rows()
    packs = make_packs(batch, token_mean, max_examples=most, token_budget=10**6)
    return loop.train_step(learner, packs, batch, Plan(4, 4, 10, 0), SETTINGS, number)


def gradients(learner: Learner, most: int | None = None) -> dict[str, torch.Tensor]:
    """Of the step that `step` takes, which it does not keep."""
    packs = make_packs(rows(), token_mean, max_examples=most, token_budget=10**6)
    learner.masters.forget_gradients()
    for pack in packs:
        step_loss(learner, pack, sum(pack.weight for pack in packs)).backward()
    found = {name: gradient.float() for name, gradient in learner.masters.gather().items()}
    learner.masters.forget_gradients()
    return found


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_update_of_the_size_of_the_learning_rate_moves_every_weight_that_has_a_gradient(
    folder: Path, method: str
) -> None:
    learner = learner_of(folder, BF16, method)
    slopes = gradients(learner)
    before = {name: p.detach().clone() for name, p in learner.masters.parameters.items()}
    step(learner)
    for name, p in learner.masters.parameters.items():
        assert p.dtype == FP32
        moved = p.detach() != before[name]
        has_gradient = slopes[name] != 0
        assert has_gradient.any() or "lora_A" in name, name  # LoRA's A learns once B is not zero
        assert torch.equal(moved, has_gradient), name
        largest = (p.detach() - before[name]).abs().max()
        assert float(largest) <= 1.5e-6, name


def test_a_thousand_updates_that_bfloat16_cannot_hold_arrive_in_its_copies(folder: Path) -> None:
    learner = learner_of(folder, BF16)
    name = next(n for n in learner.masters.parameters if "norm" in n)
    master, copy = learner.masters.parameters[name], learner.masters.working[name]
    for _ in range(1000):
        master.grad = torch.ones_like(master)
        for group in learner.optimizer.param_groups:
            group["lr"] = 1e-5
        learner.optimizer.step()
        learner.masters.publish()
    assert float(master.detach().mean()) == pytest.approx(0.99, abs=1e-4)
    assert float(copy.detach().float().mean()) == pytest.approx(0.99, abs=2**-8)


def test_the_copies_are_always_the_masters_rounded(folder: Path) -> None:
    learner = learner_of(folder, BF16)
    for number in range(1, 4):
        step(learner, number)
        for name, p in learner.masters.parameters.items():
            assert torch.equal(learner.masters.working[name].detach(), p.detach().to(BF16)), name


def test_gradients_of_many_small_passes_add_up_as_one(folder: Path) -> None:
    sums = []
    for most in (None, 1):
        found = gradients(learner_of(folder, BF16), most)
        sums.append(torch.cat([gradient.flatten() for gradient in found.values()]))
    assert float((sums[0] - sums[1]).norm() / sums[0].norm()) < 0.01


def test_bfloat16_and_float32_take_nearly_the_same_step(folder: Path) -> None:
    reports = [step(learner_of(folder, dtype)) for dtype in (FP32, BF16)]
    assert reports[1].loss == pytest.approx(reports[0].loss, rel=2e-3)
    assert reports[1].grad_norm == pytest.approx(reports[0].grad_norm, rel=1e-2)


def test_clipping_scales_to_the_norm_asked_for() -> None:
    model = torch.nn.ParameterList([torch.zeros(4), torch.zeros(9)])
    masters = Masters(model, FP32)
    model[0].grad, model[1].grad = torch.full((4,), 3.0), torch.full((9,), 1.0)
    norm = ALONE.norm(masters.norms())
    assert norm == pytest.approx(45**0.5)
    assert norm * loop.shrink_to(1.0, norm) == pytest.approx(1.0, rel=1e-5)
    assert loop.shrink_to(0.0, norm) == loop.shrink_to(10.0, norm) == 1.0


def test_gradients_are_gone_after_the_update_and_were_never_all_there_in_float32(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Masters, "_in_pieces", lambda masters: False)  # as on a GPU
    learner, alike = learner_of(folder, BF16), learner_of(folder, BF16)
    step(alike)
    monkeypatch.setattr("tuition.train.masters.HANDED_OVER_BYTES", {"cpu": 1})
    present: list[int] = []

    def count(*_: Any) -> None:
        present.append(sum(p.grad is not None for p in learner.masters.parameters.values()))

    learner.optimizer.register_step_pre_hook(count)
    step(learner)
    assert present == [1] * len(learner.masters.parameters)
    assert not learner.masters.gather()
    for name, p in learner.masters.parameters.items():
        assert torch.equal(p, alike.masters.parameters[name]), name


@pytest.mark.parametrize("masters", ["float32", "split"])
@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("most", [None, 1])
def test_weights_that_move_in_pieces_move_as_pytorch_moves_them_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, masters: str, most: int | None
) -> None:
    ends, reports = [], []
    for in_pieces in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr("tuition.train.pieces._PIECE_VALUES", 100)
            if not in_pieces:
                patch.setattr(Masters, "_in_pieces", lambda masters: False)
            learner = learner_of(folder, dtype, masters=masters)
            reports.append([step(learner, number, most) for number in (1, 2, 3)])
            assert not learner.masters.gather()
            counted = {float(state["step"]) for state in learner.optimizer.state.values()}
            assert counted == {3.0}
            learner.masters.settle()
            ends.append(dict(learner.model.named_parameters()))
    for one, other in zip(*reports, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
    moved = 3 * SETTINGS.learning_rate
    for name, p in ends[0].items():
        near = (p - ends[1][name]).abs() < 0.02 * moved
        assert float(near.float().mean()) > 0.99, name


def test_rows_that_wait_beside_a_bfloat16_gradient_are_part_of_every_sum() -> None:
    table = torch.nn.Parameter(torch.zeros(6, 2, dtype=BF16))
    other = torch.nn.Parameter(torch.zeros(6, 2, dtype=BF16))
    rows = torch.sparse_coo_tensor([[4, 1, 4]], torch.ones(3, 2), (6, 2)).to(BF16)
    dense = torch.full((6, 2), 0.5, dtype=BF16)
    once = torch.full((6, 2), 0.5)
    once[1], once[4] = 1.5, 2.5
    for holder in (table, other):
        gradients_of_weights.sum_apart(holder)

    gradients_of_weights.add(table, dense.clone())
    gradients_of_weights.add(table, rows)
    assert table.main_grad.dtype == BF16
    pieces = [
        gradients_of_weights.piece_of(table, "main_grad", piece).clone()
        for piece in (slice(0, 3), slice(3, 6))
    ]
    assert torch.equal(torch.cat(pieces), once)

    gradients_of_weights.add(table, dense.clone())  # a second pass
    gradients_of_weights.add(table, rows)
    assert torch.equal(gradients_of_weights.piece_of(table, "main_grad", slice(0, 6)), 2 * once)

    gradients_of_weights.add(other, dense.clone())  # and another lane's
    gradients_of_weights.add(other, rows)
    assert torch.equal(gradients_of_weights.take([table, other], "main_grad"), 3 * once)
    assert table.main_grad is None and other.main_grad is None
    assert gradients_of_weights.take([table, other], "main_grad") is None


def test_the_memory_of_a_large_gradient_is_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients_of_weights, "_LARGE", 1)
    weight = torch.nn.Parameter(torch.zeros(6, 2, dtype=BF16))
    gradients_of_weights.sum_apart(weight)
    first = gradients_of_weights.room_for(weight, BF16).fill_(1.0)
    gradients_of_weights.add(weight, first)
    assert gradients_of_weights.room_for(weight, BF16) is not first  # it is in use
    gradients_of_weights.forget(weight)
    assert gradients_of_weights.room_for(weight, BF16) is first
    assert gradients_of_weights.room_for(weight, BF16) is not first  # and now somebody else's
    gradients_of_weights.add(weight, first)
    gradients_of_weights.forget(weight, room=True)
    assert gradients_of_weights.room_for(weight, BF16) is not first


def test_settling_leaves_a_float32_model(folder: Path) -> None:
    learner = learner_of(folder, BF16)
    step(learner)
    masters = {name: p.detach().clone() for name, p in learner.masters.parameters.items()}
    learner.masters.settle()
    for name, p in learner.model.named_parameters():
        assert torch.equal(p.detach(), masters[name]), name


def test_frozen_weights_get_no_gradient_and_keep_the_dtype_of_the_pass(folder: Path) -> None:
    learner = learner_of(folder, BF16, "lora")
    packs = make_packs(rows(), token_mean, **EVERYTHING)
    step_loss(learner, packs[0], packs[0].weight).backward()
    frozen = [p for p in learner.model.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.grad is None and p.dtype == BF16 for p in frozen)
    assert len(learner.masters.parameters) == len(list(learner.model.parameters())) - len(frozen)


def products_of(learner: Learner) -> tuple[float, float]:
    """Operations in matrix products of a forward and of a backward pass, attention's own left out."""
    from torch.utils.flop_counter import FlopCounterMode

    pack = make_packs(rows(), token_mean, **EVERYTHING)[0]
    with FlopCounterMode(display=False) as forward:
        loss = step_loss(learner, pack, pack.weight)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    matrices = (torch.ops.aten.mm, torch.ops.aten.addmm)
    return tuple(
        sum(c.get_flop_counts()["Global"].get(op, 0) for op in matrices) for c in (forward, backward)
    )


def test_an_adapter_makes_no_products_for_frozen_weights_and_none_below_the_lowest_that_learns(
    folder: Path,
) -> None:
    def over(modules: str) -> tuple[float, float]:
        torch.manual_seed(0)
        model = load_model(ModelSettings(model=str(folder)), load_config(str(folder)), device=CPU, dtype=BF16)
        model = ADAPTERS["lora"](model, AdapterSettings(lora_r=1, target_modules=modules), [])
        learner = make_learner(model, CPU, BF16, SETTINGS)
        choose_path(learner, rows())
        return products_of(learner)

    _, full = products_of(learner_of(folder, BF16))
    _, all_layers = over(r".*layers\.\d+\.(self_attn|mlp)\..*_proj")
    _, upper_layer = over(r".*layers\.1\.(self_attn|mlp)\..*_proj")
    _, lowest_of_it = over(r".*layers\.1\.mlp\.down_proj")
    assert all_layers < 0.55 * full  # towards the inputs only, and the adapters' own
    assert upper_layer < 0.5 * all_layers
    assert 0 < lowest_of_it < 0.01 * full


def test_activations_computed_twice_change_no_bit_of_the_gradient(folder: Path) -> None:
    found = []
    for again in (False, True):
        learner = learner_of(folder, FP32)
        if again:
            checkpoint_activations(learner.model)
        found.append((step(learner).loss, gradients(learner)))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


def test_activations_that_wait_in_the_memory_of_the_cpu_change_no_bit_of_the_gradient(folder: Path) -> None:
    learner = learner_of(folder, FP32)
    here = gradients(learner)
    learner.offloads = True
    elsewhere = gradients(learner)
    assert all(torch.equal(here[name], elsewhere[name]) for name in here)


def test_the_trial_counts_what_the_optimizer_will_take(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "peak_memory", lambda device: 10**9)  # this process may not have peaked yet
    learner = learner_of(folder, FP32)
    before = attempt(learner, rows()).peak_bytes
    step(learner)
    state = [t for kept in learner.optimizer.state.values() for t in kept.values()]
    assert learner.moment_bytes == sum(t.nbytes for t in state if t.ndim)
    assert attempt(learner, rows()).peak_bytes == before - learner.moment_bytes == 10**9


def attempt(learner: Learner, examples: list[Rendered], checkpointing: str = "auto") -> trial.Trial:
    plan = Plan(examples=len(examples), batch_size=4, steps=6, seed=0)
    return try_largest_step(
        learner, examples, examples[:3], plan, token_mean, (None, 200), checkpointing=checkpointing
    )


def test_the_largest_pass_of_the_whole_plan_is_tried(folder: Path) -> None:
    examples = rows(tuple(range(8, 40)))
    plan = Plan(examples=len(examples), batch_size=4, steps=6, seed=0)
    packs = [
        pack
        for number in range(1, 7)
        for pack in make_packs(
            [examples[i] for i in plan.examples_of(number)], token_mean, max_examples=None, token_budget=200
        )
    ]
    tried = attempt(learner_of(folder, FP32), examples)
    assert tried.tokens == max(len(pack.ids) for pack in packs)
    assert (tried.token_budget, tried.checkpointing) == (200, False)


class ShortOfMemory:
    """Lets passes of at most so many tokens through; checkpointing doubles that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tokens: int, error: BaseException) -> None:
        self.tokens, self.error, self.seen = tokens, error, []
        monkeypatch.setattr(trial, "step_loss", self.step_loss)
        monkeypatch.setattr(loop, "step_loss", self.step_loss)

    def step_loss(self, learner: Any, pack: Any, *how: Any) -> torch.Tensor:
        self.seen.append(len(pack.ids))
        room = self.tokens * (2 if learner.model.is_gradient_checkpointing else 1)
        if len(pack.ids) > room:
            raise self.error
        return step_loss(learner, pack, *how)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")],
)
def test_passes_get_smaller_until_they_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    ShortOfMemory(monkeypatch, 50, error)
    tried = attempt(learner_of(folder, FP32), rows(tuple(range(8, 40))))
    assert tried.tokens <= 50
    assert tried.token_budget < 100
    assert not tried.checkpointing


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_activations_are_computed_twice_only_when_one_example_does_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ShortOfMemory(monkeypatch, 25, MemoryError())
    tried = attempt(learner_of(folder, FP32), rows(tuple(range(8, 40))))
    assert tried.checkpointing
    with pytest.raises(UserError, match="one example of 38 tokens does not fit"):
        attempt(learner_of(folder, FP32), rows(tuple(range(8, 40))), "off")


def test_an_error_that_is_not_about_memory_is_never_taken_for_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ShortOfMemory(monkeypatch, 25, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        attempt(learner_of(folder, FP32), rows((30, 31)))


def test_a_machine_that_would_be_overfilled_is_seen_before_it_happens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, examples = learner_of(folder, FP32), rows(tuple(range(8, 40)))
    whole = make_packs(examples[-4:], token_mean, **EVERYTHING)[0]
    room = learner.moment_bytes + trial._expected_bytes(learner, whole) / 2
    monkeypatch.setattr(trial, "memory_left", lambda device: room)
    tried = attempt(learner, examples)
    assert tried.token_budget < len(whole.ids)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_memory_that_runs_short_in_the_middle_of_a_run_makes_passes_smaller_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuition.train.checkpoint import Progress

    def trained(short: bool) -> list[torch.Tensor]:
        learner = learner_of(folder, FP32)
        with monkeypatch.context() as patch:
            if short:
                ShortOfMemory(patch, 40, MemoryError())
            hooks = loop.Hooks(
                on_step=lambda report: None, on_eval=lambda report: None,
                save=lambda progress: None, should_stop=lambda: False,
            )  # fmt: skip
            progress = loop.train(
                learner,
                rows(),
                Plan(4, 4, 2, 0),
                SETTINGS,
                (None, 4096),
                loop.Pacing(9, 1),
                Progress(),
                hooks,
            )
        assert progress.step == 2
        return [p.detach().clone() for p in learner.masters.parameters.values()]

    for plenty, little in zip(trained(False), trained(True), strict=True):
        torch.testing.assert_close(plenty, little, rtol=0, atol=2e-7)


def test_scoring_keeps_no_graph(folder: Path) -> None:
    learner = learner_of(folder, BF16)
    assert not token_losses(learner, make_packs(rows(), token_mean, **EVERYTHING)[0]).requires_grad
