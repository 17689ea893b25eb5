"""Signals, real kills: a run stops where it may, says how to go on, and ends as one that was never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import tuition
from tests.conftest import write_jsonl
from tests.patience import PATIENCE_SECONDS, wait_for
from tests.test_run import lines, weights_of
from tuition import files, launch
from tuition.errors import Interrupted
from tuition.screen import Watcher
from tuition.train import loop
from tuition.train.folder import RunFolder


def test_a_signal_before_the_first_step_leaves_nothing(settings: dict[str, Any]) -> None:
    class Early(Watcher):
        def stage(self, text: str) -> None:
            if "loading the model" in text:
                signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        tuition.train(**settings, watcher=Early())
    assert not Path(settings["output_dir"]).exists()
    assert signal.getsignal(signal.SIGTERM) == before


class Signalled(Watcher):
    """Gets these signals, one behind the other, when update 6 was taken."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def step(self, report: Any) -> None:
        if report.step == 6:
            for number in self.numbers:
                signal.raise_signal(number)


def test_a_second_signal_leaves_at_once_and_the_run_can_be_resumed(settings: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"left at once.*--resume"):
        tuition.train(**settings, watcher=Signalled(signal.SIGTERM, signal.SIGINT))
    folder = Path(settings["output_dir"])
    assert not (folder / "checkpoints" / "step-6").exists()
    resumed = tuition.train(folder, resume=True)
    assert [line["step"] for line in lines(resumed.path / "metrics.jsonl") if "loss" in line] == list(
        range(1, 13)
    )


def test_a_closed_terminal_saves_however_often_it_is_said(settings: dict[str, Any]) -> None:
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=Signalled(signal.SIGHUP, signal.SIGHUP))
    assert (Path(settings["output_dir"]) / "checkpoints" / "step-6").exists()


