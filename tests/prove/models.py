"""Every causal language model that transformers knows, built tiny: is what a run computes the model's own gradient?

Four examples, three of which begin alike, are learned over several passes as a run does it, whatever path its
self-check chose, and compared with the model's own code in float64, one example at a time. A model that sees what it
should predict must be refused. Sizes are set by the names that configurations use; what cannot be built from them is
named and not counted.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.prove.page import Result
from tests.train.families import largest_gap
from tuition.conversation import Rendered
from tuition.errors import Origin, UserError, one_line
from tuition.recipe import OptimizerSettings
from tuition.train import attention
from tuition.train.learner import make_learner
from tuition.train.loop import packs_of
from tuition.train.loss import step_loss, token_loss_of, token_mean
from tuition.train.selfcheck import PathCheck, choose_path
from tuition.train.trunk import over_trunks

SETTINGS = OptimizerSettings(learning_rate=1e-3, warmup_steps=0, lr_scheduler="constant")
_BUDGET = 190  # tokens of a pass: each example has one, and what three begin with is a trunk
_MOST_WEIGHTS = 20_000_000
_LARGEST_GAP, _MOST_ROUNDING = 1e-5, 1e-4
_VOCABULARY, _WIDTH, _HEADS, _HEAD, _POSITIONS, _WINDOW = 320, 64, 4, 16, 256, 24

_SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), _VOCABULARY),
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "emb_dim", "embedding_size", "output_embedding_size", "lru_width",
         "projection_dim", "word_embed_proj_dim", "attention_hidden_size"), _WIDTH,
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads",
         "encoder_attention_heads", "num_local_experts", "num_experts", "n_routed_experts"), _HEADS,
    ),
    **dict.fromkeys(
        ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size",
         "mlp_hidden_size"), 96,
    ),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), _POSITIONS),
    **dict.fromkeys(("sliding_window", "attention_window_size", "window_size", "local_attention"), _WINDOW),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "kv_lora_rank",
                     "q_lora_rank", "hidden_size_per_layer_input"), _HEAD),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_experts_per_tok", "num_key_value_heads", "attn_layer_period"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "attn_layer_offset"), 1),
    **dict.fromkeys(("rotary_dim", "laurel_rank", "state_size", "mamba_d_state", "ssm_state_size"), 8),
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_expand": 2, "expand": 2,
    "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 1, "num_kv_shared_layers": 0,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "is_decoder": True,
    **dict.fromkeys(
        ("dropout", "attention_dropout", "hidden_dropout", "activation_dropout", "resid_pdrop", "embd_pdrop",
         "attn_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob", "resid_dropout", "embedding_dropout",
         "residual_dropout", "summary_first_dropout", "router_jitter_noise", "input_jitter_noise"), 0.0,
    ),
}  # fmt: skip
_LAYER_KINDS = ("layer_types", "layers_block_type", "block_types", "mlp_layer_types")


class NotBuilt(Exception):
    """These sizes make no tiny model of this kind."""


@dataclass
class Tally:
    """What came of each kind of model, by name.

    Attributes:
        packed: examples stood side by side.
        shared: and what they begin with was computed once.
        alone: one example at a time.
        refused: the run did not begin, with a sentence.
        wrong: another gradient, or an error that is none of ours.
        not_built: not tried, and why.
    """

    packed: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    not_built: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """How many kinds were built."""
        return len(self.packed) + len(self.alone) + len(self.refused) + len(self.wrong)


def prove(share: float, tell: Callable[[str], None]) -> Result:
    """Try this share of all kinds."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KINDS

    attention.register()
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tally = Tally()
    for kind in list(KINDS)[:: max(1, round(1 / share))]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try_kind(kind, tally)
    tell(
        "\n".join(
            [*(f"wrong: {line}" for line in tally.wrong), *(f"not built: {line}" for line in tally.not_built)]
        )
    )
    name = "kinds of causal language models of transformers: the gradient of the model's own code, or refused"
    return Result([(name, tally.tried, tally.tried - len(tally.wrong))], list(_notes(tally)))


def _notes(tally: Tally) -> Iterator[str]:
    yield (
        f"Of {tally.tried} kinds of models {len(tally.packed)} learned in packs, {len(tally.shared)} of them with"
        f" shared prefixes, {len(tally.alone)} one example at a time, and {len(tally.refused)} were refused because"
        f" they see what they should predict ({', '.join(tally.refused) or 'none'})."
    )
    names = [line.split(":")[0] for line in tally.not_built]
    yield f"Not built from the sizes at hand, and not tried: {', '.join(names) or 'none'}."


