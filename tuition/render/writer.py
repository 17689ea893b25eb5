"""A template and what was learned about it: how it wants to be given tool calls, and how long it takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from tuition.render.onebyone import Along
from tuition.render.template import ChatTemplate, TemplateRefusal

_PATIENCE_SECONDS = 1.0  # for what a template is stopped in, of a whole run
_MANY_TURNS = 8  # from which on two runs for each cost more than those that tell all
# the bound of a text is higher, and for all messages higher than for the first
_ORDINARY_CHARACTERS = 500_000
_SOON_SECONDS = 0.01  # a template that refuses a conversation in its own words has done so by then

_T = TypeVar("_T")


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
        self._whole: Sequence[Mapping[str, Any]] = ()
        self._along: dict[bool, Along | None] = {}
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
            return self._timed(
                lambda: self.template.text(given, tools, add_generation_prompt=add_generation_prompt)
            )

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

    def begin(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, turns: int
    ) -> None:
        """From here on `first` is asked about this conversation, which is written once where that tells all.

        Args:
            turns: how many of its messages will be asked about.
        """
        self._whole, self._along = messages, {}
        if turns < _MANY_TURNS or any(message.get("tool_calls") for message in messages):
            return
        half = len(messages) // 2
        try:
            for ask in (True, False):
                along = self._timed(partial(self.template.along, messages, tools, add_generation_prompt=ask))
                if along is None or len(along.text) > _ORDINARY_CHARACTERS:
                    return
                if along.first(half) == self.text(messages[:half], tools, add_generation_prompt=ask):
                    self._along[ask] = along
        except TemplateRefusal:  # of some message, which its turn will say
            return

    def first(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        count: int,
        *,
        add_generation_prompt: bool,
    ) -> str:
        """As `text` of the first messages, 1 or more."""
        along = self._along.get(add_generation_prompt) if messages is self._whole and count else None
        if along is not None:
            return along.first(count)
        return self.text(messages[:count], tools, add_generation_prompt=add_generation_prompt)

    def _timed(self, run: Callable[[], _T]) -> _T:
        from tuition.render.bounds import full_collections

        if self._patience_seconds <= 0:
            raise TemplateRefusal("it took too long for rows before this one, and is not tried again")
        began, collections = time.thread_time(), full_collections()
        try:
            made = run()
        except TemplateRefusal as refusal:
            seconds = time.thread_time() - began
            if refusal.stopped or (seconds > _SOON_SECONDS and full_collections() == collections):
                self._patience_seconds -= seconds
            raise
        self._patience_seconds += time.thread_time() - began
        return made

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
