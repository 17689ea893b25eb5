"""A base held in 4 bits (QLoRA, Dettmers et al. 2023), and the very numbers that it computed with.

bitsandbytes rounds the weights of linear layers to NF4. What is merged, evaluated and exported later is not the
model before rounding but these rounded numbers, because the adapter has learned over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tuition.errors import UserError
from tuition.train.libraries import bitsandbytes

# The gap between two neighbours of NF4 is at most 0.31 of a block's largest number; rounding errs by half of it,
# and the scales of blocks, rounded themselves, add a little.
_LARGEST_ERROR = 0.2


def quantise(model: Any) -> Any:
    """Hold the linear layers of the decoder in NF4, double-quantised; head and embeddings stay as they are.

    Rounded on the CPU whatever the device, so that the base is the same everywhere.

    Raises:
        UserError: bitsandbytes is missing, the model has no linear layers, or this machine holds one wrongly.
    """
    library, layers = bitsandbytes(), list(_layers_to_round(model))
    if not layers:
        raise UserError(
            f"{type(model).__name__} has no linear layers to hold in 4 bits",
            where="method",
            next_step="Set method: lora",
        )
    for parent, name, layer in layers:
        setattr(parent, name, _rounded(library, layer, name))
    model.is_loaded_in_4bit = True  # peft looks here
    return model


def dequantise(model: Any) -> Any:
    """Ordinary linear layers of the numbers that the rounded ones compute with, in the dtype they compute in."""
    library = bitsandbytes()
    for parent, name, layer in list(_layers(model, library.nn.Linear4bit)):
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(_numbers_of(library, layer), requires_grad=False)
        plain.bias = layer.bias
        setattr(parent, name, plain)
    model.is_loaded_in_4bit = False
    return model


def parameters_of(parameter: nn.Parameter) -> int:
    """How many numbers a parameter stands for, those in 4 bits too."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def _layers_to_round(model: Any) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    head = model.get_output_embeddings()
    return (found for found in _layers(model, nn.Linear) if found[2] is not head)


def _layers(model: nn.Module, kind: type) -> Iterator[tuple[nn.Module, str, Any]]:
    """Each layer of exactly this kind, with its parent and its name there."""
    for parent in model.modules():
        for name, layer in parent.named_children():
            if type(layer) is kind:
                yield parent, name, layer


def _rounded(library: Any, layer: nn.Linear, name: str) -> Any:
    weight = layer.weight.detach().cpu()
    made = library.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    made.weight = library.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type="nf4", module=made
    ).to("cpu")
    made.bias = layer.bias
    # in evaluation it would repack the weights for bfloat16 and round their scales: another base
    made.support_avx512bf16_for_cpu = False
    largest = float(weight.abs().max())
    if not float((_numbers_of(library, made) - weight).abs().max()) <= _LARGEST_ERROR * largest:
        raise UserError(
            f"bitsandbytes does not hold {name} ({tuple(weight.shape)}) rightly on this machine: rows must be "
            "multiples of 64",
            where="method",
            next_step="Set method: lora",
        )
    return made


def _numbers_of(library: Any, layer: Any) -> torch.Tensor:
    numbers: torch.Tensor = library.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return numbers
