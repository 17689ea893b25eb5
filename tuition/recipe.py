"""Every setting of a run: typed, frozen, checked once at the door.

A setting's sentence stands under its field, and help, schema and docs are made from it. Rooms receive
values or a section, never the whole recipe. Nothing here reads data or imports torch.
"""

from __future__ import annotations

import difflib
import keyword
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from tuition.errors import UserError

Auto = Literal["auto"]
_LARGEST_BYTES = 100 << 10
_LONGEST_NAME = 4_000
_DEEPEST = 16
_TEMPLATES_OWN = (
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "strftime_now",
    "raise_exception",
)
_MANY_BRACKETS = re.compile(r"(?:[\[{]\s*){64}")


def _name_on_disk(name: str) -> str:
    """A name that a disk may hold, and that moves no cursor where it is shown."""
    if not name or len(name) > _LONGEST_NAME:
        raise ValueError(f"must have 1 to {_LONGEST_NAME:,} characters")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        raise ValueError("must not hold control characters")
    return name


Name = Annotated[str, AfterValidator(_name_on_disk)]


def _pairs(value: Any, *, parse: bool = False) -> Any:
    """`name=value,name=value`, as a flag is typed, as a dictionary; anything else as it is.

    Args:
        parse: read each value as YAML does, so that `false` is no text.
    """
    if not isinstance(value, str):
        return value
    pairs = dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
    return {name.strip(): parse_yaml(text) for name, text in pairs.items()} if parse else pairs


