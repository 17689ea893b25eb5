"""Shared prefixes computed once give the same losses and gradients, in every family and layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tuition
from tests.conftest import write_jsonl
from tests.train.families import FAMILIES, largest_gap
from tuition.batch import Plan, make_packs
from tuition.conversation import Rendered
from tuition.errors import Origin
from tuition.evaluate.heldout import held_out_loss
from tuition.recipe import AdapterSettings, ModelSettings, OptimizerSettings
from tuition.screen import Opening, Watcher
from tuition.train import selfcheck
from tuition.train.adapters import lora
from tuition.train.attention import NAME, segment_attention
from tuition.train.learner import make_learner
from tuition.train.loop import train_step
from tuition.train.loss import LOSSES, step_loss, token_losses, token_mean
from tuition.train.masters import Masters
from tuition.train.model import LoadedModel, load_config, load_model
from tuition.train.trial import try_largest_step

CPU = torch.device("cpu")
LAYOUTS = ((None, 10**6), (3, 10**6), (None, 90))
SETTINGS = OptimizerSettings(learning_rate=1e-3, warmup_steps=0)


def load(folder: Path, *, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> LoadedModel:
    settings = ModelSettings(model=str(folder), dropout=dropout)
    model = load_model(settings, load_config(str(folder)), device=CPU, dtype=dtype)
    loaded = LoadedModel(model.train(), CPU, dtype)
    selfcheck.choose_path(loaded, rows())
    return loaded


def rows(seed: int = 0) -> list[Rendered]:
    """A system prompt for six, a first turn for three of them, one example twice, one that begins another, one alone."""
    random = np.random.default_rng(seed)

    def some(count: int) -> list[int]:
        return list(random.integers(10, 300, count))

    system, turn, longer = some(40), some(25), some(150)
    ids = [
        [*system, *turn, *some(9)],
        some(30),
        [*system, *some(3)],
        [*system, *turn, *some(1)],
        [*system, *turn, *some(20)],
        [*system, *longer],
        [*system, *longer, *some(12)],
    ]
    made = [row(one, learned=[7, *range(41, len(one))] if len(one) > 41 else [20]) for one in ids]
    return [*made, made[0], row(ids[4], learned=[7, 50, 80], weight=2.0)]


def row(ids: list[int], learned: list[int], weight: float = 1.0) -> Rendered:
    supervised = np.zeros(len(ids), dtype=np.float32)
    supervised[learned] = weight
    return Rendered(np.array(ids, dtype=np.int32), supervised, Origin("f", 1))


def gradient(
    loaded: LoadedModel, objective: str, layout: tuple[int | None, int], *, share: bool
) -> dict[str, torch.Tensor]:
    packs = make_packs(
        rows(), LOSSES[objective], max_examples=layout[0], token_budget=layout[1], share_prefixes=share
    )
    assert any(pack.shared_tokens for pack in packs) == share
    for pack in packs:
        step_loss(loaded, pack, sum(p.weight for p in packs)).backward()
    return {name: p.grad.clone() for name, p in loaded.model.named_parameters()}


def reference(folder: Path, objective: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """One example at a time, full logits, eager attention, float64; `dtype`: what the weights are rounded to."""
    settings = ModelSettings(model=str(folder))
    model = load_model(settings, load_config(str(folder)), device=CPU, dtype=dtype).double()
    model.set_attn_implementation("eager")
    total, whole = torch.zeros((), dtype=torch.float64), 0.0
    for one in rows():
        ids, weights = torch.from_numpy(one.ids.astype(np.int64)), LOSSES[objective](one.supervised)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        losses = F.cross_entropy(logits, ids[1:], reduction="none")
        total = total + (losses * torch.from_numpy(weights[1:])).sum()
        whole += float(weights.sum(dtype=np.float64))
    (total / whole).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_gradients_equal_the_reference_in_every_family_and_layout(
    folders: dict[str, Path], family: str
) -> None:
    expected = reference(folders[family], "token_mean")
    for layout, share in [*((layout, True) for layout in LAYOUTS), (LAYOUTS[0], False)]:
        got = gradient(load(folders[family]), "token_mean", layout, share=share)
        assert largest_gap(got, expected) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_example_counts_the_same_however_it_shares(
    folders: dict[str, Path], layout: tuple[int | None, int]
) -> None:
    got = gradient(load(folders["llama"]), "example_mean", layout, share=True)
    assert largest_gap(got, reference(folders["llama"], "example_mean")) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_activations_computed_twice_change_nothing(folders: dict[str, Path], family: str) -> None:
    loaded = load(folders[family])
    loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    got = gradient(loaded, "token_mean", LAYOUTS[0], share=True)
    assert largest_gap(got, reference(folders[family], "token_mean")) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_bfloat16_gradients_lie_within_its_rounding(folders: dict[str, Path], family: str) -> None:
    loaded = load(folders[family])
    masters = Masters(loaded.model, torch.bfloat16)
    (pack,) = make_packs(rows(), token_mean, max_examples=None, token_budget=10**6, share_prefixes=True)
    step_loss(replace(loaded, dtype=torch.bfloat16), pack, pack.weight).backward()
    gradients = masters.gather()
    exact = reference(folders[family], "token_mean", dtype=torch.bfloat16)
    got = torch.cat([gradients[name].double().flatten() for name in exact])
    wanted = torch.cat([exact[name].flatten() for name in exact])
    assert float((got - wanted).norm() / wanted.norm()) < 0.03


def test_what_one_continuation_says_never_reaches_its_siblings(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"])
    system = list(range(50, 90))
    siblings = [row([*system, *range(200 + 10 * i, 210 + 10 * i)], learned=[45, 49]) for i in range(3)]
    changed = [row([*system, *range(240, 250)], learned=[45, 49]), *siblings[1:]]
    before, after = (
        [
            token_losses(loaded, pack)[pack.rows]
            for pack in make_packs(
                step, token_mean, max_examples=None, token_budget=10**6, share_prefixes=True
            )
        ]
        for step in (siblings, changed)
    )
    torch.testing.assert_close(before[0][2:], after[0][2:], rtol=0, atol=1e-6)
    assert not torch.isclose(before[0][:2], after[0][:2], atol=1e-3).any()


@pytest.mark.parametrize("share", [True, False])
def test_an_update_counts_the_examples_tokens_and_says_how_many_were_shared(
    folders: dict[str, Path], share: bool
) -> None:
    loaded = load(folders["llama"])
    learner = make_learner(loaded.model, CPU, torch.float32, SETTINGS)
    selfcheck.choose_path(learner, rows(), share_prefixes=share)
    batch = rows()
    packs = make_packs(
        batch, token_mean, max_examples=None, token_budget=10**6, share_prefixes=learner.shares
    )
    report = train_step(learner, packs, batch, Plan(9, 9, 5, 0), SETTINGS, 1)
    assert report.tokens == sum(int(np.flatnonzero(one.supervised)[-1]) for one in batch)
    assert report.learned_tokens == sum(one.learned_tokens for one in batch)
    assert bool(report.shared_tokens) == share
    assert report.shared_tokens == report.tokens - sum(len(pack.ids) for pack in packs)


def test_the_trial_also_takes_the_largest_pass_that_shares(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"])
    learner = make_learner(loaded.model, CPU, torch.float32, SETTINGS)
    taken = {}
    for share in (True, False):
        selfcheck.choose_path(learner, rows(), share_prefixes=share)
        plan = Plan(examples=9, batch_size=9, steps=3, seed=0)
        taken[share] = try_largest_step(
            learner, rows(), rows(1), plan, token_mean, (None, 400), checkpointing="off"
        )
    assert taken[False].tokens <= 400 < taken[True].tokens
    assert taken[True].token_budget == taken[False].token_budget == 400


def test_held_out_figures_do_not_depend_on_sharing(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"])
    assert loaded.shares
    figures = [
        held_out_loss(replace(loaded, shares=shares), rows(), text_bytes=100, packing=(None, 4096))
        for shares in (True, False)
    ]
    assert figures[0].tokens == figures[1].tokens == sum(one.learned_tokens for one in rows())
    assert figures[0].loss == pytest.approx(figures[1].loss, rel=1e-6)


# --- the self-check ---


@pytest.mark.parametrize("family", FAMILIES)
def test_the_self_check_lets_every_family_share(folders: dict[str, Path], family: str) -> None:
    loaded = load(folders[family])
    check = selfcheck.choose_path(loaded, rows())
    assert check.shares
    assert "prefixes that they share computed once" in check.how
    assert "so are shared prefixes computed once" in check.detail


def test_the_recipe_can_switch_sharing_off(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"])
    check = selfcheck.choose_path(loaded, rows(), share_prefixes=False)
    assert not loaded.shares
    assert "shared prefixes computed for each, because share_prefixes is off" in check.how
    assert "prefixes" not in check.detail


@pytest.mark.parametrize("where", ["hidden", "attention", "adapter"])
def test_dropout_switches_sharing_off_while_learning(folders: dict[str, Path], where: str) -> None:
    family = "gpt2" if where == "hidden" else "llama"
    loaded = load(folders[family], dropout=0.0 if where == "adapter" else 0.1)
    if where == "adapter":
        loaded.model = lora(loaded.model, AdapterSettings(lora_r=2, lora_dropout=0.1), [])
    check = selfcheck.choose_path(loaded, rows())
    assert check.packed
    assert not check.shares
    assert "because with dropout several examples would lose the same values" in check.how
    loaded.model.eval()
    assert selfcheck.choose_path(loaded, rows()).shares


@pytest.mark.parametrize(
    ("parents_become", "reason"),
    [
        (lambda parents: (-1,) * len(parents), "computed once and computed for each differ"),
        (lambda parents: tuple(range(-1, len(parents) - 1)), "continuations of a prefix reach one another"),
    ],
)
def test_the_self_check_sees_prefixes_that_are_lost_and_siblings_that_mix(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, parents_become: Any, reason: str
) -> None:
    from transformers import AttentionInterface

    def wrong(*args: Any, segment_parents: tuple[int, ...] | None = None, **kwargs: Any) -> Any:
        parents = None if segment_parents is None else parents_become(segment_parents)
        return segment_attention(*args, segment_parents=parents, **kwargs)

    loaded = load(folders["llama"])
    monkeypatch.setitem(AttentionInterface._global_mapping, NAME, wrong)
    check = selfcheck.choose_path(loaded, rows())
    assert check.packed
    assert not check.shares
    assert reason in check.how


def test_a_layer_that_mixes_neighbours_is_seen_even_where_it_keeps_packed_examples_apart(
    folders: dict[str, Path],
) -> None:
    """Each token gets something of the one before it in the row, unless it is the first of its example."""
    loaded = load(folders["llama"])
    decoder = loaded.model.model
    forward, embed = decoder.forward, decoder.embed_tokens.forward
    begins: list[torch.Tensor] = []

    def noting(*args: Any, **inputs: Any) -> Any:
        ids = inputs["input_ids"] if "input_ids" in inputs else args[0]
        positions = inputs.get("position_ids")
        begins[:] = [torch.arange(ids.shape[1])[None] == 0 if positions is None else positions == 0]
        return forward(*args, **inputs)

    def mixing(ids: torch.Tensor) -> torch.Tensor:
        own = embed(ids)
        return own + own.roll(1, dims=1).masked_fill(begins[0][..., None], 0.0)

    decoder.forward, decoder.embed_tokens.forward = noting, mixing
    check = selfcheck.choose_path(loaded, rows())
    assert check.packed
    assert not check.shares


def test_a_model_that_is_given_no_parents_does_not_share(folders: dict[str, Path]) -> None:
    """A layer between that drops what it does not know: the losses say so."""
    loaded = load(folders["llama"])
    forward = loaded.model.model.forward
    loaded.model.model.forward = lambda segment_parents=None, **inputs: forward(**inputs)
    check = selfcheck.choose_path(loaded, rows())
    assert check.packed
    assert not check.shares


# --- a whole run ---


def test_a_run_shares_by_itself_and_learns_the_same_as_one_that_does_not(
    settings: dict[str, Any], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    system = (
        "You are patient and precise, you answer in one short sentence, and you never add what was not asked."
    )
    prompted = [{"messages": [{"role": "system", "content": system}, *line["messages"]]} for line in rows]
    settings["data"] = str(write_jsonl(tmp_path / "prompted.jsonl", prompted))
    told, journals = {}, {}
    for share in ("auto", "off"):
        watcher = Listener()
        run = tuition.train(
            **{**settings, "output_dir": str(tmp_path / share), "share_prefixes": share}, watcher=watcher
        )
        told[share] = watcher.machine
        journals[share] = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert "prefixes that they share computed once" in told["auto"]
    assert "because share_prefixes is off" in told["off"]
    for one, other in zip(journals["auto"], journals["off"], strict=True):
        name = "loss" if "loss" in one else "eval_loss"
        assert one[name] == pytest.approx(other[name], rel=1e-3)
        if name == "loss":
            assert one["tokens"] == other["tokens"]
            assert one["learned_tokens"] == other["learned_tokens"]
    shared, tokens = (
        {share: sum(line.get(name, 0) for line in lines) for share, lines in journals.items()}
        for name in ("shared_tokens", "tokens")
    )
    assert shared["off"] == 0
    assert shared["auto"] > 0.3 * tokens["auto"]


class Listener(Watcher):
    machine = ""

    def opening(self, opening: Opening) -> None:
        self.machine = dict(opening.facts)["machine"]
