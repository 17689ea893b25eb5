"""Ways to learn: each moves what it says and nothing else, resumes to the bit, and merges to what it answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tuition
from tests.conftest import make_model, make_tokenizer, write_jsonl
from tuition import starter
from tuition.batch import Plan, make_packs
from tuition.conversation import Rendered
from tuition.errors import Origin, UserError
from tuition.recipe import AdapterSettings, LearnedSettings, ModelSettings, OptimizerSettings, make_recipe
from tuition.train import loop
from tuition.train.adapters import ADAPTERS, choose_learned, load_adapter, round_frozen, save_adapter
from tuition.train.checkpoint import Identity, Progress, load_checkpoint, take_snapshot, write_snapshot
from tuition.train.cross_entropy import TokenLoss, linear_cross_entropy
from tuition.train.journal import Position
from tuition.train.learner import Learner, make_learner
from tuition.train.loss import token_mean
from tuition.train.model import load_config, load_model
from tuition.train.noise import EmbeddingNoise
from tuition.train.optimizer import OPTIMIZERS
from tuition.train.quantised import dequantise, parameters_of, quantise
from tuition.train.selfcheck import choose_path
from tuition.train.storage import Halves

CPU = torch.device("cpu")
BF16, FP32 = torch.bfloat16, torch.float32
SMALL = AdapterSettings(lora_r=4)
IDENTITY = Identity("this run", lambda step: "this order")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose rows are 64 wide, so that blocks of 4-bit numbers fit."""
    return make_model(
        tmp_path_factory.mktemp("ways"), hidden_size=64, intermediate_size=128, tie_word_embeddings=False
    )


def base(folder: Path, dtype: torch.dtype = FP32) -> Any:
    torch.manual_seed(0)
    return load_model(ModelSettings(model=str(folder)), load_config(str(folder)), device=CPU, dtype=dtype)


def learner_of(
    folder: Path,
    method: str = "full",
    adapter: AdapterSettings = SMALL,
    dtype: torch.dtype = FP32,
    **settings: Any,
) -> Learner:
    model = ADAPTERS[method](base(folder, FP32 if method == "full" else dtype), adapter, [])
    learner = make_learner(model, CPU, dtype, settings_of(**settings))
    choose_path(learner, examples())
    return learner


def settings_of(**changes: Any) -> OptimizerSettings:
    return OptimizerSettings(
        **{"learning_rate": 1e-3, "warmup_steps": 0, "lr_scheduler": "constant", **changes}
    )


def examples() -> list[Rendered]:
    random = np.random.default_rng(0)
    made = []
    for length in (9, 20, 12, 31):
        supervised = np.zeros(length, dtype=np.float32)
        supervised[4:] = 1.0
        made.append(Rendered(random.integers(5, 300, length).astype(np.int32), supervised, Origin("f", 1)))
    return made


def take(learner: Learner, steps: range, **settings: Any) -> list[float]:
    packs = make_packs(examples(), token_mean, max_examples=None, token_budget=10**6)
    plan = Plan(4, 4, 1000, 0)
    chosen = settings_of(**settings)
    return [loop.train_step(learner, packs, examples(), plan, chosen, step).loss for step in steps]


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(20, 60)[None]).logits.float()


def test_frozen_weights_are_computed_in_the_dtype_of_those_that_learn(folder: Path) -> None:
    model = base(folder)
    choose_learned(model, LearnedSettings(freeze=["mlp", "norm", "embed"]))
    round_frozen(model, BF16)
    learner = make_learner(model, CPU, BF16, settings_of())
    choose_path(learner, examples())
    before = {name: p.clone() for name, p in model.named_parameters()}
    losses = take(learner, range(1, 4))
    assert losses[-1] < losses[0]
    assert {p.dtype for p in model.parameters()} == {BF16}
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and not [name for name in moved if "mlp" in name or "norm" in name or "embed" in name]


def test_a_model_that_does_not_run_as_it_is_set_up_is_an_error_that_names_the_setting(folder: Path) -> None:
    model = base(folder)
    model.model.norm.weight.requires_grad_(False)  # left in float32, which no setting does
    model.lm_head.weight.requires_grad_(False)
    learner = make_learner(model, CPU, BF16, settings_of())
    with pytest.raises(
        UserError, match=r"dtype: LlamaForCausalLM does not run as it is set up.*dtype: float32"
    ):
        choose_path(learner, examples())


