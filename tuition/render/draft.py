"""From a conversation to its learned turns as text: what serving would feed, and what is written after it.

No template is edited and none is known by name. Nothing here tokenises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from tuition.conversation import Conversation, Message
from tuition.counting import counted
from tuition.errors import Finding
from tuition.render.codes import finding
from tuition.render.content import CannotCut, Guard, Written, mark_survives
from tuition.render.pieces import Pieces
from tuition.render.presence import Presence, Shown
from tuition.render.spans import BadMarkers, Locator, Marked, NotLocated, Range, Write, unmark
from tuition.render.template import TemplateRefusal
from tuition.render.texts import plain_text_through, text_through, turn_texts, with_thought
from tuition.render.writer import Writer

TrainOn = Literal["assistant", "last", "all", "spans"]
MARK_LOST = "the template spells characters out, so control tokens in content cannot be cut"


@dataclass(frozen=True, slots=True)
class Turn:
    """One learned turn as text.

    Attributes:
        position: its place among the messages.
        prompt: the context, ending where the model takes over. Of a turn that continues the one before
            it, only what follows that turn's last border (see `Pieces`).
        completion: what the template writes after the prompt.
        weight: the weight of the turn's tokens.
        is_answer: False for a message of another role that is learned as well.
        continues: whether `prompt` goes on from the turn before.
        learned: the characters of the completion, cut marks aside, that are learned; None: all of them.
    """

    position: int
    prompt: str
    completion: str
    weight: float
    is_answer: bool = True
    continues: bool = False
    learned: tuple[Range, ...] | None = None


@dataclass(slots=True)
class Draft:
    """A conversation on its way to tokens: its learned turns as text, and what was found.

    Attributes:
        conversation: what is rendered, without span markers.
        marked: what the markers of each message enclosed; empty where they mean nothing.
        thoughts: place → answer without its thought, where that is learned though the template drops it (R029).
        mark: the cut mark inside control tokens that content spells out; empty where there are none.
    """

    conversation: Conversation
    turns: list[Turn] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    mark: str = ""
    marked: tuple[Marked, ...] = ()
    thoughts: dict[int, str] = field(default_factory=dict)

    def note(self, code: str, message: str, fix: str | None = None) -> None:
        """Add a finding about this conversation's row, once."""
        found = finding(code, self.conversation.origin, message, fix)
        if found not in self.findings:
            self.findings.append(found)

    @property
    def refused(self) -> bool:
        """True when a finding rejects the row."""
        return any(f.severity == "error" for f in self.findings)


