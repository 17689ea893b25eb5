"""One request to an OpenAI-compatible API. The key is read from the environment and goes nowhere but into it."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from tuition.errors import UserError

_REPLY_BYTES = 64 << 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def complete(
    url: str,
    model: str,
    messages: Sequence[Mapping[str, str]],
    *,
    key_variable: str,
    seconds: float,
    **sampling: Any,
) -> str:
    """What a model answers to a conversation.

    Args:
        url: of the API, such as https://host/v1; `/chat/completions` is added.
        key_variable: environment variable that holds the key; unset: none is sent.
        seconds: how long the request may take.
        sampling: further fields of the request, such as `temperature`.

    Raises:
        UserError: the URL is none, or the reply is not that of a chat completion.
        OSError, http.client.HTTPException: the service cannot be reached or refuses.
    """
    address = url.rstrip("/")
    address = address if address.endswith("/chat/completions") else f"{address}/chat/completions"
    if not address.startswith(("http://", "https://")):
        raise UserError("is no URL", where=url, next_step="Write it as https://host/v1")
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(key_variable):
        headers["Authorization"] = f"Bearer {key}"
    body = {"model": model, **sampling, "messages": [dict(message) for message in messages]}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds) as response:
        reply = response.read(_REPLY_BYTES + 1)
    return answer_in(reply, url)


def answer_in(reply: bytes, url: str) -> str:
    """The text in the reply of a service.

    Raises:
        UserError: it is not that of a chat completion, or longer than any.
    """
    try:
        if len(reply) > _REPLY_BYTES:
            raise ValueError("endless")
        return str(json.loads(reply)["choices"][0]["message"]["content"] or "")
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UserError(
            "the reply is not that of a chat completion",
            where=url,
            next_step="Name a URL that speaks the OpenAI API, such as https://host/v1",
        ) from None
