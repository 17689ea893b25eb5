"""What training took away: bits a byte on general text, before and after.

Bits a byte are comparable between data and tokenizers. A rise above a threshold fails the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuition.conversation import Rendered
from tuition.counting import counted
from tuition.data import find_sources
from tuition.data.datafiles import is_plain_name, place_of
from tuition.errors import UserError
from tuition.evaluate.heldout import ExampleMarks, HeldOut
from tuition.evaluate.lines import signed
from tuition.evaluate.load import Answerer
from tuition.evaluate.marks import Placed, differences, place_marks, summed
from tuition.evaluate.testset import read_test_set
from tuition.foreign import OBJECT_BYTES, require_readable
from tuition.interval import Score
from tuition.render import Renderer
from tuition.render.tokens import Tokens
from tuition.train.model import LoadedModel
from tuition.train.selfcheck import choose_path

MOST_FORGOTTEN = 0.05  # bits a byte


@dataclass(frozen=True, slots=True)
class GeneralText:
    """The examples of general text, and how many rows could not be rendered."""

    examples: list[Rendered]
    rows_in: int
    left: int


@dataclass(frozen=True, slots=True)
class General:
    """The marks of one model on general text, and how many rows could not be scored."""

    examples: list[Placed]
    rows_in: int
    left: int

    def to_json(self) -> dict[str, Any]:
        """The object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> General:
        """The marks as `to_json` wrote them.

        Raises:
            ValueError: the object is none of those.
        """
        try:
            return cls._from_json(value)
        except (TypeError, LookupError, OverflowError) as error:
            raise ValueError(f"it holds no marks ({error})") from None

    @classmethod
    def _from_json(cls, value: Any) -> General:
        examples = [
            Placed(
                (str(e["place"][0]), int(e["place"][1]), int(e["place"][2])),
                str(e["prompt"]),
                float(e["text_bytes"]),
                ExampleMarks(**e["marks"]),
            )
            for e in value["examples"]
        ]
        return cls(examples, int(value["rows_in"]), int(value["left"]))


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
            f"forgotten: more than {self.most} bits a byte were lost. "
            "Learn general rows beside yours: write replay: [GENERAL.jsonl] and replay_share: 0.1 into the "
            "recipe and train again, or lower learning_rate or epochs."
        )

    @property
    def sentence(self) -> str:
        """What was found, in a line."""
        return (
            f"general text: {self.base.bits_per_byte:.3f} → {self.tuned.bits_per_byte:.3f} bits a byte, "
            f"{signed(self.difference, 'bits a byte')} ({self.rows_in - self.left:,} of {counted(self.rows_in, 'row')} scored)"
        )

    def to_json(self) -> dict[str, Any]:
        """The object in `evaluation.json` and `run.json`."""
        return {
            **asdict(self),
            "sentence": self.sentence,
            "advice": self.advice if self.exceeded else None,
        }


def find_general(names: Sequence[str]) -> tuple[str, ...]:
    """Files of general text: plain text as named, everything else as data is found."""
    rows = [name for name in names if not is_plain_text(name)]
    return (
        *(name for name in names if is_plain_text(name)),
        *(find_sources(rows).held_out() if rows else ()),
    )


def general_marks(answerer: Answerer, sources: Sequence[str]) -> General:
    """Score general text: plain text files, or rows of any shape.

    Raises:
        UserError: no row can be scored, or a file cannot be read.
    """
    text = read_general(answerer.renderer, sources)
    choose_path(answerer.loaded, text.examples)
    return score_general(answerer.loaded, answerer.renderer.tokens, text)


def read_general(renderer: Renderer, sources: Sequence[str]) -> GeneralText:
    """The examples of general text: plain text files, or rows of any shape.

    Raises:
        UserError: no row can be scored, or a file cannot be read.
    """
    for name in filter(is_plain_text, sources):
        _refuse_endless(Path(name))
    rows = read_test_set(sources, limit=None)
    examples = [e for outcome in renderer.render(rows.conversations) for e in outcome.examples]
    if not examples:
        raise UserError(
            "no row of the general text can be scored",
            where=", ".join(sources),
            next_step="`tuition check DATA --model MODEL` shows every finding",
        )
    scored = {(e.origin.file, e.origin.line) for e in examples}
    return GeneralText(examples, rows.ledger.rows_in, rows.ledger.rows_in - len(scored))


def _refuse_endless(file: Path) -> None:
    """Text without a line end would be looked through to the end of a disk."""
    with suppress(FileNotFoundError):  # which its reader says
        require_readable(file, OBJECT_BYTES, "Name another file")


def score_general(loaded: LoadedModel, tokens: Tokens, text: GeneralText) -> General:
    """The marks of a model, whose path is chosen, on general text."""
    return General(place_marks(loaded, tokens, text.examples), text.rows_in, text.left)


def is_plain_text(name: str) -> bool:
    """Whether a file is read as text, and not as rows."""
    return is_plain_name(place_of(name))


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
