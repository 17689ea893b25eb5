"""What one model scored on a test set: its loss, example by example, and its own answers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tuition.conversation import Rendered
from tuition.errors import UserError
from tuition.evaluate.answers import answer_all, identity_of
from tuition.evaluate.choices import choose
from tuition.evaluate.heldout import (
    ExampleMarks,
    HeldOut,
    bytes_of_each,
    score_examples,
    totals,
    with_intervals,
)
from tuition.evaluate.kept import Kept, kept_under
from tuition.evaluate.load import Answerer
from tuition.evaluate.measures import Metric
from tuition.evaluate.testset import TestSet
from tuition.interval import Score, ratio
from tuition.render.corpus import settle
from tuition.render.tokens import Tokens
from tuition.train.model import LoadedModel
from tuition.train.selfcheck import choose_path

Progress = Callable[[str, int, int], None]
_PACK_TOKENS = 4096
_KEPT_TOGETHER = 128


@dataclass(frozen=True, slots=True)
class Marks:
    """What one model scored.

    Attributes:
        held_out: its loss over the answers in the data.
        examples: the same, example by example, each with its place, prompt and bytes.
        answers: for each metric its answers: written, or chosen among the choices.
    """

    held_out: HeldOut
    examples: list[Placed]
    answers: dict[str, list[str]]

    @property
    def scored(self) -> list[tuple[str, int, int]]:
        """The places of the examples."""
        return [example.place for example in self.examples]


@dataclass(frozen=True, slots=True)
class Placed:
    """The marks of one example: where it stands, what is asked there, and the bytes of what is learned, by weight."""

    place: tuple[str, int, int]
    prompt: str
    text_bytes: float
    marks: ExampleMarks


def examine(
    answerer: Answerer,
    test_set: TestSet,
    *,
    metrics: Sequence[Metric],
    max_new_tokens: int,
    on_progress: Progress,
    answers_folder: Path | None = None,
) -> Marks:
    """Loss of one model over the answers in the data and, as the metrics ask, its own answers to the prompts.

    Raises:
        UserError: its template or context takes none of the rows.
    """
    examples = rendered(answerer, test_set)
    choose_path(answerer.loaded, examples)
    identity = identity_of(answerer.loaded)
    marks = kept_marks(
        answerer.loaded,
        examples,
        kept_under(answers_folder, {**identity, "figure": "loss"}, _read),
        lambda done: on_progress(f"scoring {answerer.shown}", done, len(examples)),
    )
    placed = _placed(marks, examples, answerer.renderer.tokens)
    held_out = summed(placed)
    total = len(test_set.questions)
    answers: dict[str, list[str]] = {}
    if any(metric.choice is None for metric in metrics):
        written = answer_all(
            answerer,
            [(q.messages, q.conversation.tools) for q in test_set.questions],
            answers_folder,
            identity=identity,
            max_new_tokens=max_new_tokens,
            on_answer=lambda done: on_progress(f"answering {answerer.shown}", done, total),
        )
        answers = {m.name: [given.text for given in written] for m in metrics if m.choice is None}
    asked = list(zip(test_set.conversations, test_set.choices, strict=False))
    answers |= {m.name: choose(answerer, asked, m.choice) for m in metrics if m.choice is not None}
    return Marks(held_out, placed, answers)


def kept_marks(
    loaded: LoadedModel,
    examples: Sequence[Rendered],
    book: Kept[list[ExampleMarks]],
    on_scored: Callable[[int], None],
) -> list[ExampleMarks]:
    """The marks of each example, found some at a time; those that the book holds are not found again.

    No pack reaches over those that are kept together, so that every figure is the same to the bit however often
    the evaluation was interrupted.
    """
    marks: list[ExampleMarks] = []
    for start in range(0, len(examples), _KEPT_TOGETHER):
        some = examples[start : start + _KEPT_TOGETHER]
        key = _key(some)
        if len(book.found.get(key, ())) != len(some):
            found = _scored(loaded, some, partial(_counted_on, on_scored, start))
            book.add(key, found, {"examples": key, "marks": [astuple(mark) for mark in found]})
        marks += book.found[key]
        on_scored(len(marks))
    return marks


def _counted_on(on_scored: Callable[[int], None], before: int, done: int) -> None:
    on_scored(before + done)


def _key(examples: Sequence[Rendered]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{len(example.ids)};".encode())
        digest.update(example.ids.tobytes())
        digest.update(example.supervised.tobytes())
    return digest.hexdigest()


def _read(row: Any) -> tuple[str, list[ExampleMarks]]:
    return str(row["examples"]), [
        ExampleMarks(float(n), float(w), int(t), int(h)) for n, w, t, h in row["marks"]
    ]


def place_marks(loaded: LoadedModel, tokens: Tokens, examples: Sequence[Rendered]) -> list[Placed]:
    """The marks of each example of a model, token accuracy among them, with its place."""
    return _placed(_scored(loaded, examples, lambda done: None), examples, tokens)


def _scored(
    loaded: LoadedModel, examples: Sequence[Rendered], on_scored: Callable[[int], None]
) -> list[ExampleMarks]:
    return score_examples(loaded, examples, packing=(None, _PACK_TOKENS), accuracy=True, on_scored=on_scored)


def _placed(marks: Sequence[ExampleMarks], examples: Sequence[Rendered], tokens: Tokens) -> list[Placed]:
    sizes = bytes_of_each(examples, tokens)
    return [
        Placed((e.origin.file, e.origin.line, e.part), e.prompt_key or str(e.origin), size, mark)
        for e, size, mark in zip(examples, sizes, marks, strict=True)
    ]


def summed(placed: Sequence[Placed]) -> HeldOut:
    """The figures of all examples together, with their intervals over prompts."""
    marks, sizes = [p.marks for p in placed], [p.text_bytes for p in placed]
    return with_intervals(totals(marks, sum(sizes)), marks, [p.prompt for p in placed], sizes)


def differences(base: Sequence[Placed], tuned: Sequence[Placed]) -> dict[str, Score]:
    """Tuned minus base, paired by example, with intervals over prompts; examples stand in the same order."""
    gained = [after.marks.nats - before.marks.nats for before, after in zip(base, tuned, strict=True)]
    prompts = [p.prompt for p in tuned]
    found = {}
    if [p.marks.tokens for p in base] == [p.marks.tokens for p in tuned]:
        found["loss"] = ratio(gained, [p.marks.weight for p in tuned], groups=prompts)
    sizes = [p.text_bytes for p in tuned]
    if sum(sizes):
        found["bits_per_byte"] = ratio([nats / math.log(2) for nats in gained], sizes, groups=prompts)
    return found


def rendered(answerer: Answerer, test_set: TestSet) -> list[Rendered]:
    """The examples of all rows; a row is settled in the ledger when the first model renders it."""
    outcomes = list(answerer.renderer.render(test_set.conversations))
    if any(row["fate"] == "open" for row in test_set.ledger.to_rows()):
        for outcome in outcomes:
            settle(test_set.ledger, outcome, side="validation")
    examples = [example for outcome in outcomes for example in outcome.examples]
    if not examples:
        rejection = outcomes[0].rejection
        raise UserError(
            f"no row can be scored: {rejection.message if rejection else 'nothing is learned'}",
            where=answerer.name,
            next_step="`tuition check DATA --model MODEL` shows every finding",
        )
    return examples
