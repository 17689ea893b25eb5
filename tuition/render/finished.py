"""Whether what is learned is the answer and nothing else: compared with the finished text, asked of transformers.

Serves the proof alone, so it takes nothing on the renderer's word but its tokenizer and what it is told to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tuition.conversation import Rendered
from tuition.render.renderer import Renderer
from tuition.render.tokens import Ids

# The text of every answer is compared. Making ids of it once more would take longer than rendering did, so that
# is done for the first answers, and wherever the tokens do not spell the text.
_ANSWERS_ENCODED = 512


@dataclass(frozen=True, slots=True)
class Answer:
    """A learned turn beside what the template writes of it.

    Attributes:
        example: holds the turn.
        start: its first token, where the prompt ends.
        weight: the weight that its message has.
        written: the conversation through the turn as text.
        is_cut: whether its end may be missing, because the recipe cuts there.
        joins: whether the message before it is learned too, so that nothing need stand between them.
    """

    example: Rendered
    start: int
    weight: float
    written: str
    is_cut: bool
    joins: bool

    @property
    def end(self) -> int:
        """Where the learned tokens from `start` on end."""
        context = np.flatnonzero(self.example.supervised[self.start :] == 0)
        return self.start + int(context[0]) if len(context) else len(self.example)

    @property
    def ids(self) -> Ids:
        """The example through the end of the turn."""
        return self.example.ids[: self.end]

    @property
    def is_alone(self) -> bool:
        """Whether the token before it is context, and each of its own has the weight of its message."""
        supervised = self.example.supervised
        before = self.start and supervised[self.start - 1]
        return (self.joins or not before) and bool(
            (supervised[self.start : self.end] == np.float32(self.weight)).all()
        )


class Finished:
    """Compares learned turns with what the template writes of them.

    Args:
        renderer: asked for its tokenizer and what it learns.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._tokens = renderer.tokens
        self.shows_turns = renderer.learns_whole_turns and renderer.train_on != "all"
        self._encoded = 0

    def as_written(self, answers: Sequence[Answer]) -> list[bool]:
        """For each answer, whether the example through its end is what the template writes, and ends as it may.

        What the template writes behind the end is white space and control tokens, or the rest of an answer that
        was cut. Where it writes no control token to end the turn, the tokenizer's EOS stands there.
        """
        spelled = self._tokens.decode_each([answer.ids for answer in answers])
        same = [
            self._is_text(text, answer.written, answer) for text, answer in zip(spelled, answers, strict=True)
        ]
        encoded = [n for n, is_same in enumerate(same) if not is_same or self._encoded + n < _ANSWERS_ENCODED]
        self._encoded += len(answers)
        for n, written in zip(encoded, self._ids_of([answers[n].written for n in encoded]), strict=True):
            same[n] = self._are_ids(answers[n], written)
        return same

    def _ids_of(self, texts: list[str]) -> list[list[int]]:
        return list(self._tokens.tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else []

    def _are_ids(self, answer: Answer, written: list[int]) -> bool:
        """Tokens that straddle the border of prompt and answer are others; what they spell is the same."""
        ids = answer.ids.tolist()
        if ids == written[: len(ids)]:
            return answer.is_cut or all(self._ends_a_turn(token) for token in written[len(ids) :])
        return self._is_text(self._tokens.decode(ids), self._tokens.decode(written), answer)

    def _ends_a_turn(self, token: int) -> bool:
        return token in self._tokens.special_ids or self._tokens.is_blank(token)

    def _is_text(self, text: str, written: str, answer: Answer) -> bool:
        """White space aside: what stands at the border is spelled otherwise by some tokenizers."""
        if written == text:
            return True
        ours, theirs = _squeezed(text), _squeezed(written)
        if theirs.startswith(ours):
            return answer.is_cut or not self._without_special(theirs[len(ours) :])
        ended = any(theirs.endswith(_squeezed(spelling)) for spelling in self._tokens.special_spellings)
        return not ended and ours == theirs + self._eos

    @cached_property
    def _eos(self) -> str:
        eos = self._tokens.eos_id
        return "" if eos is None else _squeezed(self._tokens.decode([eos]))

    def _without_special(self, text: str) -> str:
        for spelling in self._tokens.special_spellings:
            text = text.replace(_squeezed(spelling), "")
        return text


def _squeezed(text: str) -> str:
    return "".join(text.split())
