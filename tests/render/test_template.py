"""Templates are somebody else's programs: chosen in the open, run within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import CHAT, make_tokenizer
from tests.render.helpers import codes, over, render_one, renderer, talk
from tuition.conversation import Message
from tuition.errors import UserError
from tuition.render import adopt_template, bounds, choose_template, template


def base_tokenizer(*, bos: bool) -> Any:
    tokenizer = make_tokenizer(template=None, bos=bos)
    adopt_template(tokenizer, choose_template("auto", tokenizer))
    return tokenizer


def test_chatml_begins_with_one_bos_where_plain_text_does() -> None:
    tokenizer = base_tokenizer(bos=True)
    ids = render_one(over(tokenizer), talk(("user", "a"), ("assistant", "b"))).examples[0].ids.tolist()
    assert ids[:2] == tokenizer.convert_tokens_to_ids(["<s>", "<|im_start|>"])
    assert ids.count(tokenizer.bos_token_id) == 1
    served = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True, return_dict=False
    )
    assert served == ids[: len(served)]


def test_chatml_begins_with_no_bos_where_plain_text_does_not() -> None:
    tokenizer = base_tokenizer(bos=False)
    ids = over(tokenizer).prompt_ids([Message("user", "a")]).tolist()
    assert tokenizer.bos_token_id not in ids


def test_named_templates_without_a_default_are_not_guessed_at() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"tool_use": CHAT, "rag": CHAT}
    with pytest.raises(UserError, match=r"'rag', 'tool_use'.*--chat-template FILE"):
        choose_template("auto", tokenizer)


def test_a_template_from_a_file_becomes_the_default_among_named_ones() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": CHAT, "rag": "x"}
    adopt_template(tokenizer, template.ChatTemplate("mine", {}, "a file"))
    assert tokenizer.chat_template == {"default": "mine", "rag": "x"}


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 // 0 }}",
        "{{ 10.0 ** 1000 }}",
        "{{ none.x.y }}",
        "{{ [][1].x }}",
        "{% if %}",
        "{{ 'a' * 10**12 }}",
    ],
)
def test_whatever_a_template_raises_is_its_refusal(source: str) -> None:
    assert codes(render_one(renderer(source), talk(("user", "a"), ("assistant", "b")))) == ["R001"]


def test_a_template_that_writes_without_bound_is_refused() -> None:
    outcome = render_one(renderer("{{ 'a' * 5000000 }}"), talk(("user", "a"), ("assistant", "b")))
    assert outcome.rejection is not None
    assert "5,000,000 characters" in outcome.rejection.message


def test_a_template_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LIMIT_SECONDS", 0.2)
    monkeypatch.setattr(bounds, "_LIMIT_BYTES", 2**60)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    outcome = render_one(renderer(endless), talk(("user", "a"), ("assistant", "b")))
    assert outcome.rejection is not None
    assert "longer than 0.2 seconds" in outcome.rejection.message


THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' and not enable_thinking|default(true) %}"
    "<think></think>{% endif %}{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{{ '<think>' if enable_thinking|default(true) else '<think></think>' }}"
    "{% endif %}"
)


def with_values(**given: Any) -> Any:
    tokenizer = make_tokenizer(template=THINKS)
    adopt_template(tokenizer, choose_template("auto", tokenizer, given))
    return tokenizer


def test_values_for_the_template_hold_in_training_and_in_every_server() -> None:
    tokenizer = with_values(enable_thinking=False)
    (example,) = render_one(over(tokenizer), talk(("user", "a"), ("assistant", "b"))).examples
    messages = [{"role": "user", "content": "a"}]
    served = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    asked = make_tokenizer(template=THINKS).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, enable_thinking=False
    )
    assert served == asked == example.ids.tolist()[: len(served)]


def test_who_serves_may_still_give_another_value() -> None:
    text = with_values(enable_thinking=False).apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True, tokenize=False, enable_thinking=True
    )
    assert text.endswith("<|assistant|>\n<think>")


def test_a_value_that_the_template_does_not_read_is_refused_and_those_it_reads_are_named() -> None:
    with pytest.raises(UserError, match=r"does not read 'enable_thinkin'.*It reads enable_thinking"):
        with_values(enable_thinkin=False)


@pytest.mark.parametrize("value", ["é 😀", 'a "quoted" \\ line\n', "%} {# }}", "\x1f\u2028"])
def test_a_text_given_to_the_template_arrives_as_it_is(value: str) -> None:
    given = template.ChatTemplate("{{ y }}", {}, "a test").with_values({"y": value})
    assert given.text([{"role": "user", "content": "a"}], [], add_generation_prompt=False) == value


def test_the_head_of_values_changes_nothing_else_in_the_text() -> None:
    messages = [{"role": "user", "content": "a"}]
    for source in ("  \n x {{ y }}", "\n\n{{ y }}", "{%- if y %} z{% endif %}\n"):
        chosen = template.ChatTemplate(source, {}, "a test")
        given = chosen.with_values({"y": "1"})
        plain = source.replace("{{ y }}", "1").replace("if y", "if '1'")
        expected = template.ChatTemplate(plain, {}, "").text(messages, [], add_generation_prompt=False)
        assert given.text(messages, [], add_generation_prompt=False) == expected
