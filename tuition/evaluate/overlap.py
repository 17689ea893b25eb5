"""How much of what a run is asked it had learned from. Where nothing is known, nothing is said to be held out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tuition.data import LearnedFrom, prompt_key
from tuition.errors import UserError
from tuition.evaluate.marks import Marks
from tuition.evaluate.testset import TestSet
from tuition.train.naming import run_of


@dataclass(frozen=True, slots=True)
class Overlap:
    """What is scored, held against the rows that the run was trained on.

    Attributes:
        rows: rows scored.
        trained_on: those among them whose prompt stands in a training row.
    """

    rows: int
    trained_on: int

    @property
    def caution(self) -> str:
        """A sentence where rows were trained on; empty where none was."""
        if not self.trained_on:
            return ""
        were = f"{self.trained_on:,} of these {self.rows:,} were" if self.rows > 1 else "this one row was"
        return f"{were} trained on: the figures show what it remembers, not how it answers what is new"

    def to_json(self) -> dict[str, Any]:
        """The object in `evaluation.json` and of `evaluate --json`."""
        return {**asdict(self), "caution": self.caution}


def overlap_of(model: str, test_set: TestSet, marks: Marks) -> Overlap | None:
    """The rows that were scored, and those whose prompt the run learned from; None where nothing says what it did.

    Raises:
        UserError: the file that says it is damaged.
    """
    learned = learned_by(model)
    if learned is None:
        return None
    scored = {place[:2] for place in marks.scored}
    rows = [c for c in test_set.conversations if (c.origin.file, c.origin.line) in scored]
    return Overlap(len(rows), sum(prompt_key(conversation) in learned for conversation in rows))


def learned_by(model: str) -> LearnedFrom | None:
    """The prompts that a run learned from; None where nothing says what it did.

    Raises:
        UserError: the file that says it is damaged.
    """
    file = run_of(model).prompts
    try:
        return LearnedFrom(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot be read ({error})",
            where=str(file),
            next_step="Remove it: then nothing is said of what was trained on",
        ) from None