def test_a_run_that_is_to_outlive_its_terminal_does(settings: dict[str, Any]) -> None:
    class Closed(Watcher):
        def step(self, report: Any) -> None:
            signal.raise_signal(signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        assert (tuition.train(**settings | {"max_steps": 2}, watcher=Closed()).path / "model").exists()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_that_is_printed_takes_a_name_as_one_word() -> None:
    said = [RunFolder(Path(name)).resume_command for name in ("two words", "-dash", "plain")]
    assert said == [
        "tuition train 'two words' --resume", "tuition train ./-dash --resume", "tuition train plain --resume",
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["in the middle of an update", "while the held-out examples are scored"])
def test_a_stop_that_cannot_wait_breaks_off_and_the_resume_ends_the_same(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    settings |= {"dropout": 0.1, "micro_batch_size": 2, "eval_every_steps": 3, "samples": 0}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    monkeypatch.setattr("tuition.signals._PATIENCE_SECONDS", -1.0)
    module = "loop.step_loss" if "update" in where else "heldout"
    if "update" in where:
        honest, passes = loop.step_loss, []

        def step_loss(*given: Any) -> torch.Tensor:
            passes.append(1)
            if len(passes) == 18:
                signal.raise_signal(signal.SIGTERM)
            return honest(*given)

        monkeypatch.setattr(f"tuition.train.{module}", step_loss)
    else:
        from tuition.evaluate import heldout

        honest_losses, calls = heldout.token_losses, []

        def token_losses(*given: Any) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 12:
                signal.raise_signal(signal.SIGTERM)
            return honest_losses(*given)

        monkeypatch.setattr(heldout, "token_losses", token_losses)
    with pytest.raises(Interrupted):
        tuition.train(**settings)
    monkeypatch.undo()
    (newest, *_) = sorted((Path(settings["output_dir"]) / "checkpoints").glob("step-*"))
    assert json.loads((newest / "state.json").read_text())["evaluation_is_due"] == ("scored" in where)
    resumed = tuition.train(settings["output_dir"], resume=True)
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())
    assert figures(resumed.path) == figures(whole.path)


def test_a_pass_that_takes_longer_than_a_stop_may_wait_is_broken_off_in_the_middle(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {"dropout": 0.1, "samples": 0, "val_split": 0.0}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    monkeypatch.setattr("tuition.signals._PATIENCE_SECONDS", 0.1)
    honest, passes = loop.step_loss, []

    def step_loss(*given: Any) -> torch.Tensor:
        loss = honest(*given)  # its random numbers are drawn by now
        passes.append(1)
        if len(passes) == 8:
            signal.raise_signal(signal.SIGTERM)
            while True:  # a pass without end
                time.sleep(0.01)
        return loss

    monkeypatch.setattr(loop, "step_loss", step_loss)
    with pytest.raises(Interrupted):
        tuition.train(**settings)
    monkeypatch.undo()
    resumed = tuition.train(settings["output_dir"], resume=True)
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())


# It says that it waits once it has worked so long that nothing but the call can have taken it.
LONG_CALL = """
import hashlib, threading, time
from tuition.signals import Signals, second_signal_leaves

def tell():
    while time.process_time() - began < 0.3:
        time.sleep(0.02)
    print("waiting", flush=True)

signals = Signals()
with signals.listening(), signals.gently(), second_signal_leaves():
    began = time.process_time()
    threading.Thread(target=tell, daemon=True).start()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)
"""


def test_a_second_signal_ends_a_process_whose_python_is_not_asked(tmp_path: Path) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-c", LONG_CALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stdout is not None and waiting.stdout.readline() == "waiting\n"
    waiting.send_signal(signal.SIGINT)
    waiting.send_signal(signal.SIGTERM)
    _, errors = waiting.communicate(timeout=PATIENCE_SECONDS)
    assert waiting.returncode == 130
    assert "left at once" in errors


def test_a_signal_while_the_run_is_begun_leaves_a_run_that_can_go_on(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = files.write_json

    def write_json(path: Path, value: Any) -> None:
        if path.name == "proof.json":
            signal.raise_signal(signal.SIGTERM)
        honest(path, value)

    monkeypatch.setattr(files, "write_json", write_json)
    with pytest.raises(Interrupted):
        tuition.train(**settings)
    monkeypatch.undo()
    assert tuition.train(settings["output_dir"], resume=True).path.joinpath("model").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("imported", ["typer", "tuition.cli.entry"])
def test_a_signal_while_libraries_are_imported_ends_a_command_with_one_line(
    tmp_path: Path, imported: str, number: int
) -> None:
    done = interrupted_while(tmp_path, f"fullname == {imported!r}", number, "check", "no.jsonl")
    assert (done.returncode, done.stderr) == (130, "tuition: interrupted\n")


def test_an_interrupt_that_python_drops_in_a_finaliser_comes_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", [{"prompt": "a", "completion": "b"}] * 3)
    in_a_finaliser = "fullname == 'tuition.data.reading' and [Last()].clear() is None and False"
    done = interrupted_while(tmp_path, in_a_finaliser, signal.SIGINT, "check", "data.jsonl")
    assert (done.returncode, done.stderr) == (130, "tuition: interrupted\n")


# The command, and a signal to itself at the moment when something begins to be imported.
_STRUCK = """
import os, signal, sys, time
class Last:
    def __del__(self):
        os.kill(os.getpid(), {number})
        time.sleep(0.01)
class Striking:
    def find_spec(self, fullname, *rest):
        if {when}:
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Striking())
from tuition.__main__ import main
main()
"""


def interrupted_while(folder: Path, when: str, number: int, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, sent a signal while a module is imported."""
    struck = _STRUCK.format(when=when, number=int(number))
    return subprocess.run(
        [sys.executable, "-c", struck, *words], capture_output=True, text=True, check=False, cwd=folder
    )


def test_a_signal_before_torchrun_is_ready_ends_it_before_any_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, started = subprocess.Popen, []

    def start_and_strike(*given: Any, **how: Any) -> subprocess.Popen[str]:
        started.append(honest(*given, **how))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start_and_strike)
    before = signal.getsignal(signal.SIGINT)
    assert launch.run_ranks(["--model=none"], 2, restarts=3) == 130
    assert started[0].returncode == 130, "left by itself: torchrun would have complained of the ranks"
    assert signal.getsignal(signal.SIGINT) == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_rank_whose_torchrun_is_gone_stops_as_at_a_signal() -> None:
    rank = "import time; from tuition.torchrun import stop_with_the_starter as s; s(); time.sleep(300)"
    elsewhere = {**os.environ, "TUITION_TORCHRUN": str(os.getppid())}
    assert subprocess.run([sys.executable, "-c", rank], check=False, env=elsewhere).returncode == -15


def test_a_terminated_process_saves_within_ten_seconds_and_says_how_to_go_on(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"max_steps": 100_000, "save_every_steps": 100_000, "eval_every_steps": 100_000, "samples": 0}
    process = start(settings, tmp_path)
    journal = Path(settings["output_dir"]) / "metrics.jsonl"
    wait_for(lambda: journal.exists() and journal.read_text().count('"loss"') > 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert f"tuition train {settings['output_dir']} --resume" in errors
    (checkpoint,) = (Path(settings["output_dir"]) / "checkpoints").iterdir()
    assert files.manifest_faults(checkpoint) == []
    assert checkpoint.name == f"step-{lines(journal)[-1]['step']}"


def start(settings: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    flags = [f"--set={key}={value}" for key, value in settings.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "tuition", "train", *flags], stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip


def figures(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines(run / "metrics.jsonl")]


# --- real kills ---


@pytest.fixture(scope="module")
def killed() -> list[dict[str, Any]]:
    """What was left by processes that were killed: of training, and of other commands."""
    shown = subprocess.run(
        [sys.executable, "-m", "tests.prove.share"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr[-3000:]
    return [json.loads(line) for line in shown.stdout.splitlines()[-2:]]


@pytest.mark.slow
def test_twenty_kills_at_random_instants_change_no_bit(killed: list[dict[str, Any]]) -> None:
    training, _ = killed
    assert training["different"] == []
    assert sum(training["kills"].values()) == 20


@pytest.mark.slow
def test_a_killed_evaluation_export_drawing_or_import_loses_nothing_and_ends_the_same(
    killed: list[dict[str, Any]],
) -> None:
    _, others = killed
    assert others["faults"] == []
    assert others["kills"] == {"evaluate": 2, "export": 2, "preferences": 2, "collect import": 2}
