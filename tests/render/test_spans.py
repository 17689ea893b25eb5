"""Where only part of a turn is learned: spans between markers, and answers without their reasoning."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CHAT, make_tokenizer, write_jsonl
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
from tests.render.test_invariants import TEMPLATES, TOKENIZERS, renderer_of, tokenizer_of
from tuition.conversation import Conversation, Message
from tuition.data import find_sources
from tuition.errors import UserError
from tuition.recipe import make_recipe
from tuition.render import Renderer
from tuition.render.corpus import Rendering
from tuition.render.evidence import Witness
from tuition.render.preview import learned_texts
from tuition.render.proof import answers_end_with_a_stop_token, prove
from tuition.render.template import ChatTemplate

# Writes reasoning between tags, and none where there is none, as Qwen3's template does.
THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.reasoning_content %}<think>\n"
    "{{ m.reasoning_content.strip() }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% if m.content %}\n{% endif %}<tool_call>{{ c.function | tojson }}</tool_call>"
    "{% endfor %}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@cache
def letters() -> Any:
    """A tokenizer of single bytes but for the word ` cat`, so that tokens are easy to name."""
    tokenizer = make_tokenizer(vocabulary=0)
    tokenizer.add_tokens([" cat"])
    return tokenizer


def spans(template: str | None = CHAT, **options: Any) -> Renderer:
    return renderer(template, train_on="spans", **options)


def learned(r: Renderer, answer: str, *, part: int = 0) -> list[str]:
    """Runs of learned tokens of a one-turn conversation, as text."""
    outcome = render_one(r, talk(("user", "q"), ("assistant", answer)))
    return learned_texts(outcome.examples[part], r.tokens)


# --- which tokens a span learns ---


def test_only_what_stands_between_markers_is_learned_and_no_marker_is_written() -> None:
    r = spans()
    outcome = render_one(r, talk(("user", "q"), ("assistant", "Hm. <learn>Paris</learn>, I think.")))
    plain = render_one(renderer(), talk(("user", "q"), ("assistant", "Hm. Paris, I think.")))
    assert outcome.examples[0].ids.tolist() == plain.examples[0].ids.tolist()
    assert learned_text(r, outcome) == " Paris"  # one token with its space
    assert (
        outcome.conversation == outcome.shown[-1] == talk(("user", "q"), ("assistant", "Hm. Paris, I think."))
    )
    assert codes(outcome) == []


def test_the_stop_is_learned_where_the_span_reaches_the_end_of_the_turn() -> None:
    r = spans()
    assert learned(r, "Hm. <learn>Paris.</learn>") == [" Paris.<|end|>"]
    assert learned(r, "<learn>Hm.</learn> Paris.") == ["Hm."]
    assert learned(r, "<learn>A</learn>B<learn>C</learn>") == ["A", "C<|end|>"]
    assert learned(r, "<learn>A</learn><learn>C</learn>") == ["AC<|end|>"]
    assert learned(r, "<learn>A</learn>\n") == ["A"]
    assert learned(r, "All context, but<learn></learn>") == ["<|end|>"]


def test_a_token_that_straddles_a_border_is_learned() -> None:
    r = over(letters(), train_on="spans")
    assert learned(r, "x c<learn>at</learn> x") == [" cat"]
    assert learned(r, "x<learn> c</learn>at x") == [" cat"]
    assert learned(r, "x<learn>x</learn> cat x") == ["x"]
    assert learned(r, "a cat<learn>x</learn>x") == ["x"]


def test_a_character_of_several_tokens_is_learned_whole_and_alone() -> None:
    r = over(letters(), train_on="spans")
    outcome = render_one(r, talk(("user", "q"), ("assistant", "é<learn>😀</learn>é")))
    example = outcome.examples[0]
    assert np.count_nonzero(example.supervised) == 4
    assert learned_text(r, outcome) == "😀"


def test_a_span_around_a_whole_answer_learns_what_the_whole_turn_does() -> None:
    span = render_one(spans(), talk(("user", "q"), ("assistant", "<learn>Yes or no.</learn>")))
    whole = render_one(renderer(), talk(("user", "q"), ("assistant", "Yes or no.")))
    assert span.examples[0].ids.tolist() == whole.examples[0].ids.tolist()
    assert span.examples[0].supervised.tolist() == whole.examples[0].supervised.tolist()


def test_what_the_template_writes_before_the_content_is_in_no_span_and_what_it_writes_behind_is() -> None:
    r = over(letters(), train_on="spans", template=TEMPLATES["llama 2"])
    assert learned(r, "<learn>Yes.</learn>") == ["Yes. </s>"]


def test_answers_without_a_span_are_context() -> None:
    r = spans()
    outcome = render_one(
        r,
        talk(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "<learn>d</learn>"), ("user", "e"), ("assistant", "f")),
    )  # fmt: skip
    assert learned_text(r, outcome) == "d<|end|>"
    assert r.tokens.decode(outcome.examples[0].ids).endswith("d<|end|>")


def test_a_row_without_a_span_has_nothing_to_learn() -> None:
    outcome = render_one(spans(), talk(("user", "a"), ("assistant", "b")))
    assert outcome.rejection is not None and outcome.rejection.code == "R012"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("a<learn>b", "<learn> at character 2 of message 2 is never closed"),
        ("ab</learn>", "</learn> at character 3 of message 2 closes a span that was never opened"),
        ("<learn>a<learn>b</learn></learn>", "<learn> at character 9 of message 2 stands inside another span"),
    ],
)  # fmt: skip
def test_markers_that_do_not_pair_up_reject_the_row_and_say_where(answer: str, complaint: str) -> None:
    outcome = render_one(spans(), talk(("user", "a"), ("assistant", answer)))
    assert outcome.rejection is not None
    assert (outcome.rejection.code, outcome.rejection.message) == ("R025", complaint)


def test_markers_can_be_chosen_and_the_others_are_text() -> None:
    r = spans(span_markers=("[[", "]]"))
    assert learned(r, "a[[b]]c<learn>d") == ["b"]


def test_markers_are_text_where_spans_are_not_asked_for_and_a_finding_says_so() -> None:
    r = renderer()
    outcome = render_one(r, talk(("user", "a"), ("assistant", "<learn>b</learn>")))
    assert learned_text(r, outcome) == "<learn>b</learn><|end|>"
    assert codes(outcome) == ["R024"]


def test_a_span_of_a_user_counts_only_with_a_weight() -> None:
    r = spans()
    ask, answer = Message("user", "a <learn>b</learn> c"), Message("assistant", "<learn>d</learn>")
    outcome = render_one(r, Conversation((ask, answer), ORIGIN))
    assert learned_text(r, outcome) == "d<|end|>"
    assert "<learn>" not in r.tokens.decode(outcome.examples[0].ids)
    assert codes(outcome) == ["R026"]
    weighted = Message("user", ask.content, weight=0.5)
    outcome = render_one(r, Conversation((weighted, answer), ORIGIN, weight=2.0))
    example = outcome.examples[0]
    assert r.tokens.decode(example.ids[example.supervised == 1.0]).strip() == "b"
    assert r.tokens.decode(example.ids[example.supervised == 2.0]) == "d<|end|>"
    assert codes(outcome) == []


def test_an_answer_of_weight_zero_learns_no_span() -> None:
    message = Message("assistant", "<learn>b</learn>", weight=0)
    outcome = render_one(spans(), Conversation((Message("user", "a"), message), ORIGIN))
    assert codes(outcome) == ["R026", "R012"]


# --- what templates do to a text ---


def test_a_template_that_trims_does_not_shift_a_span() -> None:
    r = spans(CHAT.replace("{{ m.content }}", "{{ m.content | trim }}"))
    assert learned(r, "  x <learn>y</learn> z ") == ["y"]
    assert learned(r, "<learn>  x</learn> y\n") == ["x"]
    assert learned(r, "x <learn>y \n</learn>") == ["y<|end|>"]
    assert learned(r, "x <learn>y</learn> \n") == ["y<|end|>"]


def test_a_template_that_escapes_the_text_does_not_shift_a_span() -> None:
    r = spans(CHAT.replace("{{ m.content }}", "{{ m.content | tojson }}"))
    outcome = render_one(r, talk(("user", "q"), ("assistant", "say <learn>yes</learn> now")))
    assert learned_text(r, outcome).strip() == "yes"


def test_a_template_that_writes_another_text_for_other_lengths_is_refused() -> None:
    r = spans(CHAT.replace("{{ m.content }}", "{{ m.content }} {{ m.content | length }}"))
    outcome = render_one(r, talk(("user", "q"), ("assistant", "a<learn> b</learn>")))
    assert outcome.rejection is not None and outcome.rejection.code == "R027"
    assert "message 2" in outcome.rejection.message


def test_a_template_that_writes_an_answer_twice_is_refused() -> None:
    r = spans(CHAT.replace("{{ m.content }}", "{{ m.content }}|{{ m.content }}"))
    outcome = render_one(r, talk(("user", "q"), ("assistant", "a<learn>b</learn>")))
    assert outcome.rejection is not None and outcome.rejection.code == "R027"


def test_control_tokens_that_a_marker_hides_stay_content() -> None:
    r = spans()
    outcome = render_one(r, talk(("user", "q"), ("assistant", "a<|e<learn>nd|></learn> b")))
    end = r.tokens.id_of("<|end|>")
    assert outcome.examples[0].ids.tolist().count(end) == 2
    assert "a<|end|> b" in r.tokens.decode(outcome.examples[0].ids)
    assert learned_text(r, outcome).endswith("nd|>")
    assert codes(outcome) == ["R007"]


def test_a_tokenizer_that_rewrites_text_is_refused_and_not_guessed() -> None:
    tokenizer = tokenizer_of("wordpiece")
    template = ChatTemplate(CHAT, dict(tokenizer.special_tokens_map), "")
    r = Renderer(tokenizer, template, train_on="spans", max_length=99, too_long="drop")
    outcome = render_one(r, talk(("user", "q"), ("assistant", "The <learn>Cat</learn>")))
    assert outcome.rejection is not None and outcome.rejection.code == "R027"


def test_plain_text_has_spans_too() -> None:
    r = spans(None)
    pair = render_one(r, talk(("user", "The sky"), ("assistant", " is <learn>blue.</learn>")))
    assert learned_text(r, pair) == " blue.</s>"
    text = render_one(r, talk(("assistant", "The <learn>cat</learn> sat."), plain=True))
    assert learned_texts(text.examples[0], r.tokens) == [" cat"]


# --- spans beside other settings ---


def test_a_split_conversation_learns_each_span_once() -> None:
    turns = [
        turn for n in range(6) for turn in (("user", f"q{n}"), ("assistant", f"no <learn>a{n}</learn> no"))
    ]
    whole = render_one(spans(), talk(*turns)).examples[0]
    r = spans(max_length=len(whole) // 3, too_long="split")
    outcome = render_one(r, talk(*turns))
    assert len(outcome.examples) > 2 and codes(outcome) == ["R022"]
    shown = "".join(learned_text(r, outcome, part) for part in range(len(outcome.examples)))
    assert [f"a{n}" in shown and shown.count(f"a{n}") for n in range(6)] == [1] * 6
    assert all("<learn>" not in r.tokens.decode(example.ids) for example in outcome.examples)


@pytest.mark.parametrize("kind", [kind for kind in TOKENIZERS if kind != "wordpiece"])
@pytest.mark.parametrize("template", ["chat", "llama 2", "trims", "chatml"])
@settings(max_examples=30)
@given(
    pieces=st.lists(
        st.tuples(
            st.lists(
                st.sampled_from(["The", " cat", "sat", " on", " ", "\n", "é", "😀", ".", "<|end|>"]),
                min_size=1,
                max_size=4,
            ).map("".join),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    ).filter(lambda pieces: any(inside and text.strip() for text, inside in pieces))
)
def test_the_learned_tokens_are_those_that_show_a_character_of_a_span(
    kind: str, template: str, pieces: list[tuple[str, bool]]
) -> None:
    """Compared with a slow way of telling: the text of ever longer prefixes says which characters a token adds."""
    r = renderer_of(kind, template, train_on="spans")
    answer = "".join(f"<learn>{text}</learn>" if inside else text for text, inside in pieces)
    outcome = render_one(r, talk(("user", "q"), ("assistant", answer)))
    if outcome.rejection is not None:  # the vocabulary lacks a sign, or the template trims the only span away
        assert outcome.rejection.code in ("R027", "R012")
        assert any(sign in answer for sign in "😀é\n ") or "<|end|>" in answer
        return
    example = outcome.examples[0]
    completion = example.ids[len(r.prompt_ids([Message("user", "q")])) :].tolist()
    supervised = example.supervised[len(example) - len(completion) :] > 0
    text = "".join(text for text, _ in pieces)
    flags = [is_inside for piece, is_inside in pieces for _ in piece]
    if template == "trims":
        flags = flags[len(text) - len(text.lstrip()) : len(text.rstrip())]
        text = text.strip()
    texts = [r.tokens.text_of(completion[:n]) for n in range(len(completion) + 1)]
    if "\ufffd" in "".join(texts):  # a sign of several tokens; another test is about those
        return
    offset = texts[-1].index(text)
    shown = [len(text_before) - offset for text_before in texts]
    for is_learned, before, after in zip(supervised, shown[:-1], shown[1:], strict=True):
        if max(before, 0) < min(after, len(text)):
            assert is_learned == any(flags[max(before, 0) : min(after, len(text))])


# --- reasoning ---


def thinking(answer: str = "Paris.", reasoning: str = "Hm, let me see.", **fields: Any) -> Conversation:
    return Conversation(
        (Message("user", "q"), Message("assistant", answer, reasoning=reasoning, **fields)), ORIGIN
    )


def test_reasoning_is_learned_unless_it_is_to_be_context() -> None:
    r = renderer(THINKS)
    assert learned_text(r, render_one(r, thinking())) == "<think>\nHm, let me see.\n</think>\n\nParis.<|end|>"
    r = renderer(THINKS, learn_reasoning=False)
    outcome = render_one(r, thinking())
    assert learned_text(r, outcome) == "Paris.<|end|>"
    assert codes(outcome) == []


def test_reasoning_as_context_stands_in_the_ids_as_before() -> None:
    conversation = thinking(weight=0.5)
    whole = render_one(renderer(THINKS), conversation).examples[0]
    context = render_one(renderer(THINKS, learn_reasoning=False), conversation).examples[0]
    assert context.ids.tolist() == whole.ids.tolist()
    assert set(context.supervised.tolist()) == {0.0, 0.5}


def test_a_call_behind_reasoning_is_learned_as_the_answer() -> None:
    call = calling(city="Paris")
    message = Message("assistant", "", reasoning="Ask.", tool_calls=call.tool_calls)
    r = renderer(THINKS, learn_reasoning=False)
    outcome = render_one(r, Conversation((Message("user", "q"), message), ORIGIN))
    text = learned_text(r, outcome)
    assert text.startswith("<tool_call>{") and text.endswith("</tool_call><|end|>")


def test_turns_without_reasoning_are_learned_whole_where_reasoning_is_context() -> None:
    r = renderer(THINKS, learn_reasoning=False)
    conversation = Conversation(
        (*thinking().messages, Message("user", "r"), Message("assistant", "s")), ORIGIN
    )
    assert learned_text(r, render_one(r, conversation)) == "Paris.<|end|>s<|end|>"


def test_reasoning_that_the_template_leaves_out_changes_nothing() -> None:
    r = renderer(CHAT, learn_reasoning=False)
    outcome = render_one(r, thinking())
    assert learned_text(r, outcome) == "Paris.<|end|>"
    assert codes(outcome) == ["R006"]


def test_each_turn_of_a_rewritten_history_learns_its_answer_alone() -> None:
    r = renderer(REWRITES_HISTORY, learn_reasoning=False)
    messages = (*thinking("b", "x").messages, Message("user", "c"), *thinking("d", "y").messages[1:])
    outcome = render_one(r, Conversation(messages, ORIGIN))
    assert [learned_text(r, outcome, part) for part in (0, 1)] == ["b<|end|>", "d<|end|>"]
    assert "[x]" in r.tokens.decode(outcome.examples[0].ids)


def test_an_answer_before_its_reasoning_cannot_be_parted_from_it() -> None:
    backwards = CHAT.replace("{{ m.content }}", "{{ m.content }}{{ m.reasoning_content }}")
    outcome = render_one(renderer(backwards, learn_reasoning=False), thinking())
    assert outcome.rejection is not None and outcome.rejection.code == "R027"


def test_spans_in_reasoning_count_only_where_reasoning_is_learned() -> None:
    conversation = thinking("<learn>Paris</learn>.", "Hm, <learn>let</learn> me see.")
    r = spans(THINKS)
    assert learned_texts(render_one(r, conversation).examples[0], r.tokens) == ["let", "Paris"]
    r = spans(THINKS, learn_reasoning=False)
    assert learned_texts(render_one(r, conversation).examples[0], r.tokens) == ["Paris"]


def test_train_on_all_with_reasoning_as_context_learns_all_but_the_reasoning() -> None:
    r = renderer(THINKS, train_on="all", learn_reasoning=False)
    example = render_one(r, thinking()).examples[0]
    context = r.tokens.decode(example.ids[example.supervised == 0])
    assert context.removeprefix("<|user|>").strip() == "<think>\nHm, let me see.\n</think>"


# --- tool calls ---


def test_parallel_calls_are_learned_as_the_template_writes_them() -> None:
    calls = tuple(calling(name, city="Paris").tool_calls[0] for name in ("weather", "time"))
    messages = (
        Message("user", "q"),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "Sunny."),
        Message("tool", "Noon."),
        Message("assistant", "Sunny at noon."),
    )
    r = renderer(TOOLS)
    outcome = render_one(r, Conversation(messages, ORIGIN))
    first, last = learned_texts(outcome.examples[0], r.tokens)
    assert first.count("<tool_call>") == first.count("</tool_call><|end|>") + 1 == 2
    assert '"weather"' in first and '"time"' in first and first.endswith("<|end|>")
    assert last == "Sunny at noon.<|end|>"


def test_a_call_is_context_where_only_spans_are_learned() -> None:
    call = calling(city="Paris", content="I <learn>ask.</learn>")
    r = spans(TOOLS)
    outcome = render_one(r, Conversation((Message("user", "q"), call), ORIGIN))
    assert learned_texts(outcome.examples[0], r.tokens) == [" ask."]


# --- through the recipe, the ledger and the proof ---


@pytest.mark.parametrize(
    ("settings_", "answers"),
    [
        ({"train_on": "spans"}, ["no <learn>yes</learn> no", "<learn>yes</learn>"]),
        ({"train_on": "spans", "too_long": "split", "max_length": 40}, ["<learn>yes</learn> no"] * 6),
        ({"too_long": "split", "max_length": 40}, ["yes and no"] * 6),
        ({"too_long": "cut_turns", "max_length": 40}, ["yes and no"] * 6),
        ({"too_long": "cut", "max_length": 40}, ["yes and no"] * 6),
        ({"learn_reasoning": False}, ["yes"] * 2),
    ],
)
def test_what_the_policies_make_passes_every_proof(
    tmp_path: Path, settings_: dict[str, Any], answers: list[str]
) -> None:
    tokenizer = make_tokenizer(template=THINKS)
    turns = [
        {"role": role, "content": content, **({"reasoning_content": "hm"} if role == "assistant" else {})}
        for answer in answers
        for role, content in (("user", "q"), ("assistant", answer))
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns}, {"messages": turns[:2]}])
    recipe = make_recipe({"model": "-", "data": str(path), "max_length": 400, **settings_})
    template = ChatTemplate(THINKS, dict(tokenizer.special_tokens_map), "")
    r = Renderer.from_settings(tokenizer, template, recipe, max_length=int(recipe.max_length), positions=None)
    rendering = Rendering(find_sources([str(path)]), r, val_split=0, seed=0)
    tokens = sum(len(example) for _, example in rendering)
    proofs = prove(
        rendering.witness.finish(),
        rendering.ledger.totals(),
        stop_ids=r.stop_ids,
        vocabulary=len(tokenizer),
        tokens=tokens,
    )
    assert [proof.name for proof in proofs if not proof.ok] == []
    fates = [row["fate"] for row in rendering.ledger.to_rows()]
    policy = settings_.get("too_long", "drop")
    assert (
        fates[0] == {"split": "split", "cut_turns": "truncated", "cut": "truncated", "drop": "kept"}[policy]
    )


def test_an_open_end_that_nothing_explains_fails_the_proof() -> None:
    r = spans()
    (outcome,) = r.render([talk(("user", "q"), ("assistant", "<learn>a</learn> b c d"))])
    for wrongly_learned, ok in ((False, True), (True, False)):
        if wrongly_learned:
            outcome.examples[0].supervised[-3] = 1  # a second run, between the span and the end
        witness = Witness(r)
        witness.see(outcome)
        assert answers_end_with_a_stop_token(witness.finish(), r.stop_ids).ok is ok


@pytest.mark.parametrize("markers", ["<a>", ["", "b"], ["a", "a"], ["a", "ab"], ["a", "b", "c"]])
def test_markers_that_cannot_be_told_apart_are_refused_at_the_door(markers: Any) -> None:
    with pytest.raises(UserError, match="span_markers"):
        make_recipe({"model": "-", "data": "-", "span_markers": markers})


def test_markers_may_be_given_as_one_text() -> None:
    assert make_recipe({"model": "-", "data": "-", "span_markers": "[[,]]"}).span_markers == ("[[", "]]")
