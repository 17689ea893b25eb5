"""From learned turns as text to token ids with `supervised` beside them.

Turns whose contexts continue one another are one example; where a template rewrites history they become
several, each as served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuition.render.draft import Draft, Turn
from tuition.render.endings import Endings
from tuition.render.pieces import Pieces
from tuition.render.spans import Range, chosen_tokens
from tuition.render.tokens import Ids, Tokens


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a learned turn stands in an example.

    Attributes:
        position: its place among the messages.
        start: its first token.
        end: where the tokens behind it begin.
        stop: the token that ends it; None where nothing does.
        open_ends: runs of learned tokens in it that end with no stop token and should not.
    """

    position: int
    start: int
    end: int
    stop: int | None = None
    open_ends: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One example while its turns are joined.

    Attributes:
        ids: (tokens,) int32.
        supervised: (tokens,) float32, the weight of each token.
        turns: its learned turns.
        context: the messages that stand before the last of them, where those are not all.
    """

    ids: Ids
    supervised: npt.NDArray[np.float32]
    turns: tuple[Placed, ...]
    context: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def learned_tokens(self) -> int:
        """How many tokens are learned."""
        return int(np.count_nonzero(self.supervised))

    @property
    def messages(self) -> tuple[int, ...]:
        """Places of the messages that stand in it, the last learned one behind the others."""
        last = self.turns[-1].position
        return (*(range(last) if self.context is None else self.context), last)

    def through(self, turns: int) -> Part:
        """The example up to the end of so many of its turns."""
        end = self.turns[turns - 1].end
        return Part(self.ids[:end], self.supervised[:end], self.turns[:turns])


@dataclass(frozen=True, slots=True)
class _CutTurn:
    """A turn in pieces: those before the one where the prompt ends, that one, and the ones from there on."""

    turn: Turn
    before: list[str]
    border: str
    behind: list[str]


class Assembly:
    """Joins the turns of drafts into examples.

    Args:
        learn_all: whether what the template writes between two learned messages is learned too.
    """

    def __init__(self, tokens: Tokens, pieces: Pieces, endings: Endings, *, learn_all: bool) -> None:
        self._tokens = tokens
        self._pieces = pieces
        self._endings = endings
        self._learn_all = learn_all

    def assemble(self, drafts: Sequence[Draft]) -> Iterable[list[Part]]:
        """The examples of each draft, tokenised together."""
        cut = [[self._cut(turn) for turn in draft.turns] for draft in drafts]
        known = self._pieces.encode(
            piece
            for draft, turns in zip(drafts, cut, strict=True)
            if not draft.mark
            for turn in turns
            for piece in (*turn.before, turn.border, *turn.behind)
        )
        for draft, turns in zip(drafts, cut, strict=True):
            yield self._join(draft, turns, known)

    def _cut(self, turn: Turn) -> _CutTurn:
        *before, border = self._pieces.split(turn.prompt)
        return _CutTurn(turn, before, border, self._pieces.split(border + turn.completion))

    def _join(self, draft: Draft, turns: Sequence[_CutTurn], known: Mapping[str, Ids]) -> list[Part]:
        parts: list[Part] = []
        base: list[Ids] = []
        for cut in turns:
            if draft.mark:
                known = self._pieces.encode((*cut.before, cut.border, *cut.behind), draft.mark)
            before, behind = [known[piece] for piece in cut.before], [known[piece] for piece in cut.behind]
            border = known[cut.border]
            base = [*base, *before] if cut.turn.continues else before
            completion = self._completion(draft, cut, border, np.concatenate(behind))
            self._append(draft, parts, cut.turn, np.concatenate([*base, border]), completion)
            base = [np.concatenate([*base, *behind[:-1]])] if base or behind[1:] else []
        return parts

    def _completion(self, draft: Draft, cut: _CutTurn, border: Ids, behind: Ids) -> Ids:
        """What follows the prompt's own tokens."""
        if len(behind) >= len(border) and np.array_equal(behind[: len(border)], border):
            return behind[len(border) :]
        # a token straddles the border; serving's prompt ends there, so the answer is encoded from there
        texts = cut.turn.completion.split(draft.mark) if draft.mark else [cut.turn.completion]
        return np.concatenate([self._tokens.continuation(text) for text in texts])

    def _append(self, draft: Draft, parts: list[Part], turn: Turn, prompt: Ids, completion: Ids) -> None:
        """Join the turn to the example before it where serving would feed just that, else begin one."""
        plain = draft.conversation.plain or self._endings.is_plain
        if plain:
            prompt = np.concatenate([self._tokens.prefix_ids, prompt])
        stop = None
        if turn.is_answer:
            completion, stop = self._up_to_stop(draft, completion, plain=plain)
        weight = turn.weight * draft.conversation.weight
        ids = np.concatenate([prompt, completion])
        supervised = np.zeros(len(ids), dtype=np.float32)
        if turn.learned is None:
            supervised[len(prompt) :] = weight
            open_ends = int(len(completion) > 0 and not turn.is_answer)
        else:
            chosen = self._chosen(draft, turn, completion, turn.learned)
            supervised[len(prompt) :] = weight * chosen
            open_ends = _open_ends(chosen, ends=turn.is_answer)
        earlier: tuple[Placed, ...] = ()
        if parts and _continues(parts[-1].ids, prompt):
            before = parts.pop()
            supervised[: len(before)] = before.supervised
            if self._learn_all and before.turns[-1].position == turn.position - 1:
                supervised[len(before) : len(prompt)] = weight
            earlier = before.turns
        supervised[:1] = 0  # nothing precedes it
        placed = Placed(turn.position, len(prompt), len(ids), stop, open_ends)
        parts.append(Part(ids, supervised, (*earlier, placed)))

    def _chosen(
        self, draft: Draft, turn: Turn, completion: Ids, learned: Sequence[Range]
    ) -> npt.NDArray[np.bool_]:
        """Which tokens of a turn are learned, of which some characters are."""
        text = turn.completion.replace(draft.mark, "") if draft.mark else turn.completion
        chosen = chosen_tokens(self._tokens, completion, text, learned)
        if chosen is None:
            draft.note(
                "R027",
                f"the tokens of message {turn.position + 1} do not spell its text, "
                "so what is learned of it cannot be told from what is not",
            )
            return np.zeros(len(completion), dtype=np.bool_)
        return chosen

    def _up_to_stop(self, draft: Draft, completion: Ids, *, plain: bool) -> tuple[Ids, int | None]:
        """The completion through the token that ends the turn, and that token; what follows is context only."""
        stop = None if plain else self._endings.stop_position(completion)
        if stop is not None:
            return completion[: stop + 1], int(completion[stop])
        if self._tokens.eos_id is None:
            draft.note("R009", "neither the template nor the tokenizer has a token that ends an answer")
            return completion, None
        if not plain:
            draft.note(
                "R010", "the template ends an answer with no special token; the tokenizer's EOS is learned"
            )
        return np.append(completion, np.int32(self._tokens.eos_id)), self._tokens.eos_id


def _continues(before: Ids, prompt: Ids) -> bool:
    return len(prompt) >= len(before) and np.array_equal(prompt[: len(before)], before)


def _open_ends(chosen: npt.NDArray[np.bool_], *, ends: bool) -> int:
    """How many runs of learned tokens end elsewhere than with the turn, or, of what is no answer, at all."""
    runs = np.count_nonzero(np.diff(chosen.astype(np.int8), append=0) == -1)
    return int(runs) - int(ends and bool(chosen[-1:].any()))
