"""Trackers are told what metrics.jsonl says: the real libraries, offline, read back."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import tuition
from tests.test_run import StopAt, lines
from tuition.errors import Interrupted, UserError
from tuition.screen import Watcher
from tuition.training.trackers import TRACKERS

SECRET = "hf_" + "abcdefghijklmnopqrstuvwx"


def test_each_tracker_is_told_every_figure_and_no_secret(settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("wandb"), pytest.importorskip("mlflow"), pytest.importorskip("trackio")
    pytest.importorskip("tensorboard")
    settings |= {"max_steps": 4, "samples": 0, "eval_every_steps": 2}
    (tmp_path / SECRET).mkdir()
    settings["data"] = str(Path(settings["data"]).rename(tmp_path / SECRET / "data.jsonl"))
    program = (
        "import json, sys, tuition\n"
        "tuition.train(**json.loads(sys.argv[1]), report_to=['tensorboard', 'trackio', 'wandb', 'mlflow'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "MLFLOW", "TRACKIO"))}
    told = subprocess.run(
        [sys.executable, "-c", program, json.dumps(settings)], capture_output=True, text=True, check=False,
        env={**environment, "TRACKIO_DIR": str(tmp_path / "trackio"), "MY_TOKEN": SECRET, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert told.stdout == "", "what trackers say is no result"
    run = Path(settings["output_dir"])
    assert json.loads((run / "run.json").read_text())["sittings"][-1]["notes"] == []
    written = lines(run / "metrics.jsonl")
    losses = {line["step"]: line["loss"] for line in written if "loss" in line}
    held_out = {line["step"]: line["eval_loss"] for line in written if "eval_loss" in line}
    assert (len(losses), sorted(held_out)) == (4, [0, 2, 4])
    for read in (read_tensorboard, read_trackio, read_wandb, read_mlflow):
        told_losses, told_held_out = read(run, tmp_path / "trackio")
        assert told_losses == pytest.approx(losses, rel=1e-6), read.__name__
        assert told_held_out == pytest.approx(held_out, rel=1e-6), read.__name__
    folders = [tmp_path / "trackio", *(run / name for name in ("tensorboard", "wandb", "mlflow"))]
    for path in [path for folder in folders for path in folder.rglob("*") if path.is_file()]:
        assert SECRET.encode() not in path.read_bytes(), path


Figures = tuple[dict[int, float], dict[int, float]]


def read_tensorboard(run: Path, trackio: Path) -> Figures:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    first, second = ({e.step: e.value for e in events.Scalars(name)} for name in ("train/loss", "eval/loss"))
    return first, second


def read_trackio(run: Path, trackio: Path) -> Figures:
    with closing(sqlite3.connect(trackio / "tuition.db")) as store:
        rows = [(step, json.loads(text)) for step, text in store.execute("select step, metrics from metrics")]
    first, second = ({s: row[n] for s, row in rows if n in row} for n in ("train/loss", "eval/loss"))
    return first, second


def read_wandb(run: Path, trackio: Path) -> Figures:
    from wandb.proto import wandb_internal_pb2

    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    rows = []
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        rows.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
    first, second = ({r["_step"]: r[n] for r in rows if n in r} for n in ("train/loss", "eval/loss"))
    return first, second


def records(written: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format: blocks of 32 KiB; checksum, length and kind before each piece."""
    place, record = 7, b""
    while place + 7 <= len(written):
        length, kind = struct.unpack_from("<HB", written, place + 4)
        record += written[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last piece
            yield record
            record = b""
        left = -place % 32768
        place += left if left < 7 else 0


def read_mlflow(run: Path, trackio: Path) -> Figures:
    (values,) = {path.parent.parent for path in run.glob("mlflow/*/*/metrics/train/loss")}
    first, second = (
        {int(line.split()[2]): float(line.split()[1]) for line in (values / name).read_text().splitlines()}
        for name in ("train/loss", "eval/loss")
    )
    return first, second


def test_a_resumed_run_goes_on_in_the_same_tracker(settings: dict[str, Any]) -> None:
    pytest.importorskip("tensorboard")
    settings |= {"max_steps": 6, "samples": 0, "report_to": "tensorboard"}
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=StopAt(3))
    run = tuition.train(settings["output_dir"], resume=True)
    losses, _ = read_tensorboard(run.path, run.path)
    assert sorted(losses) == [1, 2, 3, 4, 5, 6]


def test_a_tracker_that_is_not_installed_is_refused_at_the_door(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else there(name))
    with pytest.raises(UserError, match=r'wandb is not installed.*pip install "tuition\[wandb\]"'):
        tuition.train(**settings, report_to="tensorboard,wandb")
    assert not Path(settings["output_dir"]).exists()
    with pytest.raises(UserError, match="there is no tracker called neptune"):
        tuition.train(**settings, report_to="neptune")


def test_a_tracker_that_fails_ends_no_run_and_is_named_once(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def log(self, figures: Any, step: int) -> None:
            if step > 1:
                raise OSError(f"disk full, token={SECRET}")

        def finish(self) -> None:
            raise AssertionError("it is told no more")

    class Screen(Watcher):
        def __init__(self) -> None:
            self.said: list[str] = []

        def stage(self, text: str) -> None:
            self.said.append(text)

    monkeypatch.setitem(TRACKERS, "wandb", type(TRACKERS["wandb"])("json", lambda session: Full()))
    run = tuition.train(**settings, report_to="wandb", watcher=(screen := Screen()))
    facts = json.loads((run.path / "run.json").read_text())
    assert facts["status"] == "finished"
    (said,) = [text for text in screen.said if "wandb" in text]
    assert said.startswith("wandb failed and is told no more (OSError: disk full")
    assert SECRET not in said and facts["sittings"][-1]["notes"] == [said]
    assert len([line for line in lines(run.path / "metrics.jsonl") if "loss" in line]) == 12
