"""The parsers that must bear whatever they are given: one row of `make_parsers` each."""

from __future__ import annotations

import gzip
import io
import json
import random
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.conftest import make_tokenizer
from tests.prove.inputs import (
    VALUES,
    Damage,
    Parser,
    as_text,
    damaged_bytes,
    damaged_value,
    laid_file,
    numbers,
)
from tests.prove.parsers_of_folders import of_models, of_prepared, of_runs
from tests.prove.parsers_of_work import of_work
from tests.prove.sound_files import (
    ASSIGNMENTS,
    CONDITIONS,
    MAPPINGS,
    RECIPE,
    REQUEST,
    REQUEST_HEAD,
    ROWS,
    TEMPLATES,
)


def make_parsers(root: Path) -> dict[str, Parser]:
    """Every parser, with its own folder below `root`."""
    found: dict[str, Parser] = {}
    for make in (
        _of_data,
        _of_settings,
        _of_requests,
        of_runs,
        of_prepared,
        _of_templates,
        of_models,
        of_work,
    ):
        found |= make(root)
    return found


def _of_data(root: Path) -> dict[str, Parser]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = b"".join(as_text(row) + b"\n" for row in ROWS)
    table = pa.table({"prompt": ["a", "b"], "completion": ["c", "d"], "weight": [1.0, 2.0]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    zstd = pa.compress(lines, codec="zstd", asbytes=True)
    sound = {
        "rows.jsonl": lines, "rows.json": as_text(ROWS), "rows.csv": b'prompt,completion\n"a, b",c\nd,"e\nf"\n',
        "rows.tsv": b"prompt\tcompletion\na\tb\n", "rows.parquet": parquet.getvalue(), "rows.arrow": arrow.getvalue(),
        "rows.jsonl.gz": gzip.compress(lines, mtime=0), "rows.jsonl.zst": zstd,
    }  # fmt: skip

    def read(path: Path) -> bool:
        from tuition.data import Reading

        reading = Reading([str(path)])
        for conversation in reading:
            reading.ledger.keep(conversation.origin)
        reading.ledger.check_balance()
        json.dumps(reading.ledger.summary())
        return bool(reading.ledger.rejected or any(f.severity == "error" for f in reading.ledger.findings))

    def of(name: str, content: bytes) -> Parser:
        return Parser(numbers, laid_file(root / "data", name, lambda n: damaged_bytes(content, n[1])), read)

    found = {name: of(name, content) for name, content in sound.items()}
    shaped = laid_file(
        root / "data", "shaped.jsonl", lambda n: as_text(damaged_value(ROWS[n[0] % len(ROWS)], n[1])) + b"\n"
    )
    return {**found, "rows of any shape": Parser(numbers, shaped, read)}


def _of_settings(root: Path) -> dict[str, Parser]:
    from tuition.cli.shared import assignments
    from tuition.data import Reading
    from tuition.evaluate.gate import read_conditions
    from tuition.recipe import Recipe, load_recipe, make_recipe

    fields = sorted(Recipe.model_fields)

    def settings_of(n: Damage) -> dict[str, Any]:
        chance = random.Random(n[1])
        given = {"model": "m", "data": "d"}
        return given | {chance.choice(fields): chance.choice(VALUES) for _ in range(1 + n[0] % 4)}

    def damaged_text(sound: Sequence[str], n: Damage) -> str:
        return damaged_bytes(sound[n[0] % len(sound)].encode(), n[1]).decode("utf-8", "replace")

    def mapping(given: Any) -> bool:
        recipe = make_recipe({"model": "m", "data": "d", "mapping": given})
        reading = Reading(rows=[{"q": "a", "a": "b", "m": ROWS[1]["messages"]}], mapping=recipe.mapping)
        return not list(reading)

    text = laid_file(root / "recipe", "recipe.yaml", lambda n: damaged_bytes(RECIPE, n[1]))
    return {
        "recipe file": Parser(numbers, text, lambda path: load_recipe(path) and False),
        "recipe values": Parser(numbers, settings_of, lambda given: make_recipe(given).to_yaml() and False),
        "--set": Parser(
            numbers,
            partial(damaged_text, ASSIGNMENTS),
            lambda text: make_recipe({"model": "m", "data": "d", **assignments([text])}) and False,
        ),
        "mapping": Parser(numbers, lambda n: damaged_value(MAPPINGS[n[0] % len(MAPPINGS)], n[1]), mapping),
        "conditions of the gate": Parser(
            numbers, partial(damaged_text, CONDITIONS), lambda text: not read_conditions([text])
        ),
    }


def _of_requests(root: Path) -> dict[str, Parser]:
    from tuition.ship.requests import RequestError, read_request
    from tuition.ship.server import Handler, Server

    server = Server({}, host="127.0.0.1", port=0, api_key=None)
    head = REQUEST_HEAD.replace(b"PORT", str(server.server_address[1]).encode())

    def body(n: Damage) -> bytes:
        text = as_text(damaged_value(REQUEST, n[1]))
        return damaged_bytes(text, n[1]) if n[0] % 4 == 0 else text

    def request(n: Damage) -> bytes:
        sent = as_text(REQUEST)
        if n[0] % 2:
            return damaged_bytes(head.replace(b"LENGTH", str(len(sent)).encode()), n[1]) + sent
        sent = body(n)
        return head.replace(b"LENGTH", str(len(sent)).encode()) + sent

    def refused(sent: bytes) -> bool:
        try:
            read_request(sent)
        except RequestError:
            return True
        return False

    def answered(sent: bytes) -> bool:
        """Whatever comes is answered with a refusal in HTTP, or the connection is closed; never with a 500."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(sent)
            ours.shutdown(socket.SHUT_WR)
            Handler(theirs, ("127.0.0.1", 1), server)
            theirs.close()
            answer = b"".join(iter(lambda: ours.recv(1 << 16), b""))
        # before HTTP/1.0 an answer had no head
        assert not answer or answer.startswith(
            (b"HTTP/1.1 4", b"HTTP/1.1 200", b"HTTP/1.1 505", b"HTTP/1.1 501", b"<!DOCTYPE")
        ), answer
        return not answer.startswith(b"HTTP/1.1 200")

    return {
        "body of a request": Parser(numbers, body, refused),
        "request": Parser(numbers, request, answered),
    }


def _of_templates(root: Path) -> dict[str, Parser]:
    from tuition.render.choosing import choose_template
    from tuition.render.template import ChatTemplate, TemplateRefusal, on_day

    tokenizer = make_tokenizer(template=None)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    def source(n: Damage) -> bytes:
        return damaged_bytes(TEMPLATES[n[0] % len(TEMPLATES)].encode(), n[1])

    def render(template: ChatTemplate) -> bool:
        try:
            on_day(template, "2026-01-31").text(messages, [], add_generation_prompt=True)  # type: ignore[union-attr]
        except TemplateRefusal:
            return True
        return False

    lay = laid_file(root / "templates", "chat_template.jinja", source)
    return {
        "template": Parser(
            numbers,
            lambda n: ChatTemplate(source(n).decode("utf-8", "replace"), {"bos_token": "<s>"}, "fuzz"),
            render,
        ),
        "template file": Parser(
            numbers,
            lay,
            lambda path: render(choose_template(str(path), tokenizer)),  # type: ignore[arg-type]
        ),
    }