class Section(BaseModel):
    """Settings that one room receives."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


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

    data: tuple[str, ...] = Field(
        min_length=1, description="Files, folders, globs or hub names to learn from."
    )
    val_data: tuple[str, ...] = Field((), description="Files to validate on, instead of a share of the data.")
    val_split: float = Field(
        0.05, ge=0, lt=1, description="Share of the rows held out for validation, by group or by prompt."
    )

    replay: tuple[str, ...] = Field(
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

    @field_validator("data", "val_data", "replay")
    @classmethod
    def _names_can_be(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_name_on_disk, value))

    @field_validator("mapping", mode="before")
    @classmethod
    def _mapping_may_be_words(cls, value: Any) -> Any:
        return _pairs(value)

    @field_validator("data", "val_data", "replay", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("data", "val_data", "replay", mode="before")
    @classmethod
    def _paths_are_names(cls, value: Any) -> Any:
        return (
            tuple(str(v) if isinstance(v, Path) else v for v in value)
            if isinstance(value, list | tuple)
            else value
        )


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
        return _pairs(value, parse=True)

    @field_validator("chat_template_kwargs")
    @classmethod
    def _names_are_free(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(f"'{name}' is no name that a template can read")
            if name in _TEMPLATES_OWN or name.endswith("_token"):
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
    micro_batch_tokens: int = Field(
        4096,
        ge=1,
        description="Most tokens in one forward pass; made smaller before step 1 where memory asks for it. "
        "Never changes the result.",
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
    group_by_prefix: bool = Field(
        False,
        description="Let examples with the same system prompt and first user turn follow one another in the shuffled "
        "order, so that updates share more. Changes which examples an update sees, and so the result.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Fixes the split, the order, new weights and dropout.")

    @field_validator("activation_checkpointing", "share_prefixes", mode="before")
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

    train_only: tuple[str, ...] = Field(
        (),
        description="Regular expressions: of the weights that the method lets learn, only those named so do.",
    )
    freeze: tuple[str, ...] = Field(
        (),
        description="Regular expressions: weights named so stay as they are. One that fits none is an error.",
    )

    @field_validator("train_only", "freeze", mode="before")
    @classmethod
    def _one_pattern_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

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


class RunSettings(Section):
    """Where a run lives and how often it looks up."""

    output_dir: Name = Field(
        "auto", description="The run folder; auto: the first free outputs/NAME, named after the data."
    )
    save_every_steps: int | Auto = Field("auto", description="Updates between checkpoints; auto: ten a run.")
    keep_checkpoints: int = Field(
        2, ge=2, description="How many of the newest checkpoints stay; the best one stays beside them."
    )
    eval_every_steps: int | Auto = Field(
        "auto",
        description="Updates between validations; auto: ten a run, fewer where they would take over a fifth of its time.",
    )
    log_every_steps: int = Field(1, ge=1, description="Updates between lines in metrics.jsonl.")
    keep: Literal["best", "last"] = Field(
        "best",
        description="Which checkpoint becomes the model: the best one by best_by, or the last.",
    )
    allow_unproved: tuple[str, ...] = Field(
        (),
        description="Checks before step 1 that may fail, by name: ledger, learned, stop, vocabulary, control, parity, disk.",
    )
    report_to: tuple[str, ...] = Field(
        (),
        description="Trackers that are told the figures of metrics.jsonl too: tensorboard, trackio, wandb, mlflow. "
        "None reaches the network unless its own environment variables ask for it.",
    )
    samples: int = Field(
        8, ge=0, description="Held-out prompts that are answered before and after, for the report; 0: none."
    )

    @field_validator("report_to", mode="before")
    @classmethod
    def _trackers_may_be_joined_by_commas(cls, value: Any) -> Any:
        names = [
            part.strip()
            for text in ([value] if isinstance(value, str) else value)
            for part in text.split(",")
        ]
        return tuple(dict.fromkeys(name for name in names if name not in ("", "none")))

    @field_validator("report_to")
    @classmethod
    def _trackers_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(value) - {"tensorboard", "trackio", "wandb", "mlflow"}
        if unknown:
            raise ValueError(f"there is no tracker called {', '.join(sorted(unknown))}")
        return value

    @field_validator("allow_unproved", mode="before")
    @classmethod
    def _one_check_is_a_list(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("allow_unproved")
    @classmethod
    def _checks_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(value) - {"ledger", "learned", "stop", "vocabulary", "control", "parity", "disk"}
        if unknown:
            raise ValueError(f"there is no check called {', '.join(sorted(unknown))}")
        return value

    @field_validator("save_every_steps", "eval_every_steps")
    @classmethod
    def _at_least_one_step(cls, value: int | Auto) -> int | Auto:
        if value != "auto" and value < 1:
            raise ValueError("must be at least 1")
        return value


class JudgingSettings(Section):
    """How a run is judged while it learns, and which of its checkpoints becomes the model."""

    eval_metrics: tuple[str, ...] = Field(
        (),
        description="Metrics of the model's own answers to held-out prompts while it learns: exact_match, number, "
        "and the others of `tuition evaluate`.",
    )
    eval_metrics_every_steps: int | Auto = Field(
        "auto",
        description="Updates between those; auto: ten a run, fewer where they would take over a fifth of its time.",
    )
    eval_prompts: int = Field(
        64, ge=1, le=256, description="With eval_metrics: most held-out prompts that are answered each time."
    )
    eval_max_new_tokens: int = Field(128, ge=1, description="With eval_metrics: longest answer in tokens.")
    best_by: str = Field(
        "loss",
        description="What makes a checkpoint the best: the held-out loss, bits_per_byte, or a metric of answers, "
        "which is then measured.",
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="Stop after so many evaluations in a row that best_by did not gain from. null: never.",
    )
    keep_every_epoch: bool = Field(
        False, description="Keep a checkpoint of every epoch's end beside those of keep_checkpoints."
    )
    average_checkpoints: int | None = Field(
        None,
        ge=2,
        description="Average the weights of so many checkpoints at the end, and keep the average where best_by "
        "measures better on the held-out rows. null: no averaging.",
    )
    average_of: Literal["last", "best"] = Field(
        "last", description="With average_checkpoints: the last ones of save_every_steps, or the best ones."
    )
    general: tuple[str, ...] = Field(
        (),
        description="General text or rows, scored before and after, to see what was forgotten; starter: the small "
        "English one that comes with tuition.",
    )
    max_forgetting: float = Field(
        0.05, ge=0, description="With general: bits a byte that may be lost on it; more fails the run's gate."
    )

    @field_validator("eval_metrics", mode="before")
    @classmethod
    def _metrics_may_be_joined_by_commas(cls, value: Any) -> Any:
        names: list[str] = []
        for text in [value] if isinstance(value, str) else value:
            plain, mark, pattern = str(text).partition("regex:")  # a pattern may hold commas
            names += [name.strip() for name in plain.split(",") if name.strip()]
            names += [mark + pattern] if mark else []
        return tuple(names)

    @field_validator("general", mode="before")
    @classmethod
    def _general_may_be_one_name(cls, value: Any) -> Any:
        return (str(value),) if isinstance(value, str | Path) else value

    @field_validator("eval_metrics_every_steps")
    @classmethod
    def _answers_at_least_one_step(cls, value: int | Auto) -> int | Auto:
        if value != "auto" and value < 1:
            raise ValueError("must be at least 1")
        return value


S = TypeVar("S", bound=Section)


class Recipe(
    JudgingSettings,
    RunSettings,
    AdapterSettings,
    LearnedSettings,
    OptimizerSettings,
    BatchSettings,
    RenderSettings,
    DataSettings,
    ModelSettings,
):
    """All settings of a run: the sections side by side, flat in the file."""

    @model_validator(mode="after")
    def _adapter_settings_need_an_adapter(self) -> Recipe:
        given = sorted(set(AdapterSettings.model_fields) & self.model_fields_set)
        changed = [k for k in given if getattr(self, k) != AdapterSettings.model_fields[k].default]
        if self.method == "full" and changed:
            raise ValueError(f"{', '.join(changed)} is set, but method is full: set method: lora, or drop it")
        if self.parallel != "ddp" and (
            self.method == "qlora" or self.optimizer != "adamw" or self.masters == "split"
        ):
            raise ValueError(
                "parallel: fsdp and hsdp take method: full or lora, optimizer: adamw and whole masters"
            )
        if self.method == "qlora" and self.init_lora_weights == "pissa":
            raise ValueError(
                "pissa takes its start from the weights, which qlora rounds to 4 bits: set method: lora"
            )
        return self

    @property
    def adapted(self) -> bool:
        """Whether the run makes an adapter, and no model of its own."""
        return self.method != "full"

    def section(self, kind: type[S]) -> S:
        """The settings of one room, as that room's own type."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})

    def replace(self, **changes: Any) -> Recipe:
        """A new recipe with some settings changed, checked again."""
        return make_recipe({**self.model_dump(mode="json", exclude_unset=True), **changes})

    def to_yaml(self) -> str:
        """The recipe as the file that gives it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# What other tools call our settings. The left side is only ever named in an error.
ALIASES: dict[str, str] = {
    "model_name_or_path": "model", "base_model": "model", "model_id": "model",
    "model_revision": "revision",
    "fine_tune_type": "method", "finetuning_type": "method", "adapter": "method", "train_type": "method",
    "tuner_type": "method", "use_peft": "method",
    "dataset": "data", "datasets": "data", "dataset_name": "data", "training_file": "data", "train_file": "data",
    "train_data": "data", "data_path": "data",
    "validation_file": "val_data", "val_dataset": "val_data", "eval_dataset": "val_data",
    "val_set_size": "val_split", "val_size": "val_split", "split_dataset_ratio": "val_split",
    "test_size": "val_split",
    "template": "chat_template", "chat_template_path": "chat_template",
    "train_on_what": "train_on", "assistant_only_loss": "train_on", "completion_only_loss": "train_on",
    "mask_prompt": "train_on", "train_on_inputs": "train_on", "train_on_prompt": "train_on",
    "max_seq_length": "max_length", "sequence_len": "max_length", "cutoff_len": "max_length",
    "max_seq_len": "max_length", "model_max_length": "max_length", "block_size": "max_length",
    "excess_length_strategy": "too_long", "truncation_strategy": "too_long",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs",
    "iters": "max_steps", "max_iters": "max_steps", "num_steps": "max_steps",
    "global_batch_size": "batch_size", "train_batch_size": "batch_size",
    "per_device_train_batch_size": "micro_batch_size", "mini_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "batch_size",
    "random_seed": "seed", "data_seed": "seed",
    "lr": "learning_rate", "learning_rate_multiplier": "learning_rate",
    "lr_scheduler_type": "lr_scheduler", "lr_schedule": "lr_scheduler",
    "warmup_ratio": "warmup_steps", "warmup": "warmup_steps",
    "optim": "optimizer", "max_norm": "max_grad_norm", "gradient_clipping": "max_grad_norm",
    "adam_eps": "adam_epsilon", "beta1": "adam_beta1", "beta2": "adam_beta2",
    "rslora": "use_rslora", "dora": "use_dora",
    "load_in_4bit": "method", "quantization_bit": "method",
    "label_smoothing_factor": "label_smoothing", "neftune_noise_alpha": "neftune_alpha", "use_dft_loss": "token_loss",
    "unfrozen_parameters": "train_only", "trainable_parameters": "train_only", "freeze_parameters": "freeze",
    "lora_rank": "lora_r", "rank": "lora_r", "r": "lora_r", "alpha": "lora_alpha",
    "lora_target_modules": "target_modules", "lora_target": "target_modules",
    "output": "output_dir", "out_dir": "output_dir", "save_path": "output_dir",
    "save_total_limit": "keep_checkpoints", "keep_latest_k": "keep_checkpoints",
    "save_steps": "save_every_steps", "save_freq": "save_every_steps",
    "eval_steps": "eval_every_steps", "steps_per_eval": "eval_every_steps",
    "logger": "report_to", "use_wandb": "report_to", "logging_backends": "report_to",
    "metric_for_best_model": "best_by", "predict_with_generate": "eval_metrics", "compute_metrics": "eval_metrics",
    "do_causal_lm_eval": "eval_metrics", "eval_causal_lm_metrics": "eval_metrics",
    "load_best_model_at_end": "keep", "early_stopping": "early_stopping_patience",
    "generation_max_length": "eval_max_new_tokens", "eval_max_tokens": "eval_max_new_tokens",
    "save_strategy": "keep_every_epoch", "max_eval_samples": "eval_prompts",
    "logging_steps": "log_every_steps", "steps_per_report": "log_every_steps",
    "gradient_checkpointing": "activation_checkpointing", "use_gradient_checkpointing": "activation_checkpointing",
    "fsdp": "parallel", "deepspeed": "parallel", "ddp": "parallel", "distributed": "parallel",
    "torch_dtype": "dtype", "bf16": "dtype", "fp16": "dtype", "use_cpu": "device",
}  # fmt: skip


def make_recipe(settings: dict[str, Any], *, where: str = "recipe") -> Recipe:
    """Check settings all at once and give the frozen recipe.

    Raises:
        UserError: naming every wrong key and value together, each with what would be right.
    """
    unknown = [key for key in settings if key not in Recipe.model_fields]
    known = {key: value for key, value in settings.items() if key in Recipe.model_fields}
    problems = [_unknown_key(str(key)) for key in unknown]
    try:
        recipe = Recipe.model_validate(known)
    except ValidationError as error:
        # a union gives a fault for each branch; the first, about the number, says more than "should be auto"
        faults = {_key_of(fault): fault for fault in reversed(error.errors())}
        problems += [_wrong_value(fault) for fault in reversed(faults.values())]
    except UnicodeEncodeError as error:  # half of a character, which no file can hold
        problems.append(f"{ascii(error.object)[:60]} is no text")
    if problems:
        raise UserError(
            "; ".join(problems), where=where, next_step="Mend these; `tuition schema` lists every setting"
        )
    return recipe


def load_recipe(path: Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe file, lay `overrides` over it and check the whole.

    Raises:
        UserError: no such file, not YAML, not a mapping, or wrong settings.
    """
    return make_recipe({**read_settings(path), **(overrides or {})}, where=str(path))


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Tags that would build Python objects are refused by the safe loader."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise UserError(
                f"is larger than {_LARGEST_BYTES >> 10} KiB, which no recipe is",
                where=str(path),
                next_step="Name the .yaml file with the settings",
            )
        if not path.is_dir() and not path.is_file():
            raise UserError("is not a regular file", where=str(path), next_step="Name the .yaml file")
        settings = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            "no such recipe", where=str(path), next_step="`tuition init` writes one to start from"
        ) from None
    except IsADirectoryError:
        raise UserError(
            "is a folder, not a recipe", where=str(path), next_step="Name the .yaml file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot be read as YAML ({reason})", where=str(path), next_step="Mend that line"
        ) from None
    if not isinstance(settings, dict):
        raise UserError(
            "holds no settings",
            where=str(path),
            next_step="Write lines such as `model: PATH` and `data: FILE`",
        )
    return {str(key): value for key, value in settings.items()}


