"""What stands between a model's last hidden states and its logits, found and proved by numbers.

Where it is a linear layer, perhaps with an adapter, a scale or a softcap, the loss is computed from the
hidden states at learned positions in chunks. Where it is anything else, the model's own head is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tuition.train.cross_entropy import Chunk

# What configurations call the factor on the logits. Some families divide by what others multiply with, under
# the same name (Granite, HyperCLOVA X), so each is tried and the numbers decide.
_FACTORS = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
_SOFTCAP = "final_logit_softcapping"
# A head sees each token alone, and all logits of many tokens would be the most memory of a run.
_TOKENS_PROBED = 64


@dataclass(frozen=True, slots=True)
class Head:
    """A linear head as the chunked loss needs it.

    Attributes:
        layer: the model's output layer; its weight is read anew each time, because adapters change it.
        scale: the logits are multiplied by it.
        softcap: then squashed to ±softcap by tanh.
        chunk: compiled code for the loss of a chunk of logits; None: there is none.
    """

    layer: Any
    scale: float = 1.0
    softcap: float | None = None
    chunk: Chunk | None = None

    def terms(self, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Inputs and weights whose products sum to the logits before bias, scale and softcap."""
        if not _has_lora(self.layer):
            return [(hidden, self.layer.weight)]
        terms = [(hidden, self.layer.base_layer.weight)]
        for name in self.layer.active_adapters:
            down, up = self.layer.lora_A[name], self.layer.lora_B[name]
            narrow = down(self.layer.lora_dropout[name](hidden.to(down.weight.dtype)))
            terms.append(((narrow * self.layer.scaling[name]).to(hidden.dtype), up.weight.to(hidden.dtype)))
        return terms

    @property
    def bias(self) -> Tensor | None:
        """(vocabulary,), or None."""
        layer = self.layer.base_layer if _has_lora(self.layer) else self.layer
        bias: Tensor | None = getattr(layer, "bias", None)
        return bias

    def logits(self, hidden: Tensor) -> Tensor:
        """All logits, the plain way: (rows, vocabulary)."""
        products = [F.linear(x, weight) for x, weight in self.terms(hidden)]
        logits = sum(products[1:], products[0])
        logits = (logits if self.bias is None else logits + self.bias) * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


def find_head(base: Any, probe: Tensor) -> Head | str:
    """The head that gives the model's own logits, or the reason why there is none.

    Args:
        base: the transformers model, adapters injected.
        probe: (1, tokens) int64, a row to compare on, its first tokens.
    """
    layer, decoder = base.get_output_embeddings(), decoder_of(base)
    if decoder is None:
        return "its decoder is not known"
    reason = _not_linear(layer)
    if reason:
        return reason
    probe = probe[:, :_TOKENS_PROBED]
    with in_eval_mode(base), torch.no_grad():
        try:
            hidden = decoder(input_ids=probe, use_cache=False).last_hidden_state[0]
        except (TypeError, AttributeError, ValueError):
            return "its decoder cannot be called alone"
        expected = base(input_ids=probe, use_cache=False).logits[0].float()
        for head in _candidates(layer, base.config.get_text_config()):
            terms = head.terms(hidden)
            if any(x.shape[-1] != weight.shape[-1] or x.dtype != weight.dtype for x, weight in terms):
                return "its head reads other rows than its decoder's last"
            got = head.logits(hidden).float()
            if got.shape == expected.shape and _equal(got, expected, hidden.dtype):
                return head
    return "its head does more than a linear layer, a scale and a softcap"


@contextmanager
def in_eval_mode(model: Any) -> Iterator[None]:
    """Dropout off inside; the model's mode is put back after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def decoder_of(base: Any) -> Any | None:
    """The module that turns ids into the hidden states that the head reads."""
    decoder = getattr(base, getattr(base, "base_model_prefix", "") or "model", None)
    return decoder if decoder is not None and hasattr(decoder, "forward") else None


def _not_linear(layer: Any) -> str:
    if layer is None:
        return "it has no output layer"
    if _has_lora(layer):
        plain = not any(getattr(layer, "use_dora", {}).values()) and not getattr(layer, "merged", False)
        biased = any(module.bias is not None for module in layer.lora_B.values())
        inner = layer.base_layer
        return (
            ""
            if plain and not biased and type(inner) is torch.nn.Linear
            else "its head's adapter is not plain LoRA"
        )
    wrapped = getattr(layer, "original_module", layer)  # rows of new tokens that learn (peft)
    return "" if type(wrapped) is torch.nn.Linear else f"its head is a {type(layer).__name__}"


def _has_lora(layer: Any) -> bool:
    return hasattr(layer, "lora_A") and hasattr(layer, "base_layer")


def _candidates(layer: Any, config: Any) -> Iterator[Head]:
    softcap = getattr(config, _SOFTCAP, None)
    factors = [1.0]
    for name in _FACTORS:
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value:
            factors += [float(value), 1.0 / float(value)]
    for cap in dict.fromkeys((softcap, None)):
        for factor in dict.fromkeys(factors):
            yield Head(layer, factor, cap)


def _equal(got: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Equal but for rounding: of each logit, and much closer for their common scale."""
    size = float(expected.abs().max())
    near = {torch.float32: 1e-5, torch.bfloat16: 2**-6}.get(dtype, 1e-3)
    ratio = float((got.double() * expected.double()).sum() / expected.double().square().sum())
    return float((got - expected).abs().max()) <= near * size and abs(ratio - 1) < 1e-3


def takes_logits_to_keep(base: Any) -> bool:
    """Whether the model's own forward can leave out logits."""
    return "logits_to_keep" in inspect.signature(base.forward).parameters
