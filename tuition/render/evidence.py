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
import numpy.typing as npt

from tuition.conversation import Conversation, Rendered
from tuition.render.content import strings_in
from tuition.render.finished import Answer, Finished
from tuition.render.renderer import Outcome, Renderer
from tuition.render.texts import with_thought
from tuition.render.tokens import Ids

_ROWS_AT_ONCE = 128

# The context of a row's last learned turn holds those of its earlier turns. They are compared on their own
# as well, up to this many: in long conversations their lengths add up to the square of the conversation's.
_EARLIER_TURNS = 4096
_LOSSES = {"R015", "R018", "R021", "R023"}  # findings of a row that lost turns


@dataclass(slots=True)
class Evidence:
    """Figures over every example, and the first place where something is not as it must be.

    Attributes:
        examples, tokens, learned_tokens: counted from the arrays.
        unsound: the first example without a learned token, or with a weight that is none.
        ends: token id → runs of learned tokens that end with it, and the first place.
        open_ends: runs that end with no stop token because the recipe says so; they are not among `ends`.
        largest_id: with its place.
        control_tokens: special tokens in all examples.
        spelled_turns: turns behind content that spells a control token out, where those of the template were counted.
        forged: the first place where a special token stands that the template did not write.
        prompts: learned turns whose context was compared with the ids that serving feeds.
        unlike_serving: the first that was not the same.
        answers: learned turns that were compared with what the template writes of them.
        unlike_written: the first whose tokens are others.
        misplaced: the first place where context is learned, or a learned token has a weight that is not its turn's.
    """

    examples: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    unsound: str | None = None
    ends: dict[int, tuple[int, str]] = field(default_factory=dict)
    open_ends: int = 0
    largest_id: int = -1
    largest_at: str = ""
    control_tokens: int = 0
    spelled_turns: int = 0
    forged: str | None = None
    prompts: int = 0
    unlike_serving: str | None = None
    answers: int = 0
    unlike_written: str | None = None
    misplaced: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values, from which `from_json` makes the same evidence."""
        return {**asdict(self), "ends": [[token, *end] for token, end in self.ends.items()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evidence:
        """The evidence that was written."""
        return cls(**{**value, "ends": {token: (count, place) for token, count, place in value["ends"]}})

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """The evidence over all examples of several parts: counts added up, and the first places."""
        whole = cls()
        for part in parts:
            for name in _COUNTS:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            for name in _FIRST_PLACES:
                setattr(whole, name, getattr(whole, name) or getattr(part, name))
            for token, (count, place) in part.ends.items():
                before, first = whole.ends.get(token, (0, place))
                whole.ends[token] = (before + count, first)
            if part.largest_id > whole.largest_id:
                whole.largest_id, whole.largest_at = part.largest_id, part.largest_at
        return whole


_COUNTS = (
    "examples", "tokens", "learned_tokens", "open_ends", "control_tokens", "spelled_turns", "prompts", "answers",
)  # fmt: skip
_FIRST_PLACES = ("unsound", "forged", "unlike_serving", "unlike_written", "misplaced")


@dataclass(frozen=True, slots=True)
class _Turn:
    """A learned turn, and the examples of which one must hold its context as serving feeds it.

    `elsewhere`: none need, because the row lost turns, or learns this one behind a shorter history.
    `thinks`: its thought is learned, which the template drops from the finished turn (R029).
    """

    conversation: Conversation
    position: int
    examples: tuple[Rendered, ...]
    spelled: bool
    is_cut: bool = False
    elsewhere: bool = False
    thinks: bool = False

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.conversation.origin} (message {self.position + 1})"


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
        self._finished = Finished(renderer)
        self._special = np.array(sorted(renderer.tokens.special_ids), dtype=np.int32)
        self._bos = self._tokenizer.bos_token_id
        self._earlier_turns = 0
        self._waiting: list[Outcome] = []

    def see(self, outcome: Outcome) -> None:
        """Take one row's outcome; rows are looked at some at a time."""
        if outcome.examples:
            self._waiting.append(outcome)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._look()

    def finish(self) -> Evidence:
        """The evidence over all rows that were seen."""
        if self._waiting:
            self._look()
        return self.evidence

    def _look(self) -> None:
        self._count(
            [e for outcome in self._waiting for e in outcome.examples],
            [open_ends for outcome in self._waiting for open_ends in outcome.open_ends],
        )
        self._compare(self._waiting)
        self._waiting = []

    # --- what the arrays say ---

    def _count(self, examples: Sequence[Rendered], open_ends: Sequence[int]) -> None:
        """Count over the examples laid end to end; `open_ends` as in `Outcome`."""
        seen = self.evidence
        ids = np.concatenate([example.ids for example in examples])
        weights = np.concatenate([example.supervised for example in examples])
        starts = np.cumsum([0, *(len(example) for example in examples)])
        learned = weights != 0
        seen.examples += len(examples)
        seen.tokens += len(ids)
        seen.learned_tokens += int(learned.sum())
        seen.control_tokens += int(np.isin(ids, self._special).sum())
        if seen.unsound is None:
            sound = np.isfinite(weights) & (weights >= 0)
            sound[starts[:-1]] &= ~learned[starts[:-1]]  # nothing precedes the first token
            each = np.logical_and.reduceat(sound, starts[:-1]) & np.logical_or.reduceat(learned, starts[:-1])
            seen.unsound = _first_place(examples, np.flatnonzero(~each))
        if (largest := int(ids.argmax())) >= 0 and ids[largest] > seen.largest_id:
            seen.largest_id = int(ids[largest])
            seen.largest_at = str(examples[_example_of(starts, largest)].origin)
        if seen.forged is None and self._bos is not None:
            firsts = starts[:-1][np.diff(starts) > 1]
            doubled = firsts[(ids[firsts] == self._bos) & (ids[firsts + 1] == self._bos)]
            place = _first_place(examples, [_example_of(starts, d) for d in doubled[:1]])
            seen.forged = f"{place} begins with two BOS tokens" if place else None
        self._count_ends(examples, ids, learned, starts, np.asarray(open_ends))

    def _count_ends(
        self,
        examples: Sequence[Rendered],
        ids: Ids,
        learned: Any,
        starts: Any,
        allowed: npt.NDArray[np.int64],
    ) -> None:
        """Note the token at the end of each run of learned tokens; only the last where everything is learned."""
        last = np.zeros(len(ids), dtype=bool)
        last[starts[1:] - 1] = True
        ends = np.flatnonzero(learned & (last | ~np.append(learned[1:], False)))
        owners = np.searchsorted(starts, ends, side="right") - 1
        if self._renderer.train_on == "all":
            keep = np.append(owners[1:] != owners[:-1], True)
            ends, owners = ends[keep], owners[keep]
        missing = ~np.isin(ids[ends], np.asarray(self._renderer.stop_ids, dtype=np.int32))
        too_many = np.bincount(owners[missing], minlength=len(examples)) > allowed
        is_open = missing & ~too_many[owners]
        self.evidence.open_ends += int(is_open.sum())
        ends, owners = ends[~is_open], owners[~is_open]
        for token, first, count in zip(
            *np.unique(ids[ends], return_index=True, return_counts=True), strict=True
        ):
            place = str(examples[owners[first]].origin)
            before, place = self.evidence.ends.get(int(token), (0, place))
            self.evidence.ends[int(token)] = (before + int(count), place)

    # --- what serving would feed ---

    def _compare(self, outcomes: Sequence[Outcome]) -> None:
        """Ask transformers for the prompt of each learned turn, and look for its ids before what is learned."""
        asked = [turn for outcome in outcomes for turn in self._turns(outcome)]
        answers: list[tuple[_Turn, Answer]] = []
        for turn, served in zip(asked, self._served(asked), strict=True):
            if self._spells_control_tokens(turn):
                self._count_control_tokens(turn)
                continue
            whole = self._renderer.learns_whole_turns
            fitting = [e for e in turn.examples if _stands_before_the_answer(served, e, whole=whole)]
            self.evidence.prompts += bool(fitting)
            if not fitting and not turn.elsewhere and self.evidence.unlike_serving is None:
                self.evidence.unlike_serving = turn.place
            answers += [(turn, self._answer(turn, example, len(served))) for example in fitting[:1]]
        if not self._finished.shows_turns:
            return
        seen, same = self.evidence, self._finished.as_written([answer for _, answer in answers])
        for (turn, answer), is_same in zip(answers, same, strict=True):
            seen.answers += is_same
            if not is_same and seen.unlike_written is None:
                seen.unlike_written = turn.place
            if not answer.is_alone and seen.misplaced is None:
                seen.misplaced = turn.place

    def _answer(self, turn: _Turn, example: Rendered, start: int) -> Answer:
        conversation, message = turn.conversation, turn.conversation.messages[turn.position]
        weight = (1.0 if message.weight is None else message.weight) * conversation.weight
        if self._renderer.template is None:
            tokens = self._renderer.tokens
            texts = [message.content for message in conversation.messages[: turn.position + 1]]
            written = tokens.decode(tokens.prefix_ids) + "".join(texts)
        else:
            given = self._given(conversation)[: turn.position + 1]
            written = self._text(given, conversation.tools, prompt=False)
            if turn.thinks:
                prompt = self._text(given[:-1], conversation.tools)
                thought = with_thought(prompt, written, given[-1])
                written = thought.text if thought else written
        before = conversation.messages[turn.position - 1]
        joins = before.role == "assistant" if before.weight is None else before.weight > 0
        return Answer(example, start, weight, written, turn.is_cut, joins)

    def _turns(self, outcome: Outcome) -> Iterator[_Turn]:
        """The learned turns of a row whose contexts are compared: the last always, the others while they are few."""
        pairs = list(zip(outcome.examples, outcome.shown, strict=True))
        whole = tuple(example for example, shown in pairs if shown is outcome.conversation)
        spelled = any(found.code == "R007" for found in outcome.findings)
        is_cut = any(found.code == "R015" for found in outcome.findings)
        thinks = any(found.code == "R029" for found in outcome.findings)
        lost = any(found.code in _LOSSES for found in outcome.findings)
        shorter = {id(m) for _, shown in pairs if shown is not outcome.conversation for m in shown.messages}
        if whole and not outcome.conversation.plain:
            positions = list(_learned_answers(outcome.conversation, self._renderer.train_on))
            earlier = positions[:-1] if self._earlier_turns < _EARLIER_TURNS else []
            self._earlier_turns += len(earlier)
            for position in (*earlier, *positions[-1:]):
                elsewhere = lost or id(outcome.conversation.messages[position]) in shorter
                yield _Turn(outcome.conversation, position, whole, spelled, is_cut, elsewhere, thinks)
        for example, shown in pairs:
            if shown is not outcome.conversation and not shown.plain:
                positions = list(_learned_answers(shown, self._renderer.train_on))
                in_prompt = self._renderer.train_on == "all"  # an example may end anywhere then
                yield from (
                    _Turn(shown, position, (example,), spelled, is_cut, in_prompt, thinks)
                    for position in positions[-1:]
                )

    def _served(self, asked: Sequence[_Turn]) -> Iterable[Sequence[int]]:
        """The ids that transformers makes of each prompt."""
        if not asked:
            return []
        if self._renderer.template is None:
            texts = [turn.conversation.messages[0].content for turn in asked]
            return list(self._tokenizer(texts)["input_ids"])
        texts = [
            self._text(self._given(turn.conversation)[: turn.position], turn.conversation.tools)
            for turn in asked
        ]
        return list(self._tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _given(self, conversation: Conversation) -> list[dict[str, Any]]:
        return self._renderer.as_served(conversation.messages)

    def _text(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], *, prompt: bool = True
    ) -> str:
        assert self._renderer.template is not None
        with self._renderer.template.served():
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=[dict(tool) for tool in tools] or None,
                    chat_template=self._renderer.template.source,
                    add_generation_prompt=prompt,
                    tokenize=False,
                )
            )

    # --- content that spells control tokens ---

    def _spells_control_tokens(self, turn: _Turn) -> bool:
        """Such content is kept plain here, which serving does only where it is asked to. Answers keep markup."""
        if turn.spelled:
            return True
        conversation = turn.conversation
        messages = self._given(conversation)
        answers = [message for message in messages if message["role"] == "assistant"]
        others = [message for message in messages if message["role"] != "assistant"]
        return _spells(answers, self._renderer.tokens.special_spellings) or _spells(
            [others, list(conversation.tools)], self._spellings
        )

    def _count_control_tokens(self, turn: _Turn) -> None:
        """The control tokens before the answer are those of the same row with the spellings taken out."""
        conversation = turn.conversation
        messages = self._given(conversation)
        special = self._renderer.tokens.special_spellings
        plain = [
            _without(
                message, special if message["role"] == "assistant" else self._spellings
            )  # answers keep markup
            for message in messages
        ]
        tools = _without(list(conversation.tools), self._spellings)
        if plain == messages and tools == list(conversation.tools):
            return  # spelled in characters that only the tokenizer makes into a control token
        self.evidence.spelled_turns += 1
        expected = self._control_tokens(self._prompt_ids(plain[: turn.position], tools))
        written = [self._control_tokens(example.ids.tolist()) for example in turn.examples]
        begins = any(found[: len(expected)] == expected for found in written)
        if not begins and not turn.elsewhere and self.evidence.forged is None:
            self.evidence.forged = f"{conversation.origin} has control tokens that the template did not write"

    def _prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> list[int]:
        if self._renderer.template is None:
            return list(self._tokenizer(messages[0]["content"])["input_ids"])
        return list(self._tokenizer(self._text(messages, tools), add_special_tokens=False)["input_ids"])

    def _control_tokens(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self._control_ids]


