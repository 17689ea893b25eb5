"""From a conversation to its learned turns as text: what serving would feed, and what is written after it.

No template is edited and none is known by name. Nothing here tokenises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tuition.conversation import Conversation, Message
from tuition.errors import Finding
from tuition.render.codes import finding
from tuition.render.content import CannotCut, Guard, Written, mark_survives
from tuition.render.pieces import Pieces
from tuition.render.presence import Presence
from tuition.render.template import TemplateRefusal, Writer

TrainOn = Literal["assistant", "last", "all"]
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
    """

    position: int
    prompt: str
    completion: str
    weight: float
    is_answer: bool = True
    continues: bool = False


@dataclass(slots=True)
class Draft:
    """A conversation on its way to tokens: its learned turns as text, and what was found.

    Attributes:
        mark: the cut mark inside control tokens that content spells out; empty where there are none.
    """

    conversation: Conversation
    turns: list[Turn] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    mark: str = ""

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
    """

    def __init__(self, writer: Writer | None, guard: Guard, pieces: Pieces, train_on: TrainOn) -> None:
        self._writer = writer
        self._guard = guard
        self._pieces = pieces
        self._train_on = train_on
        self._presence = Presence(writer) if writer else None

    def draft(self, conversation: Conversation) -> Draft:
        """The learned turns of a conversation; none when a finding rejects it."""
        draft = Draft(conversation)
        written = self.written(draft)
        if written is not None:
            if conversation.plain or self._writer is None:
                self._draft_plain(draft, written)
            else:
                self._draft_chat(draft, written, self._writer)
        if draft.refused:
            draft.turns.clear()
        return draft

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
            draft.note("R011", f"{len(messages)} turns cannot be written without a chat template")
            return
        before = ""
        for position, weight in self._learned(messages):
            is_answer = position == len(context)
            before = written.messages[0]["content"] if context and is_answer else ""
            text = written.messages[position]["content"]
            draft.turns.append(Turn(position, before, text, weight, is_answer))

    def _draft_chat(self, draft: Draft, written: Written, writer: Writer) -> None:
        """The learned turns of a chat, each with the prompt that serving would feed."""
        base, full, shown = "", "", []
        for position, weight in self._learned(draft.conversation.messages):
            texts = self._texts_of_turn(draft, written, writer, position)
            if draft.refused:
                return
            if texts is None:
                continue
            prompt, text = texts
            continues = prompt.startswith(base) and bool(base) and self._pieces.begins_at(prompt, len(base))
            if full and not continues:
                shown.append((draft.turns[-1].position, full))
            known = len(base) if continues else 0
            is_answer = written.messages[position]["role"] == "assistant"
            draft.turns.append(
                Turn(position, prompt[known:], text[len(prompt) :], weight, is_answer, continues)
            )
            full, base = text, text[: self._pieces.last_border(text)]
        if draft.turns and self._presence is not None:
            shown.append((draft.turns[-1].position, full))
            learned = {turn.position for turn in draft.turns}
            for code, message in self._presence.missing(
                written.messages, written.tools, shown[::-1], learned
            ):
                draft.note(code, message)

    def _texts_of_turn(
        self, draft: Draft, written: Written, writer: Writer, position: int
    ) -> tuple[str, str] | None:
        """What stands before the message and what ends with it; None, with any finding, where it cannot be learned."""
        role = written.messages[position]["role"]
        write = _answer_texts if role == "assistant" else _context_texts
        try:
            prompt, text = write(writer, written.messages, written.tools, position)
        except TemplateRefusal as refusal:
            draft.note("R001", f"the chat template refuses the conversation: {refusal}")
            return None
        if not text.startswith(prompt):
            draft.note("R002", f"turn {position + 1} does not continue the template's generation prompt")
            return None
        if draft.mark and not mark_survives(draft.mark, text):
            draft.note("R008", MARK_LOST, "Take the control tokens out of the row")
            return None
        if text == prompt and role != "assistant":
            if draft.conversation.messages[position].weight is not None:
                draft.note("R019", f"{role} message {position + 1} has a weight, but no text of its own")
            return None
        return prompt, text

    def _learned(self, messages: Sequence[Message]) -> list[tuple[int, float]]:
        """Positions and weights of the messages that are learned."""
        answers = [position for position, message in enumerate(messages) if message.role == "assistant"]
        learned = []
        for position, message in enumerate(messages):
            weight = 1.0 if message.weight is None else message.weight
            if message.role == "assistant":
                chosen = self._train_on != "last" or position == answers[-1]
            else:
                chosen = self._train_on == "all" or message.weight is not None
            if chosen and weight > 0:
                learned.append((position, weight))
        return learned


def _answer_texts(
    writer: Writer, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], position: int
) -> tuple[str, str]:
    """The prompt that serving feeds before an assistant turn, and the text through that turn."""
    return (
        writer.text(messages[:position], tools, add_generation_prompt=True),
        writer.text(messages[: position + 1], tools, add_generation_prompt=False),
    )


def _context_texts(
    writer: Writer, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], position: int
) -> tuple[str, str]:
    """The text before a message of another role, and the text through it.

    A template may write a message differently once more follow, or refuse a conversation that ends with
    it. Then it is found as what changes in the text when its content does.
    """
    try:
        before = writer.text(messages[:position], tools, add_generation_prompt=False) if position else ""
        full = writer.text(messages[: position + 1], tools, add_generation_prompt=False)
        if full.startswith(before):
            return before, full
    except TemplateRefusal:
        pass
    return _changed_span(writer, messages, tools, position)


def _changed_span(
    writer: Writer, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], position: int
) -> tuple[str, str]:
    """The text before and through the content of a message, found by writing another in its place."""
    content = messages[position]["content"].strip()
    edge = next(sign for sign in "zqj" if not content.startswith(sign) and not content.endswith(sign))
    for end in range(position + 1, len(messages) + 1):
        other = [*messages[:end]]
        other[position] = {**messages[position], "content": edge * 3}
        try:
            full = writer.text(messages[:end], tools, add_generation_prompt=False)
            changed = writer.text(other, tools, add_generation_prompt=False)
        except TemplateRefusal:
            if end == len(messages):
                raise
            continue
        start = _shared(full, changed)
        behind = _shared(full[start:][::-1], changed[start:][::-1])
        return full[:start], full[: len(full) - behind]
    raise AssertionError("a message stands before the end of its conversation")


def _shared(a: str, b: str) -> int:
    """How many characters two texts share from their beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
