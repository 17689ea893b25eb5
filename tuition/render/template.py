"""From a conversation to the text that serving would show the model.

A template is somebody else's program: it runs in transformers' sandbox within bounds (`sandbox`), is never
edited, and what it does to the text is compared, not assumed.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tuition.errors import Finding, Origin, UserError
from tuition.foreign import require_readable
from tuition.render.codes import finding
from tuition.render.content import strings_in
from tuition.render.tokens import Tokens

_PATIENCE_SECONDS = 1.0  # for what a template is stopped in, of a whole run
_SOON_SECONDS = 0.01  # a template that refuses a conversation in its own words has done so by then
_LARGEST_BYTES = 1 << 20
_NAME_A_TEMPLATE = "Give auto, none, or the path of a Jinja file"
_ONLY_CONTENT = frozenset({"role", "content"})

# What a base model without a template of its own gets: ChatML, the most widely served format.
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BOS = "{{ bos_token }}"
_ALWAYS_GIVEN = frozenset(
    {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "strftime_now",
        "raise_exception",
        "namespace",
    }
    | {"range", "dict", "lipsum", "cycler", "joiner"}
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


class TemplateRefusal(Exception):
    """The template raised an error for this conversation, or would take too long or make too much."""

    @property
    def stopped(self) -> bool:
        """It did not raise by itself: it would have gone on."""
        from tuition.render.bounds import OutOfBounds

        return isinstance(self.__cause__, OutOfBounds)


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template and the special tokens that it may name.

    Attributes:
        source: the Jinja text.
        special_tokens: `bos_token`, `eos_token` and so on, as the tokenizer's file names them.
        provenance: where it came from, for the opening screen.
        date: the day that a template which asks for today's date is told; None: today.
    """

    source: str
    special_tokens: Mapping[str, Any]
    provenance: str
    date: datetime.date | None = None

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
    ) -> str:
        """The conversation as text, as `apply_chat_template(tokenize=False)` gives it.

        Raises:
            TemplateRefusal: the template raised, with its own words, or was stopped.
        """
        from tuition.render.sandbox import program_of

        try:
            return program_of(self.source).run(
                {
                    "messages": _as_shown(messages),
                    "tools": _plain([dict(tool) for tool in tools]) if tools else None,
                    "documents": None,
                    "add_generation_prompt": add_generation_prompt,
                    **self._constants,
                },
                lambda: _size(messages, tools),
            )
        except Exception as error:  # somebody else's program may raise anything
            raise TemplateRefusal(" ".join(str(error).split()) or type(error).__name__) from error

    @cached_property
    def asks_date(self) -> bool:
        """Whether the template reads today's date, which would make what is learned depend on the day."""
        from tuition.render.sandbox import names_in

        try:
            return "strftime_now" in names_in(self.source)
        except Exception:  # no template at all, which each row will say
            return False

    def with_values(self, given: Mapping[str, Any]) -> ChatTemplate:
        """The same template behind a head that gives names a value, unless whoever serves it gives another.

        Raises:
            UserError: the template does not read one of the names.
        """
        from tuition.render.sandbox import names_in

        read = names_in(self.source) - self.special_tokens.keys()
        unknown = [name for name in given if name not in read]
        if unknown:
            free = sorted(name for name in read if name not in _ALWAYS_GIVEN)
            raise UserError(
                f"the chat template does not read '{unknown[0]}'",
                where="chat_template_kwargs",
                next_step=f"It reads {', '.join(free)}"
                if free
                else "It reads nothing that can be given; leave it out",
            )
        head = "".join(
            f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}"
            for name, value in given.items()
        )
        shown = ", ".join(f"{name}={_literal(value)}" for name, value in given.items())
        # Jinja drops the line break behind a block, so the template itself begins as before
        return replace(self, source=f"{head}\n{self.source}", provenance=f"{self.provenance}, {shown}")

    def on(self, day: datetime.date) -> ChatTemplate:
        """The same template, told that this is the day."""
        return replace(self, date=day)

    @contextmanager
    def served(self) -> Iterator[None]:
        """Within it, transformers' own `apply_chat_template` writes this template's day too.

        Not for two threads at once: the clock of the template is put back at the end.
        """
        if self.date is None:
            yield
            return
        from transformers.utils.chat_template_utils import _compile_jinja_template

        names = _compile_jinja_template(self.source).environment.globals
        before = names["strftime_now"]
        names["strftime_now"] = self._strftime
        try:
            yield
        finally:
            names["strftime_now"] = before

    def _strftime(self, format: str) -> str:
        assert self.date is not None
        return datetime.datetime.combine(self.date, datetime.time()).strftime(format)

    @cached_property
    def _constants(self) -> dict[str, Any]:
        constants: dict[str, Any] = _plain(dict(self.special_tokens))
        return constants if self.date is None else {**constants, "strftime_now": self._strftime}


