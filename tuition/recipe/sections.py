"""Every setting with its sentence, by the room that receives it: model, data, rendering, batches, optimizer, adapter."""

from __future__ import annotations

import keyword
import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tuition.recipe.values import Auto, Name, Names, Section, Texts, pairs

# what the conversation or the program that runs it gives a template under these names
TEMPLATES_OWN = (
    "messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception",
)  # fmt: skip


class ModelSettings(Section):
    """Which model learns, and where its numbers live."""

    model: Name = Field(description="Local folder or hub name of the causal language model to start from.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    method: Literal["full", "lora", "qlora", "new_tokens"] = Field(
        "full",
        description="Learn all weights (full), a LoRA adapter (lora), one over a base held in 4 bits (qlora), "
        "or only the rows of the template's new tokens (new_tokens).",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to compute; auto takes CUDA, then MPS, then the CPU."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Precision of the forward and backward pass; masters and loss stay float32. "
        "auto: measured at the model's shapes, bfloat16 where it is clearly faster.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout inside the model; 0 switches it off.")
    trust_remote_code: Annotated[
        str | None, Field(pattern=r"^[^\x00\n]+@(sha256:[0-9a-f]{64}|[0-9a-f]{40})$")
    ] = Field(
        None,
        description="Run the code of this very model: NAME@COMMIT of the hub, or FOLDER@sha256:SUM, "
        "as the refusal prints it. null: no code is run.",
    )


class DataSettings(Section):
    """What is learned from."""

    data: Names = Field(min_length=1, description="Files, folders, globs or hub names to learn from.")
    val_data: Names = Field((), description="Files to validate on, instead of a share of the data.")
    val_split: float = Field(
        0.05, ge=0, lt=1, description="Share of the rows held out for validation, by group or by prompt."
    )

    replay: Names = Field(
        (), description="General data, of which a share is learned beside the data, so that old skills stay."
    )
    replay_share: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="With replay: its share of all training examples. Never held out, the same rows for a seed.",
    )
    mapping: dict[str, str] | None = Field(
        None,
        description="Which columns hold what, where the shape is not found by itself: prompt, completion, "
        "messages, text, system, tools, group, id, weight → column.",
    )

    stream: bool = Field(
        False,
        description="For data larger than the disk: each file is prepared when its turn comes, again if need be.",
    )
    stream_files: int = Field(
        4,
        ge=1,
        description="With stream: files come in a shuffled order, and the examples of so many are shuffled together.",
    )
    stream_gb: float = Field(
        50.0,
        gt=0,
        description="With stream: most gigabytes of prepared training examples on the disk; the files of twice "
        "stream_files must find room.",
    )

    @field_validator("mapping", mode="before")
    @classmethod
    def _mapping_may_be_words(cls, value: Any) -> Any:
        return pairs(value)


