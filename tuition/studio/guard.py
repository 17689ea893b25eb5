"""What stands before every page: whose name the request calls, which site sent it, how long it is.

Nothing here knows people; who may see a page, `entrance.py` says.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY_BYTES = 2 << 20
LONGEST_UPLOAD_BYTES = 512 << 20
_LONGEST_TARGET = 4096
_SAFE = frozenset({"GET", "HEAD"})
_METHODS = frozenset({"GET", "HEAD", "POST"})
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not no-referrer: with it browsers send `Origin: null` with our own forms
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Guard:
    """Middleware that refuses strangers before any page runs, and dresses every answer in its headers.

    Args:
        hosts: what a Host header may say.
        uploads: paths whose bodies may be as long as a file of prompts.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], uploads: frozenset[str]) -> None:
        self.app, self.hosts, self.uploads = app, hosts, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        dressed = _dressed(send)
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, dressed)
            return
        status, sentence = refusal
        # the body may be left unread, so the connection cannot serve another request
        answer = PlainTextResponse(sentence, status, {"Connection": "close"})
        await answer(scope, receive, dressed)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        method = scope["method"]
        checks = (
            lambda: self._host(headers),
            lambda: _target(scope),
            lambda: _method(method),
            lambda: None if method in _SAFE else sent_by_another_site(headers),
            lambda: None if method in _SAFE else self._length(scope["path"], headers),
        )
        return next(filter(None, (check() for check in checks)), None)

    def _host(self, headers: Headers) -> tuple[int, str] | None:
        """A name that leads here by a trick (DNS rebinding) is not one of ours."""
        if headers.getlist("host") and headers.getlist("host")[-1].lower() in self.hosts:
            return None if len(headers.getlist("host")) == 1 else (400, "Two Host headers.")
        return (
            403,
            "The Host header names no address of this studio. See --allow-host in `tuition studio --help`.",
        )

    def _length(self, path: str, headers: Headers) -> tuple[int, str] | None:
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
            return 411, "Content-Length is missing."
        longest = LONGEST_UPLOAD_BYTES if path in self.uploads else LONGEST_BODY_BYTES
        if len(length) > 12 or int(length) > longest:
            return 413, f"The request is longer than {longest >> 20} MiB."
        return None


def allowed_hosts(host: str, port: int, names: Iterable[str]) -> frozenset[str]:
    """What a Host header may say: the bound address, this machine, and the names that were allowed."""
    bound = () if host in ("0.0.0.0", "::", "") else (f"[{host}]" if ":" in host else host,)
    others = [name.lower() for name in names]
    with_port = {f"{name}:{port}" for name in (*_LOOPBACK_NAMES, *bound, *others)}
    # a proxy's port is not ours, and browsers leave the usual ports out
    return frozenset({*with_port, *others, *(bound if port in (80, 443) else ())})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def sent_by_another_site(headers: Headers) -> tuple[int, str] | None:
    """Why a request that changes something is refused, or None where our own page sent it.

    Browsers say so in Sec-Fetch-Site; where they do not (plain http between machines), in Origin.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return None if site == "same-origin" else (403, "Requests from other sites are refused.")
    origin = headers.get("origin")
    if origin is None:
        return 403, "The request does not say which site sent it: send an Origin header."
    if origin.lower() in (f"http://{headers['host'].lower()}", f"https://{headers['host'].lower()}"):
        return None
    return 403, "Requests from other sites are refused."


def _method(method: str) -> tuple[int, str] | None:
    return None if method in _METHODS else (405, "Only GET, HEAD and POST are answered here.")


def _target(scope: Scope) -> tuple[int, str] | None:
    path: str = scope["path"]
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _LONGEST_TARGET:
        return 414, "The address is too long."
    if any(
        ord(character) < 32 or ord(character) == 127 or "\ud800" <= character <= "\udfff"
        for character in path
    ):
        return 400, "The address holds control characters."
    if ".." in path.split("/") or "\\" in path:
        return 400, "The address names a folder above."
    return None


def _dressed(send: Send) -> Send:
    """Send, with the headers of every answer; one that a page set itself stays."""

    async def dress(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return dress
