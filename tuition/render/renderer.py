"""From a conversation to token ids with `supervised` beside them, turn by turn, as serving would.

For each learned turn the context is the very prompt that serving feeds, and what the template writes
after it is learned up to the token that ends the turn. Turns whose contexts continue one another are
one example; where a template rewrites history they become several, each as served. No template is
edited and none is known by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np

from tuition.conversation import Conversation, Message, Rendered
from tuition.data import prompt_key
from tuition.errors import Finding, Origin, UserError
from tuition.render.codes import finding
from tuition.render.template import ChatTemplate, TemplateRefusal
from tuition.render.tokens import Ids, Tokens, cut_control_tokens, cut_mark_for, strings_in

TrainOn = Literal["assistant", "last", "all"]
TooLong = Literal["drop", "cut", "refuse"]
_NOWHERE = Origin("<prompt>", 0)
_CHUNK_ROWS = 256  # enough for the tokenizer's batch to pay, few enough that the first row comes at once


@dataclass(frozen=True, slots=True)
class Turn:
    """One learned turn as text: what serving would feed, and that plus the answer.

    Attributes:
        prompt: the context, ending where the model takes over.
        full: the same with the turn that the template wrote.
        weight: the weight of the turn's tokens.
    """

    prompt: str
    full: str
    weight: float


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
        """Add a finding about this conversation's row."""
        self.findings.append(finding(code, self.conversation.origin, message, fix))

    @property
    def refused(self) -> bool:
        """True when a finding rejects the row."""
        return any(f.severity == "error" for f in self.findings)


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

    def render(self, conversations: Iterable[Conversation]) -> Iterator[Outcome]:
        """Render in the order given, in chunks, so that the tokenizer works in batches."""
        rows = iter(conversations)
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            yield from self._render_chunk(chunk)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> Ids:
        """The ids that are fed when the model is to answer: the context of a learned turn.

        Raises:
            UserError: the template refuses the messages, or plain text was given several turns.
        """
        conversation = Conversation(tuple(messages), origin=_NOWHERE, tools=tuple(tools))
        if self.template is None:
            if len(messages) != 1:
                raise UserError(
                    "a model of plain text takes one prompt, not a conversation",
                    next_step="Give one user message, or train with a chat template",
                )
            return self.tokens.plain_prompt(messages[0].content)
        draft = Draft(conversation)
        written, tools_written = self._as_written(draft)
        try:
            text = self.template.text(written, tools_written, add_generation_prompt=True)
        except TemplateRefusal as refusal:
            raise UserError(
                f"the chat template refuses this conversation ({refusal})",
                next_step="Change the messages to what the template allows",
            ) from None
        return self._encode_texts([text], draft.mark)[0]

    def answer_text(self, ids: Sequence[int]) -> str:
        """The answer in generated ids: what the template puts before every answer is taken off again."""
        text = str(
            self.tokens.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        return text.removeprefix(self._answer_prefix)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a turn, as learned: first what the template writes, then the tokenizer's EOS."""
        return tuple(dict.fromkeys(i for i in (self._turn_end_id, self.tokens.eos_id) if i is not None))

    # The walk of one chunk, in the order it is called.

    def _render_chunk(self, chunk: Sequence[Conversation]) -> Iterator[Outcome]:
        drafts = [self._draft(conversation) for conversation in chunk]
        texts = [
            text
            for draft in drafts
            if not draft.mark
            for turn in draft.turns
            for text in (turn.prompt, turn.full)
        ]
        encoded = iter(self.tokens.encode(texts))
        for draft in drafts:
            yield self._finish(draft, encoded)

    def _draft(self, conversation: Conversation) -> Draft:
        draft = Draft(conversation)
        if conversation.plain or self.template is None:
            self._draft_plain(draft)
        else:
            self._draft_chat(draft, self.template)
        if draft.refused:
            draft.turns.clear()
        return draft

    def _draft_plain(self, draft: Draft) -> None:
        """One turn: the prompt, if any, and the completion joined to it as they are."""
        *context, last = draft.conversation.messages
        if len(context) > 1 or last.role != "assistant" or any(m.role != "user" for m in context):
            draft.note("R011", f"{len(context) + 1} turns cannot be written without a chat template")
            return
        prompt = context[0].content if context else ""
        contents = [prompt, last.content]
        if self.tokens.control_tokens_in(contents):
            prompt, answer = self._cut(draft, contents, contents)
        else:
            answer = last.content
        weight = 1.0 if last.weight is None else last.weight
        if weight > 0:
            draft.turns.append(Turn(prompt, prompt + answer, weight))

    def _draft_chat(self, draft: Draft, template: ChatTemplate) -> None:
        """The learned turns of a chat, each with the prompt that serving would feed."""
        messages, tools = self._as_written(draft)
        for position, weight in self._learned_turns(draft.conversation.messages):
            try:
                prompt = template.text(messages[:position], tools, add_generation_prompt=True)
                full = template.text(messages[: position + 1], tools, add_generation_prompt=False)
            except TemplateRefusal as refusal:
                draft.note("R001", f"the chat template refuses the conversation: {refusal}")
                return
            if not full.startswith(prompt):
                draft.note("R002", f"turn {position + 1} does not continue the template's generation prompt")
                return
            draft.turns.append(Turn(prompt, full, weight))
        if draft.turns:
            self._check_nothing_vanished(draft, messages[: position + 1], tools)

    def _learned_turns(self, messages: Sequence[Message]) -> list[tuple[int, float]]:
        """Positions and weights of the turns that are learned."""
        learned = [
            (position, 1.0 if message.weight is None else message.weight)
            for position, message in enumerate(messages)
            if message.role == "assistant" and message.weight != 0
        ]
        answers = [position for position, message in enumerate(messages) if message.role == "assistant"]
        if self.train_on == "last":
            return [turn for turn in learned if turn[0] == answers[-1]]
        return learned

    def _as_written(self, draft: Draft) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Messages and tools as the template sees them, the spelling of control tokens in them cut."""
        messages = [message.to_template() for message in draft.conversation.messages]
        tools = [dict(tool) for tool in draft.conversation.tools]
        texts = list(strings_in([messages, tools]))
        if self.tokens.control_tokens_in(texts):
            messages, tools = self._cut(draft, [messages, tools], texts)
        return messages, tools

    def _cut(self, draft: Draft, value: Any, texts: Sequence[str]) -> Any:
        spelled = self.tokens.control_tokens_in(texts)
        mark = cut_mark_for(texts)
        if mark is None:
            draft.note(
                "R008", "content holds every mark that could keep its control tokens apart from real ones"
            )
            return value
        draft.mark = mark
        draft.note(
            "R007", f"content spells out {', '.join(spelled)}; it is learned as text, never as the token"
        )
        return cut_control_tokens(value, self.tokens.special_spellings, mark)

    def _check_nothing_vanished(self, draft: Draft, messages: Sequence[Any], tools: Sequence[Any]) -> None:
        """Compare what the template wrote with what it was given, up to the last learned turn."""
        written = "\0".join(turn.full for turn in reversed(draft.turns))
        for number, message in enumerate(messages, start=1):
            self._check_message(draft, number, message, written)
        for tool in tools:
            name = str(tool.get("function", tool).get("name", ""))
            if name not in written:
                draft.note("R005", f"the template does not show the model the tool {name!r}")

    def _check_message(self, draft: Draft, number: int, message: Any, written: str) -> None:
        content, reasoning = message["content"], message.get("reasoning_content", "")
        if content not in written:
            if content.strip() in written:
                draft.note(
                    "R003", f"the template trims white space off the {message['role']} message {number}"
                )
            elif message["role"] == "assistant":
                draft.note("R016", f"the template leaves out the answer in message {number}")
            else:
                draft.note("R004", f"the template leaves out the {message['role']} message {number}")
        if reasoning.strip() not in written:
            draft.note("R006", f"the template leaves out the reasoning of message {number}")

    def _finish(self, draft: Draft, encoded: Iterator[Ids]) -> Outcome:
        sequences: list[Rendered] = []
        for turn in draft.turns:
            if draft.mark:
                prompt, full = self._encode_texts([turn.prompt, turn.full], draft.mark)
            else:
                prompt, full = next(encoded), next(encoded)
            self._append_turn(draft, sequences, turn, prompt, full)
        return self._outcome(draft, sequences)

    def _encode_texts(self, texts: Sequence[str], mark: str) -> list[Ids]:
        if not mark:
            return self.tokens.encode(texts)
        return [self.tokens.encode_cut(text, mark) for text in texts]

    def _append_turn(
        self, draft: Draft, sequences: list[Rendered], turn: Turn, prompt: Ids, full: Ids
    ) -> None:
        """Join the turn to the example before it where serving would feed just that, else begin one."""
        plain = draft.conversation.plain or self.template is None
        if len(full) >= len(prompt) and np.array_equal(full[: len(prompt)], prompt):
            completion = full[len(prompt) :]
        else:  # a token straddles the border; serving's prompt ends there, so the answer is encoded from there
            completion = self._continuation(turn, draft.mark)
        if plain:
            prompt = np.concatenate([self.tokens.prefix_ids, prompt])
        completion = self._up_to_stop(draft, completion, plain=plain)
        ids = np.concatenate([prompt, completion])
        supervised = np.zeros(len(ids), dtype=np.float32)
        if sequences and _continues(sequences[-1].ids, prompt):
            before = sequences.pop()
            supervised[: len(before)] = before.supervised
        supervised[len(prompt) :] = turn.weight * draft.conversation.weight
        if self.train_on == "all":
            supervised[:] = turn.weight * draft.conversation.weight
        if len(supervised):
            supervised[0] = 0  # nothing precedes it
        sequences.append(Rendered(ids, supervised, draft.conversation.origin))

    def _continuation(self, turn: Turn, mark: str) -> Ids:
        text = turn.full[len(turn.prompt) :]
        first, *rest = text.split(mark) if mark else [text]
        return np.concatenate([self.tokens.continuation(piece) for piece in (first, *rest)])

    def _up_to_stop(self, draft: Draft, completion: Ids, *, plain: bool) -> Ids:
        """The completion through the token that ends the turn; what stands after it is context only."""
        stop = None if plain else self._stop_position(completion)
        if stop is not None:
            return completion[: stop + 1]
        if self.tokens.eos_id is None:
            draft.note("R009", "neither the template nor the tokenizer has a token that ends an answer")
            return completion
        if not plain:
            draft.note(
                "R010", "the template ends an answer with no special token; the tokenizer's EOS is learned"
            )
        return np.append(completion, np.int32(self.tokens.eos_id))

    def _stop_position(self, completion: Ids) -> int | None:
        """Where the turn ends: at the token that ends any turn, or the first special one in the tail."""
        tail = self._special_tail(completion)
        return next((p for p in tail if int(completion[p]) == self._turn_end_id), tail[0] if tail else None)

    def _special_tail(self, completion: Ids) -> list[int]:
        """Positions of the special tokens after the last text, in order; white space between them is passed."""
        found: list[int] = []
        for position in range(len(completion) - 1, -1, -1):
            token = int(completion[position])
            if token in self.tokens.special_ids:
                found.append(position)
            elif self.tokens.decode([token]).strip():
                break
        return found[::-1]

    def _outcome(self, draft: Draft, sequences: Sequence[Rendered]) -> Outcome:
        conversation = draft.conversation
        kept = []
        for part, sequence in enumerate(sequences):
            fitted = self._fit(draft, sequence)
            if fitted is not None:
                kept.append(
                    replace(fitted, part=part, group=conversation.group, prompt_key=prompt_key(conversation))
                )
        if not draft.refused and not any(example.learned_tokens for example in kept):
            draft.note("R012", "no token of it is learned")
        if not draft.refused and len(kept) > 1:
            draft.note(
                "R013", f"the template rewrites history, so it became {len(kept)} examples, each as served"
            )
        return Outcome(conversation, () if draft.refused else tuple(kept), tuple(draft.findings))

    def _fit(self, draft: Draft, example: Rendered) -> Rendered | None:
        """The example within max_length, by the rule the recipe names."""
        if len(example) <= self.max_length:
            return example
        length = f"{len(example):,} tokens are more than max_length {self.max_length:,}"
        if self.too_long == "refuse":
            raise UserError(
                length,
                where=str(example.origin),
                next_step="Raise max_length, or set too_long: drop or too_long: cut",
            )
        if self.too_long == "drop":
            draft.note("R014", length)
            return None
        draft.note("R015", f"{length}; cut there, with no stop token after the cut")
        return replace(
            example, ids=example.ids[: self.max_length], supervised=example.supervised[: self.max_length]
        )

    # What the template does to any answer, learned from a probe.

    @cached_property
    def _answer_prefix(self) -> str:
        """What the template writes between its generation prompt and the answer, such as a space."""
        probe = "X"
        text = self._probe_completion(probe)
        return text[: text.index(probe)] if text and probe in text else ""

    @cached_property
    def _turn_end_id(self) -> int | None:
        """The token that the template writes after every answer."""
        text = self._probe_completion("X")
        completion = self.tokens.continuation(text) if text else np.zeros(0, dtype=np.int32)
        tail = self._special_tail(completion)
        return int(completion[tail[0]]) if tail else None

    def _probe_completion(self, answer: str) -> str | None:
        if self.template is None:
            return None
        user, assistant = {"role": "user", "content": "Y"}, {"role": "assistant", "content": answer}
        try:
            prompt = self.template.text([user], [], add_generation_prompt=True)
            full = self.template.text([user, assistant], [], add_generation_prompt=False)
        except TemplateRefusal:
            return None
        return full.removeprefix(prompt) if full.startswith(prompt) else None


def _continues(before: Ids, prompt: Ids) -> bool:
    return len(prompt) >= len(before) and np.array_equal(prompt[: len(before)], before)
