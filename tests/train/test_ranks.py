"""Many ranks are one: the same gradients, losses and order of examples as in a single process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

from tests.conftest import make_model
from tests.train import ranks as worker
from tuition import files
from tuition.batch.balance import shares, work_of_model
from tuition.conversation import Rendered
from tuition.errors import Origin, UserError
from tuition.train.distributed import ALONE
from tuition.train.folder import RunFolder
from tuition.training.waiting import Start, prepared_once

STEPS = int(os.environ.get("STEPS", "14"))  # `make prove` compares 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("ranks"), tie_word_embeddings=True))


@pytest.fixture(scope="module")
def alone(folder: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a single process does: gradients and losses by method, and checkpoints after step 4."""
    found: dict[str, Any] = {"checkpoints": {}}
    for method in ("full", "lora"):
        place = tmp_path_factory.mktemp("alone")
        found[f"gradients-{method}"], found[f"losses-{method}"] = worker.one_alone(
            folder, method, place, STEPS
        )
        found["checkpoints"][method] = str(place / "step-4")
    return found


@pytest.fixture(scope="module")
def many(
    folder: str, alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[Path, dict[str, Any]]]:
    """What two ranks did, going on from one, and four, going on from two."""
    found, checkpoints = {}, alone["checkpoints"]
    for count in (2, 4):
        place = tmp_path_factory.mktemp(f"ranks{count}")
        found[count] = (
            place,
            worker.by_ranks(count, place, model=folder, steps=STEPS, checkpoints=checkpoints),
        )
        checkpoints = {"full": str(place / "ddp-full" / "step-7")}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "method", "count"),
    [*((*case, count) for case in worker.CASES for count in (2, 4)), (*worker.TWO_MACHINES, 4)],
)
def test_gradients_and_losses_are_those_of_one_process(
    many: dict[int, Any], alone: dict[str, Any], count: int, layout: str, method: str
) -> None:
    place, result = many[count]
    got, want = load_file(place / f"{layout}-{method}.safetensors"), alone[f"gradients-{method}"]
    assert got.keys() == want.keys()
    largest = max(float(g.abs().max()) for g in want.values())
    for name, gradient in want.items():
        assert float((got[name] - gradient).abs().max()) <= 1e-5 * largest, name
    pairs = np.array([result["losses"][f"{layout}-{method}"], alone[f"losses-{method}"]])
    assert float(np.abs(pairs[0] - pairs[1]).max()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_every_example_is_taken_once_an_epoch_and_in_the_same_update(
    many: dict[int, Any], count: int
) -> None:
    rows = worker.examples()
    steps = range(1, worker.PLAN.steps_per_epoch + 1)
    planned = [sorted(rows[i].origin.line for i in worker.PLAN.examples_of(n)) for n in steps]
    assert many[count][1]["taken"] == planned


@pytest.mark.slow
def test_a_run_goes_on_from_one_rank_to_two_to_four_to_one(
    many: dict[int, Any], alone: dict[str, Any], folder: str
) -> None:
    whole = alone["losses-full"]
    for name in ("ddp-full", "fsdp-full"):
        assert many[2][1][f"resumed-{name}"] == pytest.approx(whole[4:7], abs=1e-6)
        assert many[4][1][f"resumed-{name}"] == pytest.approx(whole[7:10], abs=1e-6)
        last = worker.make(folder, "ddp", "full", ALONE)
        assert worker.load(last, many[4][0] / name / "step-10") == 10
        assert worker.losses(last, 11, 13) == pytest.approx(whole[10:13], abs=1e-6)


@pytest.mark.slow
def test_an_adapter_goes_on_from_one_rank_to_two_to_one(
    many: dict[int, Any], alone: dict[str, Any], folder: str
) -> None:
    whole = alone["losses-lora"]
    for name in ("ddp-lora", "fsdp-lora"):
        assert many[2][1][f"resumed-{name}"] == pytest.approx(whole[4:7], abs=1e-6)
        last = worker.make(folder, "ddp", "lora", ALONE)
        assert worker.load(last, many[2][0] / name / "step-7") == 7
        assert worker.losses(last, 8, 10) == pytest.approx(whole[7:10], abs=1e-6)


@pytest.mark.slow
def test_held_out_figures_that_ranks_share_out_are_those_of_one_process(
    many: dict[int, Any], alone: dict[str, Any], folder: str
) -> None:
    one = worker.make(folder, "ddp", "full", ALONE)
    for count, checkpoint in ((2, alone["checkpoints"]["full"]), (4, many[2][0] / "ddp-full" / "step-7")):
        worker.load(one, Path(checkpoint))
        figures = worker.evaluated(one)
        for layout in ("ddp", "fsdp") if count == 2 else ("ddp", "fsdp", "hsdp"):
            assert many[count][1][f"evaluated-{layout}-full"] == [figures] * count


SAVED = [(f"{layout}-{method}", count) for count in (2, 4) for layout, method in worker.resumed_by(count)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), SAVED)
def test_as_many_ranks_go_on_to_the_bit(many: dict[int, Any], count: int, name: str) -> None:
    assert many[count][1][f"bitwise-{name}"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), SAVED)
