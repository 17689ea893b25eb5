"""Losses that are no number, memory that runs out, rows that could poison a run: named, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tuition
from tests.conftest import make_model, write_jsonl
from tests.test_run import lines, weights_of
from tuition.errors import UserError
from tuition.train import loop

# --- losses that are not finite ---


class Poison:
    """Makes the loss of some passes NaN, as a bad row or an overflow does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *passes: int) -> None:
        self.honest, self.seen = loop.step_loss, 0

        def step_loss(*given: Any) -> torch.Tensor:
            self.seen += 1
            loss = self.honest(*given)
            return loss * float("nan") if self.seen in passes else loss

        monkeypatch.setattr(loop, "step_loss", step_loss)


def test_a_step_that_is_not_finite_is_left_out_counted_and_its_rows_named(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(monkeypatch, 3, 6, 7)
    run = tuition.train(**{**settings, "not_finite": "skip", "save_every_steps": 100, "val_split": 0.0})
    skipped = [line for line in lines(run.path / "metrics.jsonl") if "skipped" in line]
    assert [line["step"] for line in skipped] == [3, 6, 7]
    assert all("data.jsonl:" in row for line in skipped for row in line["rows"])
    assert [line["step"] for line in lines(run.path / "metrics.jsonl")] == list(range(1, 13))
    assert json.loads((run.path / "run.json").read_text())["result"]["skipped"] == 3
    assert all(torch.isfinite(t).all() for t in weights_of(run.path).values())
    assert "3 updates were left out" in (run.path / "report.html").read_text()


def test_three_in_a_row_stop_the_run_and_it_can_go_on_from_the_step_before(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(monkeypatch, 5, 6, 7)
    with pytest.raises(UserError, match=r"at step 7; the weights were not changed"):
        tuition.train(**{**settings, "not_finite": "skip", "save_every_steps": 100, "val_split": 0.0})
    monkeypatch.undo()
    run = tuition.train(settings["output_dir"], resume=True)
    assert [line["step"] for line in lines(run.path / "metrics.jsonl")] == list(range(1, 13))


def test_a_run_that_stopped_at_a_bad_step_goes_on_as_if_the_fault_had_not_been(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {"dropout": 0.1, "val_split": 0.0, "save_every_steps": 100}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    Poison(monkeypatch, 5)
    with pytest.raises(UserError, match=r"at step 5; the weights were not changed"):
        tuition.train(**settings)
    monkeypatch.undo()
    resumed = tuition.train(settings["output_dir"], resume=True)
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())


# --- memory ---


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("out of memory")])
def test_memory_that_runs_out_once_changes_nothing_but_the_size_of_passes(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    settings |= {"val_split": 0.0, "samples": 0, "max_steps": 4}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    short_of_memory(monkeypatch, 2, error)
    run = tuition.train(**settings)
    assert [line["step"] for line in lines(run.path / "metrics.jsonl")] == [1, 2, 3, 4]
    counted = [[line["learned_tokens"] for line in lines(r.path / "metrics.jsonl")] for r in (whole, run)]
    assert counted[0] == counted[1]
    for name, tensor in weights_of(whole.path).items():
        assert torch.allclose(tensor, weights_of(run.path)[name], atol=1e-5), name


def test_memory_that_runs_out_for_a_single_example_stops_with_a_checkpoint(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {
        "val_split": 0.0,
        "samples": 0,
        "save_every_steps": 100,
        "micro_batch_size": 1,
        "dropout": 0.1,
    }
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    short_of_memory(monkeypatch, 20, MemoryError())
    with pytest.raises(UserError, match=r"memory ran out at step 3.*no example was left out.*--resume"):
        tuition.train(**settings)
    monkeypatch.undo()
    resumed = tuition.train(settings["output_dir"], resume=True)
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())


def short_of_memory(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
    honest, passes = loop.step_loss, []

    def step_loss(*given: Any) -> torch.Tensor:
        passes.append(1)
        if len(passes) == at:
            raise error
        return honest(*given)

    monkeypatch.setattr(loop, "step_loss", step_loss)


# --- rows that could poison a run ---


def test_ids_beyond_the_models_vocabulary_get_rows_before_step_1(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "small", vocab_size=60)
    run = tuition.train(**{**settings, "model": str(folder), "max_steps": 1, "samples": 0})
    rows = weights_of(run.path)["model.embed_tokens.weight"].shape[0]
    assert rows > 300
    proof = {p["name"]: p for p in json.loads((run.path / "proof.json").read_text())}["vocabulary"]
    assert proof["ok"]
    assert proof["detail"].endswith(f"of {rows}")


def test_rows_without_a_learned_token_or_with_a_million_tokens_are_named_before_step_1(
    settings: dict[str, Any], tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = write_jsonl(
        tmp_path / "poison.jsonl",
        [*rows[:20], {"prompt": "q", "completion": ""}, {"prompt": "q", "completion": "word " * 1_000_000}],
    )
    run = tuition.train(**{**settings, "data": str(path), "max_steps": 1, "samples": 0})
    fates = {row["line"]: row for row in lines(run.path / "ledger.jsonl") if row["line"] > 20}
    assert all(fates[line]["fate"] == "rejected" and fates[line]["reason"] for line in (21, 22)), fates
