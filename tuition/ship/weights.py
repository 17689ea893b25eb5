"""Which tensor of an export is wrong, and how: asked only when its logits are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tuition.counting import counted
from tuition.evaluate.load import load_answerer
from tuition.recipe import load_recipe
from tuition.train.libraries import peft
from tuition.train.model import base_of
from tuition.train.naming import run_of

_SAME = 1e-5


@dataclass(frozen=True, slots=True)
class Truth:
    """A tensor as it was trained, and as it was before."""

    trained: torch.Tensor
    before: torch.Tensor | None


def fault_in_weights(name: str, folder: Path) -> str | None:
    """What is wrong with the weights in `folder`, beside the model that `name` means; None: no tensor differs.

    The model is loaded again: what stands in memory was merged and cast to be written.
    """
    if (folder / "adapter_config.json").exists():
        return _adapter_fault(name, folder)
    truths = _truths(name)
    written = dict(_tensors_in(folder))
    missing = sorted(truths.keys() - written.keys() - _tied(name))
    if missing:
        return f"{missing[0]} is missing"
    wrong = [n for n in truths if n in written and not _alike(written[n], truths[n].trained)]
    if not wrong:
        return None
    first = f"first {wrong[0]}"
    moved = [
        n for n in wrong if truths[n].before is not None and not _alike(truths[n].trained, truths[n].before)
    ]
    if moved == wrong and all(_alike(written[n], truths[n].before) for n in wrong):
        theirs = counted(
            len(wrong),
            "tensor is the base model's, not the tuned one",
            "tensors are the base model's, not the tuned ones",
        )
        return f"{theirs}: {first}"
    scale = _common_scale([(written[n], truths[n]) for n in moved]) if moved == wrong else None
    if scale is not None:
        return f"the adapter was merged at {scale:.3g} times its scale: {first}"
    return f"{counted(len(wrong), 'tensor differs', 'tensors differ')}: {first}"


def _alike(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    if other is None or one.shape != other.shape:
        return False
    rounding = 2**-7 if one.dtype == torch.bfloat16 else _SAME
    largest = max(float(other.abs().max()), 1e-12)
    return float((one.float() - other.float()).abs().max()) <= rounding * largest


def _common_scale(pairs: list[tuple[torch.Tensor, Truth]]) -> float | None:
    """The one factor by which all changes are too large or too small; None where there is none."""
    scales = []
    for written, truth in pairs:
        assert truth.before is not None
        wanted = (truth.trained - truth.before).flatten().double()
        got = (written.float() - truth.before).flatten().double()
        scale = float(got @ wanted / (wanted @ wanted).clamp(min=1e-30))
        if float((got - scale * wanted).norm()) > 0.02 * float(got.norm()):
            return None
        scales.append(scale)
    return scales[0] if scales and max(scales) - min(scales) <= 0.02 * abs(scales[0]) else None


def _tensors_in(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors.torch import load_file

    for file in sorted(folder.glob("*.safetensors")):
        yield from load_file(file).items()


def _tied(name: str) -> set[str]:
    """Names of tensors that another name holds too, and that a folder may leave out."""
    model = base_of(load_answerer(name, device="cpu").loaded.model)
    return set(getattr(model, "_tied_weights_keys", None) or ())


def _truths(name: str) -> Mapping[str, Truth]:
    """Every tensor of the model that `name` means, under the name that it has in a folder."""
    answerer = load_answerer(name, device="cpu")
    model = answerer.loaded.model
    if not answerer.adapted:
        before = _weights_before(name)
        return {n: Truth(t.detach(), before.get(n)) for n, t in model.state_dict().items()}
    base = {
        n.replace(".base_layer", ""): t.detach().clone()
        for n, t in base_of(model).state_dict().items()
        if "lora_" not in n and "token_adapter" not in n
    }
    merged = model.merge_and_unload(safe_merge=True).state_dict()
    return {n: Truth(t.detach(), base.get(n)) for n, t in merged.items()}


def _weights_before(name: str) -> Mapping[str, torch.Tensor]:
    """The weights that a run began with, where it began from a folder."""
    run = run_of(name)
    if not run.holds_a_run():
        return {}
    start = Path(load_recipe(run.recipe).model)
    return dict(_tensors_in(start)) if start.is_dir() else {}


def _adapter_fault(name: str, folder: Path) -> str | None:
    from safetensors.torch import load_file

    model = load_answerer(name, device="cpu").loaded.model
    said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (config,) = model.peft_config.values()
    for key in ("r", "lora_alpha", "use_rslora"):
        if said.get(key) != getattr(config, key):
            return f"adapter_config.json says {key}: {said.get(key)}, and it was trained with {getattr(config, key)}"
    written = load_file(folder / "adapter_model.safetensors")
    trained = peft().get_peft_model_state_dict(model)
    wrong = [n for n, t in trained.items() if n not in written or not _alike(written[n], t)]
    return f"{counted(len(wrong), 'tensor differs', 'tensors differ')}: first {wrong[0]}" if wrong else None
