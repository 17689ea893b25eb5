"""Runs to export, trained once for all tests of the room, and one reader of exports that serves them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tuition
from tests.conftest import make_model, write_jsonl
from tuition.ship import gate, reader

# The reader as it is, in a process that never imports tuition, asked again and again.
_READ_ON = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("reader", sys.argv[1])
reader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reader)
for line in sys.stdin:
    try:
        reader.main(*json.loads(line))
        failure = None
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    print("ANSWER", json.dumps(failure), flush=True)
"""


@pytest.fixture(scope="session")
def one_reader() -> Iterator[Callable[[Path, Path], str | None]]:
    """Reads what a fresh process would read, without starting one for every export: that costs seconds."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _READ_ON, reader.__file__], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **gate.READER_SETTINGS},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    questions, answers = process.stdin, process.stdout

    def read(request: Path, answer: Path) -> str | None:
        questions.write(json.dumps([str(request), str(answer)]) + "\n")
        questions.flush()
        said = next(line for line in answers if line.startswith("ANSWER"))
        return json.loads(said.removeprefix("ANSWER"))  # type: ignore[no-any-return]

    yield read
    questions.close()
    process.wait()


@pytest.fixture(autouse=True)
def few_questions_of_one_reader(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, one_reader: Callable[..., str | None]
) -> None:
    """A test marked `fresh` asks all the questions, of a process of its own."""
    if request.node.get_closest_marker("fresh") is None:
        monkeypatch.setattr(gate, "run_reader", one_reader)
        monkeypatch.setattr(gate, "MOST_PROMPTS", 4)


def _train(tmp: Path, base: Path, rows: list[dict[str, Any]], **settings: Any) -> tuition.Run:
    data = write_jsonl(tmp / "data.jsonl", rows)
    return tuition.train(
        model=str(base), data=str(data), output_dir=str(tmp / "run"), batch_size=8, max_steps=12,
        learning_rate=3e-3, val_split=0.2, samples=3, **settings,
    )  # fmt: skip


@pytest.fixture(scope="session")
def full_run(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], llama: Path
) -> tuition.Run:
    """All weights of the tiny Llama tuned."""
    return _train(tmp_path_factory.mktemp("full"), llama, rows)


@pytest.fixture(scope="session")
def lora_run(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> tuition.Run:
    """A LoRA over a Llama whose head is its own."""
    tmp = tmp_path_factory.mktemp("lora")
    base = make_model(tmp / "base", tie_word_embeddings=False)
    return _train(tmp, base, rows, method="lora")


@pytest.fixture(scope="session")
def tied_run(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> tuition.Run:
    """A Llama whose head is tied to its embeddings."""
    tmp = tmp_path_factory.mktemp("tied")
    return _train(tmp, make_model(tmp / "base", tie_word_embeddings=True), rows)
