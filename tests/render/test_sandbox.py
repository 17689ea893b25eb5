"""A template that would take too long or make too much is refused, in any thread, before it does."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_tokenizer
from tests.render.helpers import renderer, talk
from tuition.conversation import Message
from tuition.errors import UserError
from tuition.render import bounds
from tuition.render.template import ChatTemplate, TemplateRefusal
from tuition.render.writer import Writer

ASK = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A cat."}]
DOUBLED = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = MORE %}{% endfor %}"

ATTACKS = {
    "a text multiplied": "{{ 'a' * 10**10 }}",
    "a text multiplied by what is computed": "{% set n = messages|length * 5000000000 %}{{ 'a' * n }}",
    "a list multiplied": "{{ ([1] * 10**9)|length }}",
    "a list of a range": "{{ range(10**9)|list }}",
    "a range in a range": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a filtered range in a range": "{% for a in range(99999) %}{% for b in range(99999) if false %}x{% endfor %}{% endfor %}",
    "a number in a text's field": "{{ '%1000000000d'|format(1) }}",
    "a number in a field of percent": "{{ '%1000000000d' % 1 }}",
    "a width that a value names": "{{ '%*d' % (10**9, 1) }}",
    "a field of format": "{{ '{:>1000000000}'.format('a') }}",
    "a field of format_map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "a field whose width is a field": "{{ '{:{}}'.format('a', 10**9) }}",
    "many fields": "{{ ('%s' * 9999) % ((messages[0].content * 9999,) * 9999) }}",
    "center": "{{ messages[0].content.center(10**9) }}",
    "ljust": "{{ 'a'.ljust(width) if width else 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "the filter center": "{{ 'a'|center(1000000000) }}",
    "the filter center of what is not constant": "{{ messages[0].content|center(10**9) }}",
    "ljust of an escaped text": "{{ ('a'|escape).ljust(10**9) }}",
    "expandtabs": "{{ '\t\t\t'.expandtabs(10**9) }}",
    "to_bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a power of what is computed": "{{ (messages|length + 7) ** (10**9) }}",
    "a number squared often": DOUBLED.replace("START", "9").replace("MORE", "ns.x * ns.x"),
    "a text doubled by +": DOUBLED.replace("START", "'a'").replace("MORE", "ns.x + ns.x"),
    "a text doubled by ~": DOUBLED.replace("START", "'a'").replace("MORE", "ns.x ~ ns.x"),
    "a text doubled by join": DOUBLED.replace("START", "'aa'").replace("MORE", "[ns.x, ns.x]|join"),
    "a text doubled by the method join": DOUBLED.replace("START", "'aa'").replace(
        "MORE", "ns.x.join([ns.x, ns.x])"
    ),
    "a text doubled by format": DOUBLED.replace("START", "'a'").replace("MORE", "'{0}{0}'.format(ns.x)"),
    "a text doubled by replace": DOUBLED.replace("START", "'aa'").replace("MORE", "ns.x|replace('a', 'aa')"),
    "a text doubled by the method replace": DOUBLED.replace("START", "'aa'").replace(
        "MORE", "ns.x.replace('a', 'aa')"
    ),
    "a text doubled by a block": "{% set ns = namespace(x='a') %}{% for i in range(60) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "a text doubled by macros": "{% macro d(n) %}{% if n %}{{ d(n - 1) }}{{ d(n - 1) }}{% else %}a{% endif %}{% endmacro %}{{ d(60) }}",
    "a list doubled": DOUBLED.replace("START", "[1]").replace("MORE", "ns.x + ns.x"),
    "a list that holds itself twice, written out": DOUBLED.replace("START", "[1]").replace(
        "MORE", "[ns.x, ns.x]"
    )
    + "{{ ns.x }}",
    "a list that holds itself twice, as JSON": DOUBLED.replace("START", "[1]").replace("MORE", "[ns.x, ns.x]")
    + "{{ ns.x|tojson }}",
    "a list that holds itself twice, joined": DOUBLED.replace("START", "[1]").replace("MORE", "[ns.x, ns.x]")
    + "{{ ns.x ~ '' }}",
    "lists that hold themselves twice, compared": DOUBLED.replace("START", "[[1], [1]]").replace(
        "MORE", "[[ns.x[0], ns.x[0]], [ns.x[1], ns.x[1]]]"
    )
    + "{{ ns.x[0] == ns.x[1] }}",
    "a tuple that holds itself twice, looked up": DOUBLED.replace("START", "(1,)").replace(
        "MORE", "(ns.x, ns.x)"
    )
    + "{{ {}[ns.x] }}",
    "an indent": "{{ ('a\n' * 9999)|indent(9999) }}",
    "the indent of JSON": "{{ [1, 2]|tojson(indent=10**9) }}",
    "a filter that fills up": "{{ [1]|batch(10**9, 'a')|list }}",
    "slices without end": "{{ [1]|slice(10**9)|list }}",
    "words that are wrapped slowly": "{{ ('a' * 900000)|wordwrap(1) }}",
    "the filter round": "{{ 1.5|round(10**9, 'ceil') }}",
    "a namespace that holds itself": "{% set ns = namespace(a=1) %}{% set ns.a = [ns, ns] %}{{ ns }}",
    "endless filler": "{{ lipsum(n=10**9) }}",
    "a program as long as a book": "{{ messages[0].content }}" * 5000,
    "a text that is another one the next time": "{{ [1, 2]|random }}",
    "the address of a function": "{{ range }}",
    "the address of a method, joined": "{{ 'a' ~ messages[0].content.upper }}",
    "the address of an object": "{{ cycler(1, 2)|string }}",
    "the address of a generator": "{{ messages|map(attribute='role') }}",
    "the address of a generator, as a text": "{{ (messages|map(attribute='role')|upper)[-4:] }}",
    "much that is kept": "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}"
    "{% set ns.l = ns.l + [messages[0].content ~ i ~ 'a' * 900000] %}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a loop that calls itself": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "output in small pieces": "{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
}


def refusal_of(source: str) -> TemplateRefusal | None:
    try:
        ChatTemplate(source, {}, "a test").text(ASK, (), add_generation_prompt=False)
    except TemplateRefusal as refusal:
        return refusal
    return None


@pytest.mark.parametrize("source", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_and_never_fills_the_memory(source: str) -> None:
    tracemalloc.start()
    try:
        refusal = refusal_of(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal is not None
    assert peak < 200 << 20


@pytest.mark.parametrize("source", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_in_a_worker_thread(source: str) -> None:
    found: list[TemplateRefusal | None] = []
    worker = threading.Thread(target=lambda: found.append(refusal_of(source)), daemon=True)
    worker.start()
    worker.join(timeout=60)
    assert found
    assert found[0] is not None


def test_a_constant_that_is_computed_early_is_refused_though_no_row_reaches_it() -> None:
    assert refusal_of("{% if false %}{{ 'a'|center(1000000000) }}{% endif %}") is not None


def test_the_environment_of_transformers_is_left_as_it_was() -> None:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    refusal_of("a")
    assert _compile_jinja_template("").render() == ""
    assert "lipsum" in _compile_jinja_template("").environment.globals
    assert type(_compile_jinja_template("").environment).__name__ == "ImmutableSandboxedEnvironment"


def test_a_long_row_may_make_a_long_text() -> None:
    content = "a cat " * 400_000
    written = ChatTemplate("{{ messages[0].content + '!' }}", {}, "a test").text(
        [{"role": "user", "content": content}], (), add_generation_prompt=False
    )
    assert written == content + "!"


def test_time_that_the_machine_spends_on_something_else_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "LIMIT_SECONDS", 0.2)
    meter = bounds.Meter()
    time.sleep(0.3)
    meter.tick()
    with pytest.raises(bounds.OutOfBounds, match=r"longer than 0\.2 seconds"):
        while True:
            meter.tick()
            meter.spend(-1000)


def test_python_may_look_through_all_of_its_memory_once_in_a_rendering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "LIMIT_SECONDS", 0.0)  # whatever it takes is more
    monkeypatch.setattr(bounds, "_SECONDS_PER_CHARACTER", 0.0)
    meter = bounds.Meter()
    gc.collect()
    meter._look_at_the_clock()
    gc.collect()
    with pytest.raises(bounds.OutOfBounds):
        meter._look_at_the_clock()


def test_a_template_that_is_stopped_again_and_again_costs_a_second_and_not_one_for_each_row() -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    rows = [talk(("user", "a"), ("assistant", "b"))] * 1000
    began = time.process_time()
    outcomes = list(renderer(endless).render(rows))
    seconds = time.process_time() - began
    reasons = [outcome.rejection.message for outcome in outcomes if outcome.rejection is not None]
    assert len(reasons) == 1000
    assert "it takes longer than 0.05 seconds" in reasons[0]
    assert "is not tried again" in reasons[-1]
    assert seconds < 20  # its bound for each row would be fifty


def test_a_row_that_takes_too_long_costs_the_others_nothing_while_the_template_writes_them() -> None:
    writer = Writer(ChatTemplate(ENDLESS_FOR_B, {}, "a test"))
    good, bad = [{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]
    for _ in range(5):
        with pytest.raises(TemplateRefusal):
            writer.text(bad, (), add_generation_prompt=False)
        assert writer.text(good, (), add_generation_prompt=False) == "a"


def test_a_question_to_a_server_is_answered_whatever_others_were_asked_before() -> None:
    r = renderer(ENDLESS_FOR_B)
    for _ in range(40):
        with pytest.raises(UserError, match="longer than"):
            r.prompt_ids([Message("user", "b")])
    assert len(r.prompt_ids([Message("user", "a")])) == 1


ENDLESS_FOR_B = "{% for m in messages %}{{ m.content }}{% if m.content == 'b' %}" + (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}{% endfor %}"
)


def test_long_conversations_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LIMIT_SECONDS", 0.0)  # the first look at the clock is past it
    source = "{% for m in messages %}{% for n in messages %}{% endfor %}{% endfor %}{{ messages|length }}"
    messages = [{"role": "user", "content": "a"}] * 60  # a fortieth of what they may take
    assert ChatTemplate(source, {}, "a test").text(messages, (), add_generation_prompt=False) == "60"


def test_a_refusal_does_not_outlast_its_row() -> None:
    source = (
        "{% for m in messages %}{{ m.content * 300000 if m.content == 'much' else m.content }}{% endfor %}"
    )
    template = ChatTemplate(source, {}, "a test")
    with pytest.raises(TemplateRefusal):
        template.text([{"role": "user", "content": "much"}], (), add_generation_prompt=False)
    assert template.text(ASK, (), add_generation_prompt=False) == "Who are you?A cat."


ORDINARY = {
    "loops": "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ m.role }}{% endfor %}",
    "arithmetic": "{{ 7 * 6 }} {{ 2 ** 10 }} {{ 7 % 4 }} {{ 'a' * 3 }} {{ [1] * 2 + [3] }} {{ 1.5 * 2 }} {{ 2 ** -1 }}",
    "texts": "{{ messages[0].content[::-1].upper().replace('A', 'b', 1).center(30).split('?') }}",
    "format": "{{ '{:>5}|{!r}|{x.a}'.format(1, 'b', x={'a': 2}) }}{{ '%5.2f %s %%' % (1, [2]) }}{{ '%s-%s'|format('a', 1) }}",
    "format_map": "{{ '{a}'.format_map({'a': 1}) }}",
    "joining": "{{ messages|map(attribute='role')|join(', ') }} {{ ['a', 1] | join }} {{ ', '.join(['a', 'b']) }}",
    "filters": "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ 'a b'|title|indent(2, true) }}{{ [3, 1]|sort }}",
    "json": "{{ messages[0]|tojson }}{{ messages|tojson(indent=2) }}{{ {'b': 1, 'a': 'é'}|tojson(sort_keys=true) }}",
    "concatenation": "{{ 'a' ~ 1 ~ none ~ missing ~ [1] }}",
    "comparison": "{{ messages[0] == messages[1] }}{{ 'a' in messages[0].content }}{{ 1 < 2 <= 2 }}{{ messages[0].role in ['user'] }}",
    "macros": "{% macro m(x, y='z') %}{{ x }}{{ y }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(1, 2, 3, a=4) }}",
    "namespaces": "{% set ns = namespace(a=1) %}{% for m in messages %}{% set ns.a = ns.a + 1 %}{% endfor %}{{ ns.a }}",
    "a namespace written out": "{% set ns = namespace(a=[1]) %}{{ ns }}{{ [ns] }}",
    "names that a namespace or a loop lacks": "{% set ns = namespace(a=none, b='x'.upper) %}{{ ns.a }}{{ ns.c }}{{ ns.b() }}"
    "{% for m in messages %}{{ loop.nothing is defined }}{{ loop.first }}{{ loop.previtem is defined }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "blocks": "{% set x %}a{{ 1 }}{% endset %}{{ x }}{% filter upper %}abc{% endfilter %}{% block b %}c{% endblock %}",
    "what is missing": "{{ missing }}{{ missing is defined }}{{ messages[9] is defined }}{{ messages[0].none is undefined }}",
    "mappings": "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{{ messages[0].get('role') }}{{ {'a': 1}.keys()|list }}",
    "names of methods": "{{ messages[0]['items'] is defined }}{{ messages[0].keys is defined }}{{ 'a'.b is defined }}",
    "recursion": "{% for x in [[1, [2]], 3] recursive %}{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}{% endfor %}",
    "control of loops": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "numbers": "{{ '12'|int + 1 }}{{ 3.14159|round(2) }}{{ 7 // 2 }}{{ -3|abs }}{{ [1, 2]|sum }}{{ 10**12 }}",
    "special tokens": "{{ bos_token + messages[0]['content'] + eos_token }}",
    "escaping": "{% autoescape true %}{{ '<' ~ messages[0].content ~ '<b>'|safe }}{{ '<' + 'a' }}{% endautoescape %}{{ '<'|e ~ '>' }}",
    "dict": "{{ dict(a=1, b=[2]) }}{{ dict([['a', 1]]) }}",
}


@pytest.mark.parametrize("source", ORDINARY.values(), ids=ORDINARY)
def test_an_ordinary_template_writes_what_transformers_writes(source: str) -> None:
    tokenizer = make_tokenizer(template=source)
    ours = ChatTemplate(source, dict(tokenizer.special_tokens_map), "a test")
    for ask in (False, True):
        written = ours.text(ASK, (), add_generation_prompt=ask)
        assert written == tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=ask)


def trl_templates() -> list[Any]:
    folder = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
    return sorted(folder.glob("*.jinja"))


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("tools", [False, True])
def test_every_template_that_ships_with_trl_writes_what_transformers_writes(
    tools: bool, thinking: bool
) -> None:
    tokenizer = make_tokenizer()
    schema = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"x": {"type": "string", "description": "an x"}}}}}  # fmt: skip
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": "y", "n": [1, None]}}}
    answer = {"role": "assistant", "content": "  A <think>b</think> cat.\n"}
    if thinking:
        answer["reasoning_content"] = "I purr."
    talk_: list[dict[str, Any]] = [
        {"role": "system", "content": "Be é."},
        *ASK,
        {"role": "user", "content": " and? "},
    ]
    if tools:
        talk_ += [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "Sun", "name": "f", "tool_call_id": "1"}]  # fmt: skip
    talk_.append(answer)
    compared = 0
    for path in trl_templates():
        source = path.read_text(encoding="utf-8")
        ours = ChatTemplate(source, dict(tokenizer.special_tokens_map), "a test")
        for end, ask in ((len(talk_), False), (len(talk_) - 1, True), (2, True)):
            given: dict[str, Any] = {"tools": [schema] if tools else None, "add_generation_prompt": ask}
            try:
                expected = tokenizer.apply_chat_template(
                    talk_[:end], chat_template=source, tokenize=False, **given
                )
            except Exception:
                with pytest.raises(TemplateRefusal):
                    ours.text(talk_[:end], given["tools"] or (), add_generation_prompt=ask)
                continue
            assert ours.text(talk_[:end], given["tools"] or (), add_generation_prompt=ask) == expected, (
                path.name
            )
            compared += 1
    assert compared > 90


def test_a_renderer_goes_on_after_a_template_that_was_stopped() -> None:
    r = renderer("{{ messages[0].content * 10**7 if messages[0].content == 'b' else 'a' }}<|end|>")
    outcomes = list(
        r.render([talk(("user", "b"), ("assistant", "x")), talk(("user", "c"), ("assistant", "x"))])
    )
    assert outcomes[0].rejection is not None
    assert "10,000,000 characters" in outcomes[0].rejection.message
