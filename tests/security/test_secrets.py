"""Secrets of the environment and of the command line reach no file and no screen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tuition import files
from tuition.errors import UserError
from tuition.redact import redact
from tuition.training import command_line

CANARIES = {
    "HF_TOKEN": "hf_CANARYabcdefghijklmnop",
    "AWS_ACCESS_KEY_ID": "AKIACANARY1234567890",
    "AWS_SECRET_ACCESS_KEY": "canary/aws+secret9876",
    "MY_SERVICE_KEY": "canary-key-value-1",
    "DATABASE_PASSWORD": "canary-database-word",
    "WANDB_API_KEY": "canarywandb0123456789",
    "SOMETHING_SECRET": "canary-something",
}
TYPED = ["canary-url-word", "canary-set-value", "hf_CANARYtypedtypedtyped"]


def tuition_command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **CANARIES,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "tuition", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def leaks(text: str) -> list[str]:
    return [secret for secret in [*CANARIES.values(), *TYPED] if secret in text]


def test_a_good_run_writes_no_secret_anywhere(llama: Path, tmp_path: Path) -> None:
    # the only secrets that a command which succeeds can hold are in names: this folder's is one
    secret = tmp_path / "hf_CANARYtypedtypedtyped"
    secret.mkdir()
    data = write_jsonl(
        secret / "d.jsonl", [{"prompt": f"What is {i}?", "completion": f"{i}"} for i in range(8)]
    )
    done = tuition_command(
        tmp_path, "train", "--model", str(llama), "--data", str(data.relative_to(tmp_path)),
        "--output-dir", "run", "--max-steps", "2", "--samples", "1", "--batch-size", "4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        found = leaks(path.read_bytes().decode("utf-8", "replace"))
        # where the rows came from is a fact of the run, so the folder's own name stays in it
        assert not set(found) - {"hf_CANARYtypedtypedtyped"}, (path, found)
    command = (tmp_path / "run" / "run.json").read_text().split('"working_folder"')[0]
    assert not leaks(command)
    assert "***" in command


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--data", "https://bob:canary-url-word@host/x.jsonl", "--model", "starter"),
        ("train", "--data", "d.jsonl", "--model", "https://bob:canary-url-word@host/model"),
        ("train", "--set", "hf_token=canary-set-value", "--data", "d.jsonl", "--model", "starter"),
        ("train", "--set", "api_key:canary-set-value", "--data", "d.jsonl", "--model", "starter"),
        ("train", "--learning-rate", "hf_CANARYtypedtypedtyped", "--data", "d.jsonl", "--model", "starter"),
        ("train", "--data", CANARIES["AWS_SECRET_ACCESS_KEY"], "--model", "starter", "--debug"),
        ("check", f"./{CANARIES['MY_SERVICE_KEY']}"),
        ("doctor",),
    ],
)
def test_a_command_that_fails_says_no_secret(words: tuple[str, ...], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": "a", "completion": "b"}])
    done = tuition_command(tmp_path, *words)
    assert done.returncode in ((0, 1) if words == ("doctor",) else (1, 2))
    assert not leaks(done.stdout + done.stderr)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["d.jsonl"]


def test_the_command_in_run_json_hides_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "tuition",
        "train",
        "--hf-token",
        "canary-set-value",
        "--set",
        "password=canary-set-value",
        "--seed",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", [*words, "https://u:canary-url-word@h/x"])
    assert command_line() == "tuition train --hf-token *** --set password=*** --seed 3 https://***@h/x"


@pytest.mark.parametrize(
    "text",
    [
        "3,200 tokens/s, pad_token_id=12345 and bos_token: <|im_start|>",
        "unknown key 'cutoff_len': here it is 'max_length'",
        "the special token <|im_end|> is missing; token 12345",
        "git@github.com:owner/name and someone@example.org",
        "data/train.jsonl:12 (D004): no assistant turn",
    ],
)
def test_ordinary_sentences_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_an_error_raised_to_python_hides_secrets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARIES["HF_TOKEN"])
    error = UserError(f"401 for {CANARIES['HF_TOKEN']}", where="https://a:b@c/d", next_step="Log in")
    assert str(error) == "https://***@c/d: 401 for ***. Log in."


def test_a_checkpoint_holds_nothing_of_the_environment(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tuition

    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    run = tuition.train(**{**settings, "max_steps": 2, "samples": 0})
    for path in run.path.rglob("*"):
        assert path.is_dir() or not leaks(path.read_bytes().decode("utf-8", "replace")), path
    assert files.MANIFEST in {path.name for path in run.path.rglob("*")}
