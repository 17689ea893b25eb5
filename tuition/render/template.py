"""From a conversation to the text that serving would show the model.

A template is somebody else's program: it runs in transformers' sandbox, is never edited, and what it
does to the text is compared, not assumed.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.errors import UserError
from tuition.render.content import strings_in
from tuition.render.tokens import Tokens

_LIMIT_SECONDS = 10.0
_LIMIT_CHARACTERS = 1_000_000

# What a base model without a template of its own gets: ChatML, the most widely served format.
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BOS = "{{ bos_token }}"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


class TemplateRefusal(Exception):
    """The template raised an error for this conversation."""


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template and the special tokens that it may name.

    Attributes:
        source: the Jinja text.
        special_tokens: `bos_token`, `eos_token` and so on, as the tokenizer's file names them.
        provenance: where it came from, for the opening screen.
    """

    source: str
    special_tokens: Mapping[str, Any]
    provenance: str

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
    ) -> str:
        """The conversation as text, as `apply_chat_template(tokenize=False)` gives it.

        Raises:
            TemplateRefusal: the template raised, with its own words.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        if not _listening.yes and _may_set_alarm():
            with time_limits():
                return self.text(messages, tools, add_generation_prompt=add_generation_prompt)
        try:
            _set_alarm(_LIMIT_SECONDS)
            try:
                texts, _ = render_jinja_template(
                    [list(messages)],
                    tools=[dict(tool) for tool in tools] or None,
                    chat_template=self.source,
                    add_generation_prompt=add_generation_prompt,
                    **self.special_tokens,
                )
            finally:
                _set_alarm(0)
        except Exception as error:  # somebody else's program may raise anything
            raise TemplateRefusal(" ".join(str(error).split()) or type(error).__name__) from error
        text = str(texts[0])
        if len(text) > _LIMIT_CHARACTERS and len(text) > _LIMIT_CHARACTERS + 64 * _size(messages, tools):
            raise TemplateRefusal(f"it wrote {len(text):,} characters, far more than it was given")
        return text


def _size(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> int:
    return sum(map(len, strings_in([messages, tools])))


class _Listening(threading.local):
    """Whether this thread hears alarms now."""

    yes = False


_listening = _Listening()


@contextmanager
def time_limits() -> Iterator[None]:
    """Bound the time of each template that is rendered inside.

    The bound is an alarm of the operating system, so it works in the main thread of a Unix process that
    uses no alarm of its own; elsewhere time is not bounded. One operation that runs in C, such as
    multiplying a string, ends before the alarm is heard, and its memory is not bounded.
    """
    if _listening.yes or not _may_set_alarm():
        yield
        return
    before = signal.signal(signal.SIGALRM, _ring)
    _listening.yes = True
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _listening.yes = False


def _ring(signum: int, frame: Any) -> None:
    raise TimeoutError(f"it took longer than {_LIMIT_SECONDS:g} seconds")


def _set_alarm(seconds: float) -> None:
    if _listening.yes:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _may_set_alarm() -> bool:
    return (
        hasattr(signal, "SIGALRM")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN)
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )


class Writer:
    """A template, and what was learned about how it wants to be given tool calls.

    Some templates join the arguments of a call to text as they are, so they must be JSON already. The
    first refusal that JSON mends decides for all later conversations, prompts for serving among them.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self.arguments_as_text = False

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
            return self.template.text(given, tools, add_generation_prompt=add_generation_prompt)

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


def choose_template(setting: str, tokenizer: Any) -> ChatTemplate | None:
    """The template that `chat_template` names; None for plain text.

    Args:
        setting: `auto`, `none`, or the path of a Jinja file.
        tokenizer: a transformers tokenizer; asked for its own template and special tokens.
    """
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
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            "no such chat template", where=str(path), next_step="Give auto, none, or the path of a Jinja file"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
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
