"""Kill training processes with SIGKILL at random instants, resume until they finish, compare with a run left alone.

Half of the kills come inside a save, at a random disk operation of the thread that writes; the others at any
instant of a sitting, some of them in a fresh process of the command line. Weights must be equal to the bit, and
the journal line by line. Run: PARTS=kills make prove (KILLS=1000 for more, FRESH=20 of
them in fresh processes).
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.conftest import make_model, write_jsonl
from tests.prove.faultydisk import memory_folder
from tests.prove.sittings import (
    fresh_sitting,
    import_everything,
    import_what_was_missing,
    kill_after,
    log_of,
    sitting,
    wait,
)

STEPS = 24
MOST_KILLS_A_RUN = 8
MOST_OPERATIONS = 60  # of the thread that writes: two or three checkpoints
INSIDE, ANY, FRESH = "inside a save", "at any instant", "at any instant of a fresh process"

# Every kind of run, each with its own run left alone to be compared with.
KINDS: dict[str, dict[str, Any]] = {
    "full, packed, dropout": {"method": "full", "dropout": 0.1},
    "full, one by one": {"method": "full", "dropout": 0.1, "micro_batch_size": 1},
    "LoRA, packed, dropout": {"method": "lora", "lora_r": 4, "lora_dropout": 0.1},
}
OTHER_KINDS: dict[str, dict[str, Any]] = {
    "Muon, split masters": {"method": "full", "optimizer": "muon", "dtype": "bfloat16", "masters": "split"},
    "AdamW in 8 bits, noise": {
        "method": "full",
        "optimizer": "adamw_8bit",
        "neftune_alpha": 5.0,
        "dropout": 0.1,
    },
    "QLoRA": {"method": "qlora", "lora_r": 4, "lora_dropout": 0.1},
}
OTHER_SIZES = {"hidden_size": 64, "intermediate_size": 128}  # 4 bits hold rows of 64
SETTINGS: dict[str, Any] = {
    "max_steps": STEPS, "learning_rate": 1e-3, "save_every_steps": 2, "eval_every_steps": 8, "samples": 0,
    "val_split": 0.2, "batch_size": 8,
}  # fmt: skip


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: SIGKILLs that met a living process, by the instant they were meant for.
        different: runs that ended differently or not at all, each with its name.
    """

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys((INSIDE, ANY, FRESH), 0))
    runs: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def all(self) -> int:
        return sum(self.kills.values())


@dataclass(frozen=True)
class Whole:
    """A run left alone: what came out, and the CPU seconds it took in a forked process."""

    outcome: tuple[Any, ...]
    seconds: float


