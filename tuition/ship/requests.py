"""A chat request in OpenAI's shape, read strictly: what cannot be honoured is refused, never left out in silence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuition.conversation import Message
from tuition.data.catalogue import RowError
from tuition.data.formats import FORMATS
from tuition.errors import Origin
from tuition.evaluate.drawing import Drawing

MOST_TOKENS = 256  # of an answer, where the request names no limit
_READ = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "stop", "temperature", "top_p", "seed", "stream",
     "stream_options"}
)  # fmt: skip
# Parameters that are honoured by doing nothing, at these values.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1), "presence_penalty": (None, 0), "frequency_penalty": (None, 0), "logprobs": (None, False),
    "logit_bias": (None, {}), "tools": (None, []), "tool_choice": (None, "none"), "store": (None, False),
    "response_format": (None, {"type": "text"}),
}  # fmt: skip
_IGNORED = frozenset({"user", "metadata"})  # about the caller, not about the answer


class RequestError(Exception):
    """A request that cannot be answered, with the HTTP status and OpenAI's code."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def to_json(self) -> dict[str, Any]:
        """The body that OpenAI's clients read."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked, checked."""

    model: str
    messages: tuple[Message, ...]
    drawing: Drawing
    stop: tuple[str, ...]
    stream: bool
    stream_usage: bool


def read_request(body: bytes) -> ChatRequest:
    """The request in a body.

    Raises:
        RequestError: it is not JSON, or asks for what is not done here; the parameter is named.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise RequestError(400, "The body is not a JSON object.")
    for key, given in value.items():
        if key in _READ or key in _IGNORED:
            continue
        if key not in _NEUTRAL:
            raise RequestError(400, f"Unknown parameter: '{key}'.", param=key, code="unknown_parameter")
        if given not in _NEUTRAL[key]:
            raise RequestError(400, f"This server does not do '{key}'.", param=key, code="unsupported_value")
    limited_by = "max_tokens" if value.get("max_completion_tokens") is None else "max_completion_tokens"
    limit = value.get(limited_by)
    seed = value.get("seed")
    options = value.get("stream_options") or {}
    return ChatRequest(
        model=_text(value, "model"),
        messages=_messages(value.get("messages")),
        drawing=Drawing(
            max_new_tokens=MOST_TOKENS
            if limit is None
            else int(_number(limit, limited_by, 1, 10**6, whole=True)),
            temperature=_number(
                0 if value.get("temperature") is None else value["temperature"], "temperature", 0, 2
            ),
            top_p=_number(1 if value.get("top_p") is None else value["top_p"], "top_p", 0, 1),
            seed=None if seed is None else int(_number(seed, "seed", -(2**63), 2**63 - 1, whole=True)),
        ),
        stop=_stops(value.get("stop")),
        stream=_flag(value.get("stream"), "stream"),
        stream_usage=isinstance(options, dict) and _flag(options.get("include_usage"), "stream_options"),
    )


def _text(value: Mapping[str, Any], key: str) -> str:
    if key not in value:
        raise RequestError(400, f"'{key}' is missing: name one of those that /v1/models lists.", param=key)
    if not isinstance(value[key], str):
        raise RequestError(400, f"'{key}' must be a text.", param=key)
    return str(value[key])


def _number(value: Any, key: str, low: float, high: float, *, whole: bool = False) -> float:
    kind = int if whole else (int, float)
    if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise RequestError(400, f"'{key}' must be {what} from {low:,} to {high:,}.", param=key)
    return value


def _flag(value: Any, key: str) -> bool:
    if value not in (None, True, False):
        raise RequestError(400, f"'{key}' must be true or false.", param=key)
    return bool(value)


def _stops(value: Any) -> tuple[str, ...]:
    given = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(given, list) or len(given) > 16 or not all(isinstance(s, str) and s for s in given):
        raise RequestError(400, "'stop' must be a text or a list of up to 16 texts.", param="stop")
    return tuple(given)


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise RequestError(400, "'messages' must be a list of messages, and not empty.", param="messages")
    if not isinstance(value[-1], dict) or value[-1].get("role") == "assistant":
        raise RequestError(400, "The last message must not be the assistant's.", param="messages")
    try:
        (conversation,) = FORMATS["messages"].convert(
            {"messages": [_with_text(message) for message in value]}, Origin("messages", 1)
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RowError as refusal:
        raise RequestError(400, f"{refusal.reason.message}. {refusal.reason.fix}", param="messages") from None
    except UnicodeEncodeError:
        raise RequestError(400, "A message is not valid Unicode text.", param="messages") from None
    return conversation.messages


def _with_text(message: Any) -> Any:
    """A message whose content came in parts, with the text of them joined."""
    parts = message.get("content") if isinstance(message, dict) else None
    if not isinstance(parts, list):
        return message
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise RequestError(400, "Only parts of type 'text' are read here.", param="messages")
    return {**message, "content": "".join(map(str, texts))}
