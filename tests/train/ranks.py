"""What one rank of a test does: this file starts so many processes, and the first of them writes what came.

The test itself calls the same functions with one rank alone, for what it compares with.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import multiprocessing
from torch.distributed import TCPStore
from torch.distributed import fsdp as fsdp  # imported here for all ranks

from tuition import files
from tuition.batch import Plan
from tuition.batch.balance import Work
from tuition.conversation import Rendered
from tuition.errors import Origin
from tuition.evaluate.heldout import held_out_loss, score_examples
from tuition.recipe import AdapterSettings, ModelSettings, OptimizerSettings
from tuition.train import loop
from tuition.train.adapters import ADAPTERS
from tuition.train.checkpoint import Identity, Progress, load_checkpoint, take_snapshot, write_snapshot
from tuition.train.distributed import ALONE, Layout, Ranks, join_ranks
from tuition.train.fingerprint import order_sha256
from tuition.train.journal import Position
from tuition.train.learner import Learner, make_learner, make_sharded_learner
from tuition.train.libraries import peft
from tuition.train.loss import token_mean
from tuition.train.model import LoadedModel, load_config, load_model
from tuition.train.reports import StepReport
from tuition.train.selfcheck import choose_path
from tuition.train.storage import whole

ROOT = Path(__file__).resolve().parents[2]
CPU, FP32 = torch.device("cpu"), torch.float32
SETTINGS = OptimizerSettings(learning_rate=1e-3, warmup_steps=0, lr_scheduler="constant")
PLAN = Plan(examples=22, batch_size=8, steps=1000, seed=3)
WORK = Work(1.0, 0.001)
IDENTITY = Identity("this run", partial(order_sha256, PLAN))
CASES: tuple[tuple[Layout, str], ...] = (("ddp", "full"), ("ddp", "lora"), ("fsdp", "full"), ("fsdp", "lora"))
TWO_MACHINES: tuple[Layout, str] = ("hsdp", "full")  # of two ranks each


def examples() -> list[Rendered]:
    """Rows of very unequal lengths; half of them begin alike, and their line tells them apart."""
    random = np.random.default_rng(0)
    prefix = random.integers(5, 300, 24)
    made = []
    for line in range(PLAN.examples):
        own = random.integers(5, 300, 4 + line * line % 37)
        ids = np.concatenate([prefix, own]) if line % 2 else own
        supervised = np.zeros(len(ids), dtype=np.float32)
        supervised[-len(own) + 2 :] = 1.0
        made.append(Rendered(ids.astype(np.int32), supervised, Origin("rows", line)))
    return made


def make(folder: str, layout: Layout, method: str, ranks: Ranks) -> Learner:
    """A learner over the ranks, as a run makes it."""
    torch.manual_seed(0)
    model = load_model(ModelSettings(model=folder), load_config(folder), device=CPU, dtype=FP32)
    model = ADAPTERS[method](model, AdapterSettings(lora_r=4), [])
    if not ranks.sharded:
        learner = make_learner(model, CPU, FP32, SETTINGS)
        learner.ranks = ranks
        choose_path(learner, examples())
        return learner
    loaded = LoadedModel(model, CPU, FP32)
    choose_path(loaded, examples())
    return make_sharded_learner(loaded, ranks, CPU, FP32, SETTINGS)


def step(learner: Learner, number: int) -> StepReport:
    """One update of the plan."""
    rows = examples()
    batch = [rows[i] for i in PLAN.examples_of(number)]
    packs = loop.packs_of(learner, batch, token_mean, (3, 100))
    return loop.train_step(learner, packs, batch, PLAN, SETTINGS, number)


def gradients(learner: Learner) -> dict[str, torch.Tensor]:
    """Those of the first update, which is then not made."""
    found: dict[str, torch.Tensor] = {}

    def keep(*_: Any, **__: Any) -> None:
        found.update({name: whole(g).clone() for name, g in learner.masters.gather().items()})

    learner.masters.update = keep  # type: ignore[method-assign]
    step(learner, 1)
    del learner.masters.update
    return found


def losses(learner: Learner, first: int, last: int) -> list[float]:
    """Of these updates, both included."""
    return [step(learner, number).loss for number in range(first, last + 1)]


def taken(ranks: Ranks) -> list[list[int]]:
    """The lines that all ranks took, update by update, over an epoch."""
    rows = examples()
    steps = range(1, PLAN.steps_per_epoch + 1)
    mine = [
        [e.origin.line for e in ranks.share([rows[i] for i in PLAN.examples_of(number)], WORK)]
        for number in steps
    ]
    everyone = ranks.all_of(mine)
    return [sorted(line for rank in everyone for line in rank[n]) for n in range(len(mine))]


def save(learner: Learner, root: Path, number: int) -> int:
    """A checkpoint after this update; the bytes of it that this rank held."""
    snapshot = take_snapshot(
        learner.masters.parameters,
        learner.optimizer,
        Progress(step=number),
        IDENTITY,
        Position(),
        learner.ranks,
    )
    if learner.ranks.first or learner.ranks.sharded:
        write_snapshot(root, snapshot)
    return snapshot.bytes


def load(learner: Learner, folder: Path) -> int:
    """Go on from a checkpoint; its update."""
    rank = learner.ranks.rank
    progress, _ = load_checkpoint(folder, learner.masters.parameters, learner.optimizer, IDENTITY, rank)
    learner.masters.publish()
    return progress.step


def refused(learner: Learner, root: Path, number: int) -> str:
    """What a rank is told when the disk of the last one is full in the middle of a save."""
    honest = files.write_new

    def full(*_: Any) -> files.Sum:
        raise OSError(errno.ENOSPC, "No space left on device")

    files.write_new = honest if learner.ranks.first else full
    try:
        save(learner, root, number)
    except OSError as error:
        return str(error)
    finally:
        files.write_new = honest
    return ""


def evaluated(learner: Learner) -> list[Any]:
    """The held-out loss, and what each example adds up to."""
    rows = examples()
    loss = held_out_loss(learner, rows, text_bytes=1000, packing=(3, 100)).loss
    marks = score_examples(learner, rows, packing=(3, 100), accuracy=True)
    return [loss, [[mark.nats, mark.weight, mark.tokens, mark.hits] for mark in marks]]


def resumed_by(world: int) -> tuple[tuple[Layout, str], ...]:
    """What so many ranks resume."""
    return CASES if world == 2 else (("ddp", "full"), ("fsdp", "full"), TWO_MACHINES)


def joined(layout: Layout) -> Ranks:
    """The ranks of this test; those of `hsdp` as if they were on two machines."""
    ranks = join_ranks(CPU, layout)
    return replace(ranks, local_world=2, local_rank=ranks.rank % 2) if layout == "hsdp" else ranks


def by_ranks(count: int, place: Path, **job: Any) -> dict[str, Any]:
    """What so many ranks found; their gradients and checkpoints lie in the folder.

    Args:
        job: model, steps, and checkpoints to go on from, by method.
    """
    (place / "job.json").write_text(json.dumps(job))
    process = subprocess.run(
        [sys.executable, "-m", "tests.train.ranks", str(place), str(count)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return dict(json.loads((place / "result.json").read_text()))


def one_alone(
    model: str, method: str, place: Path, steps: int
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Gradients of the first update and losses of all in a single process, with a checkpoint after the fourth."""
    learner = make(model, "ddp", method, ALONE)
    first = gradients(learner)
    found = losses(learner, 1, 4)
    save(learner, place, 4)
    return first, [*found, *losses(learner, 5, steps)]


