"""Whether the path on a device is right: loss and gradients beside plain float32 on the CPU, family by family."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from tuition.batch import Pack, make_packs
from tuition.conversation import Rendered
from tuition.errors import Origin
from tuition.train import attention, attention_varlen
from tuition.train.loss import step_loss, token_mean
from tuition.train.masters import Masters
from tuition.train.model import LoadedModel, ordinary_attention
from tuition.train.selfcheck import choose_path
from tuition.train.trunk import over_trunks

_COMMON = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 1024, "pad_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_COMMON, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {**_COMMON, "num_key_value_heads": 2, "head_dim": 64}),
    "mistral": ("MistralConfig", {**_COMMON, "num_key_value_heads": 2, "sliding_window": 64}),
    "gemma2": (
        "Gemma2Config",
        {**_COMMON, "num_key_value_heads": 2, "head_dim": 64, "sliding_window": 64},
    ),
    "phi3": ("Phi3Config", {**_COMMON, "num_key_value_heads": 2}),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 512, "n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": 1024,
         "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
}  # fmt: skip
# Largest relative difference of the loss, and of all gradients together in norm.
BOUNDS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (2e-3, 0.03)}


def check_families(device: torch.device, families: list[str]) -> list[dict[str, Any]]:
    """Every family, dtype, kernel and layout; one row each.

    Args:
        device: CUDA; the CPU for a trial of this script.
    """
    attention.register()
    rows = []
    for family in families:
        for dtype in (torch.float32, torch.bfloat16):
            exact = reference(family, dtype)
            for kernel in kernels_to_try(device, dtype):
                for share in (True, False):
                    rows.append(compare(family, dtype, kernel, share, device, exact))
    return rows


def kernels_to_try(device: torch.device, dtype: torch.dtype) -> list[str | None]:
    """Each flash kernel that is installed, and None: no flash kernel, SDPA or products segment by segment."""
    flash = device.type == "cuda" and dtype == torch.bfloat16
    return [*(attention_varlen.installed_kernels() if flash else {}), None]


def compare(
    family: str,
    dtype: torch.dtype,
    kernel: str | None,
    share: bool,
    device: torch.device,
    exact: tuple[float, dict[str, torch.Tensor]],
) -> dict[str, Any]:
    """One step on the device beside the reference."""
    chosen = (kernel, attention_varlen.installed_kernels()[kernel]) if kernel else None
    row = {"family": family, "dtype": str(dtype).removeprefix("torch."), "kernel": kernel, "shared": share}
    with patch.object(attention_varlen, "working_kernel", lambda device: chosen):
        try:
            path, loss, gradients = on_device(family, dtype, share, device)
        except Exception as error:  # a kernel that fails is a finding, and the others still count
            return row | {"ok": False, "fault": f"{type(error).__name__}: {str(error)[:200]}"}
    flat = [
        torch.cat([found[name].double().cpu().flatten() for name in exact[1]])
        for found in (gradients, exact[1])
    ]
    gaps = abs(loss / exact[0] - 1), float((flat[0] - flat[1]).norm() / flat[1].norm())
    ok = gaps[0] <= BOUNDS[dtype][0] and gaps[1] <= BOUNDS[dtype][1]
    return row | {"ok": ok, "loss_gap": gaps[0], "gradient_gap": gaps[1], "path": path}


def on_device(
    family: str, dtype: torch.dtype, share: bool, device: torch.device
) -> tuple[str, float, dict[str, torch.Tensor]]:
    """Loss and gradients as a run computes them, over several passes and, shared, a trunk below some of them."""
    model = make(family).to(device)
    masters = Masters(model, dtype)
    loaded = LoadedModel(model.train(), device, dtype)
    check = choose_path(loaded, examples(), share_prefixes=share)
    if not check.packed or check.shares != share:
        raise RuntimeError(check.detail + "; " + check.how)
    packs = make_packs(
        examples(),
        token_mean,
        max_examples=None,
        token_budget=500,
        share_prefixes=loaded.shares,
        share_trunks=loaded.trunks,
    )
    if share and not any(pack.trunk for pack in packs):
        raise RuntimeError("no passes share a trunk")
    weight = sum(pack.weight for pack in packs)

    def learn(lane: LoadedModel, pack: Pack) -> float:
        part = step_loss(lane, pack, weight)
        part.backward()
        return part.item()

    return check.how, sum(over_trunks([loaded], learn, packs)), masters.gather()


def reference(family: str, dtype: torch.dtype) -> tuple[float, dict[str, torch.Tensor]]:
    """Plain transformers, one example at a time, all logits, float32 on the CPU, weights rounded to `dtype`."""
    model = make(family).to(dtype).float()
    model.set_attn_implementation(ordinary_attention(model))
    losses = []
    for example in examples():
        ids = torch.from_numpy(example.ids.astype(np.int64))[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        each = F.cross_entropy(logits, ids[0, 1:], reduction="none")
        losses.append(each[torch.from_numpy(example.supervised[1:] > 0)])
    loss = torch.cat(losses).mean()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def make(family: str) -> Any:
    """A small model with random weights, always the same."""
    import transformers

    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings))


def examples() -> list[Rendered]:
    """Unequal lengths; eight begin alike for 200 tokens, more than fit into one pass, and two are on their own."""
    random = np.random.default_rng(0)
    prompt = random.integers(2, 512, 200)
    made = []
    for own in (40, 7, 150, 90, 2, 140, 120, 130, -130, -33):
        ids = np.concatenate([prompt if own > 0 else prompt[:0], random.integers(2, 512, abs(own))])
        supervised = np.zeros(len(ids), dtype=np.float32)
        supervised[-max(1, abs(own) // 2) :] = 1.0
        made.append(Rendered(ids.astype(np.int32), supervised, Origin("benchmark", 1)))
    return made
