"""Whole runs of many ranks: started by one command, killed in the middle, and ending as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_model, write_jsonl
from tests.prove.ranks import ROOT, children_of, outcome, same, start, waited_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    """A folder with a tiny model and data."""
    folder = tmp_path_factory.mktemp("many")
    make_model(folder / "model")
    write_jsonl(folder / "data.jsonl", rows)
    return folder


def test_a_run_whose_rank_is_killed_ends_by_itself_as_one_that_was_left_alone(place: Path) -> None:
    calm = start(place, "calm", ranks=2, steps=12)
    assert calm.wait(300) == 0
    struck = start(place, "struck", ranks=2, steps=12)
    waited_for(lambda: any((place / "struck" / "checkpoints").glob("step-*")), struck)
    os.kill(children_of(struck)[1], signal.SIGKILL)
    assert struck.wait(300) == 0
    assert same(outcome(place / "calm"), outcome(place / "struck"))
    facts = json.loads((place / "struck" / "run.json").read_text())
    assert facts["status"] == "finished"
    assert len(facts["sittings"]) == 2
    assert not (place / "struck" / ".preparing.json").exists()


def test_a_signal_stops_all_ranks_with_a_checkpoint_and_one_rank_goes_on(place: Path) -> None:
    run = start(place, "stopped", ranks=2, steps=60, parallel="fsdp")
    waited_for(lambda: any((place / "stopped" / "checkpoints").glob("step-*")), run)
    run.send_signal(signal.SIGTERM)
    assert run.wait(120) == 130
    facts = json.loads((place / "stopped" / "run.json").read_text())
    assert facts["status"] == "interrupted"
    assert 0 < facts["result"]["step"] < 60
    alone = subprocess.run(
        [sys.executable, "-m", "tuition", "train", "stopped", "--resume"],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    figures, _ = outcome(place / "stopped")
    assert [step for step, loss, _ in figures if loss is not None] == list(range(1, 61))
