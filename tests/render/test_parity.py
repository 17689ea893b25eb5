"""What is compared with serving is every learned turn of every row, whatever is learned of it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.conftest import CHAT, make_tokenizer
from tests.prove import oddrows
from tests.render.helpers import ORIGIN, REWRITES_HISTORY, over, render_one, renderer, talk
from tests.render.test_invariants import TEMPLATES, TOKENIZERS, renderer_of
from tests.render.test_spans import THINKS
from tuition.conversation import Conversation, Message
from tuition.render import Outcome, Renderer, shown
from tuition.render.evidence import Evidence, Witness
from tuition.render.parity import Parity
from tuition.render.serving import Serving
from tuition.render.tokens import Ids

QUESTIONS = ("Who are you?", "And now?", "Where?", "Why?")
ANSWERS = ("A cat.", "Still a cat.", "On the mat.", "It is warm there.")
MODES: dict[str, dict[str, Any]] = {
    "assistant": {},
    "last": {"train_on": "last"},
    "all": {"train_on": "all"},
    "spans": {"train_on": "spans"},
    "no reasoning": {"learn_reasoning": False},
}
PARTLY = ("spans", "no reasoning")


def chat(mode: str, turns: int = 4) -> Conversation:
    """A conversation with thoughts; two words of each answer stand between markers where those mean something."""
    messages = []
    for question, answer in zip(QUESTIONS[:turns], ANSWERS, strict=False):
        if mode == "spans":
            first, *others = answer.split(" ")
            answer = " ".join([f"<learn>{first}</learn>", *others[:-1], f"<learn>{others[-1]}</learn>"])
        thought = "I purr." if mode == "no reasoning" else None
        messages += [Message("user", question), Message("assistant", answer, reasoning=thought)]
    return Conversation(tuple(messages), ORIGIN)


def evidence_of(r: Renderer, outcome: Outcome) -> Evidence:
    witness = Witness(r)
    witness.see(outcome)
    return witness.finish()


def faults(r: Renderer, outcome: Outcome) -> list[str]:
    """What is not as it must be."""
    seen = evidence_of(r, outcome)
    ends = [place for token, (_, place) in seen.ends.items() if token not in r.stop_ids]
    named = (seen.unlike_serving, seen.unlike_written, seen.misplaced, seen.forged, seen.unsound, *ends)
    return [fault for fault in named if fault]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_what_is_sound_is_found_sound_in_every_mode(kind: str, template: str) -> None:
    base = renderer_of(kind, template)
    for mode, options in MODES.items():
        settings = {"train_on": "assistant", "max_length": 500, "too_long": "drop", **options}
        r = Renderer(base.tokens.tokenizer, base.template, **settings)
        outcome = render_one(r, chat(mode))
        assert faults(r, outcome) == [], mode
        assert evidence_of(r, outcome).answers == (1 if mode == "last" else 4) or not outcome.examples


def test_long_rows_are_compared_one_by_one_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    r, asked, whole = renderer(THINKS), list[int](), Serving.ids_along
    outcomes = list(r.render([replace(chat("assistant", turns), origin=ORIGIN) for turns in (4, 1, 3)]))

    def counted(self: Serving, chains: Any) -> list[list[Ids]]:
        asked.append(len(chains))
        return whole(self, chains)

    monkeypatch.setattr(Serving, "ids_along", counted)
    together = Parity(r).compare(outcomes)
    monkeypatch.setattr(shown, "_IDS_AT_ONCE", 1)
    assert Parity(r).compare(outcomes) == together
    assert (together.answers, asked) == (8, [3, 1, 1, 1])


@pytest.mark.parametrize("mode", MODES)
def test_no_change_of_what_is_learned_goes_unseen(mode: str) -> None:
    r = renderer(THINKS, **MODES[mode])
    outcome = render_one(r, chat(mode))
    (example,) = outcome.examples
    chance = random.Random(0)
    assert faults(r, outcome) == []
    for place in np.flatnonzero(example.supervised).tolist():
        ids, supervised = example.ids.copy(), example.supervised.copy()
        ids[place] = chance.choice([token for token in range(5, 300) if token != ids[place]])
        assert faults(r, replace(outcome, examples=(replace(example, ids=ids),))), place
        supervised[place] = 2
        assert faults(r, replace(outcome, examples=(replace(example, supervised=supervised),)))


@pytest.mark.parametrize("mode", MODES)
def test_no_token_of_context_is_learned_unseen(mode: str) -> None:
    r = renderer(THINKS, **MODES[mode])
    outcome = render_one(r, chat(mode))
    (example,) = outcome.examples
    last = np.flatnonzero(example.supervised)[-1]
    for place in np.flatnonzero(example.supervised[:last] == 0).tolist()[1:]:
        supervised = example.supervised.copy()
        supervised[place] = 1
        spoiled = replace(outcome, examples=(replace(example, supervised=supervised),))
        assert faults(r, spoiled) or (mode in PARTLY and may_be_meant(r, int(example.ids[place])))


def may_be_meant(r: Renderer, token: int) -> bool:
    """White space at the border of a part belongs to either side, and an empty span at a turn's end learns its stop."""
    return token in r.tokens.special_ids or not r.tokens.decode([token]).strip()


