"""Checkpoints, resumes, signals and faults: whatever happens to a run, nothing of it is lost, and it says what it did."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tuition
from tests.prove import damage, operations
from tests.test_run import StopAt
from tuition import files
from tuition.errors import Interrupted, UserError
from tuition.train import saving
from tuition.train.checkpoint import Identity, Progress, load_checkpoint, take_snapshot, write_snapshot
from tuition.train.fingerprint import model_sha256
from tuition.train.folder import RunFolder
from tuition.train.journal import Journal, Position
from tuition.train.randomness import random_state, restore_random_state
from tuition.train.shelf import find_checkpoint, rotate
from tuition.train.tensorfile import tensor_pieces

# Calls that change files, and the few places outside of files.py that may make them.
WRITERS = {
    "write_text", "write_bytes", "save_file", "save_pretrained", "savez", "save", "copyfile", "copy2", "copytree",
    "move", "rmtree", "unlink", "rename", "replace", "mkdir", "makedirs", "rmdir", "touch", "truncate", "fsync",
    "symlink_to", "remove", "utime", "tofile", "memmap",
}  # fmt: skip
MODULES = {"os", "shutil", "torch", "np", "safetensors"}  # whose functions of a common name write
ALLOWED = {
    "render/corpus.py: truncate": "counts a row whose tokens were cut in the ledger",
    "train/writing.py: save_pretrained": "transformers writes into a temporary folder, which files.publish_folder publishes",
    "train/adapters.py: save_pretrained": "peft writes into a temporary folder, which files.publish_folder publishes",
    "ship/reader.py": "answers in a process of its own, which imports nothing of tuition, in a temporary folder",
    "starter/build.py": "makes the starter that is kept in the repository; no run calls it",
}


def test_files_py_is_the_only_place_that_changes_a_file() -> None:
    package = Path(tuition.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if name == "files.py" or name in ALLOWED:
            continue
        found |= {f"{name}: {call}" for call in writing_calls(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == {place for place in ALLOWED if ": " in place}


def writing_calls(tree: ast.AST) -> set[str]:
    """Names of the calls in a module that change files: open for writing, and methods of WRITERS."""
    found = set()
    imported_from_files = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "tuition.files"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        owner = (
            function.value.id
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
            else ""
        )
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        words = [
            a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)
        ]
        if name == "open" and any(isinstance(w, str) and set(w) & set("wax+") and len(w) <= 3 for w in words):
            found.add("open")
        if name in ("replace", "remove", "save", "copy", "move") and owner not in MODULES:
            continue  # of a text, a list, a recipe, a run
        if name in WRITERS and owner != "files" and name not in imported_from_files:
            found.add(name)
    return found


def test_the_check_for_writing_calls_sees_them() -> None:
    seen = writing_calls(
        ast.parse(
            "open('a', 'w')\npath.open('ab')\npath.write_text('')\ntorch.save(x)\nos.replace(a, b)\nt.replace('a', 'b')"
        )
    )
    assert seen == {"open", "write_text", "save", "replace"}


# --- what a checkpoint holds ---

IDENTITY = Identity("f" * 64, lambda step: "o" * 64)


def learner() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    return operations.make_learner()


def snapshot(step: int, *, best: int | None = None, identity: Identity = IDENTITY) -> Any:
    model, optimizer = learner()
    operations.take_step(model, optimizer)
    progress = Progress(step=step, best_step=best)
    return take_snapshot(operations.parameters(model), optimizer, progress, identity, Position())


def test_our_safetensors_files_are_read_by_safetensors_and_aligned(tmp_path: Path) -> None:
    tensors = {
        "b": torch.arange(3, dtype=torch.uint8), "a": torch.randn(2, 3), "half": torch.randn(5).bfloat16(),
        "scalar": torch.tensor(7.0, dtype=torch.float64), "none": torch.zeros(0, 4), "flag": torch.tensor([True]),
        "spaced \"ü": torch.randn(4, 4).t().contiguous(),
    }  # fmt: skip
    files.write_new(tmp_path / "t.safetensors", tensor_pieces(tensors))
    read = load_file(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype, name
        assert torch.equal(read[name], tensor), name


def test_every_generator_of_random_numbers_goes_on_where_it_stood() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    random.gauss(0, 1), np.random.standard_normal()  # each keeps a second number for later
    state = random_state()
    values = json.loads(json.dumps(state.values))

    def draw() -> list[float]:
        return [
            random.gauss(0, 1),
            random.random(),
            float(np.random.standard_normal()),
            float(torch.rand(())),
        ]

    first = draw()
    draw()
    restore_random_state(type(state)(state.tensors, values))
    assert draw() == first


def test_a_generator_that_cannot_stand_where_a_checkpoint_says_is_damage(tmp_path: Path) -> None:
    taken = snapshot(3)
    taken.random.tensors["torch"].zero_()
    folder = write_snapshot(tmp_path, taken)
    model, optimizer = learner()
    with pytest.raises(UserError, match=r"the checkpoint cannot be read .*mt19937"):
        load_checkpoint(folder, operations.parameters(model), optimizer, IDENTITY)


def test_a_checkpoint_holds_no_pickle_and_only_what_its_manifest_names(tmp_path: Path) -> None:
    folder = write_snapshot(tmp_path, snapshot(3))
    assert sorted(p.name for p in folder.iterdir()) == [
        "manifest.json", "optimizer.safetensors", "random.safetensors", "state.json", "weights.safetensors",
    ]  # fmt: skip
    assert files.manifest_faults(folder) == []


def test_nothing_in_the_package_pickles() -> None:
    package = Path(tuition.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not set(names) & {"pickle", "cloudpickle", "dill", "joblib", "shelve"}, path
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "torch"
            ):
                assert node.attr not in ("load", "save"), path


def test_training_may_go_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    model, optimizer = learner()
    operations.take_step(model, optimizer)
    taken = take_snapshot(operations.parameters(model), optimizer, Progress(step=1), IDENTITY, Position())
    before = model.weight.detach().clone()
    operations.take_step(model, optimizer)
    folder = write_snapshot(tmp_path, taken)
    assert torch.equal(load_file(folder / "weights.safetensors")["weight"], before)
    assert float(load_file(folder / "optimizer.safetensors")["weight/step"]) == 1.0


def test_the_newest_and_the_best_stay_by_step_whatever_the_clock_says(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        folder = write_snapshot(tmp_path, taken := snapshot(step, best=4 if step >= 4 else None))
        os.utime(folder, (10**9 - step, 10**9 - step))  # the clock runs backwards
        rotate(tmp_path, taken, keep=2, damaged=frozenset())
    assert {p.name for p in tmp_path.iterdir()} == {"step-4", "step-8", "step-10"}


def test_what_a_resume_passed_over_never_counts_as_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        taken = snapshot(step)
        write_snapshot(tmp_path, taken)
    operations.flip(tmp_path / "step-6" / "weights.safetensors")
    found = find_checkpoint(tmp_path, IDENTITY.fingerprint)
    assert (found.folder, found.damaged) == (tmp_path / "step-4", frozenset({6}))
    write_snapshot(tmp_path, taken := snapshot(5))
    rotate(tmp_path, taken, keep=2, damaged=found.damaged)
    assert {p.name for p in tmp_path.iterdir()} == {"step-4", "step-5"}


def test_a_checkpoint_of_another_run_is_named_passed_over_and_left_alone(tmp_path: Path) -> None:
    write_snapshot(tmp_path, snapshot(2))
    write_snapshot(tmp_path, snapshot(4, identity=Identity("e" * 64, lambda step: "")))
    found = find_checkpoint(tmp_path, IDENTITY.fingerprint)
    assert found.folder == tmp_path / "step-2"
    assert "belongs to another run" in found.sentences[0]
    write_snapshot(tmp_path, taken := snapshot(4))
    rotate(tmp_path, taken, keep=2, damaged=found.damaged)
    assert {p.name for p in tmp_path.iterdir()} == {"step-2", "step-4", "step-4-of-eeeeeeeeeeee"}


@pytest.mark.parametrize("beginning", ["empty", "left"])
def test_a_fault_at_a_disk_operation_leaves_the_old_checkpoint_or_the_new_one(beginning: str) -> None:
    results = operations.prove(every=29, beginnings=(beginning,))
    assert all(tried for mode, (tried, _) in results.items() if mode != "silent tear")
    assert [line for _, wrong in results.values() for line in wrong] == []


def test_without_the_folder_sync_a_power_cut_is_seen_to_lose_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "publish_folder", operations.publish_without_sync)
    results = operations.prove(every=7, beginnings=("empty",), modes=("power cut",))
    assert results["power cut"][1], "the proof must notice a missing fsync"


def test_every_damage_to_every_file_of_a_checkpoint_is_seen_and_the_one_before_is_used(
    tmp_path: Path,
) -> None:
    tried = damage.prove(tmp_path)
    assert tried == {"cut short": 20, "made longer": 5, "bit flipped": 5, "deleted": 5, "swapped": 10}
    assert damage.missed == []


# --- the thread that writes ---


def test_an_error_of_the_writing_thread_stops_the_run_at_its_next_step(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = files.NewFile.write

    def full(self: Any, piece: Any) -> None:
        if threading.current_thread().name == "checkpoint" and len(saved()) == 1:
            raise OSError(28, "No space left on device", "weights.safetensors")
        honest(self, piece)

    root = Path(settings["output_dir"]) / "checkpoints"

    def saved() -> list[Path]:
        return list(root.glob("step-*"))

    monkeypatch.setattr(files.NewFile, "write", full)
    with pytest.raises(UserError, match=r"No space left on device.*older checkpoints stand.*--resume"):
        tuition.train(**{**settings, "save_every_steps": 2, "val_split": 0.0})
    monkeypatch.undo()
    assert [p.name for p in root.iterdir()] == ["step-2"]
    assert json.loads((root.parent / "run.json").read_text())["status"] == "failed"
    assert tuition.train(settings["output_dir"], resume=True).path.joinpath("model").exists()


def test_weights_that_are_not_finite_are_never_saved() -> None:
    model, optimizer = learner()
    with torch.no_grad():
        model.weight[0, 0] = float("inf")
    with pytest.raises(
        UserError, match=r"weight holds NaN or infinite numbers after step 3.*older checkpoints stand"
    ):
        take_snapshot(operations.parameters(model), optimizer, Progress(step=3), IDENTITY, Position())


def test_the_disk_is_measured_before_the_first_step(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 100_000)
    with pytest.raises(
        UserError, match=r"the disk is too full: checkpoints and model take \d+ MB at most, and 100 KB is"
    ):
        tuition.train(**settings)
    assert not Path(settings["output_dir"]).exists()
    run = tuition.train(**settings, allow_unproved=("disk",))
    assert (run.path / "model").exists()


def test_the_estimate_is_not_less_than_what_is_written(settings: dict[str, Any]) -> None:
    run = tuition.train(**settings)
    written = files.folder_bytes(run.path / "checkpoints") + files.folder_bytes(run.path / "model")
    parameters = json.loads((run.path / "run.json").read_text())["model"]["parameters"]
    small_files = 200_000  # headers, random states, tokenizer
    assert written <= saving.bytes_to_write(parameters, parameters, checkpoints=4, full=True) + small_files


# --- the journal ---


def test_a_resume_cuts_the_journal_to_its_checkpoint_and_refuses_another_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write({"step": 1, "loss": float("nan")})
    there = journal.position
    journal.write({"step": 2, "loss": 1.0})
    files.append_line(journal.path, '{"torn')
    assert Journal(journal.path, there).position == there
    assert journal.path.read_text() == '{"step": 1, "loss": null}\n'
    journal.path.write_text('{"step": 1, "loss": 1.00}\n')
    with pytest.raises(UserError, match=r"does not begin with the 26 bytes.*SHA-256 was .* and is"):
        Journal(journal.path, there)


# --- resuming ---


def stopped_run(settings: dict[str, Any], step: int = 5) -> Path:
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=StopAt(step))
    return Path(settings["output_dir"])


def test_a_resume_that_differs_in_what_may_change_goes_on_and_says_what_changed(
    settings: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    folder = stopped_run(settings)
    data.rename(tmp_path / "renamed.jsonl")
    run = tuition.train(
        folder, resume=True, data=str(tmp_path / "renamed.jsonl"), save_every_steps=3, keep="last"
    )
    first, second = json.loads((run.path / "run.json").read_text())["sittings"]
    assert (first["status"], first["to_step"]) == ("interrupted", 5)
    assert (second["status"], second["from_step"], second["to_step"]) == ("finished", 5, 12)
    assert second["changed"]["save_every_steps"] == [4, 3]
    assert second["changed"]["keep"] == ["best", "last"]
    assert "renamed.jsonl" in second["changed"]["data"][1][0]
    assert "renamed.jsonl" in (run.path / "recipe.yaml").read_text()


CHANGES: dict[str, Any] = {
    "a byte of the data": lambda s, d: d.write_text(d.read_text().replace("What is 7", "What is 8")),
    "the order of the data": lambda s, d: d.write_text(
        "".join(sorted(d.read_text().splitlines(keepends=True)))
    ),
    "a row more": lambda s, d: d.write_text(
        d.read_text() + d.read_text().splitlines()[3].replace("3", "99") + "\n"
    ),
    "a row less": lambda s, d: d.write_text("".join(d.read_text().splitlines(keepends=True)[1:])),
    "the template": lambda s, d: edit(s, "chat_template.jinja", lambda text: "x" + text),
    "the tokenizer": lambda s, d: edit(
        s,
        "tokenizer.json",
        lambda text: text.replace('"add_prefix_space": false', '"add_prefix_space": true', 1),
    ),
    "the model": lambda s, d: operations.flip(Path(s["model"]) / "model.safetensors"),
}


def edit(settings: dict[str, Any], name: str, change: Any) -> None:
    path = Path(settings["model"]) / name
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize("change", CHANGES)
def test_a_resume_after_a_change_of_what_decides_the_result_is_refused_and_touches_nothing(
    settings: dict[str, Any], data: Path, tmp_path: Path, change: str
) -> None:
    shutil.copytree(settings["model"], tmp_path / "base")
    settings |= {"model": str(tmp_path / "base"), "max_steps": 4, "samples": 0}
    folder = stopped_run(settings, 2)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    CHANGES[change](settings, data)
    with pytest.raises(UserError, match=r"was [0-9a-f]{12} and is [0-9a-f]{12}"):
        tuition.train(folder, resume=True)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_resume_with_another_setting_names_the_setting(settings: dict[str, Any]) -> None:
    folder = stopped_run({**settings, "max_steps": 4, "samples": 0}, 2)
    with pytest.raises(
        UserError, match=r"recipe was \w{12} and is \w{12} \(learning_rate was 0.003 and is 0.01\)"
    ):
        tuition.train(folder, resume=True, learning_rate=0.01)


def test_a_renamed_model_folder_is_the_same_model(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "other-name")
    assert model_sha256(str(tmp_path / "other-name"), None) == model_sha256(str(llama), None)


def test_an_order_of_examples_that_came_out_differently_is_refused(tmp_path: Path) -> None:
    folder = write_snapshot(tmp_path, snapshot(2))
    model, optimizer = learner()
    with pytest.raises(UserError, match=r"in another order \(it was oooooooooooo and is pppppppppppp\)"):
        load_checkpoint(
            folder,
            operations.parameters(model),
            optimizer,
            Identity(IDENTITY.fingerprint, lambda step: "p" * 64),
        )


# --- one process a folder ---


def test_the_loser_of_two_processes_writes_nothing_and_the_lock_of_a_dead_one_does_not_block(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = Path(settings["output_dir"])
    script = (
        "import sys, time; from pathlib import Path; from tuition.train.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).claimed():\n    print('mine', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "mine\n"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    began = time.monotonic()
    with pytest.raises(UserError, match="another process is training in this folder"):
        tuition.train(**settings)
    print(f"the loser left after {time.monotonic() - began:.2f} s")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    holder.kill()
    holder.wait()
    assert (folder / ".lock").exists()
    assert tuition.train(**{**settings, "max_steps": 1, "samples": 0}).path == folder


def test_who_only_looks_whether_a_folder_is_held_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    run = RunFolder(tmp_path)
    with run.claimed():
        assert run.is_claimed()
    looking = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_claimed` does, for longer than it does
    threading.Timer(0.02, os.close, [looking]).start()
    with run.claimed():
        assert run.is_claimed()
    assert not run.is_claimed()


def test_rows_that_a_killed_start_left_are_taken_up_again(llama: Path, tmp_path: Path) -> None:
    rows = [(f"What is {i}?", str(i)) for i in range(12)]
    options = {"model": str(llama), "output_dir": str(tmp_path / "run"), "samples": 0, "max_steps": 1}
    (tmp_path / "run").mkdir()
    text = "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows)
    (tmp_path / "run" / "data.jsonl").write_text(text)
    assert (tuition.train(data=rows, **options).path / "model").exists()