def test_each_rank_writes_what_it_holds_of_a_checkpoint_and_none_ever_holds_all(
    many: dict[int, Any], folder: str, count: int, name: str
) -> None:
    place, result = many[count]
    held = result[f"held-{name}"]
    if name.startswith("ddp"):
        assert held[1:] == [0] * (count - 1)
        return
    (checkpoint,) = (place / name).iterdir()
    stored = [load_file(path) for path in checkpoint.glob("*-of-*.safetensors")]
    assert len(stored) == 2 * count
    assert sum(held) == sum(t.numel() * t.element_size() for tensors in stored for t in tensors.values())
    assert max(held) < 1.2 * sum(held) / count
    assert files.manifest_faults(checkpoint) == []


@pytest.mark.slow
def test_a_full_disk_of_one_rank_is_a_failed_save_of_all_and_leaves_nothing(many: dict[int, Any]) -> None:
    place, result = many[2]
    assert result["refused"] == [
        "[Errno 28] on rank 1: [Errno 28] No space left on device",
        "[Errno 28] No space left on device",
    ]
    assert list((place / "full").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["fsdp", "hsdp"])
def test_the_reader_of_torch_itself_reads_what_ranks_wrote_in_parts(
    many: dict[int, Any], folder: str, layout: str
) -> None:
    learner = worker.make(folder, "ddp", "full", ALONE)
    (checkpoint,) = (many[4][0] / f"{layout}-full").iterdir()
    read = {name: torch.zeros_like(p) for name, p in learner.masters.parameters.items()}
    dcp.load(read, storage_reader=dcp.HuggingFaceStorageReader(str(checkpoint)), no_dist=True)
    worker.load(learner, checkpoint)
    for name, p in learner.masters.parameters.items():
        assert torch.equal(read[name], p), name


# --- who takes what ---


def example_of(tokens: int) -> Rendered:
    """An example of which the second half is learned."""
    supervised = (np.arange(tokens) >= tokens // 2).astype(np.float32)
    return Rendered(np.zeros(tokens, dtype=np.int32), supervised, Origin("f", 1))


@pytest.mark.parametrize(("tail", "each"), [(0.35, 4), (0.35, 16), (0.9, 64)])
def test_the_busiest_of_64_ranks_has_at_most_5_percent_over_the_mean(tail: float, each: int) -> None:
    """Lengths as GSM8K's (log-normal, narrow) and long-tailed ones, of which a rank needs more to even them out."""
    work = work_of_model(width=4096, layers=32, body=7_000_000_000, head=525_000_000)
    for seed in range(5):
        random = np.random.default_rng(seed)
        lengths = np.minimum(random.lognormal(5.2, tail, 64 * each).astype(int) + 10, 8192).tolist()
        costs = [work.of(example_of(tokens)) for tokens in lengths]
        taken = shares(costs, 64)
        assert sorted(place for places in taken for place in places) == list(range(len(lengths)))
        loads = [sum(costs[place] for place in places) for places in taken]
        assert max(loads) <= 1.05 * np.mean(loads)


def test_an_example_longer_than_a_share_bounds_the_work_and_nothing_else_does() -> None:
    lengths = [8000, *[100] * 300]
    loads = sorted(sum(lengths[place] for place in places) for places in shares(lengths, 8))
    assert loads[-1] == 8000
    assert loads[-2] - loads[0] <= 100


def test_fewer_examples_than_ranks_leave_some_idle() -> None:
    assert sorted(map(len, shares([5, 9, 2], 4))) == [0, 1, 1, 1]


# --- data is prepared once ---


def test_other_ranks_wait_for_the_word_of_the_first_and_not_longer_than_it_speaks(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first, second = Start(0, 2, "now"), Start(1, 2, "now")
    with prepared_once(folder, first):
        pass
    with prepared_once(folder, second):
        pass
    with (
        pytest.raises(UserError, match="not been heard of"),
        prepared_once(folder, Start(1, 2, "later"), silence=0.2),
    ):
        pass
    with pytest.raises(ZeroDivisionError), prepared_once(folder, first):
        raise ZeroDivisionError
    with pytest.raises(UserError, match="could not prepare"), prepared_once(folder, second):
        pass


def test_one_alone_says_nothing(tmp_path: Path) -> None:
    with prepared_once(RunFolder(tmp_path), Start()):
        pass
    assert not list(tmp_path.iterdir())


def test_values_are_the_same_alone() -> None:
    assert ALONE.sums(1.5, 2.0) == [1.5, 2.0]
    assert ALONE.told("x") == "x"
    assert not ALONE.any(False)
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    assert ALONE.norm(gradients) == pytest.approx(5.0)
