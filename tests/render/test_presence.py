"""Nothing vanishes without a finding."""

from __future__ import annotations

import pytest

from tests.conftest import CHAT
from tests.render.helpers import ORIGIN, TOOLS, calling, codes, learned_text, render_one, renderer, talk
from tuition.conversation import Conversation, Message
from tuition.render.choosing import CHATML

DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}" + CHAT.removeprefix("{% for m in messages %}")
# As DeepSeek's: joins the arguments to text, so they must be JSON already.
ARGUMENTS_AS_TEXT = TOOLS.replace("c.function | tojson", "c.function.name + ' ' + c.function.arguments")


@pytest.mark.parametrize("system", ["Be kind", "user", "a", "end"])
def test_a_system_prompt_is_missed_even_where_its_words_stand_elsewhere(system: str) -> None:
    outcome = render_one(
        renderer(DROPS_SYSTEM), talk(("system", system), ("user", f"{system} to me"), ("assistant", "b"))
    )
    assert codes(outcome) == ["R004"]
    assert "message 1" in outcome.findings[0].message


def test_a_message_that_repeats_another_is_missed_too() -> None:
    template = "{% for m in messages %}{% if loop.index != 3 %}" + CHAT[23:].replace(
        "{% endfor %}", "{% endif %}{% endfor %}"
    )
    turns = [("user", "Why?"), ("assistant", "So."), ("user", "Why?"), ("assistant", "So.")]
    outcome = render_one(renderer(template, train_on="last"), talk(*turns))
    assert ("R004", "message 3") in [(f.code, f.message[-9:]) for f in outcome.findings]


def test_trimming_is_told_from_leaving_out() -> None:
    r = renderer(CHAT.replace("{{ m.content }}", "{{ m.content | trim }}"))
    outcome = render_one(r, talk(("user", " a "), ("assistant", "a")))
    assert codes(outcome) == ["R003"]


def test_reasoning_that_the_template_ignores_is_named() -> None:
    messages = (Message("user", "a"), Message("assistant", "a b", reasoning="a b"))
    assert codes(render_one(renderer(), Conversation(messages, ORIGIN))) == ["R006"]


@pytest.mark.parametrize("template", [CHAT, CHATML])
def test_a_template_that_ignores_tool_calls_refuses_the_row(template: str) -> None:
    messages = (Message("user", "a"), calling("weather", "I call weather with city Paris.", city="Paris"))
    outcome = render_one(renderer(template), Conversation(messages, ORIGIN))
    assert outcome.rejection is not None and outcome.rejection.code == "R017"


@pytest.mark.parametrize("lost", ["name", "arguments"])
def test_a_call_without_its_name_or_arguments_refuses_the_row(lost: str) -> None:
    kept = "arguments" if lost == "name" else "name"
    r = renderer(TOOLS.replace("c.function | tojson", f"c.function.{kept} | tojson"))
    outcome = render_one(r, Conversation((Message("user", "a"), calling(city="Paris")), ORIGIN))
    assert outcome.rejection is not None and outcome.rejection.code == "R017"


def test_calls_are_learned_as_the_template_writes_them() -> None:
    r = renderer(TOOLS)
    messages = (
        Message("user", "a"),
        calling(city="Paris", days=3, live=True, unit=None, nested={"x": ['"q"']}),
    )
    outcome = render_one(r, Conversation(messages, ORIGIN))
    assert codes(outcome) == []
    assert learned_text(r, outcome).endswith('"nested": {"x": ["\\"q\\""]}}}</tool_call><|end|>')


def test_a_tool_that_is_not_shown_is_named() -> None:
    tool = {"type": "function", "function": {"name": "user", "parameters": {}}}
    assert codes(render_one(renderer(), talk(("user", "a"), ("assistant", "b"), tools=(tool,)))) == ["R005"]
    assert codes(render_one(renderer(TOOLS), talk(("user", "a"), ("assistant", "b"), tools=(tool,)))) == []


def test_a_template_that_joins_arguments_to_text_is_given_json() -> None:
    r = renderer(ARGUMENTS_AS_TEXT)
    messages = (
        Message("user", "a"),
        calling(city="Paris"),
        Message("tool", "sunny"),
        Message("assistant", "b"),
    )
    outcome = render_one(r, Conversation(messages, ORIGIN))
    assert codes(outcome) == []
    assert '<tool_call>weather {"city": "Paris"}</tool_call>' in learned_text(r, outcome)
    served = r.prompt_ids(messages[:3]).tolist()
    assert outcome.examples[0].ids[: len(served)].tolist() == served


TRIMS_BEHIND_BLANKS = (
    "{% for m in messages %}<|{{ m.role }}|>\n\n{% if m.reasoning_content %}[ {{ m.reasoning_content.strip() }}]"
    "{% endif %}{{ m.content.strip() }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n\n{% endif %}"
)


def trims(*messages: Message) -> list[str]:
    outcome = render_one(renderer(TRIMS_BEHIND_BLANKS), Conversation(messages, ORIGIN))
    return [found.message for found in outcome.findings if found.code == "R003"]


def test_white_space_that_the_template_writes_itself_does_not_hide_that_it_trims_an_answer() -> None:
    assert trims(Message("user", "q"), Message("assistant", "\n\nParis")) == [
        "the template trims white space off message 2"
    ]


def test_the_same_words_elsewhere_do_not_hide_that_an_answer_is_trimmed() -> None:
    assert trims(Message("user", "say  cat"), Message("assistant", " cat")) == [
        "the template trims white space off message 2"
    ]


def test_trimmed_reasoning_is_named() -> None:
    assert trims(Message("user", "q"), Message("assistant", "a", reasoning=" hm")) == [
        "the template trims white space off the reasoning of message 2"
    ]


def test_text_without_white_space_around_it_is_not_said_to_be_trimmed() -> None:
    assert trims(Message("user", "q"), Message("assistant", "a b", reasoning="h m")) == []