class RenderSettings(Section):
    """How conversations become tokens, and which tokens are learned."""

    chat_template: Name = Field(
        "auto",
        description="auto: the tokenizer's own, or ChatML where it has none; none: plain text, "
        "prompt and completion joined as they are; or a file that holds a Jinja template.",
    )
    chat_template_kwargs: dict[str, bool | int | float | str | None] = Field(
        {},
        description="Values for names that the chat template reads, such as enable_thinking: false. The exported "
        "template begins with them, so the model is served as it was trained.",
    )
    template_date: Annotated[str, Field(pattern=r"^(auto|\d{4}-\d\d-\d\d)$")] = Field(
        "auto",
        description="The day that a chat template is told where it writes today's date; "
        "auto: the day the run began. YYYY-MM-DD.",
    )
    train_on: Literal["assistant", "last", "all", "spans"] = Field(
        "assistant",
        description="Learn every assistant turn, the last one only, every token, or only what stands "
        "between span_markers.",
    )
    span_markers: tuple[str, str] = Field(
        ("<learn>", "</learn>"),
        description="With train_on: spans, what stands before and behind the text to learn; the model never sees it.",
    )
    learn_reasoning: bool = Field(
        True,
        description="Learn the reasoning of an answer; false: it is context, and what follows it is learned.",
    )
    max_length: int | Auto = Field(
        "auto", description="Longest example in tokens; auto: what the model can hold, at most 8,192."
    )
    too_long: Literal["drop", "cut", "cut_turns", "split", "refuse"] = Field(
        "drop",
        description="Longer examples are set aside and counted (drop), cut at max_length without a false stop (cut) "
        "or after the last turn that fits (cut_turns), made into several that learn each turn once (split), "
        "or refused with an error.",
    )

    @field_validator("chat_template_kwargs", mode="before")
    @classmethod
    def _names_may_be_words(cls, value: Any) -> Any:
        return pairs(value, parse=True)

    @field_validator("chat_template_kwargs")
    @classmethod
    def _names_are_free(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(f"'{name}' is no name that a template can read")
            if name in TEMPLATES_OWN or name.endswith("_token"):
                raise ValueError(f"'{name}' is what the conversation or the tokenizer gives the template")
        return value

    @model_validator(mode="after")
    def _plain_text_reads_no_names(self) -> RenderSettings:
        if self.chat_template_kwargs and self.chat_template == "none":
            raise ValueError("chat_template_kwargs needs a chat template, and chat_template is none")
        return self

    @field_validator("span_markers", mode="before")
    @classmethod
    def _markers_may_be_joined_by_a_comma(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("span_markers")
    @classmethod
    def _markers_differ(cls, value: tuple[str, str]) -> tuple[str, str]:
        opening, closing = value
        if not opening.strip() or not closing.strip() or opening in closing or closing in opening:
            raise ValueError("must be two texts of which neither is empty or holds the other")
        return value

    @field_validator("template_date", mode="before")
    @classmethod
    def _date_may_be_a_date(cls, value: Any) -> Any:
        return value.isoformat() if type(value) is date else value  # YAML reads 2026-01-31 as a date

    @field_validator("template_date")
    @classmethod
    def _date_is_one(cls, value: str) -> str:
        if value != "auto":
            date.fromisoformat(value)
        return value

    @field_validator("max_length")
    @classmethod
    def _length_has_room(cls, value: int | Auto) -> int | Auto:
        if value != "auto" and value < 2:
            raise ValueError("must be at least 2 tokens: one that precedes, one that is learned")
        return value


class BatchSettings(Section):
    """Which examples make an update, and for how long."""

    epochs: float = Field(
        3.0, gt=0, description="Passes over the training rows; ignored when max_steps is set."
    )
    max_steps: int | None = Field(None, ge=1, description="Stop after this many updates.")
    batch_size: int = Field(16, ge=1, description="Examples in one update, over all ranks.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Most examples in one forward pass; never changes the result. null: no limit."
    )
    micro_batch_tokens: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto",
        description="Most tokens in one forward pass; made smaller before step 1 where memory asks for it. auto: 4096, "
        "on CUDA 32768. Never changes the result.",
    )
    parallel: Literal["ddp", "fsdp", "hsdp"] = Field(
        "ddp",
        description="How several ranks hold the model: each the whole (ddp), each a part (fsdp), or a part on each "
        "machine (hsdp). Never changes the result.",
    )
    activation_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Compute activations twice instead of keeping them, for less memory and a fifth more time; "
        "auto: only where one example alone does not fit. Never changes the result.",
    )
    share_prefixes: Literal["auto", "off"] = Field(
        "auto",
        description="Compute what examples of an update have in common at the start once: system prompts, tool lists, "
        "several answers to one prompt. auto: where it was found exact and pays. Never changes the result.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Let torch.compile make the code of the layers and of the loss, which takes a minute or so. Used "
        "only where losses and gradients are then the same but for rounding. auto: on CUDA, for runs of 100 updates "
        "and more.",
    )
    group_by_prefix: bool = Field(
        False,
        description="Let examples with the same system prompt and first user turn follow one another in the shuffled "
        "order, so that updates share more. Changes which examples an update sees, and so the result.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Fixes the split, the order, new weights and dropout.")

    @field_validator("activation_checkpointing", "share_prefixes", "compile", mode="before")
    @classmethod
    def _yaml_reads_on_and_off_as_booleans(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class OptimizerSettings(Section):
    """How the weights move."""

    loss: Literal["token_mean", "example_mean"] = Field(
        "token_mean",
        description="token_mean: every learned token of the update counts the same; "
        "example_mean: every example does, the mean of its tokens.",
    )
    token_loss: Literal["nll", "dft"] = Field(
        "nll",
        description="What a learned token costs: -log p, or that times p itself, which tokens far from what the "
        "model says move less (dft).",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each target that is spread evenly over the vocabulary."
    )
    neftune_alpha: float = Field(
        0.0,
        ge=0,
        description="Noise on the embeddings while learning (NEFTune), 5 is usual; 0 switches it off.",
    )
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = Field(
        "adamw",
        description="The update rule: AdamW; AdamW with moments in 8 bits (bitsandbytes); or Muon for the matrices "
        "of the layers and AdamW for the rest.",
    )
    masters: Literal["float32", "split"] = Field(
        "float32",
        description="With dtype bfloat16, how the float32 weights are kept: whole beside the bfloat16 ones, or as "
        "those and the 16 bits that they lack (split), 2 bytes a weight less. Never changes the result.",
    )
    learning_rate: float | Auto = Field("auto", description="Peak learning rate; auto: by method and size.")
    lr_scheduler: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate falls after the warm-up."
    )
    warmup_steps: float = Field(
        0.05, ge=0, description="Updates of linear warm-up; below 1 it is a share of all updates."
    )
    weight_decay: float = Field(
        0.0, ge=0, description="Decoupled decay of matrices; norms and biases are spared."
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's memory of the gradient.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's memory of the squared gradient.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's guard against division by nothing.")
    max_grad_norm: float = Field(
        1.0, ge=0, description="Gradients are scaled down to this norm; 0 switches it off."
    )
    not_finite: Literal["stop", "skip"] = Field(
        "stop",
        description="When a loss or a gradient is NaN or infinite: stop before the update, or leave that update "
        "out, count it and go on (skip). Three in a row stop the run in any case.",
    )

    @field_validator("learning_rate")
    @classmethod
    def _rate_is_positive(cls, value: float | Auto) -> float | Auto:
        if value != "auto" and not 0 < value < 10:
            raise ValueError("must lie between 0 and 10")
        return value


class LearnedSettings(Section):
    """Which of the weights learn."""

    train_only: Texts = Field(
        (),
        description="Regular expressions: of the weights that the method lets learn, only those named so do.",
    )
    freeze: Texts = Field(
        (),
        description="Regular expressions: weights named so stay as they are. One that fits none is an error.",
    )

    @field_validator("train_only", "freeze")
    @classmethod
    def _patterns_are_expressions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression ({error})") from None
        return value


class AdapterSettings(Section):
    """The shape of a LoRA adapter."""

    lora_r: int = Field(16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA's scale: the adapter counts alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", description="Modules that get an adapter: all-linear, or names (q_proj,v_proj)."
    )
    use_rslora: bool = Field(
        False,
        description="The adapter counts alpha / √r instead of alpha / r, so that high ranks learn as fast.",
    )
    use_dora: bool = Field(
        False, description="Learn the length of each weight's rows apart from their direction (DoRA); slower."
    )
    init_lora_weights: Literal["default", "pissa"] = Field(
        "default",
        description="Where the adapter begins: as no change, or as the strongest directions of the weights themselves "
        "(pissa). Written as an ordinary adapter over the unchanged base in both cases.",
    )

    @field_validator("target_modules", mode="before")
    @classmethod
    def _names_may_be_joined_by_commas(cls, value: Any) -> Any:
        names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value
        return names[0] if isinstance(value, str) and len(names) == 1 else names