# --- adapters ---


@pytest.mark.parametrize(
    "shape",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa", "use_rslora": True},
        {"init_lora_weights": "pissa", "use_dora": True},
    ],
    ids="+".join,
)
def test_what_an_adapter_learned_is_what_its_file_and_its_merged_model_say(
    folder: Path, tmp_path: Path, shape: dict[str, Any]
) -> None:
    learner = learner_of(folder, "lora", AdapterSettings(lora_r=4, lora_alpha=6, **shape))
    losses = take(learner, range(1, 9))
    assert losses[-1] < losses[0]
    learner.model.base_model.model.set_attn_implementation("sdpa")
    trained = logits_of(learner.model)
    assert float((trained - logits_of(base(folder))).abs().max()) > 1e-2
    save_adapter(learner.model, make_tokenizer(), tmp_path, base=str(folder), stop_ids=(3,))
    loaded = load_adapter(base(folder), tmp_path)
    assert float((logits_of(loaded) - trained).abs().max()) < 1e-4
    merged = loaded.merge_and_unload(safe_merge=True)
    assert float((logits_of(merged) - trained).abs().max()) < 1e-4


def test_pissa_starts_as_the_model_itself(folder: Path) -> None:
    learner = learner_of(folder, "lora", AdapterSettings(lora_r=4, init_lora_weights="pissa"))
    learner.model.base_model.model.set_attn_implementation("sdpa")
    assert float((logits_of(learner.model) - logits_of(base(folder))).abs().max()) < 1e-4
    moved = learner.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
    stored = base(folder).model.layers[0].self_attn.q_proj.weight
    assert float((moved - stored).detach().abs().max()) > 1e-2


@pytest.mark.usefixtures("few_questions_of_one_reader")
def test_a_qlora_run_learns_and_is_merged_into_the_numbers_that_it_learned_over(tmp_path: Path) -> None:
    run = tuition.train(
        model=str(starter.BASE), data=str(starter.DEMONSTRATIONS), output_dir=str(tmp_path / "run"),
        method="qlora", batch_size=4, max_steps=50, learning_rate=2e-3, val_split=0.05, samples=3,
    )  # fmt: skip
    held_out = [line["eval_loss"] for line in lines_of(run.path / "metrics.jsonl") if "eval_loss" in line]
    assert held_out[-1] < 0.2 * held_out[0]
    run.export(tmp_path / "exported")  # the gate compares another process with the run
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    over_the_base = load_adapter(base(starter.BASE), run.path / "adapter").merge_and_unload()
    assert float((logits_of(exported) - logits_of(over_the_base)).abs().max()) > 1e-2
    with pytest.raises(UserError, match="4 bits"):
        run.export(tmp_path / "adapter", format="adapter")


def test_a_base_in_four_bits_computes_with_the_numbers_it_is_merged_into(folder: Path) -> None:
    rounded = quantise(base(folder)).eval()
    count = sum(map(parameters_of, rounded.parameters()))
    assert count == sum(p.numel() for p in base(folder).parameters())
    said = logits_of(rounded)
    assert float((said - logits_of(base(folder))).abs().max()) > 1e-3
    torch.testing.assert_close(logits_of(dequantise(rounded)), said, rtol=1e-5, atol=1e-5)


def test_rows_that_four_bits_cannot_hold_rightly_are_refused_by_name(tmp_path: Path) -> None:
    narrow = make_model(tmp_path / "narrow", hidden_size=32)
    with pytest.raises(UserError, match="q_proj"):
        quantise(base(narrow))


