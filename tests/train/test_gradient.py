"""Gradients over every layout equal an obviously right float64 reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_model
from tests.train.families import FAMILIES, largest_gap
from tuition.batch import make_packs
from tuition.conversation import Rendered
from tuition.errors import Origin, UserError
from tuition.recipe import ModelSettings
from tuition.train import selfcheck
from tuition.train.attention import NAME, register, segment_attention
from tuition.train.head import Head, find_head
from tuition.train.lean import make_lean
from tuition.train.loss import LOSSES, step_loss, token_losses
from tuition.train.masters import Masters
from tuition.train.model import LoadedModel, load_config, load_model

CPU = torch.device("cpu")
ANSWER_LENGTHS = (1, 7, 2, 30, 3, 1, 12, 5)


PROBE = torch.arange(10, 30)[None]


def load(folder: Path, *, packed: bool, dtype: torch.dtype = torch.float32) -> LoadedModel:
    settings = ModelSettings(model=str(folder))
    model = load_model(settings, load_config(str(folder)), device=CPU, dtype=dtype)
    model.set_attn_implementation("eager")
    head = find_head(model, PROBE)
    assert isinstance(head, Head), head
    model.set_attn_implementation(NAME if packed else "eager")
    if packed:
        make_lean(model)
    return LoadedModel(model.train(), CPU, dtype, packed=packed, head=head)


def examples(answers: tuple[int, ...] = ANSWER_LENGTHS) -> list[Rendered]:
    random = np.random.default_rng(0)
    made = []
    for answer in answers:
        ids = random.integers(10, 300, size=5 + answer).astype(np.int32)
        supervised = np.zeros(len(ids), dtype=np.float32)
        supervised[5:] = 1.0
        made.append(Rendered(ids, supervised, Origin("f", 1)))
    return made


def gradient(
    loaded: LoadedModel, objective: str, micro_batch: int, rows: list[Rendered] | None = None
) -> dict[str, torch.Tensor]:
    packs = make_packs(rows or examples(), LOSSES[objective], max_examples=micro_batch, token_budget=10**6)
    whole_step_weight = sum(pack.weight for pack in packs)
    for pack in packs:
        step_loss(loaded, pack, whole_step_weight).backward()
    return {name: p.grad.clone() for name, p in loaded.model.named_parameters()}


def reference(
    folder: Path,
    objective: str,
    rows: list[Rendered] | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """One example at a time, full logits, eager attention, float64; `dtype`: what the weights are rounded to."""
    model = load(folder, packed=False, dtype=dtype).model.double()
    rows = rows or examples()
    per_example = []
    for row in rows:
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        losses = F.cross_entropy(logits, ids[0, 1:], reduction="none")
        per_example.append(losses[torch.from_numpy(row.supervised[1:] > 0)])
    if objective == "token_mean":
        loss = torch.cat(per_example).mean()
    else:
        loss = torch.stack([losses.mean() for losses in per_example]).mean()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("objective", ["token_mean", "example_mean"])
@pytest.mark.parametrize("micro_batch", [8, 4, 1])
def test_the_layout_never_changes_the_gradient(
    folders: dict[str, Path], objective: str, micro_batch: int
) -> None:
    got = gradient(load(folders["llama"], packed=True), objective, micro_batch)
    assert largest_gap(got, reference(folders["llama"], objective)) < 1e-5


@pytest.mark.parametrize("micro_batch", [8, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradients_equal_the_reference_in_every_family(
    folders: dict[str, Path], family: str, micro_batch: int
) -> None:
    got = gradient(load(folders[family], packed=True), "token_mean", micro_batch)
    assert largest_gap(got, reference(folders[family], "token_mean")) < 1e-5


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_long_segments_give_the_same_gradients(folders: dict[str, Path], family: str) -> None:
    rows = examples((200, 5, 300))
    got = gradient(load(folders[family], packed=True), "token_mean", 3, rows)
    assert largest_gap(got, reference(folders[family], "token_mean", rows)) < 1e-5


@pytest.mark.parametrize("micro_batch", [8, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_gradients_lie_within_its_rounding(
    folders: dict[str, Path], family: str, micro_batch: int
) -> None:
    """Against float64 on the same rounded weights: 3 % over all weights, and each matrix points the same way."""
    loaded = load(folders[family], packed=True)
    masters = Masters(loaded.model, torch.bfloat16)
    packs = make_packs(examples(), LOSSES["token_mean"], max_examples=micro_batch, token_budget=10**6)
    for pack in packs:
        step_loss(replace(loaded, dtype=torch.bfloat16), pack, sum(p.weight for p in packs)).backward()
    gradients = masters.gather()
    got = {name: gradient.double() for name, gradient in gradients.items()}
    exact = reference(folders[family], "token_mean", dtype=torch.bfloat16)
    flat = [torch.cat([grads[name].flatten() for name in exact]) for grads in (got, exact)]
    assert len(packs) == 1 or {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    assert float((flat[0] - flat[1]).norm() / flat[1].norm()) < 0.03
    for name, tensor in exact.items():
        assert float(F.cosine_similarity(got[name].flatten(), tensor.flatten(), dim=0)) > 0.995, name


def test_unpacked_gradients_equal_the_reference(folders: dict[str, Path]) -> None:
    got = gradient(load(folders["llama"], packed=False), "token_mean", 1)
    assert largest_gap(got, reference(folders["llama"], "token_mean")) < 1e-5


def test_what_one_example_says_never_reaches_another(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"], packed=True)
    rows = examples()
    changed = [Rendered((rows[0].ids + 1).astype(np.int32), rows[0].supervised, rows[0].origin), *rows[1:]]
    packs = [
        make_packs(r, LOSSES["token_mean"], max_examples=None, token_budget=10**6)[0] for r in (rows, changed)
    ]
    before, after = (token_losses(loaded, pack) for pack in packs)
    first = rows[0].learned_tokens
    assert torch.equal(before[first:], after[first:])
    assert not torch.equal(before[:first], after[:first])


def test_the_self_check_sees_attention_that_crosses_examples(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AttentionInterface

    loaded = load(folders["llama"], packed=True)
    assert selfcheck.choose_path(loaded, examples()).packed

    def leaking(*args: Any, segment_lengths: tuple[int, ...] | None = None, **kwargs: Any) -> Any:
        joined = None if segment_lengths is None else (sum(segment_lengths),)
        return segment_attention(*args, segment_lengths=joined, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, NAME, leaking)
    check = selfcheck.choose_path(loaded, examples())
    assert not check.packed
    assert "reach one another" in check.detail
    assert "one example a pass" in check.how


def test_a_head_that_is_not_linear_is_called_itself_and_the_run_says_so(folders: dict[str, Path]) -> None:
    loaded = load(folders["llama"], packed=True)
    expected = token_losses(
        loaded, make_packs(examples(), LOSSES["token_mean"], max_examples=8, token_budget=10**6)[0]
    )
    loaded.model.lm_head = torch.nn.Sequential(loaded.model.lm_head)
    check = selfcheck.choose_path(loaded, examples())
    assert loaded.head is None
    assert check.packed
    assert "the model's own head, because its head is a Sequential" in check.how
    got = token_losses(
        loaded, make_packs(examples(), LOSSES["token_mean"], max_examples=8, token_budget=10**6)[0]
    )
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


_OTHER_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "BloomConfig": ({"n_layer": 2, "n_head": 4}, "reach one another"),
    "GPTJConfig": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 128}, ""),
    "RobertaConfig": (
        {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "is_decoder": True,
         "max_position_embeddings": 128, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        "packed and alone differ",
    ),
    "BartConfig": (
        {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64,
         "max_position_embeddings": 36, "dropout": 0.0, "is_decoder": True},
        "cannot run packed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("config", _OTHER_MODELS)
def test_a_model_that_knows_no_segments_is_seen_and_still_learned_exactly(config: str) -> None:
    """Bloom would mix examples; GPT-J keeps them apart by a mask of its own, and knows no shared prefixes; RoBERTa
    counts positions from 2 and Bart over the whole pack, which is longer than it can be."""
    import transformers

    torch.manual_seed(0)
    sizes, obstacle = _OTHER_MODELS[config]
    common = {"vocab_size": 400, "hidden_size": 32, "bos_token_id": 1, "eos_token_id": 2}
    chosen = getattr(transformers, config)(**{**common, **sizes})
    model = transformers.AutoModelForCausalLM.from_config(chosen)
    for p in model.parameters():
        p.data.mul_(5 if p.ndim > 1 else 1)  # random weights attend to nothing in particular
    register()
    loaded = LoadedModel(model.train(), CPU, torch.float32)
    check = selfcheck.choose_path(loaded, examples())
    assert (check.packed, check.shares) == (not obstacle, False)
    assert obstacle in check.detail
    assert check.packed or "one example a pass" in check.how
    layout = make_packs(
        examples(), LOSSES["token_mean"], max_examples=1 if obstacle else None, token_budget=10**6
    )
    losses = torch.cat([token_losses(loaded, pack)[pack.rows] for pack in layout])
    expected = []
    for example in examples():
        ids = torch.from_numpy(example.ids.astype(np.int64))[None]
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        learned = torch.from_numpy(example.supervised[1:] > 0)
        expected.append(F.cross_entropy(logits[learned], ids[0, 1:][learned], reduction="none"))
    torch.testing.assert_close(losses, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_where_length_turns_positions_a_long_example_stands_alone(tmp_path: Path) -> None:
    """LongRoPE (Phi-3.5, Phi-4-mini) has other frequencies for all of a pass that holds a position beyond the first context."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 20,
            "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}  # fmt: skip
    folder = make_model(tmp_path, family="phi3", rope_parameters=rope, original_max_position_embeddings=20)
    loaded = load(folder, packed=True)
    check = selfcheck.choose_path(loaded, examples((1, 7, 2)))
    assert loaded.packed and loaded.longest_alike == 20 and "more than 20 tokens alone" in check.how
    rows = examples((7, 30, 3, 15, 17, 1))
    packs = make_packs(
        rows, LOSSES["token_mean"], max_examples=None, token_budget=10**6, share_prefixes=True,
        share_trunks=True, longest_alike=loaded.longest_alike,
    )  # fmt: skip
    assert [pack.lengths for pack in packs] == [(11,), (34,), (7, 19), (21,), (5,)]
    whole_step_weight = sum(pack.weight for pack in packs)
    for pack in packs:
        step_loss(loaded, pack, whole_step_weight).backward()
    found = {name: p.grad for name, p in loaded.model.named_parameters()}
    assert largest_gap(found, reference(folder, "token_mean", rows)) < 1e-5


def test_a_model_that_sees_what_it_should_predict_is_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=400, max_position_embeddings=128, initializer_range=0.2, **sizes)
    config.is_decoder = True
    causal = LoadedModel(BertLMHeadModel(config).eval(), CPU, torch.float32)
    selfcheck.refuse_to_see_ahead(causal, examples())
    config.is_decoder = False
    reading_ahead = LoadedModel(BertLMHeadModel(config).eval(), CPU, torch.float32)
    with pytest.raises(UserError, match=r"sees the tokens that it should predict.*is_decoder"):
        selfcheck.choose_path(reading_ahead, examples())