def prove(
    kills: int,
    *,
    kinds: Mapping[str, Mapping[str, Any]] = KINDS,
    sizes: Mapping[str, int] = MappingProxyType({}),
    fresh: int = 0,
    minutes: float = 1e9,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> Tally:
    """Interrupt runs until so many kills have met, or so many minutes are over.

    Args:
        kinds: settings by the name of a kind of run.
        sizes: of the model, where they must not be its usual ones.
        fresh: how many of the kills meet fresh processes.
    """
    until = time.monotonic() + 60 * minutes
    tally, chance = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as name:
        root = Path(name)
        os.environ["TUITION_CACHE"] = str(root / "cache")
        import_everything()
        model, data = make_model(root / "model", **sizes), write_jsonl(root / "data.jsonl", rows())
        base = {"model": str(model), "data": str(data), **SETTINGS}
        wait(sitting({**base, **KINDS["LoRA, packed, dropout"]}, root / "first", note=root / "modules.json"))
        import_what_was_missing(root / "modules.json")
        wholes: dict[str, Whole] = {}
        start_seconds = seconds_of_a_start(root) if fresh else 0.0
        while tally.all < kills and time.monotonic() < until:
            kind = list(kinds)[tally.runs % len(kinds)]
            settings = {**base, **kinds[kind]}
            if kind not in wholes:
                wholes[kind] = leave_alone(settings, root / f"whole-{kind}")
            folder, most = root / f"cut-{tally.runs}", min(MOST_KILLS_A_RUN, kills - tally.all)
            if tally.kills[FRESH] < fresh:
                kill = in_fresh_processes(settings, folder, wholes[kind].seconds, start_seconds, chance)
                most = min(most, fresh - tally.kills[FRESH])
            else:
                kill = in_forked_processes(settings, folder, wholes[kind].seconds, chance, tally)
            interrupt(folder, kill, most, tally)
            tally.runs += 1
            if outcome(folder) != wholes[kind].outcome:
                tally.different.append(f"run {tally.runs} ({kind})")
            tell(f"run {tally.runs} ({kind}): {tally.all} kills so far, {len(tally.different)} runs differ")
    return tally


def leave_alone(settings: dict[str, Any], folder: Path) -> Whole:
    """Train without a kill."""
    status, seconds = wait(sitting(settings, folder))
    assert status == 0, log_of(folder).read_text()
    return Whole(outcome(folder), seconds)


def seconds_of_a_start(root: Path) -> float:
    """What a fresh process takes before it trains: a first one that is refused at the door."""
    return wait(fresh_sitting({"model": str(root / "none"), "data": "none"}, root / "refused"))[1]


# One sitting: its exit status, and what its kill is counted as. Without a kill, it is left to finish.
Kill = Callable[[bool], tuple[int, str]]


def in_forked_processes(
    settings: dict[str, Any], folder: Path, seconds: float, chance: random.Random, tally: Tally
) -> Kill:
    """Sittings that are forked; the kills inside saves and at any instant keep even."""

    def sit(kill: bool) -> tuple[int, str]:
        if not kill:
            return wait(sitting(settings, folder))[0], ANY
        if tally.kills[INSIDE] <= tally.kills[ANY] + tally.kills[FRESH]:
            at = chance.randrange(1, MOST_OPERATIONS)
            return wait(sitting(settings, folder, die_at_operation=at))[0], INSIDE
        return kill_after(sitting(settings, folder), chance.uniform(0, seconds)), ANY

    return sit


def in_fresh_processes(
    settings: dict[str, Any], folder: Path, seconds: float, start_seconds: float, chance: random.Random
) -> Kill:
    """Sittings by the command line; the kill comes after the start, which is most of their time."""

    def sit(kill: bool) -> tuple[int, str]:
        process = fresh_sitting(settings, folder)
        if not kill:
            return wait(process)[0], FRESH
        return kill_after(process, start_seconds + chance.uniform(0, 2 * seconds)), FRESH

    return sit


def interrupt(folder: Path, sit: Kill, most: int, tally: Tally) -> None:
    """Kill sittings of one run up to so many times, then let it finish."""
    killed = 0
    while not finished(folder):
        status, instant = sit(killed < most)
        if status == -signal.SIGKILL:
            killed += 1
            tally.kills[instant] += 1
        elif not finished(folder):
            return  # it ended with an error, which the comparison will say


def finished(folder: Path) -> bool:
    """The model is published and run.json says so."""
    facts = folder / "run.json"
    return facts.exists() and json.loads(facts.read_text())["status"] == "finished"


def outcome(run: Path) -> tuple[Any, ...]:
    """What must be equal: the weights' bytes and the journal without its clock."""
    if not finished(run):
        return ("it did not finish", log_of(run).read_text()[-2000:])
    journal = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in line.items() if "second" not in k} for line in journal]
    (weights,) = [*run.glob("model/*.safetensors"), *run.glob("adapter/*.safetensors")]
    return weights.read_bytes(), figures


def rows() -> list[dict[str, str]]:
    """Eighty short demonstrations."""
    return [
        {"prompt": f"What is {i}?", "completion": " ".join(["it is"] * (1 + i % 7)) + f" {i}"}
        for i in range(80)
    ]
