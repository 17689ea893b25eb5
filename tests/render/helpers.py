"""What the tests of this room share: short conversations, a renderer of a tiny tokenizer, and what came out."""

from __future__ import annotations

from typing import Any

from tests.conftest import CHAT, make_tokenizer
from tuition.conversation import Conversation, Message
from tuition.errors import Origin
from tuition.render import Renderer, choose_template
from tuition.render.renderer import Outcome
from tuition.render.template import ChatTemplate

ORIGIN = Origin("rows.jsonl", 1)
# Drops the reasoning of every assistant turn but the last, as Qwen3's template does.
REWRITES_HISTORY = (
    "{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.role == 'assistant' and loop.last and m.reasoning_content %}[{{ m.reasoning_content }}]{% endif %}"
    "{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# Writes tools and tool calls as JSON between tokens that are not flagged special.
TOOLS = (
    "{% if tools %}<|system|>\n{{ tools | tojson }}<|end|>\n{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def talk(*turns: tuple[str, str], **fields: Any) -> Conversation:
    """A conversation of (role, content) pairs."""
    return Conversation(tuple(Message(role, content) for role, content in turns), ORIGIN, **fields)


def calling(name: str = "weather", content: str = "", **arguments: Any) -> Message:
    """An assistant turn that calls one tool."""
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return Message("assistant", content, tool_calls=(call,))


def renderer(template: str | None = CHAT, *, markup: tuple[str, ...] = (), **options: Any) -> Renderer:
    """A renderer of a byte-level tokenizer; `markup` are added tokens that are not flagged special."""
    tokenizer = make_tokenizer(template=template)
    tokenizer.add_tokens(list(markup))
    return over(tokenizer, auto=bool(template), **options)


def over(tokenizer: Any, *, auto: bool = True, **options: Any) -> Renderer:
    """A renderer of this tokenizer, with its own template, another one, or none."""
    settings = {"train_on": "assistant", "max_length": 500, "too_long": "drop", **options}
    if "template" in settings:
        template = ChatTemplate(settings.pop("template"), dict(tokenizer.special_tokens_map), "")
        return Renderer(tokenizer, template, **settings)
    return Renderer(tokenizer, choose_template("auto" if auto else "none", tokenizer), **settings)


def render_one(r: Renderer, conversation: Conversation) -> Outcome:
    """What becomes of one conversation."""
    return next(iter(r.render([conversation])))


def learned_text(r: Renderer, outcome: Outcome, part: int = 0) -> str:
    """The learned tokens of an example, joined."""
    example = outcome.examples[part]
    return r.tokens.decode(example.ids[example.supervised > 0])


def codes(outcome: Outcome) -> list[str]:
    """The codes of the findings, in order."""
    return [finding.code for finding in outcome.findings]