class _PlainLoader(yaml.SafeLoader):
    """YAML of a settings file: a few levels deep, without tags that build objects, without aliases,
    which can grow without bound, and without a key said twice, of which one would be lost."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.YAMLError("it is nested too deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"'{key.value}' is set twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """A YAML value.

    Raises:
        yaml.YAMLError: it is none, or has tags, aliases, or a key twice.
    """
    if _MANY_BRACKETS.search(text):  # the scanner's time grows with their square before a level is counted
        raise yaml.YAMLError("it is nested too deep")
    try:
        return yaml.load(text, Loader=_PlainLoader)
    # dates that do not exist, numbers of thousands of digits, tags on what they do not fit
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from None


def _unknown_key(key: str) -> str:
    if key in ALIASES:
        return f"unknown key '{key}': here it is '{ALIASES[key]}'"
    near = difflib.get_close_matches(key, Recipe.model_fields, n=1)
    return f"unknown key '{key}'" + (f": did you mean '{near[0]}'?" if near else "")


def _key_of(fault: Any) -> str:
    """The setting a fault is about: pydantic adds the branch of a union behind it."""
    return str(fault["loc"][0]) if fault["loc"] else str(fault["msg"])


def _wrong_value(fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    key = str(fault["loc"][0])
    if fault["type"] == "missing":
        return f"'{key}' is missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    shown = repr(fault["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return f"'{key}' is {shown}: {message[0].lower()}{message[1:]}"
