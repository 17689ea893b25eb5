"""Rows of multiple choice: which choice a model finds most likely, without writing a word.

Read are a question (`question`, `prompt`, `query`, `ctx`, `input`), its choices (`choices`, `options`,
`endings`, or ARC's {"text": […], "label": […]}) and the right one (`answer`, `label`, `answerKey`, `gold`,
`correct`) as position from 0, letter, label or text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuition.conversation import Conversation, Message
from tuition.data import Ledger, finding, read_all
from tuition.errors import Origin, UserError
from tuition.evaluate.heldout import bytes_of_each, score_examples
from tuition.evaluate.load import Answerer

_QUESTIONS = ("question", "prompt", "query", "ctx", "input")
_CHOICES = ("choices", "options", "endings")
_ANSWERS = ("answer", "label", "answerKey", "gold", "correct")
_PACK_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with its choices; `right` is the position of the right one."""

    question: str
    choices: tuple[str, ...]
    right: int


def read_choices(
    sources: Sequence[str], ledger: Ledger, given: Sequence[Any] = ()
) -> Iterator[tuple[Conversation, Choice]]:
    """Each row as a conversation that ends with the right choice; a row that is none is rejected in the ledger.

    Args:
        given: rows from Python, beside those of the sources.
    """
    for row in read_all(sources, given):
        if row.value is None:
            if row.finding is not None and row.origin.line == 0:
                ledger.add(row.finding)
            elif row.finding is not None:
                ledger.arrive(row.origin)
                ledger.reject(row.origin, row.finding)
            continue
        ledger.arrive(row.origin)
        choice = choice_of(row.value)
        if isinstance(choice, str):
            ledger.reject(
                row.origin,
                finding(
                    "D001",
                    row.origin,
                    choice,
                    'Write rows such as {"question": "…", "choices": ["…", "…"], "answer": 0}',
                ),
            )
        else:
            yield _conversation(choice, choice.right, row.origin), choice


def choice_of(row: Mapping[str, Any]) -> Choice | str:
    """The question of a row, or the reason why there is none."""
    question = next((row[key] for key in _QUESTIONS if isinstance(row.get(key), str)), None)
    choices, labels = _choices_of(next((row[key] for key in _CHOICES if row.get(key)), None))
    if question is None:
        return f"no question in it (one of {', '.join(_QUESTIONS)})"
    if len(choices) < 2:
        return "no list of at least two choices in it"
    right = _right(next((row[key] for key in _ANSWERS if row.get(key) is not None), None), choices, labels)
    return "its answer is none of its choices" if right is None else Choice(question, choices, right)


def _choices_of(value: Any) -> tuple[tuple[str, ...], list[str]]:
    labels = [chr(ord("A") + n) for n in range(26)]
    if isinstance(value, Mapping):  # ARC
        labels, value = [str(label) for label in value.get("label") or labels], value.get("text")
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return (), []
    return tuple(value), labels[: len(value)]


def _right(answer: Any, choices: Sequence[str], labels: Sequence[str]) -> int | None:
    """Position of the right choice. Text goes before labels, labels before digits: choices may be letters or digits."""
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        return None
    if isinstance(answer, int):
        return answer if 0 <= answer < len(choices) else None
    for known in (choices, labels):
        if answer in known:
            return known.index(answer)
    return int(answer) if answer.isdecimal() and int(answer) < len(choices) else None


def choose(answerer: Answerer, asked: Sequence[tuple[Conversation, Choice]], how: str) -> list[str]:
    """The choice that the model finds most likely, for each question; the first of equals.

    The likelihood is that of the choice and the token that ends the answer, given the question.

    Args:
        how: `sum`: of log p; `byte`: log p over the UTF-8 bytes of the choice.

    Raises:
        UserError: a choice cannot be rendered, such as one that is longer than the model's context.
    """
    plain = answerer.renderer.template is None
    candidates = [
        _conversation(choice, place, conversation.origin, spaced=plain)
        for conversation, choice in asked
        for place in range(len(choice.choices))
    ]
    examples = []
    for outcome in answerer.renderer.render(candidates):
        if len(outcome.examples) != 1:
            reason = outcome.rejection.message if outcome.rejection else "it was split"
            raise UserError(
                f"a choice cannot be scored: {reason}",
                where=str(outcome.conversation.origin),
                next_step="Shorten the row or remove it",
            )
        examples.append(outcome.examples[0])
    marks = score_examples(answerer.loaded, examples, packing=(None, _PACK_TOKENS))
    sizes = bytes_of_each(examples, answerer.renderer.tokens) if how == "byte" else [1] * len(examples)
    costs = iter([mark.nats / max(1, size) for mark, size in zip(marks, sizes, strict=True)])
    picked = []
    for _, choice in asked:
        own = [next(costs) for _ in choice.choices]
        picked.append(choice.choices[own.index(min(own))])
    return picked


def _conversation(choice: Choice, place: int, origin: Origin, *, spaced: bool = False) -> Conversation:
    """The question answered by one of its choices; plain text gets the blank that a template would replace."""
    answer = choice.choices[place]
    if spaced and not choice.question[-1:].isspace() and not answer[:1].isspace():
        answer = f" {answer}"
    messages = (Message("user", choice.question), Message("assistant", answer))
    return Conversation(messages, origin)
