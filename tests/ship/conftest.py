"""Runs to export, trained once for all tests of the room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tuition
from tests.conftest import make_model, write_jsonl


@pytest.fixture(autouse=True)
def exports_of_this_room(few_questions_of_one_reader: None) -> None:
    """Nearly every test here exports."""


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
