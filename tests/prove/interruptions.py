"""Kill training processes with SIGKILL at random instants, resume until they finish, compare with a run left alone.

A server process imports everything once and forks a child for each sitting, so that a kill costs no start of
Python. The children really train: `tuition.train` with a real model, real files, real locks. Half of the kills come
inside a save, at a random disk operation of the thread that writes; the others at any instant of a sitting.
Weights must be equal to the bit, and the journal line by line. Run: make prove (KILLS=1000 for more).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import make_model, write_jsonl
from tests.prove.faultydisk import Unsynced, memory_folder
from tuition import files

STEPS = 24
MOST_KILLS_A_RUN = 8

# Every kind of run, each with its own run left alone to be compared with.
KINDS: dict[str, dict[str, Any]] = {
    "full, packed, dropout": {"method": "full", "dropout": 0.1},
    "full, one by one": {"method": "full", "dropout": 0.1, "micro_batch_size": 1},
    "LoRA, packed, dropout": {"method": "lora", "lora_r": 4, "lora_dropout": 0.1},
}


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: SIGKILLs that met a living process, by the instant they were meant for.
        different: runs that ended differently, each with its name.
    """

    kills: dict[str, int] = field(default_factory=lambda: {"inside a save": 0, "any instant": 0})
    runs: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def all(self) -> int:
        return sum(self.kills.values())


def prove(kills: int, *, minutes: float = 1e9, seed: int = 0, tell: Any = lambda text: None) -> Tally:
    """Interrupt runs until so many kills have met, or so many minutes are over."""
    until = time.monotonic() + 60 * minutes
    import_everything()
    tally, chance = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as name:
        root = Path(name)
        os.environ["TUITION_CACHE"] = str(root / "cache")
        model, data = make_model(root / "model"), write_jsonl(root / "data.jsonl", rows())
        base = {"model": str(model), "data": str(data), **SETTINGS}
        whole, seconds = {}, {}
        for kind, settings in KINDS.items():
            started = time.monotonic()
            folder = root / f"whole-{len(whole)}"
            wait(sitting({**base, **settings}, folder))
            whole[kind], seconds[kind] = outcome(folder), time.monotonic() - started
            tell(f"{kind}: a sitting takes {seconds[kind]:.1f} s")
        while tally.all < kills and time.monotonic() < until:
            kind = list(KINDS)[tally.runs % len(KINDS)]
            folder = root / f"cut-{tally.runs}"
            settings = {**base, **KINDS[kind]}
            most = min(MOST_KILLS_A_RUN, kills - tally.all)
            interrupt(settings, folder, seconds[kind], chance, most, tally)
            tally.runs += 1
            if outcome(folder) != whole[kind]:
                tally.different.append(f"run {tally.runs} ({kind})")
            tell(f"run {tally.runs} ({kind}): {tally.all} kills so far, {len(tally.different)} runs differ")
    return tally


SETTINGS: dict[str, Any] = {
    "max_steps": STEPS, "learning_rate": 1e-3, "save_every_steps": 2, "eval_every_steps": 8, "samples": 0,
    "val_split": 0.2, "batch_size": 8,
}  # fmt: skip


def interrupt(
    settings: dict[str, Any], folder: Path, seconds: float, chance: random.Random, most: int, tally: Tally
) -> None:
    """Kill sittings of one run up to so many times, then let it finish."""
    killed = 0
    while not finished(folder):
        inside = killed < most and tally.kills["inside a save"] <= tally.kills["any instant"]
        at = chance.randrange(1, 250) if inside else None
        process = sitting(settings, folder, die_at_operation=at)
        if not inside and killed < most:
            time.sleep(chance.uniform(0.0, 1.2 * seconds))
            os.kill(process, signal.SIGKILL)
        if wait(process) == -signal.SIGKILL:
            killed += 1
            tally.kills["inside a save" if inside else "any instant"] += 1


def finished(folder: Path) -> bool:
    """The model is published and run.json says so."""
    facts = folder / "run.json"
    return facts.exists() and json.loads(facts.read_text())["status"] == "finished"


def sitting(settings: dict[str, Any], folder: Path, *, die_at_operation: int | None = None) -> int:
    """Fork a process that trains: a new run, or a resume where there is one; its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        quiet = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        files.disk = Deadly(die_at_operation)
        import tuition

        if (folder / "run.json").exists():
            tuition.train(folder, resume=True)
        else:
            tuition.train(**settings, output_dir=str(folder))
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


class Deadly(Unsynced):
    """A disk at whose n-th operation in the thread that writes checkpoints this process kills itself.

    Nothing waits for the real disk: a kill, unlike a power cut, loses nothing that the system was given.
    """

    def __init__(self, operation: int | None) -> None:
        self._left = operation

    def __getattribute__(self, name: str) -> Any:
        if (
            not name.startswith("_")
            and self._left is not None
            and threading.current_thread().name == "checkpoint"
        ):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getattribute__(name)


def wait(process: int) -> int:
    """The exit status of a child; -9 where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def outcome(run: Path) -> tuple[Any, ...]:
    """What must be equal: the weights' bytes and the journal without its clock."""
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


def import_everything() -> None:
    """All that a sitting imports, once. No backward pass: PyTorch's engine does not live through a fork."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import peft  # noqa: F401
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: F401

    import tuition.evaluate.generate
    import tuition.evaluate.heldout
    import tuition.evaluate.report
    import tuition.ship.export
    import tuition.train.adapters
    import tuition.train.loop
    import tuition.train.selfcheck
    import tuition.training  # noqa: F401

    torch.set_num_threads(1)


def main() -> int:
    """Print a line a run and a verdict; exit 1 on any difference."""
    kills, minutes = int(os.environ.get("KILLS", "300")), float(os.environ.get("MINUTES", "1e9"))
    tally = prove(kills, minutes=minutes, tell=lambda text: print(text, flush=True))
    print(json.dumps({"kills": tally.kills, "runs": tally.runs, "different": tally.different}))
    return 1 if tally.different else 0


if __name__ == "__main__":
    sys.exit(main())
