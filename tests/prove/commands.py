"""Kill the commands that judge, ship and collect with SIGKILL at random instants, start each again until it ends.

Half of the kills come at a random disk operation, the others at any instant of the command's time. What stands
under final names after a kill must be a part of what an uninterrupted command leaves, each file whole and no folder
half full; at the end it must be all of it, byte for byte. Run: PARTS=commands make prove.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import make_model, write_jsonl
from tests.prove.faultydisk import memory_folder
from tests.prove.sittings import (
    Deadly,
    forked,
    import_everything,
    import_what_was_missing,
    kill_after,
    sitting,
    wait,
)
from tuition import api, files
from tuition.collect import Store

MOST_KILLS = 5  # of one command, before it is left to finish
PROMPTS = 1500  # an import commits them in three parts
_SHORT = "def grade(answer, expected, row):\n    return -len(answer)\n"


# --- the commands, each in a folder of its own beside the files that all read


def evaluated(place: Path) -> None:
    """Answers are kept in the run as they come."""
    run = place / "run"
    if not run.exists():
        shutil.copytree(place.parent / "run", run)
    found = api.evaluate(str(run), str(place.parent / "rows.jsonl"), max_new_tokens=24, limit=24)
    figures = {key: value for key, value in found.to_json().items() if key != "model"}
    files.write_json(place / "figures.json", figures)


def exported(place: Path) -> None:
    """The LoRA is merged; a forked process reads what was written, so that no kill costs a start of Python."""
    from tuition.ship import gate

    gate.run_reader, gate.MOST_PROMPTS = _read_in_a_fork, 3
    if not (place / "out").exists():  # the command would refuse what it had finished before
        api.export(str(place.parent / "run"), place / "out")


def _read_in_a_fork(request: Path, answer: Path) -> str | None:
    from tuition.ship import reader

    def read() -> None:
        reader.main(str(request), str(answer))

    status, _ = wait(forked(read, request.parent / "reader.log", files.disk))
    return f"exit {status}" if status else None


def paired(place: Path) -> None:
    """Answers are drawn, and the shorter is the better one."""
    api.preferences(
        str(place.parent / "run"), str(place.parent / "rows.jsonl"), place / "pairs.jsonl", limit=4, samples=8,
        temperature=1.2, max_new_tokens=32, metric=f"python:{place.parent / 'short.py'}:grade",
    )  # fmt: skip


def imported(place: Path) -> None:
    """Prompts go into a store, some hundreds at a time."""
    with Store(place / "team.db") as store:
        api.import_prompts(
            store, [str(place.parent / "prompts.jsonl")], source="made", licence="CC0-1.0", consent="made"
        )


COMMANDS: dict[str, Callable[[Path], None]] = {
    "evaluate": evaluated,
    "export": exported,
    "preferences": paired,
    "collect import": imported,
}


def standing(place: Path) -> dict[str, Any]:
    """What stands under final names: the lines that an evaluation keeps and the prompts of a store one by one."""
    found: dict[str, Any] = {}
    for name in ("figures.json", "pairs.jsonl"):
        if (place / name).exists():
            found[name] = (place / name).read_bytes()
    for path in place.glob("run/answers/*.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        found |= {
            f"{path.name} {line!r}": 1 for line in lines if line.endswith(b"\n") and line.strip(b"\n\0")
        }
    out = place / "out"
    if out.exists():
        assert files.manifest_faults(out) == [], f"half an export: {files.manifest_faults(out)}"
        found |= {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}
    if (place / "team.db").exists():
        with Store(place / "team.db") as store, store.reading() as db:
            columns = "id, key, messages, opening, source_id, origin, expected, overlap"
            found |= {row[1]: tuple(row) for row in db.execute(f"SELECT {columns} FROM prompt")}
            asked = "SELECT rowid FROM prompt_words WHERE prompt_words MATCH 'question'"
            found |= {f"words of {n}": n for (n,) in db.execute(asked)}
    return found


# --- the kills


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: SIGKILLs that met a living command, by its name.
        ended: commands that were started again until they ended.
        faults: what was wrong, a sentence each.
    """

    kills: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Whole:
    """A command left alone: what it leaves, its CPU seconds, and how many disk operations it takes."""

    left: dict[str, Any]
    seconds: float
    operations: int


