"""From a conversation to token ids with `supervised` beside them, turn by turn, as serving would.

For each learned turn the context is the very prompt that serving feeds, and what the template writes
after it is learned up to the token that ends the turn.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tuition.conversation import Conversation, Message, Rendered
from tuition.data import prompt_key
from tuition.errors import Finding, Origin, UserError
from tuition.recipe import RenderSettings
from tuition.render.assemble import Assembly, Part
from tuition.render.codes import RAISE_MAX_LENGTH, to_longer, way_to_longer
from tuition.render.content import Guard, mark_survives
from tuition.render.draft import MARK_LOST, Draft, Drafting, TrainOn
from tuition.render.endings import Endings
from tuition.render.lengths import TOO_LONG, LongRow, TooLong, settle_losses
from tuition.render.pieces import Pieces
from tuition.render.spans import SPAN_MARKERS
from tuition.render.template import ChatTemplate, TemplateRefusal
from tuition.render.tokens import Ids, Tokens
from tuition.render.writer import Writer

_NOWHERE = Origin("<prompt>", 0)
_CHUNK_ROWS = 256  # enough for the tokenizer's batch to pay, few enough that the first row comes at once
_CHUNK_CHARACTERS = 2_000_000  # and rows may be long
_LOSSES = ("R015", "R021", "R023")  # findings of a row that lost tokens


@dataclass(frozen=True, slots=True)
class Outcome:
    """What rendering made of one conversation: examples, or findings that say why there are none.

    Attributes:
        conversation: without span markers.
        shown: what each example holds of it: the conversation itself, or the messages that stand in a part of
            it, through the last turn that is learned there.
        open_ends: for each example how many runs of learned tokens may end with no stop token, because the
            recipe cuts there, learns a span that ends before the turn does, or a message that is no answer.
        source: the conversation as it was read, with any span markers.
    """

    conversation: Conversation
    examples: tuple[Rendered, ...]
    findings: tuple[Finding, ...]
    shown: tuple[Conversation, ...] = ()
    open_ends: tuple[int, ...] = ()
    source: Conversation | None = None

    @property
    def rejection(self) -> Finding | None:
        """The finding that rejected the row, if it was."""
        return None if self.examples else next(f for f in self.findings if f.severity == "error")

    @property
    def cut(self) -> Finding | None:
        """The finding that says the row lost tokens, if it did."""
        return next((f for f in self.findings if f.code in _LOSSES), None)


class Renderer:
    """Renders conversations for one tokenizer, one template and one choice of what is learned.

    Args:
        tokenizer: a transformers tokenizer.
        template: the chat template; None renders plain text.
        train_on: every assistant turn, the last one, every token, or what stands between markers.
        max_length: the longest example, in tokens.
        positions: the most tokens that the model holds; None: it does not say.
        too_long: what becomes of a longer one.
        learn_reasoning: whether the reasoning of an answer is learned, or is context.
        span_markers: what stands around the text that `train_on: spans` learns.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: ChatTemplate | None,
        *,
        train_on: TrainOn,
        max_length: int,
        too_long: TooLong,
        positions: int | None = None,
        learn_reasoning: bool = True,
        span_markers: tuple[str, str] = SPAN_MARKERS,
    ) -> None:
        self.tokens = Tokens(tokenizer)
        self.template = template
        self.train_on = train_on
        self.max_length = max_length
        self.positions = positions
        self.too_long = too_long
        self.learn_reasoning = learn_reasoning
        self.span_markers = span_markers
        self._writer = Writer(template) if template else None
        self._pieces = Pieces(self.tokens, template)
        self._endings = Endings(self.tokens, self._writer)
        self._drafting = Drafting(
            self._writer,
            _guard(self.tokens, template),
            self._pieces,
            train_on=train_on,
            learn_reasoning=learn_reasoning,
            span_markers=span_markers,
        )
        self._assembly = Assembly(self.tokens, self._pieces, self._endings, learn_all=train_on == "all")

    @classmethod
    def from_settings(
        cls,
        tokenizer: Any,
        template: ChatTemplate | None,
        settings: RenderSettings,
        *,
        max_length: int,
        positions: int | None,
    ) -> Renderer:
        """The renderer that the settings of a recipe describe.

        Args:
            max_length: tokens; what `settings.max_length` came to where that is `auto`.
            positions: the most tokens that the model holds; None: it does not say.
        """
        return cls(
            tokenizer,
            template,
            train_on=settings.train_on,
            max_length=max_length,
            positions=positions,
            too_long=settings.too_long,
            learn_reasoning=settings.learn_reasoning,
            span_markers=settings.span_markers,
        )

    @property
    def way_to_longer(self) -> str:
        """How a next step about length begins: max_length is raised, as far as the model holds more."""
        return way_to_longer(self.max_length, self.positions)

    @property
    def learns_whole_turns(self) -> bool:
        """False where a learned turn may begin or end with context."""
        return self.train_on != "spans" and self.learn_reasoning

    def render(self, conversations: Iterable[Conversation]) -> Iterator[Outcome]:
        """Render in the order given, in chunks, so that the tokenizer works in batches."""
        chunks = _chunks(conversations)
        while outcomes := self._next(chunks):
            yield from outcomes

    def _next(self, chunks: Iterator[Sequence[Conversation]]) -> list[Outcome]:
        """What becomes of the next chunk, which is read here too; nothing when there is none."""
        with no_collection():
            chunk = next(chunks, ())
            drafts = [self._drafting.draft(conversation) for conversation in chunk]
            joined = zip(chunk, drafts, self._assembly.assemble(drafts), strict=True)
            return [self._outcome(conversation, draft, parts) for conversation, draft, parts in joined]

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
        self._writer.be_patient()
        try:
            text = self._writer.text(written.messages, written.tools, add_generation_prompt=True)
        except TemplateRefusal as refusal:
            raise UserError(
                f"the chat template refuses this conversation ({refusal})",
                next_step="Change the messages to what the template allows",
            ) from None
        return self._encode(text, draft)

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
    def answer_prefix(self) -> str:
        """What the template puts before every answer, such as an empty thought; `answer_text` takes it off."""
        return str(self._endings.answer_prefix)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a turn: the template's, the tokenizer's EOS, then others that were learned."""
        return self._endings.stop_ids

    @property
    def guarded_spellings(self) -> tuple[str, ...]:
        """Spellings of the tokens that content can never become."""
        return (*self.tokens.special_spellings, *_markup(self.tokens, self.template))

    def learned(self) -> dict[str, Any]:
        """What the rows taught about the template, as JSON values: `recall` takes it in their place."""
        as_text = self._writer is not None and self._writer.arguments_as_text
        return {"stop_ids": list(self.stop_ids), "arguments_as_text": as_text}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Know what the rows taught an earlier renderer of the same settings."""
        self._endings.learned(learned["stop_ids"])
        if self._writer is not None:
            self._writer.arguments_as_text = learned["arguments_as_text"]

    def _encode(self, text: str, draft: Draft) -> Ids:
        if not draft.mark:
            return self.tokens.encode([text])[0]
        if not mark_survives(draft.mark, text):
            raise UserError(MARK_LOST, next_step="Take the control tokens out of the content")
        return self._pieces.encode_text(text, draft.mark)

    def _outcome(self, source: Conversation, draft: Draft, parts: Sequence[Part]) -> Outcome:
        fitted = [] if draft.refused else self._fitted(source, draft, parts)
        if not fitted and not draft.refused:
            self._note_nothing_learned(draft)
        findings = tuple(to_longer(found, self.way_to_longer) for found in draft.findings)
        if draft.refused:
            return Outcome(draft.conversation, (), findings)
        self._endings.learned(turn.stop for part in fitted for turn in part.turns if turn.stop is not None)
        return Outcome(
            draft.conversation,
            _examples(draft.conversation, fitted),
            findings,
            tuple(
                self._shown(draft.conversation, part, as_read=any(part is own for own in parts))
                for part in fitted
            ),
            tuple(sum(turn.open_ends for turn in part.turns) for part in fitted),
            source,
        )

    def _note_nothing_learned(self, draft: Draft) -> None:
        if any(finding.code == "R015" for finding in draft.findings):
            begins = f"what is learned of it begins behind max_length {self.max_length:,}, where it is cut"
            draft.note("R012", begins, f"{RAISE_MAX_LENGTH}, or shorten what is asked.")
        else:
            draft.note("R012", "no token of it is learned")

    def _fitted(self, source: Conversation, draft: Draft, parts: Sequence[Part]) -> list[Part]:
        """The examples within max_length, by the rule the recipe names; those with nothing to learn are left out."""
        row = LongRow(draft, source, self.max_length, self.way_to_longer, self._redraft)
        kept: list[Part] = []
        for part in parts:
            fitting = [part] if len(part) <= self.max_length else TOO_LONG[self.too_long](row, part)
            learning = [example for example in fitting if example.supervised.any()]
            if len(learning) < len(fitting) and len(parts) + len(fitting) > 2:
                last = part.turns[-1].position + 1
                draft.note("R018", f"its example through message {last} has no learned token left")
            kept += learning
        if len(parts) > 1 and len(kept) > 1:
            draft.note(
                "R013",
                "what is served before a later turn is not what the earlier one ends with, "
                f"so it became {len(kept)} examples, each as served",
            )
        if parts:
            settle_losses(draft, kept, parts[-1].turns[-1].position)
        return kept

    def _redraft(self, conversation: Conversation) -> Sequence[Part]:
        """The examples of a conversation that stands for part of a row; what is found in it is in the row's findings."""
        draft = self._drafting.draft(conversation)
        (parts,) = self._assembly.assemble([draft])
        return () if draft.refused else parts

    def _shown(self, conversation: Conversation, part: Part, *, as_read: bool) -> Conversation:
        """What an example holds of the conversation."""
        if conversation.plain or (as_read and self.train_on != "spans"):
            return conversation
        return replace(conversation, messages=tuple(conversation.messages[n] for n in part.messages))


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's search for cycles waits: over the many small objects of a chunk it takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _examples(conversation: Conversation, parts: Sequence[Part]) -> tuple[Rendered, ...]:
    key = prompt_key(conversation)
    return tuple(
        Rendered(
            part.ids,
            part.supervised,
            conversation.origin,
            number,
            conversation.group,
            key,
        )
        for number, part in enumerate(parts)
    )


def _guard(tokens: Tokens, template: ChatTemplate | None) -> Guard:
    return Guard(tokens.special_spellings, _markup(tokens, template), normalise=tokens.normalise)


def _markup(tokens: Tokens, template: ChatTemplate | None) -> list[str]:
    """Added tokens that are not flagged special and that the template writes, such as `<tool_call>`."""
    return [token for token in tokens.markup_spellings if template and token in template.source]


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
