"""The rows of a run as examples on their two sides, and the ledger that accounts for every one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tuition.conversation import Conversation, Rendered
from tuition.data import Ledger, Reading, Side, Sources, side_of
from tuition.errors import UserError
from tuition.render.renderer import Outcome, Renderer


@dataclass(slots=True)
class Corpus:
    """All examples of a run.

    Attributes:
        train: examples that are learned from.
        validation: held-out examples.
        held_out: the conversations behind `validation`, for answers to be compared with.
        learned_from: a few conversations behind `train`, where nothing is held out.
        ledger: what became of each row.
        shapes: source → the shape found in it.
    """

    train: list[Rendered] = field(default_factory=list)
    validation: list[Rendered] = field(default_factory=list)
    held_out: list[Conversation] = field(default_factory=list)
    learned_from: list[Conversation] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    shapes: dict[str, str] = field(default_factory=dict)

    @property
    def examples(self) -> list[Rendered]:
        """Both sides."""
        return [*self.train, *self.validation]

    def facts(self) -> dict[str, Any]:
        """The `data` section of run.json."""
        lengths = np.array([len(example) for example in self.examples], dtype=np.int64)
        counts, edges = np.histogram(lengths, bins=_whole_bins(int(lengths.min()), int(lengths.max())))
        return {
            "shapes": self.shapes,
            "rows_in": self.ledger.rows_in,
            "kept": self.ledger.kept,
            "rejected": len(self.ledger.rejected),
            "left_out": self.ledger.left_out,
            "truncated": len(self.ledger.truncated),
            "examples": len(lengths),
            "train_examples": len(self.train),
            "validation_examples": len(self.validation),
            "tokens": int(lengths.sum()),
            "learned_tokens": sum(example.learned_tokens for example in self.examples),
            "longest_tokens": int(lengths.max()),
            "length_histogram": {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]},
        }


def _whole_bins(shortest: int, longest: int) -> npt.NDArray[np.int64]:
    """At most 30 bins of whole tokens, so that none is empty only because it falls between two counts."""
    width = -(-(longest - shortest + 1) // 30)
    return np.arange(shortest, longest + width + 1, width)


_LEARNED_FROM_KEPT = 64


@dataclass(slots=True)
class Rendering:
    """The rows of a run on their way to examples. Iterate it once; then the ledger is complete.

    Attributes:
        sources: where `validation` names files, those are held out and no share of `train` is.
        renderer: writes the conversations.
        val_split: share of the rows that is held out.
        seed: of the split, and of sources that are taken in part.
        mapping: which columns hold what, where the shape is not found by itself.
        ledger: what became of each row.
        shapes: source → the shape found in it.
        held_out: the conversations behind the held-out examples.
        learned_from: the first few behind the others.
    """

    sources: Sources
    renderer: Renderer
    val_split: float
    seed: int
    mapping: Mapping[str, str] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    shapes: dict[str, str] = field(default_factory=dict)
    held_out: list[Conversation] = field(default_factory=list)
    learned_from: list[Conversation] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Side, Rendered]]:
        """Each example with its side, in the order of the rows.

        Raises:
            UserError: nothing is left to learn from.
        """
        learned = 0
        before = None
        for names, share in self._parts():
            reading = Reading(
                names, ledger=self.ledger, mapping=self.mapping, seed=self.seed, training=before
            )
            before = reading
            for outcome in self.renderer.render(reading):
                side = self._side_of(outcome.conversation, share)
                settle(self.ledger, outcome, side=side)
                self._remember(outcome, side)
                learned += len(outcome.examples) if side == "train" else 0
                yield from ((side, example) for example in outcome.examples)
            self.shapes |= reading.shapes
        self.ledger.check_balance()
        if not learned:
            raise UserError(
                _nothing_left(self.ledger),
                where=", ".join(self.sources.train),
                next_step="`tuition check` shows every finding",
            )

    def _parts(self) -> list[tuple[tuple[str, ...], float]]:
        if not self.sources.validation:
            return [(self.sources.train, self.val_split)]
        return [(self.sources.train, 0.0), (self.sources.validation, 1.0)]

    def _side_of(self, conversation: Conversation, share: float) -> Side:
        if share in (0.0, 1.0):
            return "validation" if share else "train"
        return side_of(conversation, val_split=share, seed=self.seed)

    def _remember(self, outcome: Outcome, side: Side) -> None:
        if outcome.examples and side == "validation":
            self.held_out.append(outcome.shown or outcome.conversation)
        elif outcome.examples and len(self.learned_from) < _LEARNED_FROM_KEPT:
            self.learned_from.append(outcome.shown or outcome.conversation)


def build_corpus(
    sources: Sources,
    renderer: Renderer,
    *,
    val_split: float,
    seed: int,
    mapping: Mapping[str, str] | None = None,
) -> Corpus:
    """Read, check and render everything a run learns from or validates on.

    Raises:
        UserError: nothing is left to learn from.
    """
    rendering = Rendering(sources, renderer, val_split, seed, mapping)
    sides: dict[Side, list[Rendered]] = {"train": [], "validation": []}
    for side, example in rendering:
        sides[side].append(example)
    return Corpus(
        sides["train"],
        sides["validation"],
        rendering.held_out,
        rendering.learned_from,
        rendering.ledger,
        rendering.shapes,
    )


def settle(ledger: Ledger, outcome: Outcome, *, side: Side) -> None:
    """Write what became of one conversation into the ledger."""
    origin = outcome.conversation.origin
    for finding in outcome.findings:
        if finding not in (outcome.rejection, outcome.cut):
            ledger.add(finding)
    if outcome.rejection is not None:
        ledger.reject(origin, outcome.rejection)
        return
    if outcome.cut is not None:
        ledger.truncate(origin, outcome.cut)
    ledger.keep(
        origin,
        parts=len(outcome.examples),
        tokens=sum(len(example) for example in outcome.examples),
        learned_tokens=sum(example.learned_tokens for example in outcome.examples),
        side=side,
    )


def _nothing_left(ledger: Ledger) -> str:
    rejected = ledger.rejected
    if not ledger.rows_in:
        return "there are no rows to learn from"
    if not rejected:
        return f"all {ledger.rows_in} rows fell to validation, so none is left to learn from; lower val_split"
    codes = ", ".join(f"{code} {count}×" for code, count in ledger.counts_by_code().items())
    return f"none of the {ledger.rows_in} rows can be learned from ({codes}); the first: {rejected[0].reason}"
