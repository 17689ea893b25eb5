"""Pushing: what would go is shown, the token never is."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

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
        body = f'{{"error": "not with {self.headers["Authorization"]}"}}'.encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_a_refusal_of_the_hub_is_shown_without_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")
    try:
        with pytest.raises(UserError, match=r"the hub refused .*403") as refusal:
            upload(tmp_path, "me/helper", token="hf_secret", private=True)
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
    assert "hf_secret" not in str(refusal.value)