class Drafting:
    """Drafts conversations for one template and one choice of what is learned.

    Args:
        writer: the template; None for plain text.
        guard: keeps content from forging control tokens.
        pieces: knows where the text of one turn may be parted from the next.
        train_on: which messages without a weight are learned.
        learn_reasoning: whether the reasoning of a learned turn is learned, or is context.
        span_markers: what stands around the text that `train_on: spans` learns.
    """

    def __init__(
        self,
        writer: Writer | None,
        guard: Guard,
        pieces: Pieces,
        *,
        train_on: TrainOn,
        learn_reasoning: bool,
        span_markers: tuple[str, str],
    ) -> None:
        self._writer = writer
        self._guard = guard
        self._pieces = pieces
        self._train_on = train_on
        self._learn_reasoning = learn_reasoning
        self._span_markers = span_markers
        self._presence = Presence(writer) if writer else None

    def draft(self, conversation: Conversation) -> Draft:
        """The learned turns of a conversation; none when a finding rejects it."""
        draft = self._begun(conversation)
        written = None if draft.refused else self.written(draft)
        if written is not None:
            if self._writer is None or self._is_plain(draft):
                self._draft_plain(draft, written)
            else:
                self._draft_chat(draft, written, self._writer)
        if draft.refused:
            draft.turns.clear()
        return draft

    def _begun(self, conversation: Conversation) -> Draft:
        """The draft of a conversation, with its span markers read and taken out where they mean something."""
        opening, closing = self._span_markers
        texts = [text for m in conversation.messages for text in (m.content, m.reasoning) if text]
        if not any(opening in text or closing in text for text in texts):
            return Draft(conversation, marked=self._no_marks(conversation))
        if self._train_on != "spans":
            draft = Draft(conversation)
            draft.note("R024", f"content holds {opening} or {closing}, which is written as it stands")
            return draft
        try:
            plain, marked = unmark(conversation, self._span_markers)
        except BadMarkers as reason:
            draft = Draft(conversation)
            draft.note("R025", str(reason))
            return draft
        draft = Draft(plain, marked=marked)
        for position, message in enumerate(plain.messages):
            if marked[position] and not _may_be_learned(message):
                draft.note("R026", f"{message.role} message {position + 1} has a span, but is context only")
        return draft

    def _no_marks(self, conversation: Conversation) -> tuple[Marked, ...]:
        return (Marked(),) * len(conversation.messages) if self._train_on == "spans" else ()

    def written(self, draft: Draft) -> Written | None:
        """Messages and tools as the template sees them; None, with a finding, where that cannot be made safe."""
        conversation = draft.conversation
        messages = [message.to_template() for message in conversation.messages]
        try:
            written = self._guard.protect(messages, conversation.tools)
        except CannotCut as reason:
            draft.note("R008", str(reason))
            return None
        if written.mark:
            draft.mark = written.mark
            spelled = ", ".join(written.spelled)
            draft.note("R007", f"content spells out {spelled}; it is written as text, never as the token")
        return written

    def _draft_plain(self, draft: Draft, written: Written) -> None:
        """The prompt, if any, and the completion joined to it as they are."""
        messages = draft.conversation.messages
        *context, last = messages
        if len(context) > 1 or last.role != "assistant" or any(m.role != "user" for m in context):
            draft.note("R011", f"{counted(len(messages), 'turn')} cannot be written without a chat template")
            return
        for position, weight in self._learned(draft):
            is_answer = position == len(context)
            before = written.messages[0]["content"] if context and is_answer else ""
            text = written.messages[position]["content"]
            learned = self._learned_ranges(
                draft,
                written,
                position,
                before,
                before + text,
                partial(plain_text_through, before, position),
            )
            draft.turns.append(Turn(position, before, text, weight, is_answer, learned=learned))

    def _draft_chat(self, draft: Draft, written: Written, writer: Writer) -> None:
        """The learned turns of a chat, each with the prompt that serving would feed."""
        base, full, shown = "", "", []
        learned_ones = self._learned(draft)
        writer.begin(written.messages, written.tools, turns=len(learned_ones))
        for position, weight in learned_ones:
            texts = self._texts_of_turn(draft, written, writer, position)
            if draft.refused:
                return
            if texts is None:
                continue
            prompt, text = texts
            continues = bool(base) and prompt.startswith(base) and self._pieces.begins_at(prompt, len(base))
            if full and not continues:
                shown.append((draft.turns[-1].position, full))
            known = len(base) if continues else 0
            is_answer = written.messages[position]["role"] == "assistant"
            learned = self._learned_ranges(
                draft, written, position, prompt, text, partial(text_through, writer, written.tools, position)
            )
            draft.turns.append(
                Turn(position, prompt[known:], text[len(prompt) :], weight, is_answer, continues, learned)
            )
            full, base = text, text[: self._pieces.last_border(text)]
        if draft.turns:
            shown.append((draft.turns[-1].position, full))
            self._note_missing(draft, written, shown[::-1])

    def _note_missing(self, draft: Draft, written: Written, shown: Shown) -> None:
        """Say what the template left out of the texts that were written."""
        assert self._presence is not None
        messages = [*written.messages]
        for position, answer in draft.thoughts.items():
            messages[position] = _as_answered(messages[position], answer)
        learned = {turn.position for turn in draft.turns}
        for code, message in self._presence.missing(messages, written.tools, shown, learned):
            draft.note(code, message)

    def _texts_of_turn(
        self, draft: Draft, written: Written, writer: Writer, position: int
    ) -> tuple[str, str] | None:
        """What stands before the message and what ends with it; None, with any finding, where it cannot be learned."""
        role = written.messages[position]["role"]
        try:
            prompt, text = turn_texts(writer, written.messages, written.tools, position)
        except TemplateRefusal as refusal:
            draft.note("R001", f"the chat template refuses the conversation: {refusal}")
            return None
        if not text.startswith(prompt):
            thought = with_thought(prompt, text, written.messages[position])
            if thought is None:
                draft.note("R002", f"turn {position + 1} does not continue the template's generation prompt")
                return None
            draft.note("R029", f"the thought of turn {position + 1} is learned as the row has it")
            text, draft.thoughts[position] = thought
        if draft.mark and not mark_survives(draft.mark, text):
            draft.note("R008", MARK_LOST, "Take the control tokens out of the row")
            return None
        if text == prompt and role != "assistant":
            if draft.conversation.messages[position].weight is not None:
                draft.note("R019", f"{role} message {position + 1} has a weight, but no text of its own")
            return None
        return prompt, text

    def _learned_ranges(
        self, draft: Draft, written: Written, position: int, prompt: str, text: str, write: Write
    ) -> tuple[Range, ...] | None:
        """The characters of a turn that are learned; None: all, or with a finding where they cannot be told."""
        message = draft.conversation.messages[position]
        thinks = bool(message.reasoning and message.reasoning.strip()) and message.role == "assistant"
        as_context = thinks and not self._learn_reasoning and not self._is_plain(draft)
        if not draft.marked and not as_context:
            return None
        locator = Locator(write, written.messages, position, prompt, text, written.mark)
        try:
            if not draft.marked:
                return locator.answer()
            marked = draft.marked[position]
            return locator.ranges(marked if self._learn_reasoning else Marked(marked.content))
        except NotLocated as reason:
            draft.note("R027", f"{reason}, so what is learned of it cannot be told from what is not")
            return None

    def _is_plain(self, draft: Draft) -> bool:
        return draft.conversation.plain or self._writer is None

    def _learned(self, draft: Draft) -> list[tuple[int, float]]:
        """Positions and weights of the messages that are learned."""
        messages = draft.conversation.messages
        answers = [position for position, message in enumerate(messages) if message.role == "assistant"]
        learned = []
        for position, message in enumerate(messages):
            weight = 1.0 if message.weight is None else message.weight
            if self._train_on == "spans":
                chosen = bool(draft.marked[position]) and _may_be_learned(message)
            elif message.role == "assistant":
                chosen = self._train_on != "last" or position == answers[-1]
            else:
                chosen = self._train_on == "all" or message.weight is not None
            if chosen and weight > 0:
                learned.append((position, weight))
        return learned


def _as_answered(message: dict[str, Any], answer: str) -> dict[str, Any]:
    """A message without its thought."""
    kept = {name: value for name, value in message.items() if name != "reasoning_content"}
    return {**kept, "content": answer}


def _may_be_learned(message: Message) -> bool:
    """Whether a span of this message counts: an answer, or what has a weight."""
    return message.role == "assistant" if message.weight is None else message.weight > 0
