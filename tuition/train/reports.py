"""What the loop tells of an update, of one that was left out, and of an evaluation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one update did. Loss is in nats a learned token (or an example, by the objective).

    `tokens` are those of the examples; `shared_tokens` of them were not computed again.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    shared_tokens: int
    learned_tokens: int
    seconds: float
    tokens_per_second: float

    def to_json(self) -> dict[str, Any]:
        """The line in metrics.jsonl."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SkipReport:
    """An update that was left out, and why. `rows` are the examples of the step."""

    step: int
    epoch: float
    skipped: str
    rows: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The line in metrics.jsonl."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EvalReport:
    """Held-out figures at one point of the run, by name; `loss` is in nats a learned token, weighted by token."""

    step: int
    figures: dict[str, float]

    def to_json(self) -> dict[str, float]:
        """The line in metrics.jsonl: each name with `eval_` before it."""
        return {"step": self.step, **{f"eval_{name}": value for name, value in self.figures.items()}}
