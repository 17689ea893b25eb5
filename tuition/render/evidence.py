"""What is seen of every example while it is made, so that the run's promises can be verified of all of them.

Everything here is recomputed from the examples and asked of transformers anew; nothing is taken on the
renderer's word. The figures are small and are kept with prepared data, so that a second start verifies
them without reading an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tuition.conversation import Conversation, Rendered
from tuition.render.content import strings_in
from tuition.render.renderer import Outcome, Renderer

_ROWS_AT_ONCE = 128

# The context of a row's last learned turn holds those of its earlier turns. They are compared on their own
# as well, up to this many: in long conversations their lengths add up to the square of the conversation's.
_EARLIER_TURNS = 4096


@dataclass(slots=True)
class Evidence:
    """Figures over every example, and the first place where something is not as it must be.

    Attributes:
        examples, tokens, learned_tokens: counted from the arrays.
        unsound: the first example without a learned token, or with a weight that is none.
        ends: token id → learned turns that end with it, and the first place, of rows that lost nothing.
        cut_ends: learned turns at the end of what was cut, which end with whatever stood there.
        largest_id: with its place.
        control_tokens: special tokens in all examples.
        spelled_turns: turns behind content that spells a control token out, where those of the template were counted.
        forged: the first place where a special token stands that the template did not write.
        prompts: learned turns whose context was compared with the ids that serving feeds.
        unlike_serving: the first that was not the same.
    """

    examples: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    unsound: str | None = None
    ends: dict[int, tuple[int, str]] = field(default_factory=dict)
    cut_ends: int = 0
    largest_id: int = -1
    largest_at: str = ""
    control_tokens: int = 0
    spelled_turns: int = 0
    forged: str | None = None
    prompts: int = 0
    unlike_serving: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values, from which `from_json` makes the same evidence."""
        return {**asdict(self), "ends": [[token, *end] for token, end in self.ends.items()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evidence:
        """The evidence that was written."""
        return cls(**{**value, "ends": {token: (count, place) for token, count, place in value["ends"]}})


class Witness:
    """Sees every row as it is rendered. Call `see` for each, then `finish`.

    Args:
        renderer: asked for its tokenizer, its template and what it learns, and for nothing that it made.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.evidence = Evidence()
        self._renderer = renderer
        self._tokenizer = renderer.tokens.tokenizer
        self._spellings = renderer.guarded_spellings
        self._control_ids = frozenset(renderer.tokens.id_of(spelling) for spelling in self._spellings)
        self._special = np.array(sorted(renderer.tokens.special_ids), dtype=np.int32)
        self._bos = self._tokenizer.bos_token_id
        self._earlier_turns = 0
        self._waiting: list[Outcome] = []

    def see(self, outcome: Outcome) -> None:
        """Count one row's examples; their prompts are compared some rows at a time."""
        for example in outcome.examples:
            self._count(example, cut=outcome.cut is not None)
        if outcome.examples:
            self._waiting.append(outcome)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._compare()

    def finish(self) -> Evidence:
        """The evidence over all rows that were seen."""
        self._compare()
        return self.evidence

    # --- what the arrays say ---

    def _count(self, example: Rendered, *, cut: bool) -> None:
        seen, ids, weights = self.evidence, example.ids, example.supervised
        learned = np.flatnonzero(weights)
        seen.examples += 1
        seen.tokens += len(ids)
        seen.learned_tokens += len(learned)
        if seen.unsound is None and not _is_sound(weights):
            seen.unsound = str(example.origin)
        if (largest := int(ids.max())) > seen.largest_id:
            seen.largest_id, seen.largest_at = largest, str(example.origin)
        seen.control_tokens += int(np.isin(ids, self._special).sum())
        if len(ids) > 1 and ids[0] == ids[1] == self._bos and seen.forged is None:
            seen.forged = f"{example.origin} begins with two BOS tokens"
        self._count_ends(example, learned, cut=cut)

    def _count_ends(self, example: Rendered, learned: Any, *, cut: bool) -> None:
        """Note the token at the end of each run of learned tokens; only the last where everything is learned."""
        places = learned[np.flatnonzero(np.diff(learned, append=len(example) + 1) > 1)]
        if self._renderer.train_on == "all":
            places = places[-1:]
        for place in places.tolist():
            if cut and place == len(example) - 1:
                self.evidence.cut_ends += 1
                continue
            token = int(example.ids[place])
            count, first = self.evidence.ends.get(token, (0, str(example.origin)))
            self.evidence.ends[token] = (count + 1, first)

    # --- what serving would feed ---

    def _compare(self) -> None:
        """Ask transformers for the prompt of each learned turn, and look for its ids before what is learned."""
        asked = [turn for outcome in self._waiting for turn in self._turns(outcome)]
        self._waiting.clear()
        for (outcome, conversation, position), served in zip(asked, self._served(asked), strict=True):
            if self._spells_control_tokens(outcome):
                self._count_control_tokens(outcome, conversation, position)
                continue
            fits = [_stands_before_the_answer(served, example) for example in outcome.examples]
            lost = outcome.cut is not None and all(len(e) <= len(served) for e in outcome.examples)
            self.evidence.prompts += any(fits)
            if not any(fits) and not lost and self.evidence.unlike_serving is None:
                self.evidence.unlike_serving = f"{conversation.origin} (message {position + 1})"

    def _turns(self, outcome: Outcome) -> Iterator[tuple[Outcome, Conversation, int]]:
        """The learned turns of a row whose contexts are compared: the last always, the others while they are few."""
        conversation = outcome.conversation
        if conversation.plain:
            return
        positions = list(_learned_answers(conversation, self._renderer.train_on))
        earlier = positions[:-1] if self._earlier_turns < _EARLIER_TURNS else []
        self._earlier_turns += len(earlier)
        yield from ((outcome, conversation, position) for position in (*earlier, *positions[-1:]))

    def _served(self, asked: Sequence[tuple[Outcome, Conversation, int]]) -> Iterable[Sequence[int]]:
        """The ids that transformers makes of each prompt."""
        if not asked:
            return []
        if self._renderer.template is None:
            texts = [conversation.messages[0].content for _, conversation, _ in asked]
            return list(self._tokenizer(texts)["input_ids"])
        texts = [self._prompt_text(_written(c)[:position], c.tools) for _, c, position in asked]
        return list(self._tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _prompt_text(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> str:
        assert self._renderer.template is not None
        return str(
            self._tokenizer.apply_chat_template(
                list(messages),
                tools=[dict(tool) for tool in tools] or None,
                chat_template=self._renderer.template.source,
                add_generation_prompt=True,
                tokenize=False,
            )
        )

    # --- content that spells control tokens ---

    def _spells_control_tokens(self, outcome: Outcome) -> bool:
        """Such content is kept plain here, which serving does only where it is asked to."""
        conversation = outcome.conversation
        text = "\0".join(strings_in([_written(conversation), list(conversation.tools)]))
        spelled = any(spelling in text for spelling in self._spellings)
        return spelled or any(found.code == "R007" for found in outcome.findings)

    def _count_control_tokens(self, outcome: Outcome, conversation: Conversation, position: int) -> None:
        """The control tokens before the answer are those of the same row with the spellings taken out."""
        messages = _written(conversation)
        plain, tools = self._without_spellings(messages), self._without_spellings(list(conversation.tools))
        if plain == messages and tools == list(conversation.tools):
            return  # spelled in characters that only the tokenizer makes into a control token
        self.evidence.spelled_turns += 1
        expected = self._control_tokens(self._prompt_ids(plain[:position], tools))
        written = [self._control_tokens(example.ids.tolist()) for example in outcome.examples]
        begins = any(found[: len(expected)] == expected for found in written)
        if not begins and outcome.cut is None and self.evidence.forged is None:
            self.evidence.forged = f"{conversation.origin} has control tokens that the template did not write"

    def _prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> list[int]:
        if self._renderer.template is None:
            return list(self._tokenizer(messages[0]["content"])["input_ids"])
        return list(
            self._tokenizer(self._prompt_text(messages, tools), add_special_tokens=False)["input_ids"]
        )

    def _control_tokens(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self._control_ids]

    def _without_spellings(self, value: Any) -> Any:
        if isinstance(value, str):
            for spelling in self._spellings:
                value = value.replace(spelling, " x ")
            return value
        if isinstance(value, Mapping):
            return {self._without_spellings(k): self._without_spellings(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._without_spellings(item) for item in value]
        return value


def _is_sound(weights: Any) -> bool:
    """Some token is learned, the first is not, and no weight is negative or not a number."""
    return bool(np.isfinite(weights).all() and (weights >= 0).all() and weights[0] == 0 and weights.any())


def _learned_answers(conversation: Conversation, train_on: str) -> Iterator[int]:
    """Positions of the assistant messages that are learned and that something precedes."""
    answers = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
    for position in answers:
        weight = conversation.messages[position].weight
        by_role = train_on != "last" or position == answers[-1]
        if position and (by_role if weight is None else weight > 0):
            yield position


def _written(conversation: Conversation) -> list[dict[str, Any]]:
    return [message.to_template() for message in conversation.messages]


def _stands_before_the_answer(served: Sequence[int], example: Rendered) -> bool:
    length = len(served)
    return (
        len(example) > length
        and bool((example.ids[:length] == np.asarray(served, dtype=np.int32)).all())
        and bool(example.supervised[length] > 0)
    )
