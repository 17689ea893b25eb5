"""Feed the studio requests of every shape, from everybody: no answer of 500, and nothing stored by who may not.

Requests are made from the application's own description of itself, filled with values that are right, wrong
and hostile. The suite sends a small share; run the large one: python -m tests.prove.requests (REQUESTS=10000).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sqlite3
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote, quote_plus

from tuition import jobs
from tuition.collect import Store, people, prompts
from tuition.collect.sessions import open_session
from tuition.conversation import Message
from tuition.studio.app import make_app
from tuition.studio.pages import PAGES
from tuition.studio.web import Studio

_HOST = "127.0.0.1:8080"
_TEXTS = (
    "", " ", "a", "writer", "admin", "0", "1", "2", "-1", "9" * 30, "1e999", "nan", "true", "null", "[]", "{}", "[1]",
    '[{"role":"user","content":"x"}]', "<img src=x onerror=alert(1)>", "{{ 7*7 }}", "' OR 1=1 --", "../../etc/passwd",
    "/etc/passwd", "\0", "\n\r\t", "é", "日本語", "\U0001f9d1\u200d\U0001f680", "\u202e", "\ufeff", "a" * 5000, "%00",
    "model: starter\ndata: x\noutput_dir: outputs/y", "&a *a", "${PATH}", "\\", '"', "accepted", "a_much", "strange",
)  # fmt: skip
_RAW = (
    b"",
    b"\xff\xfe",
    b"a=%ff&b=%zz",
    b"a" * 3000,
    b"{}",
    b"--x\r\n\r\n",
    b"&&&===",
    b"role=writer&role=admin",
)
_ROLES = ("admin", "writer", "reviewer", "evaluator", "")
_STRANGE = ("host", "origin", "site", "cookie")


@dataclass
class Outcome:
    """What became of the requests.

    Attributes:
        answers: how many of each status.
        surprises: answers of 500 or exceptions: the request, and where it came from.
        stored: requests that changed the store and may not have.
    """

    requests: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """One request and who sends it; `strange` names what is wrong about it, if anything is."""

    method: str
    path: str
    body: bytes
    role: str
    strange: str
    form: str

    def __str__(self) -> str:
        return f"{self.role or 'stranger'}{' ' + self.strange} {self.method} {self.path[:200]} {self.body[:300]!r}"


def fuzz(folder: Path, requests: int, seed: int = 0) -> Outcome:
    """Send so many; nothing is raised, all is counted."""
    with Store(folder / "team.db") as store, _nothing_is_started():
        sessions = _people(store)
        _material(store, folder)
        app = make_app(Studio(store=store, runs=folder / "outputs"))
        with closing(sqlite3.connect(folder / "team.db")) as watch:
            return asyncio.run(_send_all(app, watch, sessions, requests, random.Random(seed)))


async def _send_all(
    app: Any, watch: sqlite3.Connection, sessions: dict[str, str], requests: int, chance: random.Random
) -> Outcome:
    outcome, operations = Outcome(), list(_operations(app))
    version = _version(watch)
    for _ in range(requests):
        request = _draw(operations, chance)
        status = await _send(app, request, sessions, outcome)
        outcome.requests += 1
        outcome.answers[status] += 1
        if status >= 500:
            outcome.surprises.append(f"{status}: {request}")
        before, version = version, _version(watch)
        if version != before and _may_not_store(request, status):
            outcome.stored.append(f"{status}: {request}")
        if request.path == "/logout" or request.path.endswith(("/disable", "/role", "/password")):
            sessions.update(_people(app.state.studio.store))
            version = _version(watch)
    return outcome


def _may_not_store(request: Request, status: int) -> bool:
    """Whoever is no one, comes by another site's page, or was refused, leaves the store as it was."""
    signing_in = request.path.startswith(("/login", "/enter", "/invite")) and request.strange in (
        "",
        "cookie",
    )
    # a writer's own draft is saved before anything else is tried, whatever comes of that
    drafting = request.path.startswith("/write/") and status == 404
    refused = status in (401, 403, 404, 405, 411, 413, 414, 422) and not drafting
    return not signing_in and (not request.role or bool(request.strange) or refused)


# --- requests


