"""The model that learns: how it is loaded, where and in what precision it computes, and how it is run for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from tuition.batch.balance import BY_LENGTH, Work
from tuition.errors import UserError, one_line
from tuition.recipe import ModelSettings
from tuition.render import open_model
from tuition.render.modelfiles import POSITIONS
from tuition.train import attention
from tuition.train.distributed import ALONE, Ranks
from tuition.train.head import Head, in_eval_mode
from tuition.train.noise import EmbeddingNoise
from tuition.train.precision import faster_dtype
from tuition.train.quantised import parameters_of
from tuition.train.skeleton import refuse_larger_than_its_weights
from tuition.train.stored import refuse_other_numbers

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def quiet_transformers() -> None:
    """Keep transformers' own bars and advice off the screen: tuition reports what matters itself."""
    import logging as standard
    import warnings

    from transformers.utils import logging

    standard.getLogger("bitsandbytes").setLevel(standard.ERROR)  # it names kernels that it would like to have
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(peft|transformers)")
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")


def load_config(model: str, revision: str | None = None, *, trusted: str | None = None) -> Any:
    """The model's configuration.

    Args:
        trusted: the setting `trust_remote_code`; None: no code is run.

    Raises:
        UserError: no such model, no config.json, one that transformers does not know, or one that is refused.
    """
    opened = open_model(model, revision, trusted=trusted)
    if not (opened.path / "config.json").exists():
        raise UserError(
            "the model folder has no config.json",
            where=model,
            next_step="Name the folder that save_pretrained wrote, or a run's model/ folder",
        )
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(opened.path, **opened.arguments)
    except Exception as error:  # transformers validates configurations with exceptions of several libraries
        raise UserError(
            f"the model's configuration cannot be loaded ({one_line(error)})",
            where=model,
            next_step="Give the folder of a transformers causal language model, or the name of one on the hub",
        ) from error


