"""What training took away: bits a byte on general text, before and after.

Bits a byte are comparable between data and tokenizers. A rise above a threshold fails the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuition.errors import UserError
from tuition.evaluate.heldout import HeldOut
from tuition.evaluate.interval import Score
from tuition.evaluate.load import Answerer
from tuition.evaluate.score import Placed, differences, place_marks, read_test_set, summed
from tuition.train.selfcheck import choose_path

MOST_FORGOTTEN = 0.05  # bits a byte


@dataclass(frozen=True, slots=True)
class General:
    """The marks of one model on general text, and how many rows could not be scored."""

    examples: list[Placed]
    rows_in: int
    left: int


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What training took away on general text.

    Attributes:
        base: figures before.
        tuned: figures after.
        difference: bits a byte, tuned minus base; above 0: forgotten.
        most: the threshold.
        exceeded: the difference is above it.
        rows_in: rows read.
        left: rows that could not be scored.
    """

    base: HeldOut
    tuned: HeldOut
    difference: Score
    most: float
    exceeded: bool
    rows_in: int
    left: int

    @property
    def advice(self) -> str:
        """What to do about it."""
        return (
            "Learn general rows beside yours: write replay: [GENERAL.jsonl] and replay_share: 0.1 into the "
            "recipe and train again, or lower learning_rate or epochs."
        )

    def to_json(self) -> dict[str, Any]:
        """The object in `evaluation.json`."""
        return {**asdict(self), "advice": self.advice if self.exceeded else None}


def general_marks(answerer: Answerer, sources: Sequence[str]) -> General:
    """Score general text: plain text or rows of any shape.

    Raises:
        UserError: no row can be scored.
    """
    rows = read_test_set(sources, limit=None)
    examples = [e for outcome in answerer.renderer.render(rows.conversations) for e in outcome.examples]
    if not examples:
        raise UserError(
            "no row of the general text can be scored",
            where=", ".join(sources),
            next_step="`tuition check DATA --model MODEL` shows every finding",
        )
    choose_path(answerer.loaded, examples)
    scored = {(e.origin.file, e.origin.line) for e in examples}
    return General(place_marks(answerer, examples), rows.ledger.rows_in, rows.ledger.rows_in - len(scored))


def forgetting_of(base: General, tuned: General, *, most: float = MOST_FORGOTTEN) -> Forgetting:
    """Compare two models on the same general text.

    Args:
        most: bits a byte that may be lost.

    Raises:
        UserError: the models read different rows.
    """
    if [e.place for e in base.examples] != [e.place for e in tuned.examples]:
        raise UserError(
            "the two models read different rows of the general text",
            where="--general",
            next_step="Use text whose rows fit into both models' contexts",
        )
    difference = differences(base.examples, tuned.examples)["bits_per_byte"]
    return Forgetting(
        base=summed(base.examples),
        tuned=summed(tuned.examples),
        difference=difference,
        most=most,
        exceeded=difference.value > most,
        rows_in=tuned.rows_in,
        left=tuned.left,
    )