def try_kind(kind: str, tally: Tally) -> None:
    """Build a model of a kind, and tell what came of it."""
    try:
        model = tiny(kind)
        expected = reference(model)
    except NotBuilt as fault:
        tally.not_built.append(f"{kind}: {fault}")
        return
    try:
        check, got = learned(model)
    except UserError as fault:
        seen = "sees the tokens that it should predict" in str(fault)
        (tally.refused if seen else tally.wrong).append(kind if seen else f"{kind}: {fault}")
        return
    except Exception as error:  # whatever it is, a run would have died of it
        tally.wrong.append(f"{kind}: {type(error).__name__}: {one_line(error)}")
        return
    missing = {name for name, g in expected.items() if name not in got and float(g.abs().max()) > 0}
    gap = largest_gap(got, {name: g for name, g in expected.items() if name in got})
    if missing or not gap <= max(_LARGEST_GAP, min(2 * rounding(model, expected), _MOST_ROUNDING)):
        tally.wrong.append(
            f"{kind}: {gap:.1e} of the largest gradient; without one: {sorted(missing)[:3]}; {check.how}"
        )
        return
    (tally.packed if check.packed else tally.alone).append(kind)
    if check.shares:
        tally.shared.append(kind)


def tiny(kind: str) -> Any:
    """A random model of a kind, in float32, as it is while it learns.

    Raises:
        NotBuilt: not from these sizes.
    """
    from transformers import AutoModelForCausalLM

    try:
        config = _config(kind)
        with torch.device("meta"):
            weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if weights > _MOST_WEIGHTS:
            raise NotBuilt(f"{weights:,} weights")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except NotBuilt:
        raise
    except Exception as error:  # configurations refuse sizes in ways of their own
        raise NotBuilt(f"{type(error).__name__}: {one_line(error)}") from error
    for p in model.parameters():
        if p.ndim > 1:
            p.data.normal_(0, 0.06)
    return model.train()


def _config(kind: str) -> Any:
    from transformers import CONFIG_MAPPING

    whole = CONFIG_MAPPING[kind]()
    text = whole.get_text_config()
    known, renamed = text.to_dict(), getattr(type(text), "attribute_map", {})
    sizes = {
        renamed.get(name, name): value for name, value in _SIZES.items() if name in known or name in renamed
    }
    sizes |= {name: value for name, value in _SIZES.items() if name in known}
    if "kv_lora_rank" in known:
        sizes["num_key_value_heads"] = _HEADS  # one latent row stands for all heads
    for name in _LAYER_KINDS:
        if known.get(name):
            kinds = list(dict.fromkeys(known[name]))
            sizes[name] = kinds * (2 if len(kinds) == 1 else 1)
            sizes |= {count: len(sizes[name]) for count in ("num_hidden_layers", "n_layer") if count in known}
    return type(text)(**sizes)


def examples() -> list[Rendered]:
    """Three that begin with the same 150 tokens, and one that does not."""
    random = np.random.default_rng(0)
    start = random.integers(5, 300, 150)
    made = []
    for begin, own, answer in ((start, 20, 9), (start, 31, 17), (start, 12, 5), (start[:0], 53, 20)):
        ids = np.concatenate([begin, random.integers(5, 300, own)]).astype(np.int32)
        supervised = np.zeros(len(ids), dtype=np.float32)
        supervised[-answer:] = 1.0
        made.append(Rendered(ids, supervised, Origin("f", 1)))
    return made


def reference(model: Any, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss by the model's own code, an example at a time, in float64 where its operations know it.

    Raises:
        NotBuilt: its own code does not run with these sizes.
    """
    own = copy.deepcopy(model).to(dtype)
    for switch in ("set_attn_implementation", "set_experts_implementation"):
        try:
            getattr(own, switch)("eager")
        except (AttributeError, ValueError, KeyError):
            continue
    rows = examples()
    learned_tokens = sum(row.learned_tokens for row in rows)
    try:
        for row in rows:
            ids = torch.from_numpy(row.ids.astype(np.int64))[None]
            losses = F.cross_entropy(
                own(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:], reduction="none"
            )
            (losses[torch.from_numpy(row.supervised[1:] > 0)].sum() / learned_tokens).backward()
    except Exception as error:  # sizes that do not fit show only here
        if dtype == torch.float64:
            return reference(model, torch.float32)
        raise NotBuilt(f"{type(error).__name__}: {one_line(error)}") from error
    return {name: p.grad for name, p in own.named_parameters() if p.grad is not None}


def rounding(model: Any, expected: dict[str, torch.Tensor]) -> float:
    """How far the model's own code in float32 is from that."""
    return largest_gap(reference(model, torch.float32), expected)


def learned(model: Any) -> tuple[PathCheck, dict[str, torch.Tensor]]:
    """The gradient of the same update as a run computes it."""
    learner, rows = (
        make_learner(copy.deepcopy(model), torch.device("cpu"), torch.float32, SETTINGS),
        examples(),
    )
    check = choose_path(learner, rows)
    packs = packs_of(learner, rows, token_mean, (None if learner.packed else 1, _BUDGET))
    weight = sum(pack.weight for pack in packs)

    def forward_and_backward(lane: Any, pack: Any) -> torch.Tensor:
        loss = step_loss(lane, pack, weight, token_loss_of(SETTINGS))
        loss.backward()
        return loss.detach()

    learner.masters.forget_gradients()
    over_trunks(learner.as_lanes(), forward_and_backward, packs)
    learner.masters.join()
    return check, {
        name: p.grad.to_dense() for name, p in learner.model.named_parameters() if p.grad is not None
    }
