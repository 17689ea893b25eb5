"""The plan before the bill, and the files that start runs on many machines."""

from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from tests.conftest import write_jsonl
from tuition import api
from tuition.data import extent_of
from tuition.errors import UserError
from tuition.launch import LAUNCHERS, launch_file
from tuition.recipe import make_recipe
from tuition.train.budget import Budget, Shape, budget_of
from tuition.train.trial import tokens_at_once

# Llama 3.1 8B, by its data sheet
EIGHT = Shape(
    layers=32, width=4096, queries=4096, keys=1024, inner=14336, vocabulary=128256, weights=8_030_261_248,
    in_layers=6_979_584_000, head=525_336_576, adapter=2_621_440, heads=32,
)  # fmt: skip


def budget(ranks: int = 1, **settings: Any) -> Budget:
    recipe = make_recipe({"model": "m", "data": "d", "dtype": "bfloat16", **settings})
    return budget_of(
        EIGHT, recipe, ranks=ranks, gpu="h200", tokens_per_update=16_000, learned_share=0.4, mean_length=500
    )


def test_weights_masters_gradients_and_moments_are_counted_by_the_byte() -> None:
    parts = budget().parts
    assert parts["weights computed with"] == 2 * EIGHT.weights
    assert parts["masters"] == 4 * EIGHT.weights
    assert (
        parts["gradients"] == 4 * EIGHT.weights + 2 * EIGHT.head
    )  # sums of passes, and the head's of this one
    assert parts["moments"] == 8 * EIGHT.weights
    assert budget(masters="split").parts["masters"] == 2 * EIGHT.weights
    assert budget(optimizer="adamw_8bit").parts["moments"] == 2 * EIGHT.weights
    lora = budget(method="lora", lora_r=16).parts
    assert lora["base, frozen"] == 2 * EIGHT.weights
    assert lora["masters"] == 4 * 16 * EIGHT.adapter
    assert budget(method="qlora").parts["base, frozen"] < 0.4 * lora["base, frozen"]


def test_parts_of_ranks_and_what_they_send() -> None:
    whole, shared = budget(8), budget(8, parallel="fsdp")
    assert shared.parts["masters"] == whole.parts["masters"] // 8
    assert whole.wire_bytes == int(2 * 4 * EIGHT.weights * 7 / 8)
    assert budget(1).wire_bytes == 0


def test_eight_billion_in_full_do_not_fit_one_gpu_and_the_plan_says_what_to_change() -> None:
    alone = budget()
    assert not alone.fits
    assert any("lora" in words for words in alone.advice)
    assert budget(method="lora").fits
    assert budget(8, parallel="fsdp").fits
    assert budget(8, parallel="fsdp").advice == ()


def test_the_plan_makes_passes_as_large_as_training_tries_and_smaller_ones_where_those_do_not_fit() -> None:
    assert budget(method="lora").pass_tokens == 16_000  # the whole update, below what is tried first on CUDA
    assert budget(method="lora", micro_batch_tokens=2_000).pass_tokens == 2_000
    recipe = make_recipe({"model": "m", "data": "d", "dtype": "bfloat16", "method": "lora"})
    load = {"ranks": 1, "gpu": "l40s", "tokens_per_update": 64_000, "learned_share": 0.4, "mean_length": 500}
    small = budget_of(EIGHT, recipe, **load)
    assert small.fits and small.pass_tokens < tokens_at_once("cuda")
    twice = recipe.replace(micro_batch_tokens=2 * small.pass_tokens)
    assert budget_of(EIGHT, twice, **load).pass_tokens == small.pass_tokens


def test_work_is_what_the_published_table_says() -> None:
    """45.4 and 30.7 GFLOP a token for 8B in full and LoRA, 40 % of the tokens learned."""
    from tuition.train.budget import flops_per_token

    full, lora = (
        flops_per_token(EIGHT, make_recipe({"model": "m", "data": "d", "method": method}), 1.0, 512) / 1e9
        for method in ("full", "lora")
    )
    assert full == pytest.approx(45.4, rel=0.02)
    assert lora == pytest.approx(30.7, rel=0.03)


def test_a_plan_is_made_from_a_recipe_and_its_files(llama: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [{"prompt": "What?", "completion": "That."}] * 50)
    plan = api.plan(model=str(llama), data=str(data), gpus=8, gpu="h200")
    assert plan.fits
    assert plan.numbers["updates"] == round(3 * 50 / 16)
    assert {"memory a GPU", "on the wire", "time"} <= {name for name, _ in plan.facts}
    write_jsonl(data, [{"prompt": "What?", "completion": "That. " * 40_000}])
    long = api.plan(model=str(llama), data=str(data), max_length=64)
    assert "of 64 tokens, guessed from" in dict(long.facts)["data"], "no example is longer than max_length"
    with pytest.raises(UserError, match="not in the list"):
        api.plan(model=str(llama), data=str(data), gpu="abacus")


def test_rows_of_every_kind_of_file_are_known_before_they_are_read(tmp_path: Path) -> None:
    """Counted where the file is short or says it, and guessed within a tenth by its size otherwise."""
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    chance = random.Random(0)
    rows = [
        {"prompt": f"what is {n}?", "completion": " ".join(map(str, chance.sample(range(10**6), 10)))}
        for n in range(3000)
    ]
    text = write_jsonl(tmp_path / "a.jsonl", rows).read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text))
    with pa.output_stream(str(tmp_path / "c.jsonl.zst"), compression="zstd") as stream:
        stream.write(text)
    table = pa.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    pyarrow.feather.write_feather(table, str(tmp_path / "e.feather"), compression="uncompressed")
    with (tmp_path / "f.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["prompt", "completion"])
        writer.writeheader()
        writer.writerows(rows)
    fsspec.filesystem("memory").pipe_file("/rows/g.jsonl", text)
    for name in (*map(str, sorted(tmp_path.iterdir())), "memory://rows/g.jsonl"):
        extent = extent_of(name)
        assert extent.rows == pytest.approx(3000, rel=0.1), name
        assert extent.bytes == pytest.approx(len(text), rel=0.1), name
    assert extent_of(f"{tmp_path}/d.parquet#0.5").rows == 1500
    short = write_jsonl(tmp_path / "short.jsonl", rows[:70])
    assert extent_of(str(short)).rows == 70


def test_files_for_schedulers_start_torchrun_on_every_machine(tmp_path: Path) -> None:
    recipe = tmp_path / "my recipe.yaml"
    recipe.write_text("model: m\ndata: d\noutput_dir: /shared/run\n")
    for kind in LAUNCHERS:
        text = launch_file(kind, str(recipe), nodes=3, gpus=8)
        assert "--nnodes 3 --nproc-per-node 8" in text
        assert f"-m tuition train '{recipe}' --resume-if-begun" in text
    for document in yaml.safe_load_all(launch_file("kubernetes", str(recipe), nodes=3, gpus=8)):
        assert document["metadata"]["name"] == "my-recipe"
    assert yaml.safe_load(launch_file("skypilot", str(recipe), nodes=3, gpus=8))["num_nodes"] == 3
    assert launch_file("slurm", str(recipe), nodes=3, gpus=8).startswith("#!/bin/bash")


def test_a_recipe_that_names_no_folder_starts_on_no_cluster(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: m\ndata: d\n")
    with pytest.raises(UserError, match="output_dir"):
        launch_file("slurm", str(recipe), nodes=2, gpus=8)
    with pytest.raises(UserError, match="unknown scheduler"):
        launch_file("abacus", str(recipe), nodes=2, gpus=8)