def test_only_the_rows_of_new_tokens_learn(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    plain = make_model(tmp_path / "plain", tokenizer=make_tokenizer(template=None), tie_word_embeddings=False)
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    run = tuition.train(
        model=str(plain), data=str(data), output_dir=str(tmp_path / "run"), method="new_tokens", batch_size=8,
        max_steps=4, learning_rate=1e-2, val_split=0, samples=0,
    )  # fmt: skip
    tuned = tuition.api.load(str(run.path)).loaded.model.merge_and_unload()
    before = base(plain)
    old = before.get_input_embeddings().num_embeddings
    for part in ("get_input_embeddings", "get_output_embeddings"):
        was, now = getattr(before, part)().weight, getattr(tuned, part)().weight
        assert torch.equal(now[:old], was)
        assert len(now) == old + 2
    assert torch.equal(tuned.model.layers[0].mlp.up_proj.weight, before.model.layers[0].mlp.up_proj.weight)


def test_new_tokens_without_any_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no new one"):
        ADAPTERS["new_tokens"](base(folder), AdapterSettings(), [])


# --- which weights learn ---


def test_patterns_choose_what_learns(folder: Path) -> None:
    model = ADAPTERS["full"](base(folder), AdapterSettings(), [])
    choose_learned(model, LearnedSettings(train_only=(r"layers\.1\.", "norm"), freeze=("layernorm",)))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "model.norm.weight" in learning
    assert all("layers.1." in name or name == "model.norm.weight" for name in learning)
    assert not any("layernorm" in name for name in learning)
    frozen = {n: p.clone() for n, p in model.named_parameters() if n not in learning}
    learner = make_learner(model, CPU, FP32, settings_of())
    choose_path(learner, examples())
    take(learner, range(1, 3))
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"freeze": ("layers.9",)}, "fits no weight"),
        ({"train_only": ("(a+)+b",)}, "repeats a repetition"),
        ({"freeze": (".",)}, "no weight is left"),
    ],
)
def test_patterns_that_choose_nothing_are_refused(folder: Path, settings: dict[str, Any], said: str) -> None:
    model = ADAPTERS["full"](base(folder), AdapterSettings(), [])
    with pytest.raises(UserError, match=said):
        choose_learned(model, LearnedSettings(**settings))


def test_a_recipe_says_what_does_not_go_together() -> None:
    for wrong in ({"method": "qlora", "init_lora_weights": "pissa"}, {"use_dora": True}, {"freeze": "("}):
        with pytest.raises(UserError):
            make_recipe({"model": "m", "data": "d", **wrong})


# --- optimizers ---


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_a_hundred_updates_at_a_rate_of_1e_5_move_every_weight(folder: Path, optimizer: str) -> None:
    learner = learner_of(folder, dtype=BF16, optimizer=optimizer, learning_rate=1e-5, masters="float32")
    masters = learner.masters.parameters
    before = {name: p.detach().clone() for name, p in masters.items()}
    slopes = {name: signs(p.shape) for name, p in masters.items()}
    for _ in range(100):
        for name in masters:
            learner.masters.working[name].main_grad = slopes[name]
        learner.masters.update(learner.optimizer)
    for name, p in masters.items():
        assert bool((p.detach() != before[name]).all()), name


def signs(shape: torch.Size) -> torch.Tensor:
    """A gradient that asks each weight for as much: of a Hadamard matrix, which is what Muon makes of it too."""
    whole = torch.ones(1, 1)
    while len(whole) < max(shape):
        whole = torch.cat([torch.cat([whole, whole], 1), torch.cat([whole, -whole], 1)])
    return whole[tuple(slice(length) for length in shape)] if len(shape) == 2 else whole[0, : shape[0]]


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("masters", ["float32", "split"])
def test_a_resume_goes_on_to_the_bit_under_every_optimizer(
    folder: Path, tmp_path: Path, optimizer: str, masters: str
) -> None:
    how = {"optimizer": optimizer, "masters": masters, "weight_decay": 0.1}
    whole = learner_of(folder, dtype=BF16, **how)
    take(whole, range(1, 4), **how)
    snapshot = take_snapshot(
        whole.masters.parameters, whole.optimizer, Progress(step=3), IDENTITY, Position()
    )
    place = write_snapshot(tmp_path, snapshot)
    losses = take(whole, range(4, 7), **how)
    resumed = learner_of(folder, dtype=BF16, **how)
    load_checkpoint(place, resumed.masters.parameters, resumed.optimizer, IDENTITY)
    resumed.masters.publish()
    assert take(resumed, range(4, 7), **how) == losses
    for learner in (whole, resumed):
        learner.masters.settle()
    ends = [dict(learner.model.named_parameters()) for learner in (whole, resumed)]
    assert all(torch.equal(p, ends[1][name]) for name, p in ends[0].items())


def test_split_masters_end_where_whole_ones_do_to_the_bit(folder: Path) -> None:
    ends = []
    for masters in ("float32", "split"):
        learner = learner_of(folder, dtype=BF16, masters=masters)
        losses = take(learner, range(1, 61), masters=masters)
        learner.masters.settle()
        ends.append((losses, dict(learner.model.named_parameters())))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(p, ends[1][1][name]) for name, p in ends[0][1].items())


