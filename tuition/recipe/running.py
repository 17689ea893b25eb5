"""Settings of a run: where it lives, how often it looks up, and how it is judged."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from tuition.recipe.values import Name, Section, Steps, Texts, as_texts, between_commas

TRACKER_NAMES = ("tensorboard", "trackio", "wandb", "mlflow")
_CHECKS = ("ledger", "learned", "stop", "vocabulary", "control", "parity", "disk")


class RunSettings(Section):
    """Where a run lives and how often it looks up."""

    output_dir: Name = Field(
        "auto", description="The run folder; auto: the first free outputs/NAME, named after the data."
    )
    save_every_steps: Steps = Field("auto", description="Updates between checkpoints; auto: ten a run.")
    keep_checkpoints: int = Field(
        2, ge=2, description="How many of the newest checkpoints stay; the best one stays beside them."
    )
    eval_every_steps: Steps = Field(
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
        description=f"Checks before step 1 that may fail, by name: {', '.join(_CHECKS)}.",
    )
    report_to: tuple[str, ...] = Field(
        (),
        description=f"Trackers that are told the figures of metrics.jsonl too: {', '.join(TRACKER_NAMES)}. "
        "None reaches the network unless its own environment variables ask for it.",
    )
    heartbeat_seconds: float = Field(
        900.0,
        gt=0,
        description="With several ranks: one that has not got on for so long ends, and torchrun starts all again.",
    )
    samples: int = Field(
        8, ge=0, description="Held-out prompts that are answered before and after, for the report; 0: none."
    )

    @field_validator("report_to", mode="before")
    @classmethod
    def _trackers_may_be_joined_by_commas(cls, value: Any) -> Any:
        names = between_commas(value)
        return tuple(name for name in names if name != "none") if isinstance(names, tuple) else names

    @field_validator("report_to")
    @classmethod
    def _trackers_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(value) - set(TRACKER_NAMES)
        if unknown:
            raise ValueError(f"there is no tracker called {', '.join(sorted(unknown))}")
        return value

    @field_validator("allow_unproved", mode="before")
    @classmethod
    def _checks_may_be_joined_by_commas(cls, value: Any) -> Any:
        return between_commas(value)

    @field_validator("allow_unproved")
    @classmethod
    def _checks_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(value) - set(_CHECKS)
        if unknown:
            raise ValueError(f"there is no check called {', '.join(sorted(unknown))}")
        return value


class JudgingSettings(Section):
    """How a run is judged while it learns, and which of its checkpoints becomes the model."""

    eval_metrics: tuple[str, ...] = Field(
        (),
        description="Metrics of the model's own answers to held-out prompts while it learns: exact_match, number, "
        "and the others of `tuition evaluate`.",
    )
    eval_metrics_every_steps: Steps = Field(
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
    general: Texts = Field(
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
        texts = as_texts(value)
        if texts is None:
            return value
        names: list[str] = []
        for text in texts:
            plain, mark, pattern = text.partition("regex:")  # a pattern may hold commas
            names += [name.strip() for name in plain.split(",") if name.strip()]
            names += [mark + pattern] if mark else []
        return tuple(names)
