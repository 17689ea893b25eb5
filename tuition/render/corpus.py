"""The rows of a run as examples on their two sides, and the ledger that accounts for every one."""

from __future__ import annotations

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


def build_corpus(sources: Sources, renderer: Renderer, *, val_split: float, seed: int) -> Corpus:
    """Read, check and render everything a run learns from or validates on.

    Args:
        sources: where `validation` names files, those are held out and no share of `train` is.

    Raises:
        UserError: nothing is left to learn from.
    """
    corpus = Corpus()
    share = 0.0 if sources.validation else val_split
    _add(corpus, Reading(sources.train, ledger=corpus.ledger), renderer, share=share, seed=seed)
    if sources.validation:
        _add(corpus, Reading(sources.validation, ledger=corpus.ledger), renderer, share=1.0, seed=seed)
    corpus.ledger.check_balance()
    if not corpus.train:
        raise UserError(
            _nothing_left(corpus),
            where=", ".join(sources.train),
            next_step="`tuition check` shows every finding",
        )
    return corpus


def _add(corpus: Corpus, reading: Reading, renderer: Renderer, *, share: float, seed: int) -> None:
    for outcome in renderer.render(reading):
        conversation = outcome.conversation
        held_out = share == 1.0 or side_of(conversation, val_split=share, seed=seed) == "validation"
        settle(corpus.ledger, outcome, side="validation" if held_out else "train")
        (corpus.validation if held_out else corpus.train).extend(outcome.examples)
        if held_out and outcome.examples:
            corpus.held_out.append(conversation)
        elif outcome.examples and len(corpus.learned_from) < _LEARNED_FROM_KEPT:
            corpus.learned_from.append(conversation)
    corpus.shapes |= reading.shapes


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


def _nothing_left(corpus: Corpus) -> str:
    rejected = corpus.ledger.rejected
    if not corpus.ledger.rows_in:
        return "there are no rows to learn from"
    if not rejected:
        return f"all {corpus.ledger.rows_in} rows fell to validation, so none is left to learn from; lower val_split"
    codes = ", ".join(f"{code} {count}×" for code, count in corpus.ledger.counts_by_code().items())
    return f"none of the {corpus.ledger.rows_in} rows can be learned from ({codes}); the first: {rejected[0].reason}"