@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_every_float32_is_its_two_halves_those_in_the_middle_too(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("tuition.train.pieces._PIECE_VALUES", piece)
    random = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31 - 1, (1 << 16,), generator=random, dtype=torch.int64).to(torch.int32)
    bits[: 1 << 14] = (bits[: 1 << 14] & ~0xFFFF) | 0x8000  # exactly between two bfloat16 numbers
    values = bits.view(torch.float32)
    values = values[torch.isfinite(values)].reshape(-1, 1)
    halves = Halves(torch.empty_like(values, dtype=BF16), values)
    assert torch.equal(halves.upper, values.to(BF16))
    assert torch.equal(halves.join().view(torch.int32), values.view(torch.int32))
    assert sum(len(places) for places in halves._went_down.values()) > 1000


def test_muon_moves_matrices_of_layers_and_adamw_the_rest(folder: Path) -> None:
    learner = learner_of(folder, optimizer="muon")
    take(learner, range(1, 2), optimizer="muon")
    for name, p in learner.masters.parameters.items():
        by_muon = p.ndim == 2 and "embed" not in name and "lm_head" not in name
        assert ("momentum_buffer" in learner.optimizer.state[p]) == by_muon, name


# --- what a token costs ---


@pytest.mark.parametrize("token_loss", [TokenLoss(smoothing=0.1), TokenLoss(by_probability=True)])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_token_losses_and_their_gradients_equal_plain_autograd(
    token_loss: TokenLoss, softcap: float | None
) -> None:
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=random) for n in (40, 30))
    targets = torch.randint(0, 30, (40,), generator=random)
    counts = torch.rand(40, generator=random)
    found = []
    for exact in (False, True):
        x, w = (t.clone().to(torch.float64 if exact else FP32).requires_grad_() for t in (hidden, weight))
        if exact:
            logits = x @ w.t() * 0.5
            logits = logits if softcap is None else torch.tanh(logits / softcap) * softcap
            nll = F.cross_entropy(logits, targets, reduction="none", label_smoothing=token_loss.smoothing)
            factor = logits.softmax(-1).gather(1, targets[:, None])[:, 0].detach()
            each = nll * factor if token_loss.by_probability else nll
            total = (each * counts.double()).sum()
        else:
            total, each = linear_cross_entropy(
                [(x, w)], None, targets, counts, scale=0.5, softcap=softcap, token_loss=token_loss
            )
        total.backward()
        found.append((total.detach().double(), each.detach().double(), x.grad.double(), w.grad.double()))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_a_run_may_learn_by_another_token_loss_and_its_head_may_be_any(folder: Path) -> None:
    for how in ({"token_loss": "dft"}, {"label_smoothing": 0.1}):
        with_ours = learner_of(folder, **how)
        with_its_own = learner_of(folder, **how)
        with_its_own.head = None
        one, other = (take(learner, range(1, 6), **how) for learner in (with_ours, with_its_own))
        assert one == pytest.approx(other, rel=1e-4)
        assert one[-1] < one[0] or how.get("token_loss") == "dft"


def test_noise_is_as_large_as_the_paper_says_and_only_while_learning(folder: Path) -> None:
    model = base(folder)
    noise = EmbeddingNoise(model, alpha=5.0)
    embed, ids = model.get_input_embeddings(), torch.arange(10, 30)[None]
    calm = embed(ids)
    with noise.over([4, 16]):
        moved = (embed(ids) - calm).detach().abs()[0]
    assert torch.equal(embed(ids), calm)
    for part, length in ((moved[:4], 4), (moved[4:], 16)):
        largest = 5.0 / (length * 64) ** 0.5
        assert 0.8 * largest < float(part.max()) <= largest * (1 + 1e-4)


def test_with_noise_no_prefix_is_shared_and_the_held_out_loss_is_calm(folder: Path) -> None:
    learner = learner_of(folder, neftune_alpha=5.0)
    assert learner.packed
    assert not learner.shares
    first, second = (take(learner, range(1, 2), neftune_alpha=5.0, learning_rate=1e-9) for _ in range(2))
    assert first != second


def lines_of(path: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in path.read_text().splitlines()]
