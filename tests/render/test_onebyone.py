"""Templates that write one message after the other are run once for a long conversation, all others once a turn."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import CHAT
from tests.render.helpers import render_one, renderer, talk
from tests.render.test_invariants import TEMPLATES
from tuition.render.template import ChatTemplate
from tuition.render.writer import Writer

ONE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
ONE_BY_ONE = {
    **{name: source for name, source in TEMPLATES.items() if name in ("chat", "chatml", "llama 2", "trims")},
    "by another name": "{% set some = messages %}{{ some[0].role }}" + ONE.replace("in messages", "in some"),
    "counts": ONE.replace("<|end|>", "{{ loop.index }}{{ ', ' if not loop.first }}"),
    "remembers": "{% set ns = namespace(n=0) %}"
    + ONE.replace("<|end|>", "{% set ns.n = ns.n + m.content | length %}{{ ns.n }}")
    + "{% if add_generation_prompt %}<|assistant|>{% endif %}{{ bos_token }}",
}
LOOKS_ELSEWHERE = {
    "at the last": ONE.replace("<|end|>", "{{ '' if loop.last else ',' }}"),
    "at how many": "{{ messages | length }}" + ONE,
    "at the end": "{{ messages[-1].role }}" + ONE,
    "at the second": "{{ messages[1].role }}" + ONE,
    "at the next": ONE.replace("<|end|>", "{{ messages[loop.index].role }}"),
    "at a length": ONE.replace("<|end|>", "{{ loop['length'] }}"),
    "behind, at what it has seen": "{% set ns = namespace(n='') %}"
    + ONE.replace("<|end|>", "{% set ns.n = m.role %}") + "{{ ns.n }}",
    "behind, at another name": "{% set some = messages %}" + ONE.replace("in messages", "in some") + "{{ some }}",
    "at a part": "{% set messages = messages[1:] %}" + ONE,
    "twice": ONE + ONE,
    "at some": ONE.replace("in messages", "in messages if m.role == 'user'"),
    "from within": "{% if messages %}" + ONE + "{% endif %}",
    "until one": ONE.replace("<|end|>", "{% if m.content == 'no' %}{% break %}{% endif %}"),
    "through a macro": "{% macro last() %}{{ messages[-1].role }}{% endmacro %}" + ONE + "{{ last() }}",
}  # fmt: skip


def conversation() -> list[dict[str, Any]]:
    return [{"role": role, "content": f" {n} é "} for n in range(10) for role in ("user", "assistant")]


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_a_template_that_writes_one_by_one_is_told_from_one_run(name: str) -> None:
    template = ChatTemplate(ONE_BY_ONE[name], {"bos_token": "<s>"}, name)
    for ask in (True, False):
        along = template.along(conversation(), [], add_generation_prompt=ask)
        assert along is not None
        for count in range(1, 21):
            alone = template.text(conversation()[:count], [], add_generation_prompt=ask)
            assert along.first(count) == alone


@pytest.mark.parametrize("name", LOOKS_ELSEWHERE)
def test_a_template_that_looks_elsewhere_is_run_for_each_turn(name: str) -> None:
    template = ChatTemplate(LOOKS_ELSEWHERE[name], {}, name)
    assert template.along(conversation(), [], add_generation_prompt=True) is None


def test_a_long_row_takes_a_few_runs_and_has_the_ids_of_one_that_took_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = talk(*[(role, f"What is {n}?") for n in range(50) for role in ("user", "assistant")])
    runs, text = list[int](), ChatTemplate.text
    monkeypatch.setattr(ChatTemplate, "text", lambda *given, **how: runs.append(1) or text(*given, **how))
    few = render_one(renderer(CHAT, max_length=10_000), long)
    assert len(runs) < 10
    monkeypatch.setattr(Writer, "begin", lambda *given, **how: None)
    many = render_one(renderer(CHAT, max_length=10_000), long)
    assert len(runs) > 100
    assert few.examples[0].ids.tolist() == many.examples[0].ids.tolist()
    assert few.examples[0].supervised.tolist() == many.examples[0].supervised.tolist()


def test_a_run_that_is_told_wrongly_is_seen_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuition.render.onebyone import Along

    writer = Writer(ChatTemplate(ONE, {}, ""))
    monkeypatch.setattr(Along, "first", lambda self, count: "something else")
    messages = conversation()
    writer.begin(messages, [], turns=10)
    assert writer.first(messages, [], 3, add_generation_prompt=False) == writer.text(
        messages[:3], [], add_generation_prompt=False
    )