def test_an_early_turn_of_a_long_conversation_is_compared_like_the_last() -> None:
    r = renderer(max_length=9000)
    turns = [turn for n in range(60) for turn in (("user", f"question {n}"), ("assistant", f"answer {n}"))]
    outcome = render_one(r, talk(*turns))
    assert evidence_of(r, outcome).answers == 60
    (example,) = outcome.examples
    ids = example.ids.copy()
    ids[np.flatnonzero(example.supervised)[0]] += 1
    assert faults(r, replace(outcome, examples=(replace(example, ids=ids),)))


def test_a_turn_that_stands_in_none_of_the_examples_is_missed() -> None:
    r = renderer(REWRITES_HISTORY)
    outcome = render_one(r, chat("no reasoning"))
    assert len(outcome.examples) == 4
    assert faults(r, outcome) == []
    fewer = replace(
        outcome,
        examples=outcome.examples[1:],
        shown=outcome.shown[1:],
        open_ends=outcome.open_ends[1:],
    )
    assert evidence_of(r, fewer).unlike_serving == "rows.jsonl:1 (message 2)"


@pytest.mark.parametrize("too_long", ["drop", "cut", "split"])
@pytest.mark.parametrize("bos", [False, True])
def test_running_text_is_compared_and_so_are_its_windows(too_long: Any, bos: bool) -> None:
    r = over(
        make_tokenizer(bos=bos, template=CHAT), max_length=12 if too_long != "drop" else 99, too_long=too_long
    )
    text = Conversation((Message("assistant", "The cat sat on the mat, " * 5),), ORIGIN, plain=True, weight=2)
    outcome = render_one(r, text)
    assert (faults(r, outcome), evidence_of(r, outcome).answers) == ([], 1)
    first = outcome.examples[0]
    ids, supervised = first.ids.copy(), first.supervised.copy()
    ids[3] += 1
    supervised[3] = 0
    for spoiled in (replace(first, ids=ids), replace(first, supervised=supervised)):
        assert faults(r, replace(outcome, examples=(spoiled, *outcome.examples[1:])))


# --- tokenising what goes on from a control token ---


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_texts_that_go_on_are_tokenised_as_if_they_were_whole(kind: str) -> None:
    r = renderer_of(kind, "chatml")
    serving = Serving(r)
    given = chat("assistant")
    texts = [text for n in (1, 3, 5, 7) for text in (*serving.texts(given, [n]), "something else")]
    for chain in (texts, texts[::-1]):
        for ids, whole in zip(serving.ids_along([chain])[0], serving.ids(chain), strict=True):
            assert ids.tolist() == whole.tolist()


def test_a_tokenizer_that_looks_beyond_control_tokens_is_given_whole_texts() -> None:
    class Counting(Serving):
        """Its first token says how long the text is."""

        def ids(self, texts: Any, *, plain: bool = False) -> list[Ids]:
            return [
                np.append(np.int32(len(text)), ids).astype(np.int32)
                for text, ids in zip(texts, super().ids(texts, plain=plain), strict=True)
            ]

    r = renderer()
    texts = ["<|user|>\na<|end|>\n", "<|user|>\na<|end|>\n<|user|>\nb<|end|>\n"]
    assert [ids[0] for ids in Counting(r).ids_along([texts])[0]] == [len(text) for text in texts]


def long_chat() -> Conversation:
    return talk(*[(role, f"What is {n} and {n}?") for n in range(100) for role in ("user", "assistant")])


