"""Special tokens come from the template only."""

from __future__ import annotations

import pytest

from tests.conftest import CHAT, make_tokenizer
from tests.render.helpers import ORIGIN, TOOLS, calling, codes, learned_text, over, render_one, renderer, talk
from tuition.conversation import Conversation, Message
from tuition.errors import UserError
from tuition.render import Renderer

MARKUP = ("<tool_call>", "</tool_call>")
EVERY_MARK = "".join(chr(point) for point in range(0xFDD0, 0xFDF0))


def count(r: Renderer, ids: list[int], token: str) -> int:
    return ids.count(r.tokens.id_of(token))


def test_keys_of_tool_arguments_and_schemas_forge_no_control_token() -> None:
    r = renderer(TOOLS, markup=MARKUP)
    tool = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"<|end|>": {"type": "string"}}},
    }
    messages = (Message("user", "a"), calling(**{"x<|end|>": {"<|user|>": 1}}))
    outcome = render_one(r, Conversation(messages, ORIGIN, tools=(tool,)))
    ids = outcome.examples[0].ids.tolist()
    assert [count(r, ids, token) for token in ("<|end|>", "<|user|>")] == [3, 1]
    assert '{"x<|end|>": {"<|user|>": 1}}' in learned_text(r, outcome)
    assert codes(outcome) == ["R007"]


def test_a_user_cannot_forge_the_markup_that_the_template_writes_and_the_model_may_answer_with_it() -> None:
    r = renderer(TOOLS, markup=MARKUP)
    outcome = render_one(r, talk(("user", "say <tool_call>"), ("assistant", "<tool_call>{}</tool_call>")))
    ids, supervised = outcome.examples[0].ids, outcome.examples[0].supervised
    assert count(r, ids[supervised == 0].tolist(), "<tool_call>") == 0
    assert count(r, ids[supervised > 0].tolist(), "<tool_call>") == 1
    assert "say <tool_call>" in r.tokens.decode(ids)


def test_added_tokens_that_the_template_never_writes_are_ordinary_words() -> None:
    r = renderer(markup=("kilogram",))
    outcome = render_one(r, talk(("user", "one kilogram"), ("assistant", "b")))
    assert count(r, outcome.examples[0].ids.tolist(), "kilogram") == 1
    assert codes(outcome) == []


def test_two_fields_side_by_side_forge_nothing() -> None:
    r = renderer("{% for m in messages %}{{ m.reasoning_content }}{{ m.content }}<|end|>{% endfor %}")
    messages = (Message("user", "a"), Message("assistant", "|> so", reasoning="I think <|end"))
    outcome = render_one(r, Conversation(messages, ORIGIN))
    assert count(r, outcome.examples[0].ids.tolist(), "<|end|>") == 2
    assert "I think <|end|> so" in r.tokens.decode(outcome.examples[0].ids)


def test_a_field_that_ends_like_a_control_token_begins_is_left_alone() -> None:
    outcome = render_one(renderer(), talk(("user", "a <"), ("assistant", "b <|end")))
    assert codes(outcome) == []


@pytest.mark.parametrize("bos", [False, True])
def test_plain_prompts_are_cut_exactly_as_training_cuts_them(bos: bool) -> None:
    r = over(make_tokenizer(template=None, bos=bos), auto=False)
    example = render_one(r, talk(("user", "The </s> and"), ("assistant", " more"))).examples[0]
    served = r.prompt_ids([Message("user", "The </s> and")]).tolist()
    assert served == example.ids[: len(served)].tolist()
    assert count(r, served, "</s>") == 0
    assert example.supervised[len(served)] == 1


def test_chat_prompts_are_cut_exactly_as_training_cuts_them() -> None:
    r = renderer(TOOLS, markup=MARKUP)
    conversation = talk(("user", "<|end|> and <tool_call>"), ("assistant", "b"))
    example = render_one(r, conversation).examples[0]
    served = r.prompt_ids(conversation.messages[:1]).tolist()
    assert served == example.ids[: len(served)].tolist()
    assert example.supervised[len(served)] == 1


@pytest.mark.parametrize("auto", [False, True])
def test_content_that_cannot_be_kept_apart_is_never_served(auto: bool) -> None:
    r = renderer() if auto else renderer(None)
    messages = [Message("user", f"{EVERY_MARK}<s>")]
    assert codes(render_one(r, talk(("user", f"{EVERY_MARK}<s>"), ("assistant", "b")))) == ["R008"]
    with pytest.raises(UserError, match="every mark"):
        r.prompt_ids(messages)


def test_a_mark_that_the_template_spells_out_refuses_the_row() -> None:
    r = renderer(CHAT.replace("{{ m.content }}", "{{ m.content | tojson(ensure_ascii=true) }}"))
    assert codes(render_one(r, talk(("user", "x<|end|>"), ("assistant", "b")))) == ["R007", "R008"]
    with pytest.raises(UserError, match="cannot be cut"):
        r.prompt_ids([Message("user", "x<|end|>")])


def test_full_width_signs_do_not_become_a_token_by_normalising() -> None:
    from tokenizers import normalizers

    tokenizer = make_tokenizer(template=TOOLS)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_tokens(["<tool_call>"])
    outcome = render_one(over(tokenizer), talk(("user", "＜tool_call＞"), ("assistant", "b")))
    assert codes(outcome) == ["R008"]


def test_prompts_may_be_asked_for_while_rows_are_rendered() -> None:
    r = renderer()
    rows = [talk(("user", f"{n} <|end|>"), ("assistant", "b")) for n in range(3)]
    alone = [outcome.examples[0].ids.tolist() for outcome in r.render(rows)]
    between = [
        (r.prompt_ids(rows[0].messages[:1]), outcome)[1].examples[0].ids.tolist()
        for outcome in r.render(rows)
    ]
    assert between == alone
