"""Which tokens of which turn are learned, with what weight, and how turns become examples."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from tests.conftest import CHAT, make_tokenizer
from tests.render.helpers import (
    ORIGIN,
    REWRITES_HISTORY,
    TOOLS,
    calling,
    codes,
    learned_text,
    over,
    render_one,
    renderer,
    talk,
)
from tuition.conversation import Conversation, Message
from tuition.render import Renderer


def weighted(r: Renderer, conversation: Conversation, part: int = 0) -> list[tuple[str, float]]:
    """Runs of tokens of the same weight as text."""
    example = render_one(r, conversation).examples[part]
    edges = [0, *(np.flatnonzero(np.diff(example.supervised)) + 1).tolist(), len(example)]
    return [(r.tokens.decode(example.ids[a:b]), float(example.supervised[a])) for a, b in pairwise(edges)]


def test_parts_that_the_cut_leaves_without_learned_tokens_are_dropped_and_named() -> None:
    r = renderer(REWRITES_HISTORY, max_length=20, too_long="cut")
    first = (Message("user", "a"), Message("assistant", "b", reasoning="so"))
    conversation = Conversation(
        (*first, Message("user", "word " * 40), Message("assistant", "d", reasoning="x")), ORIGIN
    )
    outcome = render_one(r, conversation)
    assert [learned_text(r, outcome, part) for part in range(len(outcome.examples))] == ["[so]b<|end|>"]
    assert codes(outcome) == ["R015", "R018"]


def test_a_row_that_the_cut_leaves_with_nothing_is_rejected() -> None:
    outcome = render_one(
        renderer(max_length=20, too_long="cut"), talk(("user", "word " * 40), ("assistant", "b"))
    )
    assert outcome.examples == ()
    assert outcome.rejection is not None and outcome.rejection.code == "R012"


def test_a_token_that_was_learned_as_the_end_of_a_turn_stops_generation_too() -> None:
    tokenizer = make_tokenizer(
        template=TOOLS.replace(
            "{% endfor %}<|end|>", "{% endfor %}{{ '<|tool|>' if m.tool_calls else '<|end|>' }}"
        )
    )
    r = over(tokenizer)
    end, call_end = tokenizer.convert_tokens_to_ids(["<|end|>", "<|tool|>"])
    assert r.stop_ids == (end,)
    messages = (Message("user", "a"), calling(city="b"), Message("tool", "c"), Message("assistant", "d"))
    assert learned_text(r, render_one(r, Conversation(messages, ORIGIN))).endswith(
        "</tool_call><|tool|>d<|end|>"
    )
    assert r.stop_ids == (end, call_end)


def test_train_on_all_learns_each_message_with_its_own_weight() -> None:
    messages = (
        Message("system", "s", weight=0),
        Message("user", "u", weight=0.5),
        Message("assistant", "a"),
        Message("user", "v", weight=0),
        Message("assistant", "b", weight=2),
    )
    assert weighted(renderer(train_on="all"), Conversation(messages, ORIGIN)) == [
        ("<|system|>\ns<|end|>\n", 0.0),
        ("<|user|>\nu<|end|>\n", 0.5),
        ("<|assistant|>\na<|end|>", 1.0),
        ("\n<|user|>\nv<|end|>\n<|assistant|>\n", 0.0),
        ("b<|end|>", 2.0),
    ]


def test_train_on_all_learns_nothing_twice_where_history_is_rewritten() -> None:
    r = renderer(REWRITES_HISTORY, train_on="all")
    messages = (
        Message("user", "a"),
        Message("assistant", "b", reasoning="x"),
        Message("user", "c"),
        Message("assistant", "d", reasoning="y"),
    )
    conversation = Conversation(messages, ORIGIN)
    assert weighted(r, conversation, 0) == [
        ("<|user|>", 0.0),
        ("\na<|end|>\n<|assistant|>\n[x]b<|end|>", 1.0),
    ]
    later = weighted(r, conversation, 1)
    assert later[0][1] == 0 and "b<|end|>" in later[0][0]
    assert later[1] == ("c<|end|>\n<|assistant|>\n[y]d<|end|>", 1.0)


@pytest.mark.parametrize("template", [CHAT, None])
def test_a_user_message_with_a_weight_is_learned(template: str | None) -> None:
    r = renderer(template)
    conversation = Conversation((Message("user", "ab", weight=0.5), Message("assistant", "c")), ORIGIN)
    learned = [run for run in weighted(r, conversation) if run[1]]
    assert learned[0][1] == 0.5 and "b" in learned[0][0]
    assert learned[-1][1] == 1.0


def test_a_weight_on_a_message_that_the_template_leaves_out_refuses_the_row() -> None:
    r = renderer(
        "{% for m in messages if m.role != 'system' %}" + CHAT.removeprefix("{% for m in messages %}")
    )
    conversation = Conversation(
        (Message("system", "s", weight=1), Message("user", "a"), Message("assistant", "b")), ORIGIN
    )
    outcome = render_one(r, conversation)
    assert outcome.rejection is not None and outcome.rejection.code == "R019"


def test_train_on_all_passes_over_a_message_that_the_template_leaves_out() -> None:
    r = renderer(
        "{% for m in messages if m.role != 'system' %}" + CHAT.removeprefix("{% for m in messages %}"),
        train_on="all",
    )
    outcome = render_one(r, talk(("system", "s"), ("user", "a"), ("assistant", "b")))
    assert codes(outcome) == ["R004"]
    assert learned_text(r, outcome) == "\na<|end|>\n<|assistant|>\nb<|end|>"


def test_a_message_that_cannot_end_a_conversation_is_learned_by_its_content() -> None:
    refusing = "{% if messages[-1].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT
    conversation = Conversation(
        (Message("system", "zeal", weight=1), Message("user", "a"), Message("assistant", "b")), ORIGIN
    )
    runs = weighted(renderer(refusing), conversation)
    assert [text for text, weight in runs if weight] == ["zeal", "b<|end|>"]


def test_a_long_conversation_equals_the_slow_reference_and_takes_no_quadratic_time() -> None:
    r = renderer(max_length=10**6)
    turns = [(role, f"turn {n} of many") for n in range(200) for role in ("user", "assistant")]
    started = time.process_time()
    example = render_one(r, talk(*turns)).examples[0]
    assert time.process_time() - started < 8
    whole = r.tokens.tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns], return_dict=False
    )
    assert example.ids.tolist() == whole[: len(example)]
    assert r.tokens.decode(example.ids[example.supervised > 0]) == "".join(
        f"turn {n} of many<|end|>" for n in range(200)
    )
