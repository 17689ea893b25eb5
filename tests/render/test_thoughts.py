"""Templates that open a thought in their prompt and drop it from finished turns: learned as serving goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import make_tokenizer
from tests.render.helpers import ORIGIN, codes, over, render_one
from tuition.conversation import Conversation, Message
from tuition.render.evidence import Witness

OPENS = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
ASK, AGAIN = Message("user", "Who?"), Message("user", "And now?")
IN_CONTENT = Message("assistant", "<think>\nI purr.\n</think>\n\nA cat.")
IN_A_FIELD = Message("assistant", "A cat.", reasoning="I purr.")


def tokenizer() -> Any:
    made = make_tokenizer(template=OPENS)
    made.add_tokens(["<think>", "</think>"])
    return made


def learned(messages: tuple[Message, ...]) -> tuple[list[str], list[str], list[str]]:
    """For each example its context and what is learned; and the codes of all findings."""
    made = over(tokenizer(), max_length=500)
    outcome = render_one(made, Conversation(messages, ORIGIN))
    pairs = [(e.ids[e.supervised == 0], e.ids[e.supervised > 0]) for e in outcome.examples]
    spell = made.tokens.decode
    return [spell(a) for a, _ in pairs], [spell(b) for _, b in pairs], codes(outcome)


@pytest.mark.parametrize("answer", [IN_CONTENT, IN_A_FIELD])
def test_the_thought_is_learned_behind_the_prompt_that_opens_it(answer: Message) -> None:
    contexts, answers, found = learned((ASK, answer))
    assert contexts == ["<|user|>Who?<|end|><|assistant|><think>\n"]
    assert answers == ["I purr.\n</think>\n\nA cat.<|end|>"]
    assert found == ["R029"]
    thought = tokenizer().convert_tokens_to_ids("</think>")
    (example,) = render_one(over(tokenizer(), max_length=500), Conversation((ASK, answer), ORIGIN)).examples
    assert thought in example.ids.tolist(), "the end of the thought is the token, not its spelling"


def test_the_history_of_later_turns_drops_the_thought_as_serving_does() -> None:
    contexts, answers, _ = learned((ASK, IN_A_FIELD, AGAIN, IN_A_FIELD))
    assert (
        contexts[1]
        == "<|user|>Who?<|end|><|assistant|>A cat.<|end|><|user|>And now?<|end|><|assistant|><think>\n"
    )
    assert answers == ["I purr.\n</think>\n\nA cat.<|end|>"] * 2


@pytest.mark.parametrize("text", ["A cat.", "<think>\nonly a thought\n</think>", "said</think> A cat."])
def test_a_row_whose_thought_does_not_go_on_from_the_prompt_is_set_aside(text: str) -> None:
    _, answers, found = learned((ASK, Message("assistant", text)))
    assert answers == [] and "R002" in found


@pytest.mark.parametrize("answer", [IN_CONTENT, IN_A_FIELD])
def test_the_proof_compares_the_thought_too(answer: Message) -> None:
    made = over(tokenizer(), max_length=500)
    witness = Witness(made)
    for outcome in made.render([Conversation((ASK, answer, AGAIN, answer), ORIGIN)]):
        witness.see(outcome)
    witness.finish()
    seen = witness.evidence
    assert (seen.unlike_serving, seen.unlike_written, seen.prompts, seen.answers) == (None, None, 2, 2)


def test_a_thought_that_is_not_the_rows_own_is_seen_by_the_proof() -> None:
    made = over(tokenizer(), max_length=500)
    witness = Witness(made)
    (outcome,) = made.render([Conversation((ASK, IN_A_FIELD), ORIGIN)])
    (example,) = outcome.examples
    ids = example.ids.copy()
    thought = next(n for n, w in enumerate(example.supervised) if w > 0)
    ids[thought] = ids[thought + 2]
    witness.see(replace(outcome, examples=(replace(example, ids=ids),)))
    witness.finish()
    assert witness.evidence.unlike_written is not None
