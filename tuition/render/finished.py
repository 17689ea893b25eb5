"""Whether what is learned is the answer and nothing else: compared with what transformers writes and tokenises anew.

Serves the proof alone, so it takes nothing on the renderer's word but its tokenizer and what it is told to learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile

import numpy as np

from tuition.conversation import Rendered
from tuition.render.partly import Asked, Partly, squeezed
from tuition.render.renderer import Renderer
from tuition.render.tokens import Ids


@dataclass(frozen=True, slots=True)
class Answer:
    """A learned turn beside what the template writes of it.

    Attributes:
        example: holds the turn.
        start: its first token, where the prompt ends.
        weight: the weight that its message has.
        written: the ids of the conversation through the turn.
        is_cut: whether its end may be missing, because the recipe cuts there.
        joins: whether the message before it is learned too, so that nothing need stand between them.
        is_joined: the same of the message behind it.
        asked: what of it is learned, where that is not all.
    """

    example: Rendered
    start: int
    weight: float
    written: Ids
    is_cut: bool = False
    joins: bool = False
    is_joined: bool = False
    asked: Asked | None = None


class Finished:
    """Compares learned turns with what the template writes of them.

    Args:
        renderer: asked for its tokenizer and what it learns.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._tokens = renderer.tokens
        self._partly = Partly(renderer.tokens)

    def is_as_written(self, answer: Answer) -> bool:
        """Whether the example through the end of the turn is what the template writes, and ends as it may.

        What the template writes behind the end is white space and control tokens, or the rest of an answer that
        was cut. Where it writes no control token to end the turn, the tokenizer's EOS stands there. Tokens that
        straddle the border of prompt and answer are others than those of the whole text; what they spell is the same,
        white space aside: what stands at the border is spelled otherwise by some tokenizers.
        """
        ids, written = answer.example.ids[: self.end(answer)], answer.written
        is_open = answer.is_cut or answer.asked is not None
        if np.array_equal(ids, written[: len(ids)]):
            return is_open or all(self.ends_a_turn(token) for token in written[len(ids) :].tolist())
        ours, theirs = self._as_texts(ids, written)
        if answer.is_cut:
            ours = ours.rstrip("\ufffd")  # cut within a character
        if theirs.startswith(ours):
            return is_open or not self._without_special(theirs[len(ours) :])
        return not self._is_ended(written) and ours == theirs + self._eos

    def begins(self, example: Rendered, written: Ids) -> bool:
        """Whether what the template writes of a conversation begins with an example."""
        ids = example.ids
        if np.array_equal(ids, written[: len(ids)]):
            return True
        ours, theirs = self._as_texts(ids, written)
        return theirs.startswith(ours)

    def end(self, answer: Answer) -> int:
        """Where what is learned of the turn ends in its example."""
        runs = self._runs(answer)
        return runs[-1][1] if runs else answer.start

    def is_alone(self, answer: Answer) -> bool:
        """Whether what is learned of the turn has its message's weight, and is what should be, and nothing else is."""
        supervised, runs = answer.example.supervised, self._runs(answer)
        weights = np.concatenate([supervised[begin:end] for begin, end in runs]) if runs else np.zeros(0)
        if not len(weights) or not bool((weights == np.float32(answer.weight)).all()):
            return False
        if answer.asked is not None:
            turn = slice(answer.start, self._turn_end(answer))
            if answer.is_cut and turn.stop == len(answer.example):
                return True  # places in a text are told by all of it
            ids, learned = answer.example.ids[turn], supervised[turn] != 0
            return self._partly.is_as_asked(ids, learned, answer.asked, begins=not answer.start)
        before = answer.start and supervised[answer.start - 1]
        return runs[0][0] == answer.start and (answer.joins or not before)

    def _runs(self, answer: Answer) -> list[tuple[int, int]]:
        """First and last + 1 of what is learned of the turn: one run of tokens, or some where spans are learned."""
        partly = answer.asked is not None
        learned = answer.example.supervised[answer.start : self._turn_end(answer)] != 0
        borders = answer.start + np.flatnonzero(np.diff(np.pad(learned, 1).astype(np.int8)))
        runs = list(zip(borders[::2].tolist(), borders[1::2].tolist(), strict=True))
        return runs if partly else runs[:1]

    def _turn_end(self, answer: Answer) -> int:
        """Where the turn ends in the example: with what is learned of it, where all is and nothing behind it."""
        if answer.asked is not None or answer.is_joined:
            return self._written_end(answer)
        return len(answer.example)

    def _written_end(self, answer: Answer) -> int:
        """The end of the control token that ends the turn where it is written, or of the last where several do."""
        ids, written = answer.example.ids, answer.written.tolist()
        text_end = len(written)
        while text_end > answer.start and self.ends_a_turn(written[text_end - 1]):
            text_end -= 1
        within = sum(token in self._tokens.special_ids for token in written[answer.start : text_end])
        control = (n for n in range(answer.start, len(ids)) if int(ids[n]) in self._tokens.special_ids)
        end = next(islice(control, within, None), len(ids) - 1) + 1
        ended = next(
            (n for n in range(text_end, len(written)) if written[n] in self._tokens.special_ids), text_end
        )
        behind = zip(ids[end:].tolist(), written[ended + 1 :], answer.example.supervised[end:], strict=False)
        weight = answer.weight if answer.is_joined else None  # with another it is learned with what follows
        goes_on = takewhile(lambda each: each[0] == each[1] and weight in (None, each[2]), behind)
        same = [token for token, *_ in goes_on]
        while same and same[-1] not in self._tokens.special_ids:
            same.pop()
        return end + len(same)

    def ends_a_turn(self, token: int) -> bool:
        """Whether a token is a control token or white space."""
        return token in self._tokens.special_ids or self._tokens.is_blank(token)

    # --- as text ---

    def _as_texts(self, ids: Ids, written: Ids) -> tuple[str, str]:
        """Both without white space, from the last control token before the first difference."""
        shared = min(len(ids), len(written))
        differences = np.flatnonzero(ids[:shared] != written[:shared])
        first = int(differences[0]) if len(differences) else shared
        same = next((n for n in range(first - 1, 0, -1) if int(ids[n]) in self._tokens.special_ids), 0)
        return squeezed(self._tokens.decode(ids[same:])), squeezed(self._tokens.decode(written[same:]))

    def _is_ended(self, ids: Ids) -> bool:
        """Whether a control token ends the text, white space aside."""
        texts = ((token, self._tokens.decode([token])) for token in ids[::-1].tolist())
        return next((token in self._tokens.special_ids for token, text in texts if text.strip()), False)

    @cached_property
    def _eos(self) -> str:
        eos = self._tokens.eos_id
        return "" if eos is None else squeezed(self._tokens.decode([eos]))

    def _without_special(self, text: str) -> str:
        for spelling in self._tokens.special_spellings:
            text = text.replace(squeezed(spelling), "")
        return text