def _literal(value: Any) -> str:
    """A value as Jinja spells it."""
    spelled = {True: "true", False: "false", None: "none"}
    return spelled[value] if value is None or isinstance(value, bool) else json.dumps(value)


def on_day(template: ChatTemplate | None, setting: str) -> ChatTemplate | None:
    """The template told that it is the day that `template_date` names; auto: today.

    A template that asks for no date is returned as it is.
    """
    if template is None or not template.asks_date:
        return template
    return template.on(today() if setting == "auto" else datetime.date.fromisoformat(setting))


def today() -> datetime.date:
    """The day it is."""
    return datetime.date.today()


def date_notice(template: ChatTemplate) -> Finding | None:
    """R028 where the template asks for today's date: once for a run, since it is true of every row."""
    if not template.asks_date:
        return None
    day = (template.date or today()).isoformat()
    return finding(
        "R028",
        Origin("chat template", 0),
        f"The chat template writes today's date into its prompts; here it is {day} in all of them, "
        "and what is served on another day will begin with another date",
    )


def _as_shown(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as transformers shows them to a template: plain values, thoughts under all their names."""
    shown = [
        dict(message) if all(type(value) is str for value in message.values()) else _plain(dict(message))
        for message in messages
    ]
    if any(not _ONLY_CONTENT.issuperset(message) for message in shown):
        from tuition.render.sandbox import with_aliases

        return with_aliases(shown)
    return shown


def _plain(value: Any) -> Any:
    from tuition.render.sandbox import plain

    return plain(value)


def _size(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> int:
    return sum(map(len, strings_in([messages, tools])))


class Writer:
    """A template, and what was learned about it: how it wants to be given tool calls, and how long it takes.

    Some templates join the arguments of a call to text as they are, so they must be JSON already. The
    first refusal that JSON mends decides for all later conversations, prompts for serving among them.

    A template that is stopped again and again would cost its bound for each row. Once all that it was stopped
    in took longer than `_PATIENCE_SECONDS` and than all that it wrote, it is not tried again.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self.arguments_as_text = False
        self._patience_seconds = _PATIENCE_SECONDS

    def given(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages with the arguments of tool calls as the template wants them."""
        return _with_arguments_as_text(messages) if self.arguments_as_text else [dict(m) for m in messages]

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
    ) -> str:
        """As `ChatTemplate.text`, with the arguments of tool calls as the template wants them.

        Raises:
            TemplateRefusal: the template raised, with its own words.
        """

        def write(given: Sequence[Mapping[str, Any]]) -> str:
            return self._timed(given, tools, add_generation_prompt)

        if not any(message.get("tool_calls") for message in messages):
            return write(messages)
        if self.arguments_as_text:
            return write(_with_arguments_as_text(messages))
        try:
            return write(messages)
        except TemplateRefusal as refusal:
            try:
                text = write(_with_arguments_as_text(messages))
            except TemplateRefusal:
                raise refusal from None
            self.arguments_as_text = True
            return text

    def _timed(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], ask: bool
    ) -> str:
        from tuition.render.bounds import full_collections

        if self._patience_seconds <= 0:
            raise TemplateRefusal("it took too long for rows before this one, and is not tried again")
        began, collections = time.thread_time(), full_collections()
        try:
            text = self.template.text(messages, tools, add_generation_prompt=ask)
        except TemplateRefusal as refusal:
            seconds = time.thread_time() - began
            if refusal.stopped or (seconds > _SOON_SECONDS and full_collections() == collections):
                self._patience_seconds -= seconds
            raise
        self._patience_seconds += time.thread_time() - began
        return text

    def be_patient(self) -> None:
        """What is asked from here on stands alone: a question to a server must not cost the next one its answer."""
        self._patience_seconds = max(self._patience_seconds, _PATIENCE_SECONDS)


def _with_arguments_as_text(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**message, "tool_calls": [_call_as_text(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def _call_as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    written = {**function, "arguments": arguments}
    return {**call, "function": written} if "function" in call else written


def choose_template(
    setting: str, tokenizer: Any, given: Mapping[str, Any] | None = None
) -> ChatTemplate | None:
    """The template that `chat_template` names; None for plain text.

    Args:
        setting: `auto`, `none`, or the path of a Jinja file.
        tokenizer: a transformers tokenizer; asked for its own template and special tokens.
        given: values for names that the template reads (`chat_template_kwargs`).

    Raises:
        UserError: there is no such file, or the template does not read one of the names.
    """
    template = _template_of(setting, tokenizer)
    return template if template is None or not given else template.with_values(given)


def _template_of(setting: str, tokenizer: Any) -> ChatTemplate | None:
    special_tokens = dict(tokenizer.special_tokens_map)
    if setting == "none":
        return None
    if setting != "auto":
        return ChatTemplate(_read_template(Path(setting)), special_tokens, setting)
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several named templates; `default` is what serving takes
        own = _default_of(own)
    if own:
        return ChatTemplate(own, special_tokens, "the tokenizer's own")
    return ChatTemplate(_chatml_for(tokenizer), special_tokens, "ChatML (the tokenizer has none of its own)")


def _default_of(named: Mapping[str, str]) -> str:
    if "default" in named:
        return named["default"]
    raise UserError(
        f"the tokenizer has chat templates named {', '.join(map(repr, sorted(named)))} and none named 'default'",
        next_step="Write the one you mean to a file and choose it with --chat-template FILE",
    )


def _chatml_for(tokenizer: Any) -> str:
    """ChatML, behind a BOS where the model saw one before every text it was pretrained on."""
    bos = tokenizer.bos_token_id
    return _BOS + CHATML if bos is not None and bos in Tokens(tokenizer).prefix_ids else CHATML


def _read_template(path: Path) -> str:
    try:
        require_readable(path, _LARGEST_BYTES, _NAME_A_TEMPLATE, no_other="chat template")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("no such chat template", where=str(path), next_step=_NAME_A_TEMPLATE) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"cannot be read as a template ({error})", where=str(path), next_step="Give a UTF-8 text file"
        ) from None


def adopt_template(tokenizer: Any, template: ChatTemplate | None) -> list[int]:
    """Make the template the tokenizer's own, and add the default one's control tokens where they are missing.

    Returns:
        the ids of the tokens that were added; the model must learn them.
    """
    if template is None:
        return []
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = {**tokenizer.chat_template, "default": template.source}
        return []
    if tokenizer.chat_template:
        tokenizer.chat_template = template.source
        return []
    wanted = CHATML_TOKENS if template.source.removeprefix(_BOS) == CHATML else ()
    missing = [token for token in wanted if token not in tokenizer.get_vocab()]
    if missing:
        tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, *missing]})
    tokenizer.chat_template = template.source
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in missing]
