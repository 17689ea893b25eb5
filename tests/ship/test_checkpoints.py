"""A run as it was at one of its checkpoints: named as people say it, answering and exported as it was then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import tuition
from tests.conftest import write_jsonl
from tuition.cli import app
from tuition.errors import UserError
from tuition.train.naming import run_of, step_of


def train(folder: Path, llama: Path, rows: list[dict[str, Any]], **settings: Any) -> tuition.Run:
    data = write_jsonl(folder / "data.jsonl", rows[:40])
    return tuition.train(
        model=str(llama), data=str(data), output_dir=str(folder / "run"), batch_size=8, epochs=3, val_split=0.2,
        learning_rate=1e-2, samples=1, save_every_steps=3, keep_every_epoch=True, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, llama: Path, rows: list[dict[str, Any]]) -> tuition.Run:
    """Three epochs of four updates, the last of which is the best."""
    return train(tmp_path_factory.mktemp("epochs"), llama, rows)


def held_out_at(run: tuition.Run, step: int) -> float:
    figures = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return next(float(row["eval_loss"]) for row in figures if row["step"] == step and "eval_loss" in row)


def test_a_checkpoint_has_the_names_that_people_say(run: tuition.Run) -> None:
    result = run_of(str(run.path)).read_facts()["result"]
    words = ("epoch-1", "step-4", "4", "best", "last")
    assert [step_of(str(run.at(word).path)) for word in words] == [
        4,
        4,
        4,
        result["best_step"],
        result["step"],
    ]
    assert run_of(str(run.at("epoch-1").path)).path == run.path


@pytest.mark.parametrize("method", ["full", "pissa"])
def test_an_exported_checkpoint_has_the_weights_and_the_loss_of_its_step(
    method: str, run: tuition.Run, llama: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    if method != "full":
        run = train(tmp_path, llama, rows, method="lora", lora_r=4, init_lora_weights="pissa")
    early = run.at("epoch-1")
    found = early.evaluate(metric=None)
    assert found.held_out is not None
    assert found.held_out.loss == pytest.approx(held_out_at(run, 4), rel=1e-5)
    assert found.held_out.loss != pytest.approx(held_out_at(run, 12), rel=1e-3), "the run learned on after it"
    early.export(tmp_path / "early")
    again = tuition.evaluate(str(tmp_path / "early"), _held_out_file(run, tmp_path), metric=None)
    assert again.held_out is not None and again.held_out.loss == pytest.approx(found.held_out.loss, rel=1e-5)
    assert not (run.path / "evaluation.json").exists(), (
        "the run's figures are those of the model that it kept"
    )
    card = (tmp_path / "early" / "README.md").read_text()
    assert "step 4 of 12" in card and "whether these are better than their base is not known" in card
    if method == "full":
        trained = load_file(early.path / "weights.safetensors")
        written = load_file(tmp_path / "early" / "model.safetensors")
        assert all(bool((written[name] == tensor).all()) for name, tensor in trained.items())


def _held_out_file(run: tuition.Run, folder: Path) -> str:
    ledger = map(json.loads, (run.path / "ledger.jsonl").read_text().splitlines())
    held = [(row["file"], row["line"]) for row in ledger if row["side"] == "validation"]
    rows = [json.loads(Path(file).read_text().splitlines()[line - 1]) for file, line in held]
    return str(write_jsonl(folder / "held.jsonl", rows))


def test_what_is_no_checkpoint_of_the_run_is_refused_with_those_that_are(
    run: tuition.Run, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"epoch-9 \(step 36\).*step-4, step-8.*keep_every_epoch"):
        run.at("epoch-9")
    with pytest.raises(UserError, match="Say step-120, epoch-2, best or last"):
        run.at("the good one")
    with pytest.raises(UserError, match="not a run folder"):
        tuition.api.at_checkpoint(str(tmp_path), "best")


def test_a_checkpoint_of_a_run_without_a_model_is_refused_with_the_command_that_ends_it(
    run: tuition.Run, tmp_path: Path
) -> None:
    interrupted = tuition.Run(shutil.copytree(run.path, tmp_path / "run"))
    shutil.rmtree(interrupted.path / "model")
    for word in ("best", "step-4", "epoch-9"):
        with pytest.raises(UserError, match=f"no model yet.*tuition train {interrupted.path} --resume"):
            interrupted.at(word)


def test_a_checkpoint_of_another_run_or_a_damaged_one_answers_nothing(
    run: tuition.Run, tmp_path: Path
) -> None:
    copy = tuition.Run(shutil.copytree(run.path, tmp_path / "run"))
    state = copy.at("epoch-1").path / "state.json"
    state.write_text(state.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(UserError, match="belongs to another run"):
        copy.at("epoch-1").generate("Hello")
    weights = copy.at("epoch-2").path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    with pytest.raises(UserError, match=r"damaged: weights\.safetensors"):
        copy.at("epoch-2").generate("Hello")


def test_the_command_line_takes_a_checkpoint_by_name(run: tuition.Run) -> None:
    asked = ["generate", str(run.path), "--prompt", "What is 3 and 3?", "--max-new-tokens", "8"]
    said = CliRunner().invoke(app, [*asked, "--checkpoint", "epoch-1"])
    assert said.output.strip() == run.at("epoch-1").generate("What is 3 and 3?", max_new_tokens=8).strip()
    harness = CliRunner().invoke(app, ["evaluate", str(run.path), "--checkpoint", "best", "--harness", "x"])
    assert isinstance(harness.exception, UserError) and "Export it first" in str(harness.exception)
