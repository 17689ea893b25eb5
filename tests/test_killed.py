"""Each command that writes, killed at every one of its disk operations: under its name lies the old, the new, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tuition import api, files
from tuition.collect import Store, people, prompts
from tuition.conversation import Message

MOST_KILLS = 8  # of one command, spread over its operations


class Killed(BaseException):
    """Stands for SIGKILL: nothing on the way out changes the disk any more."""


class Deadly(files.Disk):
    """A disk at whose n-th operation the process is dead."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._operations = 0

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "close":
            self._operations += 1
            self._left -= 1
            if self._left <= 0:
                raise Killed
        return super().__getattribute__(name)


def prepared(model: Path, data: Path, place: Path) -> None:
    api.prepare(str(data), model=str(model), to=place / "out")


def set_aside(model: Path, data: Path, place: Path) -> None:
    api.quarantine(api.check(str(data)), place / "out.jsonl")


def mended(model: Path, data: Path, place: Path) -> None:
    api.fix(str(data), place / "out.jsonl")


def backed_up(model: Path, data: Path, place: Path) -> None:
    with Store(place / "team.db") as store:
        if not people.people(store):
            people.add_person(store, "W", "writer", by=None)
            asked = [prompts.NewPrompt((Message("user", "Say a"),), "made:1")]
            prompts.add(store, asked, source="made", licence="CC0-1.0", consent="made", by=None)
        store.backup(place / "out.db")


COMMANDS: dict[str, Callable[[Path, Path, Path], None]] = {
    "prepare": prepared,
    "check --quarantine": set_aside,
    "check --fix": mended,
    "collect backup": backed_up,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_leaves_nothing_half_written_and_runs_again(
    command: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = COMMANDS[command]
    rows: list[Any] = [{"prompt": f"p{n} ", "completion": "c"} for n in range(4)]
    data = write_jsonl(tmp_path / "d.jsonl", [*rows, {"prompt": "none"}])
    monkeypatch.setenv("TUITION_CACHE", str(tmp_path / "cache"))
    whole = Deadly(10**9)
    monkeypatch.setattr(files, "disk", whole)
    (tmp_path / "whole").mkdir()
    act(llama, data, tmp_path / "whole")
    expected, operations = contents(tmp_path / "whole"), whole._operations
    kills = 0
    for at in range(1, operations + 1, max(1, operations // MOST_KILLS)):
        place = tmp_path / f"killed-{at}"
        place.mkdir()
        monkeypatch.setattr(files, "disk", Deadly(at))
        try:
            act(llama, data, place)
        except Killed:
            kills += 1
        monkeypatch.setattr(files, "disk", files.Disk())
        assert contents(place).items() <= expected.items()
        act(llama, data, place)
        assert contents(place) == expected
    assert kills > 2  # the last instants may lie behind the end: what is remembered is not read again


def contents(place: Path) -> dict[str, Any]:
    """What stands under final names: a name that begins with a point is none, and a folder must be whole."""
    found: dict[str, Any] = {}
    for path in place.glob("out*"):
        if path.suffix == ".jsonl":
            found[path.name] = path.read_text()
        elif path.suffix == ".db":
            with Store(path, read_only=True) as store:
                found[path.name] = len(people.people(store))
        else:
            for folder in (
                path for path in path.iterdir() if path.is_dir() and not path.name.startswith(".")
            ):
                assert files.manifest_faults(folder) == []
                found[folder.name] = sorted(json.loads((folder / "manifest.json").read_text())["files"])
    return found
