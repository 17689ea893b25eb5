"""What is seen of every example while it is made, so that the run's promises can be verified of all of them.

Everything here is recomputed from the examples and asked of transformers anew; nothing is taken on the
renderer's word. The figures are small and are kept with prepared data, so that a second start verifies
them without reading an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tuition.conversation import Rendered
from tuition.render.parity import Compared, Parity
from tuition.render.renderer import Outcome, Renderer
from tuition.render.tokens import Ids

_ROWS_AT_ONCE = 128


@dataclass(slots=True)
class Evidence:
    """Figures over every example, and the first place where something is not as it must be.

    Attributes:
        examples, tokens, learned_tokens: counted from the arrays.
        unsound: the first example without a learned token, or with a weight that is none.
        ends: token id → runs of learned tokens that end with it, and the first place.
        open_ends: runs that end with no stop token because the recipe says so; they are not among `ends`.
        largest_id: with its place.
        control_tokens: special tokens in all examples.
        spelled_turns: turns behind content that spells a control token out, where those of the template were counted.
        forged: the first place where a special token stands that the template did not write.
        prompts: learned turns whose context was compared with the ids that serving feeds.
        unlike_serving: the first that was not the same.
        answers: learned turns that were compared with what the template writes of them.
        unlike_written: the first whose tokens are others.
        misplaced: the first place where context is learned, or a learned token has a weight that is not its turn's.
    """

    examples: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    unsound: str | None = None
    ends: dict[int, tuple[int, str]] = field(default_factory=dict)
    open_ends: int = 0
    largest_id: int = -1
    largest_at: str = ""
    control_tokens: int = 0
    spelled_turns: int = 0
    forged: str | None = None
    prompts: int = 0
    unlike_serving: str | None = None
    answers: int = 0
    unlike_written: str | None = None
    misplaced: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values, from which `from_json` makes the same evidence."""
        return {**asdict(self), "ends": [[token, *end] for token, end in self.ends.items()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evidence:
        """The evidence that was written."""
        return cls(**{**value, "ends": {token: (count, place) for token, count, place in value["ends"]}})

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """The evidence over all examples of several parts: counts added up, and the first places."""
        whole = cls()
        for part in parts:
            for name in _COUNTS:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            for name in _FIRST_PLACES:
                setattr(whole, name, getattr(whole, name) or getattr(part, name))
            for token, (count, place) in part.ends.items():
                before, first = whole.ends.get(token, (0, place))
                whole.ends[token] = (before + count, first)
            if part.largest_id > whole.largest_id:
                whole.largest_id, whole.largest_at = part.largest_id, part.largest_at
        return whole


_COUNTS = (
    "examples", "tokens", "learned_tokens", "open_ends", "control_tokens", "spelled_turns", "prompts", "answers",
)  # fmt: skip
_FIRST_PLACES = ("unsound", "forged", "unlike_serving", "unlike_written", "misplaced")


class Witness:
    """Sees every row as it is rendered. Call `see` for each, then `finish`.

    Args:
        renderer: asked for its tokenizer, its template and what it learns, and for nothing that it made.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.evidence = Evidence()
        self._renderer = renderer
        self._parity = Parity(renderer)
        self._special = np.array(sorted(renderer.tokens.special_ids), dtype=np.int32)
        self._bos = renderer.tokens.tokenizer.bos_token_id
        self._waiting: list[Outcome] = []

    def see(self, outcome: Outcome) -> None:
        """Take one row's outcome; rows are looked at some at a time."""
        if outcome.examples:
            self._waiting.append(outcome)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._look()

    def finish(self) -> Evidence:
        """The evidence over all rows that were seen."""
        if self._waiting:
            self._look()
        return self.evidence

    def _look(self) -> None:
        self._count(
            [e for outcome in self._waiting for e in outcome.examples],
            [open_ends for outcome in self._waiting for open_ends in outcome.open_ends],
        )
        self._note(self._parity.compare(self._waiting))
        self._waiting = []

    def _note(self, compared: Compared) -> None:
        seen = self.evidence
        seen.prompts += compared.prompts
        seen.answers += compared.answers
        seen.spelled_turns += compared.spelled_turns
        seen.unlike_serving = seen.unlike_serving or compared.unlike_serving
        seen.unlike_written = seen.unlike_written or compared.unlike_written
        seen.misplaced = seen.misplaced or compared.misplaced
        seen.forged = seen.forged or compared.forged

    # --- what the arrays say ---

    def _count(self, examples: Sequence[Rendered], open_ends: Sequence[int]) -> None:
        """Count over the examples laid end to end; `open_ends` as in `Outcome`."""
        seen = self.evidence
        ids = np.concatenate([example.ids for example in examples])
        weights = np.concatenate([example.supervised for example in examples])
        starts = np.cumsum([0, *(len(example) for example in examples)])
        learned = weights != 0
        seen.examples += len(examples)
        seen.tokens += len(ids)
        seen.learned_tokens += int(learned.sum())
        seen.control_tokens += int(np.isin(ids, self._special).sum())
        if seen.unsound is None:
            sound = np.isfinite(weights) & (weights >= 0)
            sound[starts[:-1]] &= ~learned[starts[:-1]]  # nothing precedes the first token
            each = np.logical_and.reduceat(sound, starts[:-1]) & np.logical_or.reduceat(learned, starts[:-1])
            seen.unsound = _first_place(examples, np.flatnonzero(~each))
        if (largest := int(ids.argmax())) >= 0 and ids[largest] > seen.largest_id:
            seen.largest_id = int(ids[largest])
            seen.largest_at = str(examples[_example_of(starts, largest)].origin)
        if seen.forged is None and self._bos is not None:
            firsts = starts[:-1][np.diff(starts) > 1]
            doubled = firsts[(ids[firsts] == self._bos) & (ids[firsts + 1] == self._bos)]
            place = _first_place(examples, [_example_of(starts, d) for d in doubled[:1]])
            seen.forged = f"{place} begins with two BOS tokens" if place else None
        self._count_ends(examples, ids, learned, starts, np.asarray(open_ends))

    def _count_ends(
        self,
        examples: Sequence[Rendered],
        ids: Ids,
        learned: Any,
        starts: Any,
        allowed: npt.NDArray[np.int64],
    ) -> None:
        """Note the token at the end of each run of learned tokens; only the last where everything is learned."""
        last = np.zeros(len(ids), dtype=bool)
        last[starts[1:] - 1] = True
        ends = np.flatnonzero(learned & (last | ~np.append(learned[1:], False)))
        owners = np.searchsorted(starts, ends, side="right") - 1
        if self._renderer.train_on == "all":
            keep = np.append(owners[1:] != owners[:-1], True)
            ends, owners = ends[keep], owners[keep]
        missing = ~np.isin(ids[ends], np.asarray(self._renderer.stop_ids, dtype=np.int32))
        too_many = np.bincount(owners[missing], minlength=len(examples)) > allowed
        is_open = missing & ~too_many[owners]
        self.evidence.open_ends += int(is_open.sum())
        ends, owners = ends[~is_open], owners[~is_open]
        for token, first, count in zip(
            *np.unique(ids[ends], return_index=True, return_counts=True), strict=True
        ):
            place = str(examples[owners[first]].origin)
            before, place = self.evidence.ends.get(int(token), (0, place))
            self.evidence.ends[int(token)] = (before + int(count), place)


def _first_place(examples: Sequence[Rendered], numbers: Any) -> str | None:
    return str(examples[numbers[0]].origin) if len(numbers) else None


def _example_of(starts: Any, place: int) -> int:
    return int(np.searchsorted(starts, place, side="right")) - 1
