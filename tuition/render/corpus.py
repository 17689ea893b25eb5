"""The rows of a run on their way to examples, and the ledger that accounts for every one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tuition.conversation import Conversation, Rendered
from tuition.counting import counted
from tuition.data import LearnedPrompts, Ledger, Reading, Replay, Side, Sources, side_of
from tuition.errors import UserError
from tuition.render.evidence import Witness
from tuition.render.renderer import Outcome, Renderer
from tuition.render.template import date_notice

_CONVERSATIONS_KEPT = 256


@dataclass(slots=True)
class Rendering:
    """The rows of a run on their way to examples. Iterate it once; then the ledger is complete.

    Attributes:
        sources: where `validation` names files, those are held out and no share of `train` is; `replay`
            is read after them.
        renderer: writes the conversations.
        val_split: share of the rows that is held out.
        seed: of the split, and of sources that are taken in part.
        mapping: which columns hold what, where the shape is not found by itself.
        whole: these are all sources of a run, so something must be left to learn from.
        ledger: what became of each row.
        shapes: source → the shape found in it.
        witness: sees every example, for the proof.
        held_out: the first conversations behind the held-out examples.
        learned_from: the first behind the others.
        learned_prompts: the prompts of all the others.
    """

    sources: Sources
    renderer: Renderer
    val_split: float
    seed: int
    mapping: Mapping[str, str] | None = None
    whole: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    shapes: dict[str, str] = field(default_factory=dict)
    held_out: list[Conversation] = field(default_factory=list)
    learned_from: list[Conversation] = field(default_factory=list)
    learned_prompts: LearnedPrompts = field(default_factory=LearnedPrompts)
    witness: Witness = field(init=False)

    def __post_init__(self) -> None:
        self.witness = Witness(self.renderer)

    def __iter__(self) -> Iterator[tuple[Side, Rendered]]:
        """Each example with its side, in the order of the rows.

        Raises:
            UserError: nothing is left to learn from.
        """
        learned = 0
        before = None
        note_template(self.ledger, self.renderer)
        for names, share in self._parts():
            reading = Reading(
                names, ledger=self.ledger, mapping=self.mapping, seed=self.seed, training=before
            )
            before = reading
            for outcome in self.renderer.render(reading):
                side = self._side_of(outcome.conversation, share)
                settle(self.ledger, outcome, side=side)
                self.witness.see(outcome)
                self._remember(outcome, side)
                learned += len(outcome.examples) if side == "train" else 0
                yield from ((side, example) for example in outcome.examples)
            self.shapes |= reading.shapes
        yield from self._replayed(learned)
        self.ledger.check_balance()
        if not learned and self.whole:
            raise UserError(
                _nothing_left(self.ledger),
                where=", ".join(self.sources.train),
                next_step="`tuition check` shows every finding",
            )

    def _replayed(self, beside: int) -> Iterator[tuple[Side, Rendered]]:
        """The general rows that are learned beside so many training examples."""
        if not self.sources.replay:
            return
        share, val_split = self.sources.replay_share, 0.0 if self.sources.validation else self.val_split
        replay = Replay(
            self.sources.replay,
            share=share,
            beside=beside,
            val_split=val_split,
            seed=self.seed,
            ledger=self.ledger,
        )
        delivered = 0
        for outcome in self.renderer.render(replay.conversations()):
            settle(self.ledger, outcome, side="train")
            self.witness.see(outcome)
            self._note_prompt(outcome)
            delivered += len(outcome.examples)
            yield from (("train", example) for example in outcome.examples)
        replay.report(delivered)
        self.shapes |= replay.shapes

    def _parts(self) -> list[tuple[tuple[str, ...], float]]:
        if not self.sources.validation:
            return [(self.sources.train, self.val_split)]
        return [(self.sources.train, 0.0), (self.sources.validation, 1.0)]

    def _side_of(self, conversation: Conversation, share: float) -> Side:
        if share in (0.0, 1.0):
            return "validation" if share else "train"
        return side_of(conversation, val_split=share, seed=self.seed)

    def _remember(self, outcome: Outcome, side: Side) -> None:
        if side == "train":
            self._note_prompt(outcome)
        kept = self.held_out if side == "validation" else self.learned_from
        if outcome.examples and len(kept) < _CONVERSATIONS_KEPT:
            kept.append(outcome.shown[-1])

    def _note_prompt(self, outcome: Outcome) -> None:
        if outcome.examples:
            self.learned_prompts.add(outcome.examples[0].prompt_key)


def note_template(ledger: Ledger, renderer: Renderer) -> None:
    """Write into the ledger what the template does to every row: it may ask for today's date (R028)."""
    if renderer.template is not None and (dated := date_notice(renderer.template)):
        ledger.add(dated)


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
        return f"all rows ({ledger.rows_in:,}) fell to validation, so none is left to learn from; lower val_split"
    faults = {finding.code for finding in ledger.findings if finding.severity == "error"}
    codes = ", ".join(f"{code} {count}×" for code, count in ledger.counts_by_code().items() if code in faults)
    return f"none of {counted(ledger.rows_in, 'row')} can be learned from ({codes}); the first: {rejected[0].reason}"