def test_a_long_row_is_tokenised_whole_a_few_times_and_not_once_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    r, characters, ids = renderer(max_length=10_000), list[int](), Serving.ids

    def counted(self: Serving, texts: Any, **how: Any) -> list[Ids]:
        characters.extend(map(len, texts))
        return ids(self, texts, **how)

    monkeypatch.setattr(Serving, "ids", counted)
    outcome = render_one(r, long_chat())
    written = len(Serving(r).finished(outcome.conversation, 199))
    assert evidence_of(r, outcome).answers == 100
    assert sum(characters) < 5 * written


def test_a_long_row_that_is_joined_wrongly_anywhere_is_given_whole() -> None:
    class Odd(Serving):
        """The first turn of a text that has others is tokenised otherwise."""

        def ids(self, texts: Any, *, plain: bool = False) -> list[Ids]:
            made = super().ids(texts, plain=plain)
            return [
                np.append(np.int32(1), ids[1:]) if text.count("<|user|>") > 1 else ids
                for text, ids in zip(texts, made, strict=True)
            ]

    r = renderer()
    serving = Odd(r)
    texts = serving.texts(long_chat(), range(1, 200, 2))
    for ids, whole in zip(serving.ids_along([texts])[0], serving.ids(texts), strict=True):
        assert np.array_equal(ids, whole)


# Writes a thought in a channel of its own, so that two control tokens end a turn that says nothing behind it.
CHANNELS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content %}<|system|>{{ m.reasoning_content }}<|tool|>"
    "{% endif %}{{ m.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Ends the whole conversation with a token more.
ENDS_TWICE = CHAT + "{% if not add_generation_prompt %}</s>{% endif %}"


def test_a_turn_that_several_control_tokens_end_is_sound() -> None:
    r = renderer(CHANNELS, learn_reasoning=False)
    answers = Message("assistant", " ", reasoning="I purr."), Message("assistant", "Purr.", reasoning="Hm.")
    asked = Message("user", "Who?"), Message("user", "And now?")
    row = Conversation((asked[0], answers[0], asked[1], answers[1]), ORIGIN)
    assert faults(r, render_one(r, row)) == []


def test_what_follows_the_last_learned_message_is_not_compared() -> None:
    r = renderer(ENDS_TWICE, train_on="all")
    row = Conversation((Message("user", "Who are you?"), Message("assistant", "A cat.", weight=0)), ORIGIN)
    assert faults(r, render_one(r, row)) == []


def test_a_blank_answer_behind_a_thought_is_sound() -> None:
    r = renderer(CHANNELS.replace(" | trim", ""), learn_reasoning=False, train_on="all")
    answer = Message("assistant", "\n\n", reasoning="Hm.", weight=0.5)
    row = Conversation((Message("user", "Who?"), answer, Message("user", "And now?")), ORIGIN)
    assert faults(r, render_one(r, row)) == []


def test_a_span_of_white_space_in_a_thought_is_sound() -> None:
    r = renderer(CHANNELS.replace("<|system|>{{", "[{{").replace("<|tool|>", "]"), train_on="spans")
    answer = Message("assistant", "<learn>I</learn> purr.", reasoning="<learn>\n</learn> ")
    assert faults(r, render_one(r, Conversation((Message("user", "Who?"), answer), ORIGIN))) == []


@pytest.mark.parametrize("max_length", [15, 16, 18, 19])
def test_a_blank_beginning_cut_within_a_character_is_sound(max_length: int) -> None:
    base = renderer_of("byte-level", "chat")
    settings = {"train_on": "assistant", "max_length": max_length, "too_long": "cut"}
    r = Renderer(base.tokens.tokenizer, base.template, **settings)
    outcome = render_one(r, talk(("user", "Who?"), ("assistant", "  \n \n\n日本 ")))
    assert outcome.examples
    assert faults(r, outcome) == []


@pytest.mark.parametrize("max_length", range(30, 44))
def test_an_answer_whose_next_question_is_cut_away_is_sound(max_length: int) -> None:
    base = renderer_of("metaspace unigram", "chatml")
    r = Renderer(base.tokens.tokenizer, base.template, train_on="all", max_length=max_length, too_long="cut")
    answer = Message("assistant", "Paris ", weight=0.5)
    row = Conversation((Message("user", "<b> the end "), answer, Message("user", "- list nice." * 9)), ORIGIN)
    assert faults(r, render_one(r, row)) == []


def test_odd_rows_are_found_sound() -> None:
    assert oddrows.prove(30).survived  # PARTS=rows make prove: 5,000
