"""A run folder of a stranger: what no run writes is refused by name, unread, and nothing outside the folder changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tuition
from tests.conftest import make_model, make_tokenizer, write_jsonl
from tests.patience import PATIENCE_SECONDS
from tests.security.bounds import refused_in_bounds
from tests.test_run import StopAt
from tuition import api, board, files
from tuition.beside import beside
from tuition.errors import Interrupted, UserError
from tuition.evaluate.forgetting import read_general
from tuition.evaluate.measures import find_metric
from tuition.evaluate.report import write_report
from tuition.recipe import RenderSettings
from tuition.render import Renderer
from tuition.train.folder import RunFolder
from tuition.train.shelf import find_checkpoint


def pipe(path: Path) -> None:
    os.mkfifo(path)


def door(path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    with listening, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # an address has few characters
        listening.bind(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


def ten_gigabytes(path: Path) -> None:
    path.touch()
    os.truncate(path, 10 << 30)


STRANGE = (pipe, door, device, link_to_itself, folder, ten_gigabytes)
NAMES = ("run.json", "recipe.yaml", "metrics.jsonl", "ledger.jsonl", "evaluation.json")


@pytest.fixture(autouse=True)
def no_endless_wait() -> Iterator[None]:
    """Who opens a pipe waits for ever: the test then fails, and the suite goes on."""

    def give_up(number: int, frame: object) -> None:
        raise AssertionError("something was waited for")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(int(PATIENCE_SECONDS))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted, with two checkpoints."""
    root = tmp_path_factory.mktemp("cut")
    model = make_model(root / "model")
    data = write_jsonl(root / "d.jsonl", [{"prompt": f"p{n}", "completion": "c"} for n in range(16)])
    settings = {"model": str(model), "data": str(data), "samples": 1, "val_split": 0.2, "batch_size": 4}
    with pytest.raises(Interrupted):
        tuition.train(
            **settings, max_steps=6, save_every_steps=2, output_dir=str(root / "run"), watcher=StopAt(4)
        )
    (root / "run" / "evaluation.json").write_text("{}")
    return root / "run"


@pytest.fixture
def run(cut: Path, tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return shutil.copytree(cut, tmp_path / "runs" / "run")


def put(make: Callable[[Path], None], path: Path) -> None:
    """Put it in the place of the file."""
    path.unlink()
    make(path)


@pytest.mark.parametrize("make", STRANGE)
@pytest.mark.parametrize("name", NAMES)
def test_what_no_run_writes_is_refused_by_every_command_and_shown_by_every_page(
    name: str, make: Callable[[Path], None], run: Path, tmp_path: Path
) -> None:
    put(make, run / name)
    with refused_in_bounds(tmp_path):
        if name not in ("metrics.jsonl", "ledger.jsonl") or make is not ten_gigabytes:  # lines may be many
            for act in (RunFolder(run).refuse_foreign, lambda: tuition.train(run, resume=True)):
                with pytest.raises(UserError, match=name.replace(".", r"\.")):
                    act()
            with pytest.raises(UserError):
                api.load(str(run))
        board.list_runs(run.parent)
        board.view_run(run)
        beside([run, run])
    if sum((run / other).is_file() for other in NAMES[:3]) > 0:
        assert write_report(run).exists()


@pytest.mark.parametrize("make", STRANGE)
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "weights.safetensors"])
def test_a_checkpoint_of_what_no_run_writes_is_damaged_and_the_one_before_is_used(
    name: str, make: Callable[[Path], None], run: Path
) -> None:
    state = json.loads((run / "checkpoints" / "step-4" / "state.json").read_text())
    put(make, run / "checkpoints" / "step-4" / name)
    with refused_in_bounds(run):
        found = find_checkpoint(run / "checkpoints", state["fingerprint"])
    assert found.folder == run / "checkpoints" / "step-3" or found.folder == run / "checkpoints" / "step-2"
    assert found.damaged == {4}


def test_links_that_a_stranger_left_in_a_run_lead_nothing_to_be_written_or_removed_elsewhere(
    run: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    for name in (".run.json.tmp", ".recipe.yaml.tmp", ".report.html.tmp"):
        (run / name).symlink_to(outside / "mine")
    (run / ".ledger.jsonl.tmp").symlink_to(outside / "new")
    for name in (".step-6.tmp", ".step-5.removed", "step-9"):
        (run / "checkpoints" / name).symlink_to(outside)
    os.mkfifo(run / ".metrics.jsonl.tmp")
    assert tuition.train(run, resume=True).path == run
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("mine", "mine")]


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "checkpoints", "answers", "jobs"])
def test_a_part_of_a_run_that_lies_elsewhere_is_refused(name: str, run: Path, tmp_path: Path) -> None:
    if (run / name).is_dir():
        (run / name).rename(tmp_path / "elsewhere")
    elif (run / name).exists():
        (run / name).replace(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").mkdir()
    (run / name).symlink_to(tmp_path / "elsewhere")
    with refused_in_bounds(tmp_path), pytest.raises(UserError, match="points outside the folder"):
        tuition.train(run, resume=True)


def test_a_lock_that_is_a_link_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(UserError, match="cannot be written"), RunFolder(tmp_path / "run").claimed():
        pass
    assert not (tmp_path / "made").exists()


def test_lines_are_added_neither_through_a_link_nor_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "made")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):
            files.append_line(tmp_path / name, "x")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("make", STRANGE)
def test_a_schema_or_a_text_to_evaluate_that_is_no_file_is_refused_unread(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "x.txt")
    renderer = Renderer.from_settings(make_tokenizer(), None, RenderSettings(), max_length=64, positions=64)
    with refused_in_bounds(tmp_path):
        with pytest.raises(UserError, match=r"x\.txt"):
            read_general(renderer, [str(tmp_path / "x.txt")])
        with pytest.raises(UserError, match=r"x\.txt"):
            find_metric(f"json_schema:{tmp_path / 'x.txt'}")


def test_a_schema_fetches_no_other_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for reference in ("http://127.0.0.1:9/x.json", "file:///etc/hostname", "#"):
        (tmp_path / "s.json").write_text(json.dumps({"$ref": reference}))
        with pytest.raises(UserError, match=r"s\.json: refers"):
            find_metric(f"json_schema:{tmp_path / 's.json'}").measure("{}", "", {})
