"""From a conversation to token ids with `supervised` beside them, turn by turn, as serving would.

For each learned turn the context is the very prompt that serving feeds, and what the template writes
after it is learned up to the token that ends the turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tuition.conversation import Conversation, Message, Rendered
from tuition.data import prompt_key
from tuition.errors import Finding, Origin, UserError
from tuition.render.assemble import Assembly, Part
from tuition.render.content import Guard, Written, mark_survives
from tuition.render.draft import MARK_LOST, Draft, Drafting, TrainOn
from tuition.render.endings import Endings
from tuition.render.pieces import Pieces
from tuition.render.template import ChatTemplate, TemplateRefusal, Writer
from tuition.render.tokens import Ids, Tokens

TooLong = Literal["drop", "cut", "refuse"]
_NOWHERE = Origin("<prompt>", 0)
_CHUNK_ROWS = 256  # enough for the tokenizer's batch to pay, few enough that the first row comes at once
_CHUNK_CHARACTERS = 2_000_000  # and rows may be long


@dataclass(frozen=True, slots=True)
class Outcome:
    """What rendering made of one conversation: examples, or findings that say why there are none."""

    conversation: Conversation
    examples: tuple[Rendered, ...]
    findings: tuple[Finding, ...]

    @property
    def rejection(self) -> Finding | None:
        """The finding that rejected the row, if it was."""
        return None if self.examples else next(f for f in self.findings if f.severity == "error")

    @property
    def cut(self) -> Finding | None:
        """The finding that says the row lost tokens, if it did."""
        return next((f for f in self.findings if f.code == "R015"), None)


class Renderer:
    """Renders conversations for one tokenizer, one template and one choice of what is learned.

    Args:
        tokenizer: a transformers tokenizer.
        template: the chat template; None renders plain text.
        train_on: every assistant turn, the last one, or every token.
        max_length: the longest example, in tokens.
        too_long: what becomes of a longer one.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: ChatTemplate | None,
        *,
        train_on: TrainOn,
        max_length: int,
        too_long: TooLong,
    ) -> None:
        self.tokens = Tokens(tokenizer)
        self.template = template
        self.train_on = train_on
        self.max_length = max_length
        self.too_long = too_long
        self._writer = Writer(template) if template else None
        self._pieces = Pieces(self.tokens, template)
        self._endings = Endings(self.tokens, self._writer)
        self._drafting = Drafting(self._writer, _guard(self.tokens, template), self._pieces, train_on)
        self._assembly = Assembly(self.tokens, self._pieces, self._endings, learn_all=train_on == "all")

    def render(self, conversations: Iterable[Conversation]) -> Iterator[Outcome]:
        """Render in the order given, in chunks, so that the tokenizer works in batches."""
        for chunk in _chunks(conversations):
            drafts = [self._drafting.draft(conversation) for conversation in chunk]
            for draft, parts in zip(drafts, self._assembly.assemble(drafts), strict=True):
                yield self._outcome(draft, parts)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> Ids:
        """The ids that are fed when the model is to answer: the context of a learned turn.

        Raises:
            UserError: the template refuses the messages, plain text was given several turns, or control
                tokens in the content cannot be kept apart from real ones.
        """
        if self._writer is None and len(messages) != 1:
            raise UserError(
                "a model of plain text takes one prompt, not a conversation",
                next_step="Give one user message, or train with a chat template",
            )
        draft = Draft(Conversation(tuple(messages), origin=_NOWHERE, tools=tuple(tools)))
        written = self._drafting.written(draft)
        if written is None:
            raise UserError(draft.findings[0].message, next_step=draft.findings[0].fix)
        if self._writer is None:
            return np.concatenate(
                [self.tokens.prefix_ids, self._encode(written.messages[0]["content"], draft)]
            )
        try:
            text = self._writer.text(written.messages, written.tools, add_generation_prompt=True)
        except TemplateRefusal as refusal:
            raise UserError(
                f"the chat template refuses this conversation ({refusal})",
                next_step="Change the messages to what the template allows",
            ) from None
        return self._encode(text, draft)

    def written(self, draft: Draft) -> Written | None:
        """What the template is given for a draft; see `Drafting.written`."""
        return self._drafting.written(draft)

    def as_served(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Messages as serving must give them to this template: some want the arguments of calls as text."""
        given = [message.to_template() for message in messages]
        return self._writer.given(given) if self._writer else given

    def answer_text(self, ids: Sequence[int]) -> str:
        """The answer in generated ids: what the template puts before every answer is taken off again."""
        text = str(
            self.tokens.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        return text.removeprefix(self._endings.answer_prefix)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a turn: the template's, the tokenizer's EOS, then others that were learned."""
        return self._endings.stop_ids

    def _encode(self, text: str, draft: Draft) -> Ids:
        if not draft.mark:
            return self.tokens.encode([text])[0]
        if not mark_survives(draft.mark, text):
            raise UserError(MARK_LOST, next_step="Take the control tokens out of the content")
        return self._pieces.encode_text(text, draft.mark)

    def _outcome(self, draft: Draft, parts: Sequence[Part]) -> Outcome:
        kept: list[Rendered] = []
        key = prompt_key(draft.conversation) if parts else ""
        for part in parts:
            fitted = self._fit(draft, part)
            if fitted is None:
                continue
            if fitted.supervised.any():
                example = Rendered(
                    fitted.ids, fitted.supervised, draft.conversation.origin, len(kept), draft.conversation.group, key
                )  # fmt: skip
                kept.append(example)
            elif len(parts) > 1:
                draft.note(
                    "R018", f"its example through message {part.position + 1} has no learned token left"
                )
        if not kept and not draft.refused:
            draft.note("R012", "no token of it is learned")
        if draft.refused:
            return Outcome(draft.conversation, (), tuple(draft.findings))
        if len(kept) > 1:
            draft.note(
                "R013",
                f"what is served before a later turn is not what the earlier one ends with, "
                f"so it became {len(kept)} examples, each as served",
            )
        self._endings.learned(stop for part in parts for stop in part.stops)
        return Outcome(draft.conversation, tuple(kept), tuple(draft.findings))

    def _fit(self, draft: Draft, part: Part) -> Part | None:
        """The example within max_length, by the rule the recipe names."""
        if len(part.ids) <= self.max_length:
            return part
        length = f"{len(part.ids):,} tokens are more than max_length {self.max_length:,}"
        if self.too_long == "refuse":
            raise UserError(
                length,
                where=str(draft.conversation.origin),
                next_step="Raise max_length, or set too_long: drop or too_long: cut",
            )
        if self.too_long == "drop":
            draft.note("R014", length)
            return None
        draft.note("R015", f"{length}; cut there, with no stop token after the cut")
        return Part(part.ids[: self.max_length], part.supervised[: self.max_length], part.position)


def _guard(tokens: Tokens, template: ChatTemplate | None) -> Guard:
    source = template.source if template else ""
    markup = [token for token in tokens.markup_spellings if token in source]
    return Guard(tokens.special_spellings, markup, normalise=tokens.normalise)


def _chunks(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    chunk: list[Conversation] = []
    characters = 0
    for conversation in conversations:
        chunk.append(conversation)
        characters += sum(len(message.content) for message in conversation.messages)
        if len(chunk) >= _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
