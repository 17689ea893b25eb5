"""Whole runs of many ranks: started by one command, killed in the middle, and ending as if nothing had been."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tuition
from tests.conftest import make_model, write_jsonl
from tests.prove.ranks import LONGEST_RUN_SECONDS, ROOT, outcome, same, settings_of, start, strike, waited_for

pytestmark = pytest.mark.slow
KILLS = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    """A folder with a tiny model and data."""
    folder = tmp_path_factory.mktemp("many")
    make_model(folder / "model")
    write_jsonl(folder / "data.jsonl", rows)
    return folder


def test_a_run_whose_ranks_are_killed_five_times_ends_by_itself_as_one_that_was_left_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {
        "samples": 6,
        "eval_metrics": ["exact_match"],
        "eval_metrics_every_steps": 12,
        "eval_max_new_tokens": 8,
    }
    calm = start(place, "calm", ranks=2, steps=24, **asked)
    assert calm.wait(LONGEST_RUN_SECONDS) == 0
    chance, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:  # in one run, unless it was too quick for all of them
        name, runs = f"struck-{runs}", runs + 1
        left = [signal.SIGKILL] * (KILLS - kills)
        struck, code = strike(place, name, left, chance, ranks=2, steps=24, **asked)
        assert code == 0
        assert same(outcome(place / "calm"), outcome(place / name))
        facts = json.loads((place / name / "run.json").read_text())
        assert facts["status"] == "finished"
        assert len(facts["sittings"]) <= 1 + struck
        assert base_answers(place / name) == base_answers(place / "calm")
        assert not (place / name / ".preparing.json").exists()
        kills += struck
    monkeypatch.chdir(place)
    tuition.train(**settings_of("by-one", 1, **asked))
    assert base_answers(place / "calm") == base_answers(place / "by-one")


def test_a_signal_stops_all_ranks_with_a_checkpoint_and_one_rank_goes_on(
    place: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over data that streams, so that the ranks wait for files of one another as well."""
    (place / "general.txt").write_text("What is this? It is a text that nobody learns.\n")
    for number in range(4):
        write_jsonl(place / f"part-{number}.jsonl", rows[number::4])
    asked = {"eval_metrics": ["exact_match"], "eval_metrics_every_steps": 60, "eval_max_new_tokens": 8}
    asked |= {"samples": 2, "general": ["general.txt"], "dropout": 0.0, "dtype": "float32"}
    asked |= {"data": "part-*.jsonl", "stream": True, "stream_files": 1}
    steps = 60
    while (
        code := signalled(place, steps, **asked)
    ) == 0:  # on a machine that stood still the run was through
        shutil.rmtree(place / "stopped")
        steps *= 4
    assert code == 130
    facts = json.loads((place / "stopped" / "run.json").read_text())
    assert facts["status"] == "interrupted"
    assert 0 < facts["result"]["step"] < steps
    monkeypatch.chdir(place)
    tuition.train("stopped", resume=True)

    # the same examples in the same updates as in one process
    tuition.train(**settings_of("one", steps, **asked))
    stopped, one = (
        [(step, loss) for step, loss, _ in outcome(place / name)[0] if loss is not None]
        for name in ("stopped", "one")
    )
    assert [step for step, _ in stopped] == list(range(1, steps + 1))
    assert [loss for _, loss in stopped] == pytest.approx([loss for _, loss in one], abs=1e-4)
    assert jsonl(place / "stopped" / "ledger.jsonl") == jsonl(place / "one" / "ledger.jsonl")

    # what needs a whole model was done while no rank had one, and came out as in one process
    assert base_answers(place / "stopped") == base_answers(place / "one")
    first_lines = [jsonl(place / name / "metrics.jsonl")[0] for name in ("stopped", "one")]
    assert first_lines[0] == first_lines[1]
    assert first_lines[0]["eval_exact_match"] >= 0
    assert (place / "stopped" / "general.json").read_bytes() == (place / "one" / "general.json").read_bytes()


def signalled(place: Path, steps: int, **asked: Any) -> int:
    """The exit code of a run of two ranks that was told to stop after its first checkpoint."""
    run = start(place, "stopped", ranks=2, steps=steps, parallel="fsdp", **asked)
    waited_for(lambda: any((place / "stopped" / "checkpoints").glob("step-*")), run)
    run.send_signal(signal.SIGTERM)
    return run.wait(LONGEST_RUN_SECONDS)


def test_a_rank_that_stands_still_says_where_and_ends_itself() -> None:
    begin = (
        "import time\nfrom tuition.training.pulse import Pulse\npulse = Pulse(1, 3)\nwith pulse.watched():\n"
    )
    bodies = (
        "    for _ in range(4):\n        time.sleep(1)\n        pulse.beat()\n",
        "    time.sleep(100)\n",
    )
    gets_on, stuck = (
        subprocess.Popen([sys.executable, "-c", begin + body], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for body in bodies
    )
    assert gets_on.communicate()[1] == ""
    assert gets_on.returncode == 0
    said = stuck.communicate()[1]
    assert stuck.returncode != 0
    assert "rank 1 has not got on for 3 s" in said
    assert 'File "<string>", line 5' in said


def base_answers(run: Path) -> list[str]:
    return [row["base"] for row in jsonl(run / "samples.jsonl")]


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
