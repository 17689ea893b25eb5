"""How a template ends an answer, and what it writes before one: learned from a probe and from the rows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from tuition.render.template import TemplateRefusal
from tuition.render.tokens import Ids, Tokens
from tuition.render.writer import Writer


class Endings:
    """The tokens that end a turn of one template.

    Args:
        tokens: the tokenizer.
        writer: the template; None for plain text, which only EOS ends.
    """

    def __init__(self, tokens: Tokens, writer: Writer | None) -> None:
        self._tokens = tokens
        self._writer = writer
        self._learned: set[int] = set()

    def learned(self, stops: Iterable[int]) -> None:
        """Remember tokens that were learned as the end of a turn."""
        self._learned.update(stops)

    @property
    def is_plain(self) -> bool:
        """True where no template writes the end of an answer."""
        return self._writer is None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """What the template writes after an answer, the tokenizer's EOS, then other ends that were learned."""
        ends = (self.turn_end_id, self._tokens.eos_id, *sorted(self._learned))
        return tuple(dict.fromkeys(token for token in ends if token is not None))

    @cached_property
    def turn_end_id(self) -> int | None:
        """The token that the template writes after every answer."""
        text = self._probe_completion("X")
        completion = self._tokens.continuation(text) if text else np.zeros(0, dtype=np.int32)
        tail = self._special_tail(completion)
        return int(completion[tail[0]]) if tail else None

    @cached_property
    def answer_prefix(self) -> str:
        """What the template writes between its generation prompt and the answer, such as a space."""
        probe = "X"
        text = self._probe_completion(probe)
        return text[: text.index(probe)] if text and probe in text else ""

    def stop_position(self, completion: Ids) -> int | None:
        """Where the turn ends: at the token that ends any turn, or the first special one in the tail."""
        tail = self._special_tail(completion)
        return next((p for p in tail if int(completion[p]) == self.turn_end_id), tail[0] if tail else None)

    def _special_tail(self, completion: Ids) -> list[int]:
        """Positions of the special tokens after the last text, in order; white space between them is passed."""
        found: list[int] = []
        for position in range(len(completion) - 1, -1, -1):
            token = int(completion[position])
            if token in self._tokens.special_ids:
                found.append(position)
            elif not self._tokens.is_blank(token):
                break
        return found[::-1]

    def _probe_completion(self, answer: str) -> str | None:
        if self._writer is None:
            return None
        user, assistant = {"role": "user", "content": "Y"}, {"role": "assistant", "content": answer}
        try:
            prompt = self._writer.text([user], [], add_generation_prompt=True)
            full = self._writer.text([user, assistant], [], add_generation_prompt=False)
        except TemplateRefusal:
            return None
        return full.removeprefix(prompt) if full.startswith(prompt) else None