def start(place: Path, count: int) -> None:
    """So many ranks, forked once everything is imported: that costs each of them more than what it does.

    Started by torchrun they are in test_ranks_run.py.
    """
    peft()
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # takes a port and keeps it
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the ranks come to it, and none makes one
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    multiprocessing.start_processes(as_rank, (place,), nprocs=count, start_method="fork")


def as_rank(rank: int, place: Path) -> None:
    """The life of one of them."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    main(place)


def main(place: Path) -> None:
    """All that is asked of some ranks at once: a start costs more than what is done."""
    job = json.loads((place / "job.json").read_text())
    ddp = join_ranks(CPU, "ddp")
    result: dict[str, Any] = {"taken": taken(ddp), "losses": {}}
    for layout, method in (*CASES, TWO_MACHINES) if ddp.world == 4 else CASES:
        name = f"{layout}-{method}"
        ranks = joined(layout)
        learner = make(job["model"], layout, method, ranks)
        found = gradients(learner)
        result["losses"][name] = losses(learner, 1, job["steps"])
        if ddp.first:
            save_file(found, place / f"{name}.safetensors")
    for layout, method in resumed_by(
        ddp.world
    ):  # from a checkpoint of other ranks, three updates, saved for others
        name = f"{layout}-{method}"
        learner = make(job["model"], layout, method, joined(layout))
        number = load(learner, Path(job["checkpoints"][method]))
        result[f"evaluated-{name}"] = ddp.all_of(evaluated(learner))
        result[f"resumed-{name}"] = losses(learner, number + 1, number + 3)
        result[f"held-{name}"] = ddp.all_of(save(learner, place / name, number + 3))
        again = make(job["model"], layout, method, learner.ranks)
        ddp.any(False)  # written before it is read
        load(again, place / name / f"step-{number + 3}")
        pair = [losses(one, number + 4, number + 6) for one in (learner, again)]
        same = all(
            torch.equal(whole(p), whole(q))
            for p, q in zip(*(one.masters.parameters.values() for one in (learner, again)), strict=True)
        )
        result[f"bitwise-{name}"] = pair[0] == pair[1] and same
    if ddp.world == 2:
        result["refused"] = ddp.all_of(refused(learner, place / "full", number + 6))
    if ddp.first:
        (place / "result.json").write_text(json.dumps(result))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    start(Path(sys.argv[1]), int(sys.argv[2]))
