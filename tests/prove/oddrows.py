"""Odd rows over many templates and tokenizers, each of whose examples the proof must find sound.

That the proof sees what is not sound is shown by `tests/render/test_parity.py`, which changes tokens one by one.
The large share: PARTS=rows make prove (ROWS=5000). How many of them are kept varies by a few: the tokenizers that are
trained for it differ from process to process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

from tests.prove.page import Result
from tests.render import test_invariants as ours
from tests.render import test_trl_templates as theirs
from tests.render.helpers import ORIGIN, over, render_one
from tuition.conversation import Conversation, Message
from tuition.errors import UserError
from tuition.render import Renderer
from tuition.render.evidence import Witness

MODES = ("assistant", "last", "all", "spans")
POLICIES = ("drop", "cut", "cut_turns", "split")
_LENGTHS = (5000, 5000, 40, 80, 130)
_WORDS = ("Paris", "is", "nice.", "  ", "\n", "\n\n", "é", "日本", "a b", "1,000", "$5", " ", "x", "🙂🙃", "<b>", "the end", "`c`", "- list")  # fmt: skip
_SAID_OF_A_ROW = ("unlike_serving", "unlike_written", "misplaced", "forged", "unsound")


def prove(rows: int, seed: int = 0, *, tell: Callable[[str], None] = lambda _: None) -> Result:
    """Render so many rows, and have each compared with what serving makes of it.

    Returns:
        How many gave examples, and how many of those were found sound. Rows that are rejected prove nothing.
    """
    rng = Random(seed)
    kept, alarms = 0, list[str]()
    for _ in range(rows):
        r, conversation = _drawn(rng)
        try:
            outcome = render_one(r, conversation)
        except UserError:
            continue  # a template may refuse the row
        if not outcome.examples:
            continue
        kept += 1
        witness = Witness(r)
        witness.see(outcome)
        evidence = witness.finish()
        said = {name: place for name in _SAID_OF_A_ROW if (place := getattr(evidence, name))}
        if said:
            alarms.append(
                f"{r.train_on}, {r.max_length} tokens, {r.template.provenance}: {said} {conversation}"
            )
    tell("\n".join(alarms))
    templates = f"{len(theirs.NAMES)} templates of TRL, {len(ours.TEMPLATES)} of our own over {len(ours.TOKENIZERS)} tokenizers"
    name = f"odd rows ({templates}): the proof finds each sound"
    return Result([(name, kept, kept - len(alarms))])


def _drawn(rng: Random) -> tuple[Renderer, Conversation]:
    settings = (rng.choice(MODES), rng.random() < 2 / 3, rng.choice(POLICIES), rng.choice(_LENGTHS))
    if rng.random() < 0.5:
        r = _with_template_of_trl(rng.choice(theirs.NAMES), *settings)
        known = theirs.SHAPES[rng.choice(list(theirs.SHAPES))] if rng.random() < 0.4 else None
    else:
        r = _with_template_of_ours(rng.choice(ours.TOKENIZERS), rng.choice(list(ours.TEMPLATES)), *settings)
        known = None
    return r, _Writer(rng, marks=r.train_on == "spans").row(known)


@cache
def _with_template_of_trl(name: str, train_on: str, thinks: bool, too_long: str, length: int) -> Renderer:
    tokenizer = theirs.tokenizer_of(name)
    return over(tokenizer, **_options(train_on, thinks, too_long, length))


@cache
def _with_template_of_ours(
    kind: str, template: str, train_on: str, thinks: bool, too_long: str, length: int
) -> Renderer:
    base = ours.renderer_of(kind, template)
    return Renderer(base.tokens.tokenizer, base.template, **_options(train_on, thinks, too_long, length))


def _options(train_on: str, thinks: bool, too_long: str, length: int) -> dict[str, Any]:
    return {"train_on": train_on, "learn_reasoning": thinks, "too_long": too_long, "max_length": length}


class _Writer:
    """Writes odd rows.

    Args:
        marks: some words stand between the markers of spans.
    """

    def __init__(self, rng: Random, *, marks: bool) -> None:
        self._rng, self._marks = rng, marks

    def row(self, known: Conversation | None) -> Conversation:
        """A row: a known one, a text, or a chat of up to six turns with thoughts and weights."""
        if known is not None:
            return replace(known, messages=tuple(map(self._marked_answer, known.messages)))
        if self._rng.random() < 0.15:
            text = Message("assistant", self._marked(self._text(60)))
            return Conversation((text,), ORIGIN, plain=True, weight=self._rng.choice([1.0, 2.0]))
        messages = [Message("system", self._text())] if self._rng.random() < 0.3 else []
        for _ in range(self._rng.randint(1, 6)):
            messages += [self._question(), self._answer()]
        if self._rng.random() < 0.1:
            messages.append(self._question())
        return Conversation(tuple(messages), ORIGIN, weight=self._rng.choice([1.0, 1.0, 3.0]))

    def _question(self) -> Message:
        return Message("user", self._text(), weight=1.0 if self._rng.random() < 0.1 else None)

    def _answer(self) -> Message:
        thought = self._text() if self._rng.random() < 0.7 else None
        if thought and self._rng.random() < 0.3:
            thought = self._marked(thought)
        weight = self._rng.choice([*[None] * 6, 0.0, 2.0, 0.5])
        return Message("assistant", self._marked(self._text()), reasoning=thought, weight=weight)

    def _text(self, most: int = 8) -> str:
        words = self._rng.choices(_WORDS, k=self._rng.randint(1, most))
        return "".join(word + self._rng.choice(["", " "]) for word in words)

    def _marked_answer(self, message: Message) -> Message:
        is_answer = message.role == "assistant"
        return replace(message, content=self._marked(message.content)) if is_answer else message

    def _marked(self, text: str) -> str:
        if not self._marks or not text:
            return text
        words = (f"<learn>{word}</learn>" if self._rng.random() < 0.3 else word for word in text.split(" "))
        return " ".join(words) + " "