def _operations(app: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and the fields of the form of everything that the application answers."""
    said = app.openapi()
    for path, methods in said["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, _fields(said, operation)


def _fields(said: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    found = {p["name"]: p["schema"] for p in operation.get("parameters", []) if p["in"] == "query"}
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        name = schema.get("$ref", "").rpartition("/")[2]
        found |= said["components"]["schemas"].get(name, schema).get("properties", {})
        found["*"] = kind
    return found


def _draw(operations: list[tuple[str, str, dict[str, Any]]], chance: random.Random) -> Request:
    method, path, fields = chance.choice(operations)
    form = str(fields.get("*", "application/x-www-form-urlencoded"))
    path = re.sub(r"\{[^}]+\}", lambda _: _path_value(chance), path)
    pairs = [
        (name, _value(schema, chance))
        for name, schema in fields.items()
        if name != "*" and chance.random() < 0.9
    ]
    if path.startswith("/start") and chance.random() < 0.5:  # its controls come from the recipe's schema
        pairs += [
            ("name", _text(chance)),
            ("model", "starter"),
            ("data", _text(chance)),
            ("epochs", _text(chance)),
        ]
    encoded = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs)
    if method == "GET":
        path, body = f"{path}?{encoded}" if encoded else path, b""
    else:
        body = chance.choice(_RAW) if chance.random() < 0.08 else encoded.encode()
        if form == "multipart/form-data" and chance.random() < 0.8:
            body, form = _multipart(pairs, chance)
    strange = chance.choice(_STRANGE) if chance.random() < 0.2 and method == "POST" else ""
    if chance.random() < 0.03:
        method = chance.choice(["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "X"])
    return Request(method, path, body, chance.choice(_ROLES), strange, form)


def _path_value(chance: random.Random) -> str:
    return (
        chance.choice(["1", "2", "3", "strange"])
        if chance.random() < 0.6
        else quote(_text(chance)[:300], safe="")
    )


def _value(schema: dict[str, Any], chance: random.Random) -> str:
    """A value of the kind that is asked for, or of any other."""
    if chance.random() < 0.4:
        return _text(chance)
    kinds = {branch.get("type") for branch in schema.get("anyOf", [schema])}
    if schema.get("enum"):
        return str(chance.choice(schema["enum"]))
    if kinds & {"integer", "number"}:
        return str(chance.choice([0, 1, 2, 3, 7, -1, 2**31, 2**63, 0.5]))
    if "boolean" in kinds:
        return chance.choice(["true", "false", "on"])
    return _text(chance)


def _text(chance: random.Random) -> str:
    if chance.random() < 0.7:
        return chance.choice(_TEXTS)
    return "".join(
        chr(chance.choice([chance.randrange(128), chance.randrange(0xD800)]))
        for _ in range(chance.randrange(30))
    )


def _quoted(text: str) -> str:
    return quote_plus(text, errors="replace")


def _multipart(pairs: list[tuple[str, str]], chance: random.Random) -> tuple[bytes, str]:
    parts = []
    for name, value in pairs:
        is_file = name in ("file", "files", "upload")
        content = _file(chance) if is_file else value.encode("utf-8", "replace")
        about = (
            f'; filename="{chance.choice(["a.jsonl", "../x.csv", "b.parquet", "", "c.json.gz"])}"'
            if is_file
            else ""
        )
        parts.append(
            f'--zz\r\nContent-Disposition: form-data; name="{name}"{about}\r\n\r\n'.encode()
            + content
            + b"\r\n"
        )
    return b"".join(parts) + b"--zz--\r\n", "multipart/form-data; boundary=zz"


def _file(chance: random.Random) -> bytes:
    row = json.dumps({"prompt": _text(chance), "completion": _text(chance)}).encode()
    return chance.choice(
        [row, row + b"\n" + row, b"PAR1", b"\x1f\x8b\x08", b"", b"[" * 5000, b"a,b\n1,2\n", b"\xff\xfe{"]
    )


# --- sending


async def _send(app: Any, request: Request, sessions: dict[str, str], outcome: Outcome) -> int:
    """The status of the answer; 599 where an exception came through."""
    path, _, query = request.path.partition("?")
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "scheme": "http",
        "path": _decoded(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": _headers(request, sessions), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
    }  # fmt: skip
    try:
        await asyncio.wait_for(app(scope, receive, send), 60)
    except Exception:
        outcome.surprises.append(f"{request}\n{traceback.format_exc()[-1500:]}")
        return 599
    return status


def _decoded(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)


def _headers(request: Request, sessions: dict[str, str]) -> list[tuple[bytes, bytes]]:
    host = "evil.example" if request.strange == "host" else _HOST
    origin = "http://evil.example" if request.strange == "origin" else f"http://{_HOST}"
    session = sessions[request.role] if request.role and request.strange != "cookie" else "0" * 43
    headers = {
        "host": host, "origin": origin, "cookie": f"tuition-8080={session}", "content-type": request.form,
        "content-length": str(len(request.body)), "accept": "text/html",
    }  # fmt: skip
    if request.strange == "site":
        headers["sec-fetch-site"] = "cross-site"
    return [(name.encode(), value.encode()) for name, value in headers.items()]


# --- the studio that is fuzzed


def _people(store: Store) -> dict[str, str]:
    """A session of one person of each role, as they were at the beginning."""
    there = {person.name: person for person in people.people(store)}
    opened = {}
    for role in filter(None, _ROLES):
        person = there.get(f"the {role}") or people.add_person(store, f"the {role}", role, by=None)
        if person.disabled:
            people.set_disabled(store, person.id, False, by=None)
        if person.role != role:
            people.set_role(store, person.id, role, by=None)
        opened[role] = open_session(store, person.id)
    return opened


def _material(store: Store, folder: Path) -> None:
    """A few prompts, and a run that is none."""
    asked = [prompts.NewPrompt((Message("user", f"Say {n}"),), f"rows:{n}") for n in range(6)]
    prompts.add(store, asked, source="rows", by=None)
    strange = folder / "outputs" / "strange"
    strange.mkdir(parents=True, exist_ok=True)
    (strange / "run.json").write_text('{"status": "running", "plan": []}')


@contextmanager
def _nothing_is_started() -> Iterator[None]:
    """A recipe that happens to be right shall start no process here."""
    with mock.patch.object(jobs, "start"):
        yield


def _version(watch: sqlite3.Connection) -> int:
    """Changes when another connection changed the file."""
    return int(watch.execute("PRAGMA data_version").fetchone()[0])


def main() -> int:
    """Run the large share; exit 1 when there was a surprise."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz(
            Path(folder), int(os.environ.get("REQUESTS", "10000")), int(os.environ.get("SEED", "0"))
        )
    print(
        f"{outcome.requests:,} requests to {len(PAGES)} pages and the doors:",
        dict(sorted(outcome.answers.items())),
    )
    print(f"{len(outcome.surprises)} surprises, {len(outcome.stored)} stored by who may not")
    print("\n".join([*outcome.surprises[:10], *outcome.stored[:10]]))
    return 1 if outcome.surprises or outcome.stored else 0


if __name__ == "__main__":
    sys.exit(main())
