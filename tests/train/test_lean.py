"""Leaner norms and gated layers are exact, keep less, and replace nothing that they do not equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import make_model, make_tokenizer
from tuition.recipe import AdapterSettings, ModelSettings
from tuition.train import lean_layers
from tuition.train.adapters import lora
from tuition.train.lean import make_lean
from tuition.train.lean_layers import ACTIVATIONS, gated, gated_linear, rms_norm
from tuition.train.model import load_config, load_model

CPU = torch.device("cpu")
# How many modules of two layers have a leaner form: norms and the gated layer, or GPT-2's activation.
REPLACED = {
    "llama": {"LlamaRMSNorm": 5, "LlamaMLP": 2},
    "qwen3": {"Qwen3RMSNorm": 9, "Qwen3MLP": 2},
    "gemma2": {"Gemma2RMSNorm": 9, "Gemma2MLP": 2},
    "phi3": {"Phi3RMSNorm": 5, "Phi3MLP": 2},
    "gpt2": {"NewGELUActivation": 2},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lean")


def load(root: Path, family: str, dtype: torch.dtype = torch.float32) -> Any:
    folder = root / family
    if not folder.exists():
        make_model(folder, family=family, tokenizer=make_tokenizer())
    settings = ModelSettings(model=str(folder))
    return load_model(settings, load_config(str(folder)), device=CPU, dtype=dtype).train()


def run(model: Any) -> list[Tensor]:
    """Logits, and the gradient of every weight that learns."""
    model.zero_grad()
    logits = model(input_ids=torch.arange(10, 60)[None], use_cache=False).logits
    logits.float().sin().sum().backward()
    return [logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def replaced(model: nn.Module) -> dict[str, int]:
    names = [type(module).__name__ for module in model.modules() if "forward" in vars(module)]
    return {name: names.count(name) for name in names if "SiLU" not in name and "Tanh" not in name}


@pytest.mark.parametrize("family", list(REPLACED))
def test_every_familys_norms_and_gated_layers_are_found_and_give_what_their_own_code_gives(
    root: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_layers, "_BLOCK_VALUES", 500)  # several blocks, the last one shorter
    model = load(root, family)
    own = run(model)
    make_lean(model)
    assert replaced(model) == REPLACED[family]
    for got, expected in zip(run(model), own, strict=True):
        assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_an_adapter_over_every_layer_learns_the_same(root: Path) -> None:
    torch.manual_seed(0)
    model = lora(load(root, "llama"), AdapterSettings(lora_r=4), [])
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p, std=0.1)
    own = run(model)
    make_lean(model)
    assert replaced(model) == REPLACED["llama"]
    for got, expected in zip(run(model), own, strict=True):
        assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_gradient_of_a_norm_is_its_derivative(offset: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    inputs = (x.transpose(0, 1).requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-3, offset, False), inputs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_of_a_gated_layer_is_its_derivative(activation: lean_layers.Activation) -> None:
    torch.manual_seed(0)
    gate, up = (torch.randn(3, 6, dtype=torch.float64).requires_grad_() for _ in range(2))
    weight = torch.randn(4, 6, dtype=torch.float64).requires_grad_()
    bias = torch.randn(4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda g, u: gated(g, u, activation), (gate, up))
    assert torch.autograd.gradcheck(
        lambda g, u, w, b: gated_linear(g, u, w, b, activation), (gate, up, weight, bias)
    )
    frozen = weight.detach()
    gated_linear(gate, up, frozen, None, activation).sum().backward()
    assert frozen.grad is None


def kept_bytes(model: Any) -> dict[torch.dtype, int]:
    """What a forward pass keeps for the backward pass beside the weights, by dtype."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, tuple[torch.dtype, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (tensor.dtype, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=torch.arange(10, 310)[None], use_cache=False)
    return {dtype: sum(n for d, n in kept.values() if d == dtype) for dtype, _ in kept.values()}


def test_no_float32_copies_and_no_products_are_kept(root: Path) -> None:
    model = load(root, "llama", torch.bfloat16)
    before = kept_bytes(model)
    make_lean(model)
    after = kept_bytes(model)
    assert sum(after.values()) < 0.65 * sum(before.values())
    tokens, norms, layers = 300, 5, 2
    attention = 4 * layers * 4 * tokens  # the softmax's own: four heads
    assert after[torch.float32] <= 4 * tokens * norms + attention  # a number a row


class CentredNorm(nn.Module):
    """Looks like an RMS norm and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(16)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


class OtherMLP(nn.Module):
    """Three layers in the shape of a gated one, and something else between them."""

    def __init__(self, between: Any, inner: int = 24) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(16, inner), nn.Linear(16, inner)
        self.down_proj, self.between = nn.Linear(inner, 16), between

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down_proj(self.between(self.gate_proj(x), self.up_proj(x)))
        return result


@pytest.mark.parametrize(
    "module",
    [
        CentredNorm(),
        OtherMLP(lambda gate, up: F.silu(gate).clamp(max=7.0) * up),
        OtherMLP(lambda gate, up: gate * torch.sigmoid(1.702 * gate) * (up + 1)),
        OtherMLP(lambda gate, up: F.dropout(F.silu(gate) * up, 0.1)),
        OtherMLP(lambda gate, up: F.silu(gate).detach() * up),
        nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 16)),
    ],
    ids=["centred", "clamped", "other", "dropout", "no gradient", "sequence"],
)
def test_what_is_not_exactly_equal_is_left_alone(module: nn.Module) -> None:
    assert make_lean(module) == 0
    assert "forward" not in vars(module)


class GatedNorm(nn.Module):
    """An RMS norm, unless it is given a gate as well, as layers with states do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(16)), 1e-6

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        x = x if gate is None else x * F.silu(gate)
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def test_a_module_that_is_given_more_than_was_compared_does_it_itself() -> None:
    own, lean_one, (x, gate) = GatedNorm(), GatedNorm(), torch.randn(2, 5, 16)
    lean_one.load_state_dict(own.state_dict())
    assert make_lean(lean_one) == 1
    torch.testing.assert_close(lean_one(x), own(x))
    for given, named in (((x, gate), {}), ((x,), {"gate": gate}), ((), {"x": x})):
        assert torch.equal(lean_one(*given, **named), own(*given, **named))


def test_a_module_that_somebody_watches_is_left_alone() -> None:
    module = OtherMLP(lambda gate, up: F.silu(gate) * up)
    module.register_forward_hook(lambda *_: None)
    assert make_lean(module) == 0
    for inner in (24, 8):
        assert make_lean(OtherMLP(lambda gate, up: F.silu(gate) * up, inner)) == 1