def prove(
    kills: int,
    *,
    names: tuple[str, ...] = tuple(COMMANDS),
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> Tally:
    """Kill each of these commands so many times, and look at what it leaves.

    Args:
        kills: of each command.
    """
    tally, chance = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as name:
        root = Path(name)
        os.environ["TUITION_CACHE"] = str(root / "cache")
        tempfile.tempdir = name  # what a killed command leaves there goes with it
        try:
            make_material(root)
            for command in names:
                whole = leave_alone(command, root / f"whole-{command}")
                while tally.kills[command] < kills:
                    place = root / f"{command}-{tally.ended[command]}"
                    most = min(MOST_KILLS, kills - tally.kills[command])
                    fault = interrupt(command, place, whole, most, chance, tally)
                    tally.ended[command] += 1
                    tally.faults += [f"{command}, run {tally.ended[command]}: {fault}"] if fault else []
                    shutil.rmtree(place, ignore_errors=True)
                tell(f"{command}: {tally.kills[command]} kills, {len(tally.faults)} faults so far")
        finally:
            tempfile.tempdir = None
    return tally


def make_material(root: Path) -> None:
    """A trained LoRA, rows to judge it by, prompts to import, and a metric."""
    import_everything()
    rows = [{"prompt": f"What is {n}?", "completion": "it is"} for n in range(40)]
    model, data = make_model(root / "model"), write_jsonl(root / "rows.jsonl", rows)
    write_jsonl(root / "prompts.jsonl", [{"prompt": f"Question {n}?"} for n in range(PROMPTS)])
    (root / "short.py").write_text(_SHORT, encoding="utf-8")
    settings = {
        "model": str(model), "data": str(data), "method": "lora", "max_steps": 12, "learning_rate": 3e-2,
        "samples": 0, "batch_size": 8,
    }  # fmt: skip
    status, _ = wait(sitting(settings, root / "run", note=root / "modules.json"))
    assert status == 0, (root / "run.log").read_text()
    import_what_was_missing(root / "modules.json")


def leave_alone(command: str, place: Path) -> Whole:
    """Do it without a kill, twice: the first time imports what only this command needs."""
    place.with_name("first").mkdir()

    def first() -> None:
        COMMANDS[command](place.with_name("first"))
        (place.parent / "modules.json").write_text(json.dumps(list(sys.modules)))

    status, _ = wait(forked(first, place.with_suffix(".log"), Deadly(None)))
    assert status == 0, place.with_suffix(".log").read_text()
    import_what_was_missing(place.parent / "modules.json")
    shutil.rmtree(place.with_name("first"))
    place.mkdir()

    def counted() -> None:
        COMMANDS[command](place)
        (place.parent / "operations").write_text(str(files.disk.operations))  # type: ignore[attr-defined]

    status, seconds = wait(forked(counted, place.with_suffix(".log"), Deadly(None)))
    assert status == 0, place.with_suffix(".log").read_text()
    return Whole(standing(place), seconds, int((place.parent / "operations").read_text()))


def interrupt(command: str, place: Path, whole: Whole, most: int, chance: random.Random, tally: Tally) -> str:
    """Kill one command up to so many times, look, start it again; what is wrong, or nothing."""
    place.mkdir()
    log, killed = place.with_suffix(".log"), 0
    while True:
        operation = None
        if killed < most and whole.operations and killed % 2 == 0:
            operation = chance.randint(1, whole.operations)
        process = forked(lambda: COMMANDS[command](place), log, Deadly(operation))
        if killed < most and operation is None:
            status = kill_after(process, chance.uniform(0, whole.seconds))
        else:
            status, _ = wait(process)
        try:
            left = standing(place)
        except AssertionError as half:
            return str(half)
        if status == 0:
            return "" if left == whole.left else f"it left something else: {different(left, whole.left)}"
        if status != -signal.SIGKILL:
            return f"it ended with {status}: {log.read_text()[-800:]}"
        killed += 1
        tally.kills[command] += 1
        if not left.items() <= whole.left.items():
            expected = {key: thing for key, thing in whole.left.items() if key in left}
            return f"half of something is left: {different(left, expected)}"


def different(left: dict[str, Any], expected: dict[str, Any]) -> str:
    """Where two outcomes part."""
    return ", ".join(
        f"{key}: {str(left.get(key))[:120]} instead of {str(expected.get(key))[:120]}"
        for key in sorted({*left, *expected})
        if left.get(key) != expected.get(key)
    )[:1000]
