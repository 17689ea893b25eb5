"""Examples longer than max_length: what is kept is as served, learned once, and what is lost is named."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_tokenizer
from tests.render.helpers import (
    ORIGIN,
    REWRITES_HISTORY,
    TOOLS,
    calling,
    codes,
    learned_text,
    render_one,
    renderer,
    talk,
)
from tests.render.test_invariants import TOKENIZERS, renderer_of
from tuition.conversation import Conversation, Message, Rendered
from tuition.errors import Finding, UserError
from tuition.render import Renderer
from tuition.render.lengths import TooLong
from tuition.render.renderer import Outcome

LONG = "word " * 40
SPEAKER = [("system", "Be kind.")]


def exchanges(*numbers: int, words: str = "cat sat ") -> list[tuple[str, str]]:
    return [turn for n in numbers for turn in (("user", f"q{n} {words}"), ("assistant", f"a{n} {words}"))]


def length_of(*turns: tuple[str, str]) -> int:
    """Tokens of a short conversation."""
    return len(render_one(renderer(), talk(*turns)).examples[0])


def texts(r: Renderer, outcome: Outcome) -> list[str]:
    return [r.tokens.decode(example.ids) for example in outcome.examples]


def found(outcome: Outcome, code: str) -> Finding:
    return next(finding for finding in outcome.findings if finding.code == code)


# --- cut_turns ---


def test_cut_turns_ends_with_the_stop_of_the_last_turn_that_fits() -> None:
    limit = length_of(*SPEAKER, *exchanges(1, 2)) + 3
    r = renderer(max_length=limit, too_long="cut_turns")
    outcome = render_one(r, talk(*SPEAKER, *exchanges(1, 2, 3)))
    assert len(outcome.examples[0]) == limit - 3
    assert learned_text(r, outcome) == "a1 cat sat <|end|>a2 cat sat <|end|>"
    assert codes(outcome) == ["R021"]
    assert outcome.cut is not None and "cut after message 5" in outcome.cut.message
    assert outcome.shown[-1] == talk(*SPEAKER, *exchanges(1, 2))


def test_cut_turns_says_how_many_learned_tokens_are_lost() -> None:
    turns = exchanges(1, 2)
    whole = render_one(renderer(), talk(*turns)).examples[0].learned_tokens
    r = renderer(max_length=length_of(*exchanges(1)), too_long="cut_turns")
    outcome = render_one(r, talk(*turns))
    kept = outcome.examples[0].learned_tokens
    assert f"{whole - kept} of {whole} learned tokens" in found(outcome, "R021").message


def test_cut_turns_sets_a_row_aside_whose_first_turn_is_too_long() -> None:
    outcome = render_one(
        renderer(max_length=30, too_long="cut_turns"), talk(("user", LONG), ("assistant", "b"))
    )
    assert outcome.examples == ()
    assert outcome.rejection is not None and outcome.rejection.code == "R020"
    assert "message 2" in outcome.rejection.message
    assert codes(outcome) == ["R020"]


def test_cut_turns_keeps_the_parts_that_fit_where_history_is_rewritten() -> None:
    messages = (
        Message("user", "a"),
        Message("assistant", "b", reasoning="so"),
        Message("user", LONG),
        Message("assistant", "d", reasoning="x"),
    )
    r = renderer(REWRITES_HISTORY, max_length=30, too_long="cut_turns")
    outcome = render_one(r, Conversation(messages, ORIGIN))
    assert [learned_text(r, outcome, part) for part in range(len(outcome.examples))] == ["[so]b<|end|>"]
    assert codes(outcome) == ["R021"] and "message 4" in found(outcome, "R021").message


# --- split ---


def test_split_learns_every_turn_once_and_later_parts_begin_with_the_system_message() -> None:
    r = renderer(max_length=length_of(*SPEAKER, *exchanges(1, 2)), too_long="split")
    outcome = render_one(r, talk(*SPEAKER, *exchanges(1, 2, 3, 4)))
    assert [learned_text(r, outcome, part) for part in range(3)] == [
        "a1 cat sat <|end|>a2 cat sat <|end|>",
        "a3 cat sat <|end|>",
        "a4 cat sat <|end|>",
    ]
    _, second, third = texts(r, outcome)
    assert second.startswith("<|system|>\nBe kind.<|end|>\n<|user|>\nq2") and "a2" in second
    assert third.startswith("<|system|>\nBe kind.<|end|>\n<|user|>\nq3") and "q2" not in third
    assert codes(outcome) == ["R022"]
    assert [example.part for example in outcome.examples] == [0, 1, 2]
    assert {example.prompt_key for example in outcome.examples} == {outcome.examples[0].prompt_key}
    assert outcome.cut is None


def test_a_later_part_learns_the_turns_that_follow_while_they_fit() -> None:
    turns = [("user", "q1 " + LONG), ("assistant", "a1"), *exchanges(2, 3, 4, words="")]
    r = renderer(max_length=length_of(*turns[:2]), too_long="split")
    outcome = render_one(r, talk(*turns))
    assert [learned_text(r, outcome, part) for part in range(2)] == [
        "a1<|end|>",
        "a2 <|end|>a3 <|end|>a4 <|end|>",
    ]


def test_split_sets_aside_only_the_turn_that_fits_nowhere_and_names_it() -> None:
    turns = [*exchanges(1), ("user", "q2"), ("assistant", "a2 " + LONG), *exchanges(3)]
    r = renderer(max_length=60, too_long="split")
    outcome = render_one(r, talk(*turns))
    assert [learned_text(r, outcome, part) for part in range(2)] == [
        "a1 cat sat <|end|>",
        "a3 cat sat <|end|>",
    ]
    lost = [finding.message for finding in outcome.findings if finding.code == "R023"]
    assert "message 4 is set aside" in lost[0]
    assert lost[1] == "messages 3, 4 stand in no example"
    assert outcome.cut is not None and outcome.cut.code == "R023"


def test_split_rejects_a_row_of_which_nothing_fits() -> None:
    outcome = render_one(
        renderer(max_length=20, too_long="split"), talk(("user", LONG), ("assistant", "b " + LONG))
    )
    assert outcome.rejection is not None and outcome.rejection.code == "R020"
    assert "message 2 is set aside" in outcome.rejection.message
    assert codes(outcome) == ["R020"]


def test_a_row_that_fits_is_never_split_or_cut() -> None:
    conversation = talk(*SPEAKER, *exchanges(1, 2))
    limit = length_of(*SPEAKER, *exchanges(1, 2))
    for policy in ("split", "cut_turns"):
        outcome = render_one(renderer(max_length=limit, too_long=policy), conversation)
        assert (len(outcome.examples), codes(outcome)) == (1, [])
        assert outcome.shown[-1] == conversation


def test_parts_of_a_split_keep_the_tools_and_answer_a_call_in_its_own_exchange() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    messages = (
        Message("user", "q1 " + LONG * 3),
        Message("assistant", "a1"),
        Message("user", "q2"),
        calling(city="Paris"),
        Message("tool", "Sunny."),
        Message("assistant", "a2"),
    )
    whole = render_one(renderer(TOOLS), Conversation(messages[2:], ORIGIN, tools=(tool,)))
    r = renderer(TOOLS, max_length=len(whole.examples[0]), too_long="split")
    outcome = render_one(r, Conversation(messages, ORIGIN, tools=(tool,)))
    assert codes(outcome) == ["R023", "R023"] and "message 2 is set aside" in found(outcome, "R023").message
    assert outcome.examples[0].ids.tolist() == whole.examples[0].ids.tolist()
    assert outcome.examples[0].supervised.tolist() == whole.examples[0].supervised.tolist()


def test_weights_of_messages_and_rows_hold_in_every_part_of_a_split() -> None:
    messages = (
        Message("user", "q1 " + LONG),
        Message("assistant", "a1", weight=0.5),
        Message("user", "q2", weight=2.0),
        Message("assistant", "a2", weight=0),
        Message("user", "q3"),
        Message("assistant", "a3"),
    )
    limit = len(render_one(renderer(), Conversation(messages[:2], ORIGIN)).examples[0])
    r = renderer(max_length=limit, too_long="split")
    outcome = render_one(r, Conversation(messages, ORIGIN, weight=3.0))
    by_weight: dict[float, str] = {}
    for example in outcome.examples:
        for weight in set(example.supervised.tolist()) - {0.0}:
            ids = example.ids[example.supervised == np.float32(weight)]
            by_weight[weight] = by_weight.get(weight, "") + r.tokens.decode(ids)
    assert by_weight[1.5] == "a1<|end|>"
    assert by_weight[3.0] == "a3<|end|>"
    assert "q2<|end|>" in by_weight[6.0] and by_weight.keys() == {1.5, 3.0, 6.0}


def test_split_learns_the_turns_of_a_rewritten_history_as_served() -> None:
    messages = tuple(
        message
        for n in (1, 2, 3)
        for message in (
            Message("user", f"q{n} cat sat"),
            Message("assistant", f"a{n} cat", reasoning=f"think {n}"),
        )
    )
    long = Conversation(messages, ORIGIN)
    whole = render_one(renderer(REWRITES_HISTORY), long)
    r = renderer(REWRITES_HISTORY, max_length=len(whole.examples[2]) - 1, too_long="split")
    outcome = render_one(r, long)
    last = renderer(REWRITES_HISTORY)
    expected = render_one(last, Conversation((*messages[2:4], *messages[4:]), ORIGIN)).examples[-1]
    assert [learned_text(r, outcome, part) for part in range(3)] == [
        f"[think {n}]a{n} cat<|end|>" for n in (1, 2, 3)
    ]
    assert outcome.examples[2].ids.tolist() == expected.ids.tolist()
    assert set(codes(outcome)) == {"R013", "R022"}


# --- running text ---


@pytest.mark.parametrize("limit", [2, 3, 7, 20])
@pytest.mark.parametrize("bos", [False, True])
def test_windows_of_running_text_learn_every_token_once_and_share_one(limit: int, bos: bool) -> None:
    tokenizer = make_tokenizer(template=None, bos=bos)
    text = talk(("assistant", "The cat sat on the mat. " * 5), plain=True)
    options = {"train_on": "assistant", "max_length": 500}
    whole = render_one(Renderer(tokenizer, None, too_long="drop", **options), text).examples[0]
    r = Renderer(tokenizer, None, too_long="split", **{**options, "max_length": limit})
    outcome = render_one(r, text)
    assert all(2 <= len(example) <= limit for example in outcome.examples)
    assert all(a.ids[-1] == b.ids[0] for a, b in pairwise(outcome.examples))
    joined = np.concatenate([example.ids[example.supervised > 0] for example in outcome.examples])
    assert joined.tolist() == whole.ids[whole.supervised > 0].tolist()
    ends = [int(example.ids[-1]) == tokenizer.eos_token_id for example in outcome.examples]
    assert ends == [False] * (len(ends) - 1) + [True]
    assert list(outcome.open_ends) == [1] * (len(ends) - 1) + [0]
    assert codes(outcome) == ["R022"]


def test_a_cut_answer_is_open_and_a_cut_between_turns_is_shown_up_to_the_turn_before() -> None:
    turns = exchanges(1, 2)
    first = length_of(*turns[:2])
    r = renderer(max_length=first + 2, too_long="cut")
    outcome = render_one(r, talk(*turns))
    assert outcome.open_ends[0] == 0 and outcome.shown[-1] == talk(*turns[:2])
    inside = length_of(*turns) - 2
    outcome = render_one(renderer(max_length=inside, too_long="cut"), talk(*turns))
    assert outcome.open_ends[0] == 1 and outcome.shown[-1] == talk(*turns)


# --- any conversation, template and tokenizer ---


@st.composite
def long_conversations(draw: Any) -> Conversation:
    words = st.lists(st.sampled_from(["cat ", "The", " sat", "\n", "Paris", "é", "."]), max_size=8).map(
        "".join
    )
    weights = st.sampled_from([None, None, None, 0, 0.5])
    messages = [Message("system", f"kind {draw(words)}")] if draw(st.booleans()) else []
    for n in range(draw(st.integers(1, 5))):
        messages.append(Message("user", f"q{n} {draw(words)} ."))
        for m in range(draw(st.integers(1, 2))):
            messages.append(Message("assistant", f"a{n}.{m} {draw(words)} .", weight=draw(weights)))
    return Conversation(tuple(messages), ORIGIN)


def runs(example: Rendered) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], example.supervised > 0, [0]]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def histories(r: Renderer, conversation: Conversation, position: int) -> list[tuple[int, list[int]]]:
    """What serving would feed before a message for each place where the history may begin."""
    messages = conversation.messages
    head = int(messages[0].role == "system")
    starts = [n for n, m in enumerate(messages[:position]) if m.role == "user"]
    return [
        (
            start,
            r.tokens.tokenizer.apply_chat_template(
                [m.to_template() for m in (*messages[:head], *messages[start:position])],
                chat_template=r.template.source if r.template else None,
                add_generation_prompt=True,
                return_dict=False,
            ),
        )
        for start in starts
    ]


@pytest.mark.parametrize("template", ["chat", "rewrites history", "trims", "chatml"])
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("policy", ["cut_turns", "split"])
@settings(max_examples=15)
@given(conversation=long_conversations(), limit=st.integers(12, 90))
def test_what_is_kept_fits_is_as_served_and_is_learned_once(
    policy: str, kind: str, template: str, conversation: Conversation, limit: int
) -> None:
    r = renderer_of(kind, template, too_long=policy)
    r.max_length = limit
    outcome = render_one(r, conversation)
    all_runs = _learned_runs(render_one(renderer_of(kind, template), conversation))
    kept_runs = _learned_runs(outcome)
    assert all(kept_runs.count(run) <= all_runs.count(run) for run in kept_runs)  # at most once
    if len(kept_runs) < len(all_runs):  # nothing vanishes in silence
        assert {"R012", "R020", "R021", "R023"} & set(codes(outcome))
    for example in outcome.examples:
        assert len(example) <= limit
        for start, end in runs(example):
            assert int(example.ids[end - 1]) in r.stop_ids  # no false end, none missing
            contexts = [
                (position, begin)
                for position, message in enumerate(conversation.messages)
                if message.role == "assistant" and message.weight != 0
                for begin, ids in histories(r, conversation, position)
                if ids == example.ids[:start].tolist()
            ]
            assert contexts  # parity


def _learned_runs(outcome: Outcome) -> list[tuple[int, ...]]:
    return [tuple(e.ids[a:b].tolist()) for e in outcome.examples for a, b in runs(e)]


def test_a_split_loses_no_turn_that_fits_with_the_exchange_it_ends() -> None:
    turns = exchanges(*range(12))
    r = renderer(max_length=length_of(*exchanges(10)) + 1, too_long="split")
    outcome = render_one(r, talk(*turns))
    assert [learned_text(r, outcome, part) for part in range(12)] == [
        f"a{n} cat sat <|end|>" for n in range(12)
    ]
    assert codes(outcome) == ["R022"]


def test_train_on_all_splits_between_messages() -> None:
    r = renderer(max_length=length_of(*exchanges(1, 2)), too_long="split", train_on="all")
    outcome = render_one(r, talk(*exchanges(1, 2, 3)))
    learned = "".join(learned_text(r, outcome, part) for part in range(len(outcome.examples)))
    for n in (1, 2, 3):
        assert learned.count(f"q{n}") == learned.count(f"a{n}") == 1


def test_an_answer_that_begins_behind_the_cut_is_said_to_and_not_to_lack_a_weight() -> None:
    outcome = render_one(renderer(max_length=20, too_long="cut"), talk(("user", LONG), ("assistant", "a")))
    refusal = found(outcome, "R012")
    assert "begins behind max_length 20" in refusal.message and refusal.fix.startswith("Raise max_length")


@pytest.mark.parametrize("too_long", ["drop", "cut", "cut_turns", "split"])
def test_the_next_step_raises_max_length_only_where_the_model_holds_more(too_long: TooLong) -> None:
    conversation = talk(("user", LONG), ("assistant", "a " + LONG))
    for positions, way in (
        (21, "Raise max_length"),
        (20, "The model holds no more than 20 tokens: take another"),
    ):
        outcome = render_one(renderer(max_length=20, positions=positions, too_long=too_long), conversation)
        assert outcome.rejection is not None and outcome.rejection.fix.startswith(f"{way}, ")


def test_a_refusal_of_long_rows_names_what_the_model_holds() -> None:
    r = renderer(max_length=20, positions=20, too_long="refuse")
    with pytest.raises(
        UserError, match=r"The model holds no more than 20 tokens: take another, or set too_long"
    ):
        render_one(r, talk(("user", LONG), ("assistant", "a")))