def context_length(config: Any) -> int | None:
    """The most positions the model can hold, as its configuration says."""
    for name in POSITIONS:
        value = getattr(config.get_text_config(), name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def longest_alike(config: Any) -> int | None:
    """Tokens up to which positions are turned alike: beyond, LongRoPE turns all positions of a pass in another way."""
    for_all = getattr(config.get_text_config(), "rope_parameters", None) or {}
    for_kinds_of_layers = [one for one in for_all.values() if isinstance(one, dict)]
    limits = [
        one.get("original_max_position_embeddings")
        for one in (for_all, *for_kinds_of_layers)
        if one.get("rope_type") == "longrope"
    ]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def load_model(settings: ModelSettings, config: Any, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The causal language model, its dropout set, its weights in the dtype given.

    Only safetensors are read (pickled weights could run code), and every tensor must be there:
    transformers would fill a missing one with random numbers.

    Raises:
        UserError: the folder has no safetensors, the weights do not fit the configuration, or transformers has filled
            one with other numbers than its file holds.
    """
    from transformers import AutoModelForCausalLM

    opened = open_model(settings.model, settings.revision, weights=True, trusted=settings.trust_remote_code)
    attention.register()
    set_dropout(config, settings.dropout)
    if not opened.code:
        refuse_larger_than_its_weights(config, opened.path, _ordinary_attention_of(config))
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            opened.path,
            config=config,
            dtype=dtype,
            attn_implementation=_ordinary_attention_of(config),
            use_safetensors=True,
            **opened.arguments,
            output_loading_info=True,
        )
    except Exception as error:  # each kind of damage has its own: torch's, Rust's, pydantic's
        raise UserError(
            f"the model cannot be loaded ({one_line(error)})",
            where=settings.model,
            next_step="It needs config.json and *.safetensors of a causal language model",
        ) from error
    _refuse_incomplete(settings.model, report)
    refuse_no_numbers(model.named_parameters(), settings.model)
    refuse_other_numbers(model, opened.path, settings.model)
    return model.to(device)


def _ordinary_attention_of(config: Any) -> str:
    """SDPA, or eager where the kind of model knows no other; by name, so that a folder cannot ask for a kernel of the hub."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "sdpa" if getattr(kind, "_supports_sdpa", True) else "eager"


def _refuse_incomplete(model: str, report: Mapping[str, Any]) -> None:
    missing = sorted(map(str, report["missing_keys"]))
    mismatched = sorted(str(entry[0]) for entry in report["mismatched_keys"])
    if missing or mismatched:
        named = [f"{name} is missing" for name in missing] + [
            f"{name} has another shape" for name in mismatched
        ]
        raise UserError(
            f"the weights do not fit the configuration: {'; '.join(named[:5])}"
            + (f" and {len(named) - 5} more" if len(named) > 5 else ""),
            where=model,
            next_step="Copy or download the model again; it would be filled with random numbers",
        )


def refuse_no_numbers(parameters: Iterable[tuple[str, torch.nn.Parameter]], where: str) -> None:
    """Refuse weights that are NaN or infinite: every loss and every answer would be nonsense.

    Raises:
        UserError: naming the first such tensor.
    """
    for name, parameter in parameters:
        values = parameter.detach()
        # a sum takes no memory; where it is not finite it may only have grown too large itself
        if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
            raise UserError(
                f"{name} holds NaN or infinite numbers",
                where=where,
                next_step="The file is damaged, or its training failed: copy or download it again, or take another",
            )


def set_dropout(config: Any, rate: float) -> None:
    """Set every dropout rate of a configuration. Fine-tuning leaves it off unless asked."""
    for name, value in vars(config.get_text_config()).items():
        named = name.endswith(("dropout", "pdrop", "dropout_rate")) and "lora" not in name
        if named and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config.get_text_config(), name, rate)


def choose_device(setting: str) -> torch.device:
    """The device that `device` names.

    Raises:
        UserError: the machine has none of that kind.
    """
    if setting not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(
            f"unknown device '{setting}'", where="device", next_step="Choose one of: auto, cpu, cuda, mps"
        )
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if setting == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    if not present[setting]:
        raise UserError(
            f"this machine has no {setting} device",
            where="device",
            next_step="Set device: auto, or run `tuition doctor`",
        )
    return torch.device(setting)


def choose_dtype(setting: str, device: torch.device, config: Any = None) -> torch.dtype:
    """The precision of forward and backward.

    Args:
        config: of a model that is to learn: `auto` then measures which is faster at its shapes. Without
            it `auto` is bfloat16 on CUDA that has it, and float32 elsewhere.
    """
    if setting != "auto":
        return _DTYPES[setting]
    if config is not None:
        return faster_dtype(device, config)
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def fit_embeddings(model: Any, tokenizer: Any) -> None:
    """Give the model a row for every token; spare rows that a checkpoint was padded with stay.

    New rows start from the distribution of the old ones (transformers' mean resizing).
    """
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


@dataclass(slots=True)
class LoadedModel:
    """A model and how it is run.

    Attributes:
        model: a transformers causal language model or a peft wrapper of one.
        device: where it lives.
        dtype: of its forward pass; float32 or bfloat16.
        packed: it runs our segment attention, so several segments of a pack stand apart.
        shares: what examples of a pack have in common at the start is computed once.
        trunks: and so is what the examples of several packs have in common.
        lanes: so many packs of a step are run at the same time, each on cores of its own.
        work: what an example costs, to share a step out.
        longest_alike: a pass over more tokens of one example computes all in it in another way; None: none does.
        offloads: what the backward pass needs waits for it in the memory of the CPU.
        head: its linear head, for the chunked loss; None: the model's own head is called.
        noise: on its embeddings while it learns; None: there is none.
        ranks: those that it is trained by.
        root: where the model is sharded, the module around it that a pass must go through; None: it is whole.
        before: what segments without a parent continue in the pass at hand; None: they begin examples.
    """

    model: Any
    device: torch.device
    dtype: torch.dtype
    packed: bool = False
    shares: bool = False
    trunks: bool = False
    lanes: int = 1
    work: Work = BY_LENGTH
    longest_alike: int | None = None
    offloads: bool = False
    head: Head | None = None
    noise: EmbeddingNoise | None = None
    ranks: Ranks = ALONE
    root: torch.nn.Module | None = None
    before: attention.Before | None = None


def base_of(model: Any) -> Any:
    """The transformers model, from under an adapter if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def ordinary_attention(model: Any) -> str:
    """The attention that this model runs outside of packs: SDPA, or eager where it knows no other (Gemma 2)."""
    return "sdpa" if getattr(base_of(model), "_supports_sdpa", True) else "eager"


@contextlib.contextmanager
def attention_of(model: Any, name: str) -> Iterator[None]:
    """Run the model under another attention implementation for a while."""
    base = base_of(model)
    before = base.config._attn_implementation
    base.set_attn_implementation(name)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off and no gradients inside; the model's mode is put back after."""
    # what is gathered from ranks under inference mode could not take part in a backward pass later
    sharded = any(isinstance(p, DTensor) for p in model.parameters())
    with in_eval_mode(model), torch.no_grad() if sharded else torch.inference_mode():
        yield


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name; tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def parameter_counts(model: torch.nn.Module) -> tuple[int, int]:
    """Parameters in all, and those that learn."""
    sizes = [(parameters_of(p), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
