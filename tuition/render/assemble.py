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
from tuition.render.tokens import Ids, Tokens


@dataclass(slots=True)
class Part:
    """One example while its turns are joined.

    Attributes:
        ids: (tokens,) int32.
        supervised: (tokens,) float32, the weight of each token.
        position: the last message that is learned in it.
        stops: the tokens that end its turns.
    """

    ids: Ids
    supervised: npt.NDArray[np.float32]
    position: int
    stops: frozenset[int] = frozenset()


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
        stops: frozenset[int] = frozenset()
        if turn.is_answer:
            completion, stops = self._up_to_stop(draft, completion, plain=plain)
        weight = turn.weight * draft.conversation.weight
        ids = np.concatenate([prompt, completion])
        supervised = np.zeros(len(ids), dtype=np.float32)
        supervised[len(prompt) :] = weight
        if parts and _continues(parts[-1].ids, prompt):
            before = parts.pop()
            supervised[: len(before.ids)] = before.supervised
            if self._learn_all and before.position == turn.position - 1:
                supervised[len(before.ids) : len(prompt)] = weight
            stops |= before.stops
        supervised[:1] = 0  # nothing precedes it
        parts.append(Part(ids, supervised, turn.position, stops))

    def _up_to_stop(self, draft: Draft, completion: Ids, *, plain: bool) -> tuple[Ids, frozenset[int]]:
        """The completion through the token that ends the turn, and that token; what follows is context only."""
        stop = None if plain else self._endings.stop_position(completion)
        if stop is not None:
            return completion[: stop + 1], frozenset([int(completion[stop])])
        if self._tokens.eos_id is None:
            draft.note("R009", "neither the template nor the tokenizer has a token that ends an answer")
            return completion, frozenset()
        if not plain:
            draft.note(
                "R010", "the template ends an answer with no special token; the tokenizer's EOS is learned"
            )
        return np.append(completion, np.int32(self._tokens.eos_id)), frozenset([self._tokens.eos_id])


def _continues(before: Ids, prompt: Ids) -> bool:
    return len(prompt) >= len(before) and np.array_equal(prompt[: len(before)], before)
