"""Pushing: what would go is shown, the token never is."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

import tuition
from tuition.errors import UserError
from tuition.ship.push import check_name, upload


def test_a_dry_run_lists_every_file_with_its_size_and_uploads_nothing(
    full_run: tuition.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pushed = tuition.api.push(str(full_run.path), "me/helper", dry_run=True)
    sizes = dict(pushed.files)
    assert {"README.md", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= sizes.keys()
    assert sizes["model.safetensors"] == (full_run.path / "model" / "model.safetensors").stat().st_size
    assert pushed.address is None
    assert "hf_secret" not in str(pushed.to_json())


@pytest.mark.parametrize("name", ["helper", "a/b/c", "me/../x", "me/", "--/x"])
def test_a_name_that_the_hub_does_not_allow_is_refused_at_once(name: str) -> None:
    with pytest.raises(UserError, match="Give owner/name"):
        check_name(name)


class Refusing(BaseHTTPRequestHandler):
    """A hub that lets nobody write, and says back what it was told."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))  # left unread it would cut the answer off
        body = f'{{"error": "not with {self.headers["Authorization"]}"}}'.encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("token", ["hf_secret", f"hf_secret{'t' * 400}"])  # the long one is cut through
def test_a_refusal_of_the_hub_is_shown_without_the_token(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")
    try:
        with pytest.raises(UserError, match=r"the hub refused .*403") as refusal:
            upload(tmp_path, "me/helper", token=token, private=True)
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
    assert "hf_secret" not in str(refusal.value)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload asks for; keeps what was committed and how the caller was named."""

    protocol_version = "HTTP/1.1"
    committed: ClassVar[dict[str, bytes]] = {}
    tokens: ClassVar[set[str | None]] = set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self._chunks()
        self.tokens.add(self.headers["Authorization"])
        if self.path.endswith("/create"):
            self._say({"url": "https://huggingface.co/me/helper"})
        elif self.path.endswith("/validate-yaml"):
            self._say({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            named = [file["path"] for file in json.loads(body)["files"]]
            regular = [
                {"path": n, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for n in named
            ]
            self._say({"files": regular})
        else:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.committed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._say(
                {"commitUrl": "https://huggingface.co/me/helper/commit/1", "commitOid": "1", "success": True}
            )

    def do_GET(self) -> None:
        self.tokens.add(self.headers["Authorization"])
        self._say({"id": "me/helper", "sha": "0", "siblings": [], "private": True})

    def _chunks(self) -> bytes:
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _say(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_a_push_uploads_every_file_as_it_passed_and_the_token_is_never_printed(
    full_run: tuition.Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tuition import cli

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    hub.daemon_threads, hub.block_on_close = True, False
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretverysecretverysecret")
    monkeypatch.setattr("sys.argv", ["tuition", "push", str(full_run.path), "--to", "me/helper"])
    try:
        with pytest.raises(SystemExit) as leaving:
            cli.main()
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
    shown = capfd.readouterr()
    assert leaving.value.code == 0, shown.err
    assert Hub.tokens == {"Bearer hf_verysecretverysecretverysecret"}
    assert Hub.committed["model.safetensors"] == (full_run.path / "model" / "model.safetensors").read_bytes()
    assert {
        "README.md",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    } <= Hub.committed.keys()
    assert f"{len(Hub.committed)} files" in shown.out
    assert "verysecret" not in shown.out + shown.err
    assert not any(b"verysecret" in content for content in Hub.committed.values())
    assert b"/" not in Hub.committed["config.json"], "no path of this machine goes along"


def test_an_adapter_over_a_folder_of_this_machine_is_not_pushed(lora_run: tuition.Run) -> None:
    with pytest.raises(
        UserError, match=r"a folder of this machine, which nobody else has. Push the merged model"
    ):
        tuition.api.push(str(lora_run.path), "me/helper", format="adapter", dry_run=True)
