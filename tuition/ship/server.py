"""An OpenAI-compatible endpoint on this machine, and a page to chat with two models side by side.

The standard library's server is enough for one user and one generation at a time, and adds no dependency;
for many users the commands of `others` start vLLM, SGLang or transformers on the same folder.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files as resources
from typing import Any
from urllib.parse import unquote

from tuition.errors import UserError
from tuition.evaluate.generate import room_for_answer
from tuition.evaluate.load import Answerer
from tuition.ship.decode import End, decode
from tuition.ship.requests import ChatRequest, RequestError, read_request

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_BODY = 1 << 20
_MOST_WAITING = 8
_SILENCE_SECONDS = 30
_PAGES = {
    "/": ("chat.html", "text/html"),
    "/chat.css": ("chat.css", "text/css"),
    "/chat.js": ("chat.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """Models by the names that requests give, one generation at a time.

    Args:
        models: the tuned model first.
        api_key: what every request but the page must carry; None: loopback only, and no key.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, models: Mapping[str, Answerer], *, host: str, port: int, api_key: str | None) -> None:
        if host not in LOOPBACK and not api_key:
            raise UserError(
                f"{host} can be reached by other machines, and no key is set",
                where="--host",
                next_step="Set $TUITION_API_KEY to a long random text, or leave --host out",
            )
        self.models, self.api_key, self.open_to_others = models, api_key, host not in LOOPBACK
        self.started = int(time.time())
        self.stopping = threading.Event()
        self._generating, self._count, self._waiting = threading.Lock(), threading.Lock(), 0
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise UserError(
                f"cannot listen there ({error.strerror})",
                where=f"{host}:{port}",
                next_step="Name another --port",
            ) from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault to print; whatever else failed is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where it is found."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the model; refused when too many wait already."""
        with self._count:
            if self._waiting > _MOST_WAITING:
                raise RequestError(429, "Too many requests are waiting; try again.", code="queue_full")
            self._waiting += 1
        try:
            with self._generating:
                yield
        finally:
            with self._count:
                self._waiting -= 1

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Serve until Ctrl-C; an answer that is being written is cut."""
        try:
            on_ready(self.address)
            self.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            pass
        finally:
            self.stopping.set()
            self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "tuition"
    sys_version = ""
    timeout = _SILENCE_SECONDS
    begun = False

    def do_GET(self) -> None:
        """The page, the models, the health."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """A chat."""
        self._guarded(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed: they may hold what nobody else should read."""

    def _guarded(self, action: Callable[[], None]) -> None:
        self.begun = False
        try:
            self._refuse_strangers()
            action()
        except RequestError as error:
            self.close_connection = True  # a body may be left unread
            self._json(error.status, error.to_json())
            self._hear_out()
        except UserError as error:
            self._json(400, RequestError(400, str(error)).to_json())
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # out of memory, or a defect: the next request shall still be answered
            self.close_connection = True
            if not self.begun:
                self._json(500, RequestError(500, f"The model failed ({type(error).__name__}).").to_json())

    def _hear_out(self) -> None:
        """Take what is still being sent: closed over unread bytes, a connection is cut off and its answer with it.

        No more of it than a body may have, and no longer than a client may be silent, so that nobody is heard for ever.
        """
        until, left = time.monotonic() + _SILENCE_SECONDS, LONGEST_BODY
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < until and (piece := self.rfile.read1(min(left, 1 << 16))):
                left -= len(piece)

    def _refuse_strangers(self) -> None:
        """A page of another site must not reach a server on this machine, under whatever name it calls it."""
        host = self.headers.get("Host", "")
        port = self.server.server_address[1]
        ours = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        if not self.server.open_to_others and host not in ours:
            raise RequestError(403, "The Host header does not name this machine.", code="forbidden_host")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise RequestError(403, "Requests from other sites are refused.", code="forbidden_origin")
        if self.path in _PAGES or self.path == "/health" or self.server.api_key is None:
            return
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(given, self.server.api_key.encode()):
            raise RequestError(401, "The API key is missing or wrong.", code="invalid_api_key")

    def _get(self) -> None:
        if self.path == "/health":
            self._json(200, {"status": "ok", "key": self.server.api_key is not None})
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [self._model(name) for name in self.server.models]})
        elif self.path.startswith("/v1/models/"):
            name = unquote(self.path.removeprefix("/v1/models/"))
            self._answerer(name)
            self._json(200, self._model(name))
        elif self.path in _PAGES:
            name, kind = _PAGES[self.path]
            self._send(200, kind, resources("tuition.ship").joinpath(name).read_bytes())
        else:
            raise RequestError(404, f"There is nothing at {self.path[:80]}.", code="not_found")

    def _post(self) -> None:
        if self.path != "/v1/chat/completions":
            raise RequestError(404, f"There is nothing at {self.path[:80]}.", code="not_found")
        request = read_request(self._body())
        answerer = self._answerer(request.model)
        with self.server.turn():
            self._answer(request, answerer)

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.server.started, "owned_by": "tuition"}

    def _answerer(self, name: str) -> Answerer:
        if name in self.server.models:
            return self.server.models[name]
        known = ", ".join(self.server.models)
        raise RequestError(
            404, f"There is no model '{name[:200]}'; here is {known}.", param="model", code="model_not_found"
        )

    def _body(self) -> bytes:
        if self.headers.get_content_type() != "application/json":
            raise RequestError(415, "The Content-Type must be application/json.")
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise RequestError(411, "Content-Length is missing.")
        if len(length) > 9 or int(length) > LONGEST_BODY:
            raise RequestError(413, f"The body is longer than {LONGEST_BODY:,} bytes.")
        return self.rfile.read(int(length))

    def _answer(self, request: ChatRequest, answerer: Answerer) -> None:
        prompt = answerer.renderer.prompt_ids(request.messages).tolist()
        room = room_for_answer(answerer.loaded.model, len(prompt), request.drawing.max_new_tokens)
        if room < 1:
            raise RequestError(
                400,
                "The messages fill the model's context.",
                param="messages",
                code="context_length_exceeded",
            )
        drawing = replace(request.drawing, max_new_tokens=room)
        pieces = decode(answerer, prompt, drawing, self.server.stopping.is_set, request.stop)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": request.model}
        if request.stream:
            self._stream(request, head, pieces, len(prompt))
            return
        text, end = [], End("length", 0)
        for piece in pieces:
            if isinstance(piece, End):
                end = piece
            else:
                text.append(piece)
        choice = {
            "index": 0, "message": {"role": "assistant", "content": "".join(text)}, "logprobs": None,
            "finish_reason": end.reason,
        }  # fmt: skip
        self._json(200, {
            **head, "object": "chat.completion", "choices": [choice], "usage": _usage(len(prompt), end.tokens),
        })  # fmt: skip

    def _stream(
        self, request: ChatRequest, head: Mapping[str, Any], pieces: Iterator[str | End], prompt_tokens: int
    ) -> None:
        self.close_connection = True
        self._head(200, "text/event-stream; charset=utf-8", {"Connection": "close"})

        def event(delta: Mapping[str, Any] | None, reason: str | None = None, **more: Any) -> None:
            choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
            chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
            self.wfile.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())
            self.wfile.flush()

        event({"role": "assistant", "content": ""})
        for piece in pieces:
            if isinstance(piece, End):
                event({}, piece.reason)
                if request.stream_usage:
                    event(None, usage=_usage(prompt_tokens, piece.tokens))
            else:
                event({"content": piece})
        self.wfile.write(b"data: [DONE]\n\n")

    def _json(self, status: int, value: Any) -> None:
        in_ascii = json.dumps(value).encode()  # a request may hold half a character, which UTF-8 cannot say
        self._send(status, "application/json", in_ascii)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        more = {"Content-Length": str(len(body))}
        if self.close_connection:
            more["Connection"] = "close"
        self._head(status, f"{kind}; charset=utf-8", more)
        self.wfile.write(body)

    def _head(self, status: int, kind: str, more: Mapping[str, str]) -> None:
        self.begun = True
        self.send_response(status)
        for name, value in {"Content-Type": kind, **_HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()


def _usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
