"""From a conversation to the text that serving would show the model.

A template is somebody else's program: it runs in transformers' sandbox within bounds (`sandbox`), is never
edited, and what it does to the text is compared, not assumed.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tuition.errors import Finding, Origin, UserError
from tuition.recipe.sections import TEMPLATES_OWN
from tuition.render.codes import finding
from tuition.render.content import strings_in

if TYPE_CHECKING:
    from tuition.render.onebyone import Along

_ONLY_CONTENT = frozenset({"role", "content"})
_JINJAS_OWN = frozenset({"namespace", "range", "dict", "lipsum", "cycler", "joiner"})


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
        return str(self._asked("run", messages, tools, add_generation_prompt))

    def along(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
    ) -> Along | None:
        """The same with the places of the messages; None where they are not written one after the other.

        Raises:
            TemplateRefusal: as `text`.
        """
        found: Along | None = self._asked("along", messages, tools, add_generation_prompt)
        return found

    def _asked(
        self,
        what: str,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
    ) -> Any:
        from tuition.render.sandbox import program_of

        try:
            return getattr(program_of(self.source), what)(
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
            free = sorted(name for name in read if name not in {*TEMPLATES_OWN, *_JINJAS_OWN})
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
    """A value as Jinja spells it: as JSON does, but for null, and for the signs that JSON would write in two halves."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


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
