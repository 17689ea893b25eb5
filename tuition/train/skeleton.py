"""How large a model its configuration asks for, told before any memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tuition.errors import UserError, one_line
from tuition.render.modelfiles import shards_of

_MOST_BUFFERED = 2**28  # numbers that are computed and not stored, such as rotations


def refuse_larger_than_its_weights(config: Any, folder: Path, attention: str | None) -> None:
    """Refuse a configuration that asks for more numbers than the files hold: they would be made up.

    The model is built without memory (on torch's meta device). A stored number takes a byte at least;
    weights that are shared are stored once and counted twice.

    Raises:
        UserError: the configuration is too large for the weights, or builds no model.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(
                config, attn_implementation=attention, trust_remote_code=False
            )
    except Exception as error:  # configurations fail in ways of their own
        raise UserError(
            f"the model cannot be loaded ({one_line(error)})",
            where=str(folder / "config.json"),
            next_step="It needs config.json and *.safetensors of a causal language model",
        ) from error
    wanted = sum(parameter.numel() for parameter in skeleton.parameters())
    stored = sum(shard.stat().st_size for shard in shards_of(folder))
    buffered = sum(buffer.numel() for buffer in skeleton.buffers())
    if wanted > 2 * stored or buffered > _MOST_BUFFERED:
        raise UserError(
            f"asks for {wanted:,} parameters and {buffered:,} computed numbers, and the weights are {stored:,} bytes",
            where=str(folder / "config.json"),
            next_step="Copy or download the model again",
        )
