"""The endpoint over a real socket: OpenAI's shape, its errors, and the same answers as in this process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import tuition
from tests.patience import PATIENCE_SECONDS
from tests.studio.browsers import PHONE, chromium, faults_of, hold_back
from tuition.errors import UserError
from tuition.ship.server import LONGEST_BODY, Server

__all__ = ["chromium"]

HI = [{"role": "user", "content": "What is 3 and 3?"}]


@pytest.fixture(scope="module")
def answerer(full_run: tuition.Run) -> Any:
    return tuition.api.load(str(full_run.path), device="cpu")


@pytest.fixture(scope="module")
def server(answerer: Any) -> Iterator[Server]:
    server = Server({"tuned": answerer, "base": answerer}, host="127.0.0.1", port=0, api_key=None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def call(
    server: Server, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
) -> tuple[int, Any, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=PATIENCE_SECONDS)
    given = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    content = raw if raw is not None else None if body is None else json.dumps(body).encode()
    connection.request("GET" if content is None else "POST", path, content, given)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    is_json = response.headers.get_content_type() == "application/json"
    return response.status, json.loads(text) if is_json else text, response


def chat(server: Server, **request: Any) -> tuple[int, Any, http.client.HTTPResponse]:
    return call(server, "/v1/chat/completions", {"model": "tuned", "messages": HI, **request})


def events(text: str) -> list[Any]:
    lines = text.removesuffix("\n\n").split("\n\n")
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_message_that_is_sent_before_the_page_knows_its_models_is_answered_by_both(
    server: Server, chromium: Any
) -> None:
    page = chromium.new_page(viewport={"width": PHONE, "height": 844}, color_scheme="dark")
    let_go = hold_back(page, "**/health")  # what the script asks for before anything else
    page.goto(server.address)
    page.locator("textarea").fill("What is 3 and 3?")
    page.keyboard.press("Enter")
    let_go()
    expected = chat(server)[1]["choices"][0]["message"]["content"].strip()
    for column in ("tuned", "base"):
        answer = page.locator("section", has=page.get_by_role("heading", name=column)).locator(".assistant")
        answer.filter(has_text=expected).wait_for()
    page.locator("#send:enabled").wait_for()
    assert faults_of(page) == []
    page.close()


def test_a_stream_says_the_same_piece_by_piece(server: Server) -> None:
    _, whole, _ = chat(server, max_tokens=24)
    status, text, response = chat(server, max_tokens=24, stream=True, stream_options={"include_usage": True})
    assert status == 200
    assert response.headers.get_content_type() == "text/event-stream"
    chunks = events(text)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    pieces = [c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert len([piece for piece in pieces if piece]) > 3
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["usage"] == whole["usage"]


def test_a_stop_text_ends_the_answer_and_is_not_in_it_streamed_or_not(server: Server) -> None:
    whole = chat(server, max_tokens=24)[1]["choices"][0]["message"]["content"]
    stop = whole[5:9]
    before = whole[: whole.index(stop)]
    choice = chat(server, max_tokens=24, stop=[stop, "never said"])[1]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (before, "stop")
    streamed = events(chat(server, max_tokens=24, stop=stop, stream=True)[1])
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in streamed) == before


def test_a_seed_fixes_what_is_drawn_and_another_draws_otherwise(server: Server) -> None:
    def drawn(**request: Any) -> str:
        return str(
            chat(server, max_tokens=24, temperature=1.5, **request)[1]["choices"][0]["message"]["content"]
        )

    assert drawn(seed=1) == drawn(seed=1)
    assert len({drawn(seed=seed) for seed in range(5)}) > 1
    greedy = chat(server, max_tokens=24)[1]["choices"][0]["message"]["content"]
    assert drawn(seed=1, top_p=0) == greedy
    assert chat(server, max_tokens=24, temperature=1e-300)[1]["choices"][0]["message"]["content"] == greedy


@pytest.mark.parametrize(
    ("request_", "status", "param"),
    [
        ({"model": "gpt"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "hi"}, 400, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, 400, "messages"),
        ({"messages": [*HI, {"role": "assistant", "content": "6"}]}, 400, "messages"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": "9"}, 400, "max_tokens"),
        ({"max_completion_tokens": 0}, 400, "max_completion_tokens"),
        ({"temperature": 3}, 400, "temperature"),
        ({"temperature": float("nan")}, 400, "temperature"),
        ({"temperature": ""}, 400, "temperature"),
        ({"top_p": -1}, 400, "top_p"),
        ({"seed": 1.5}, 400, "seed"),
        ({"stop": [""]}, 400, "stop"),
        ({"stream": "yes"}, 400, "stream"),
        ({"n": 2}, 400, "n"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"best_of": 2}, 400, "best_of"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_openai_s_shape(
    server: Server, request_: dict[str, Any], status: int, param: str
) -> None:
    got, said, _ = chat(server, **request_)
    assert (got, said["error"]["param"]) == (status, param)
    assert said["error"]["type"] == "invalid_request_error"
    assert said["error"]["message"]


def test_bodies_that_are_no_request_are_refused(server: Server) -> None:
    path = "/v1/chat/completions"
    assert call(server, path, raw=b"{")[0] == 400
    assert call(server, path, raw=b"[" * 100_000)[0] == 400
    assert call(server, path, raw=b"[]")[0] == 400
    assert call(server, path, {}, Content_Type="text/plain")[0] == 415
    assert call(server, path, raw=b"", Content_Length=str(LONGEST_BODY + 1))[0] == 413
    assert call(server, "/v1/embeddings", {})[0] == 404
    assert call(server, "/../secrets")[0] == 404


def test_an_answer_that_comes_before_the_body_is_sent_is_not_cut_off(server: Server) -> None:
    address = server.server_address[:2]
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Length: 100000\r\n\r\n"
    )
    with socket.create_connection(address) as talk:
        talk.sendall(head.encode())
        talk.recv(1, socket.MSG_PEEK)  # it has answered
        for _ in range(20):
            talk.sendall(b"x" * 5_000)
        assert talk.makefile("rb").read().startswith(b"HTTP/1.1 404")


def test_a_client_that_goes_away_prints_nothing(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        connection, address = listening.accept()
    client.sendall(b"GET /hea")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing cuts off
    client.close()
    server.process_request_thread(connection, address)
    assert capsys.readouterr() == ("", "")


def test_half_a_character_in_a_request_is_answered_in_json(server: Server) -> None:
    body = b'{"model": "\\ud800", "messages": [{"role": "user", "content": "a"}]}'
    status, answer, _ = call(server, "/v1/chat/completions", raw=body)
    assert status == 404
    assert "\ud800" in answer["error"]["message"]


def test_other_sites_cannot_reach_it(server: Server) -> None:
    assert call(server, "/health", Host="evil.example:80")[0] == 403
    assert call(server, "/health", Origin="https://evil.example")[0] == 403
    port = server.server_address[1]
    assert call(server, "/health", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200


def test_the_page_and_the_lists(server: Server) -> None:
    assert call(server, "/health")[1]["status"] == "ok"
    assert [m["id"] for m in call(server, "/v1/models")[1]["data"]] == ["tuned", "base"]
    for path in ("/", "/chat.js", "/chat.css"):
        status, text, response = call(server, path)
        assert status == 200
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "http" not in text, "the page needs nothing from anywhere else"


def test_too_many_waiting_are_told_so(answerer: Any) -> None:
    server = Server({"m": answerer}, host="127.0.0.1", port=0, api_key=None)
    server._waiting = 9
    from tuition.ship.requests import RequestError

    with pytest.raises(RequestError, match="Too many") as refusal, server.turn():
        pass
    assert refusal.value.status == 429
    server.server_close()


def test_a_host_open_to_others_needs_a_key_and_the_key_is_asked_for(answerer: Any) -> None:
    with pytest.raises(UserError, match="TUITION_API_KEY"):
        Server({"m": answerer}, host="0.0.0.0", port=0, api_key=None)
    server = Server({"m": answerer}, host="127.0.0.1", port=0, api_key="secret")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        assert call(server, "/v1/models")[0] == 401
        assert call(server, "/v1/models", Authorization="Bearer wrong")[0] == 401
        assert call(server, "/v1/models", Authorization="Bearer secret")[0] == 200
        assert call(server, "/health")[1] == {"status": "ok", "key": True}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_command_serves_and_ctrl_c_leaves_cleanly(full_run: tuition.Run) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tuition", "serve", str(full_run.path), "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("chat: http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert errors.endswith("stopped\n")
    assert f"vllm serve {full_run.path / 'model'}" in errors
    assert "Traceback" not in errors
