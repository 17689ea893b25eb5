"""The benchmarks measure the same work or stop."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import contestants, gpu, step
from benchmarks.workloads import counts, labels, random_instructions, rendered, workloads


def test_the_gpu_script_runs_from_end_to_end_on_a_cpu(tmp_path: Path) -> None:
    results = gpu.measure(tmp_path, 600, smoke=True)
    assert json.loads((tmp_path / "gpu.json").read_text()) == results
    assert {(row["dtype"], row["shared"]) for row in results["correctness"]} == {
        ("float32", True), ("float32", False), ("bfloat16", True), ("bfloat16", False),
    }  # fmt: skip
    assert all(row["ok"] for row in results["correctness"])
    assert [row.get("fault") for row in results["throughput"]] == [None] * 4
    assert "| llama | bfloat16 | none | shared | yes |" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_does_not_fit_into_the_time_is_left_out_by_name(tmp_path: Path) -> None:
    import time

    import torch

    shape = gpu.SHAPES[0]
    assert gpu.reason_to_leave_out(shape, torch.device("cpu"), time.monotonic() + 5) == "no time left"
    assert not gpu.reason_to_leave_out(shape, torch.device("cpu"), time.monotonic() + 600)


def test_every_workload_says_the_same_to_everybody() -> None:
    for workload in workloads(None, None).values():
        rows = workload.rows(6)
        assert rows == workload.rows(6)
        for row in rows:
            ours, theirs = rendered(row), labels(row)
            assert ours.ids.tolist() == row["ids"]
            assert [int(w > 0) for w in ours.supervised] == [int(label >= 0) for label in theirs]
            assert row["learned"][-1] == 1
            assert row["learned"][0] == 0


def account(**changes: Any) -> dict[str, Any]:
    update = {"loss": 3.0, "grad_norm": 1.5, "tokens": 5, "learned": 2, "seconds": 1.0, "cpu_seconds": 1.0}
    return {"updates": [{**update, **changes}], "peak_bytes": 1}


@pytest.mark.parametrize(
    "change", [{"loss": 3.1}, {"grad_norm": 1.6}, {"grad_norm": 0.0}, {"tokens": 4}, {"learned": 1}]
)
def test_a_contestant_that_does_other_work_stops_the_benchmark(change: dict[str, float]) -> None:
    batches = [[{"ids": [1, 2, 3, 4, 5], "learned": [0, 0, 0, 1, 1]}]]
    assert counts(batches[0]) == {"tokens": 5, "learned": 2}
    alike = {name: [account()] for name in ("one", "two", "three")}
    step.refuse_different_work(alike, batches)
    other = copy.deepcopy(alike) | {"three": [account(**change)]}
    with pytest.raises(SystemExit, match="three did other work"):
        step.refuse_different_work(other, batches)


def test_masters_in_halves_and_activations_computed_twice_are_the_same_contestant() -> None:
    job = {"model": "tiny", "batches": [random_instructions(4), random_instructions(4)]}
    whole, halves, twice = (
        [(update["loss"], update["grad_norm"]) for update in contestants.ours("bfloat16", **settings)(job)]
        for settings in ({}, {"masters": "split"}, {"masters": "split", "twice": True})
    )
    assert whole == halves == twice


def test_a_contestant_whose_weights_stand_still_is_refused() -> None:
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    moved = contestants.Moved({"q_proj.weight": weight})
    with pytest.raises(SystemExit, match=r"q_proj\.weight did not move"):
        moved.check()
    weight.data += 1e-7  # a bfloat16 rounding beside it, say, would not show this
    moved.check()