def _spells(value: Any, spellings: Sequence[str]) -> bool:
    text = "\0".join(strings_in(value))
    return any(spelling in text for spelling in spellings)


def _without(value: Any, spellings: Sequence[str]) -> Any:
    """The same strings, lists and mappings with other words in the place of spellings."""
    if isinstance(value, str):
        for spelling in spellings:
            value = value.replace(spelling, " x ")
        return value
    if isinstance(value, Mapping):
        return {_without(k, spellings): _without(v, spellings) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without(item, spellings) for item in value]
    return value


def _first_place(examples: Sequence[Rendered], numbers: Any) -> str | None:
    return str(examples[numbers[0]].origin) if len(numbers) else None


def _example_of(starts: Any, place: int) -> int:
    return int(np.searchsorted(starts, place, side="right")) - 1


def _learned_answers(conversation: Conversation, train_on: str) -> Iterator[int]:
    """Positions of the assistant messages that are learned and that something precedes."""
    answers = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
    for position in answers:
        by_role = train_on != "last" or position == answers[-1]
        if position and by_role and conversation.messages[position].weight != 0:
            yield position


def _stands_before_the_answer(served: Sequence[int], example: Rendered, *, whole: bool) -> bool:
    """Whether these ids are followed by what is learned: at once where whole turns are."""
    length = len(served)
    return (
        len(example) > length
        and bool((example.ids[:length] == np.asarray(served, dtype=np.int32)).all())
        and bool((example.supervised[length:][: 1 if whole else None] > 0).any())
    )
