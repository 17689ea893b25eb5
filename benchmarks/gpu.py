"""One command for a machine with a GPU: is the path right, how fast is it, what is left to the machine's own rate.

Needs no network: models are random, of real shapes. Parts come in order of worth, each is written as soon as it is
known, and none begins that the time left does not allow. `--smoke` runs all of the logic on a CPU with tiny shapes.

Run: python -m benchmarks.gpu [--minutes 8.5] [--to FOLDER] [--smoke]
Needs the packages of `NEEDS`; TRL is measured beside where it is installed. Results: gpu.json and gpu.md in the
folder (default: benchmarks/results), written anew after each part; whatever hangs is ended half a minute after the
time is over, with where it hung on stderr.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import tuition  # before torch: it says how memory is taken
from benchmarks.step import RESULTS, spread
from benchmarks.workloads import random_instructions, rendered

NEEDS = ("torch", "transformers", "peft", "numpy", "pydantic", "yaml", "pyarrow", "safetensors", "tokenizers")


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of a real shape with random weights.

    Attributes:
        config: the class of its configuration, and what it is given.
        method: full or lora.
        masters: float32, or split: the exact 32 bits as bfloat16 and the 16 bits below.
        tokens: of an update; all in one pass where memory allows.
        gigabytes: it is tried only on a device with so many.
        seconds: it is not begun with less left.
    """

    name: str
    config: tuple[str, dict[str, Any]]
    method: str
    masters: str
    tokens: int
    gigabytes: float
    seconds: float


_SMOLLM2 = (
    "LlamaConfig",
    {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
     "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
     "max_position_embeddings": 8192, "rope_theta": 100000.0},
)  # fmt: skip
_QWEN3 = (
    "Qwen3Config",
    {"vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
     "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
     "max_position_embeddings": 8192, "rope_theta": 1000000.0},
)  # fmt: skip
_LLAMA8B = (
    "LlamaConfig",
    {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
     "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
     "rope_theta": 500000.0},
)  # fmt: skip
SHAPES = (
    Shape("Qwen3-0.6B", _QWEN3, "full", "float32", 32768, 40, 75),
    Shape("Llama-3.1-8B", _LLAMA8B, "lora", "float32", 16384, 70, 90),
    # with moments it is 96 GB before anything is computed, and a second pass would add up gradients in float32: one
    # pass, of what fits beside it
    Shape("Llama-3.1-8B", _LLAMA8B, "full", "split", 10240, 138, 110),
    Shape("SmolLM2-135M", _SMOLLM2, "full", "float32", 65536, 20, 60),
)
_TINY = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
SMOKE_SHAPES = (
    Shape("tiny", ("LlamaConfig", _TINY), "full", "split", 512, 0, 0),
    Shape("tiny", ("LlamaConfig", _TINY), "lora", "float32", 512, 0, 0),
)
UPDATES = 6  # the first two warm up


def main() -> None:
    """Each part, written down when it is known."""
    words = argparse.ArgumentParser(description="The path on a GPU: right, and how fast.")
    words.add_argument("--minutes", type=float, default=8.5, help="no part begins that would end later")
    words.add_argument("--to", type=Path, default=RESULTS, help="folder for gpu.json and gpu.md")
    words.add_argument("--smoke", action="store_true", help="tiny shapes, on the CPU")
    given = words.parse_args()
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"not installed: {', '.join(missing)}; lay the wheels beside it, or pip install tuition"
        )
    faulthandler.dump_traceback_later(60 * given.minutes + 30, exit=True)
    results = measure(given.to, 60 * given.minutes, smoke=given.smoke)
    print((given.to / "gpu.md").read_text(encoding="utf-8"))
    sys.exit(0 if all(row["ok"] for row in results["correctness"]) else 1)


def measure(folder: Path, seconds: float, *, smoke: bool) -> dict[str, Any]:
    """All parts that fit into the time.

    Args:
        folder: gets gpu.json and gpu.md after every part.
        seconds: from now.
        smoke: tiny shapes on the CPU.
    """
    import torch

    from benchmarks.gpu_correct import FAMILIES, check_families
    from tuition.machine import hardware, versions

    until = time.monotonic() + seconds
    device = torch.device("cpu" if smoke else "cuda")
    results: dict[str, Any] = {
        "hardware": hardware(str(device)),
        "versions": versions(),
        "kernels": kernel_names(),
        "multiplication_rate": multiplication_rate(device, 256 if smoke else 8192),
        "copy_bytes_per_second": copy_rate(device, 1 << (20 if smoke else 32)),
        "correctness": [],
        "throughput": [],
        "left_out": [],
    }
    for family in ["llama"] if smoke else FAMILIES:
        results["correctness"] += check_families(device, [family])
        write(folder, results)
        say(f"{family} compared with float32 on the CPU", until)
    for shape in SMOKE_SHAPES if smoke else SHAPES:
        reason = reason_to_leave_out(shape, device, until)
        if reason:
            results["left_out"].append(f"{shape.name}, {shape.method}: {reason}")
        else:
            results["throughput"] += throughput(shape, device, results["multiplication_rate"])
        write(folder, results)
        say(f"{shape.name}, {shape.method}: {reason or 'measured'}", until)
    results["beside_trl"] = beside_trl(until) if not smoke else "left out: a trial of the script"
    write(folder, results)
    return results


def say(what: str, until: float) -> None:
    """Progress, on stderr."""
    print(f"{what}; {until - time.monotonic():.0f} s left", file=sys.stderr, flush=True)


def kernel_names() -> list[str]:
    """The flash kernels that are installed, the one that runs take first."""
    from tuition.train.attention_varlen import installed_kernels

    return list(installed_kernels())


def reason_to_leave_out(shape: Shape, device: Any, until: float) -> str:
    """Why a shape is not tried here; empty: it is."""
    import torch

    if time.monotonic() + shape.seconds > until:
        return "no time left"
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory / 1e9
        if there < shape.gigabytes:
            return f"needs {shape.gigabytes:.0f} GB, the device has {there:.0f}"
    return ""


def throughput(shape: Shape, device: Any, rate: float) -> list[dict[str, Any]]:
    """Updates of full-length rows all of which is learned, and of instructions as people write them."""
    found = []
    for workload, make in (("rows of 2,048, all learned", full_rows), ("instructions", instructions)):
        try:
            row = updates_of(shape, make(shape), device, rate, 3 if device.type == "cpu" else UPDATES)
        except Exception as error:  # one shape that fails must not cost the others
            traceback.print_exc()
            row = {"fault": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        found.append({"shape": shape.name, "method": shape.method, "workload": workload, **row})
        forget(device)
    if device.type == "cuda":
        import torch

        torch.compiler.reset()  # the next shape's code is another's
    return found


def forget(device: Any) -> None:
    """Give back what a part took."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def updates_of(
    shape: Shape, rows: list[Any], device: Any, rate: float, updates: int = UPDATES
) -> dict[str, Any]:
    """Train a few updates as a run does: self-check, compiled layers on a GPU, trial of the largest pass, steps.

    Args:
        rows: examples of one update; each update takes the same, so that only speed varies.
        rate: the device's own rate of matrix products, operations a second.
    """
    import torch

    from tuition.batch import Plan, make_packs
    from tuition.recipe import OptimizerSettings
    from tuition.train.compiled import compile_layers
    from tuition.train.learner import make_learner
    from tuition.train.loop import train_step
    from tuition.train.loss import token_mean
    from tuition.train.selfcheck import choose_path
    from tuition.train.trial import try_largest_step

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    settings = OptimizerSettings(learning_rate=1e-5, warmup_steps=0, masters=shape.masters)
    learner = make_learner(make_model(shape, device), device, torch.bfloat16, settings)
    check = choose_path(learner, rows)
    started = time.perf_counter()
    if device.type == "cuda":
        check = compile_layers(learner, check, rows)
    compile_seconds = time.perf_counter() - started
    plan = Plan(examples=len(rows), batch_size=len(rows), steps=updates, seed=0)
    tried = try_largest_step(learner, rows, [], plan, token_mean, (None, shape.tokens), checkpointing="auto")
    learner.model.train()
    reports, stamps = [], [time.perf_counter()]
    for number in range(1, updates + 1):
        packs = make_packs(
            rows,
            token_mean,
            max_examples=None,
            token_budget=tried.token_budget,
            share_prefixes=learner.shares,
        )
        reports.append(train_step(learner, packs, rows, plan, settings, number))
        if device.type == "cuda" and number == updates:
            torch.cuda.synchronize()  # an update is asked for and not waited for: each is in the next one's time
        stamps.append(time.perf_counter())
    counted = reports[2:]
    seconds = spread([stop - start for start, stop in pairwise(stamps[2:])])
    operations = executed_operations(shape, rows, learner.model.config, twice=tried.checkpointing)
    return {
        "path": check.how,
        "compile_seconds": compile_seconds,
        "passes_an_update": len(packs),
        "tokens": counted[0].tokens,
        "learned_tokens": counted[0].learned_tokens,
        "activations_computed_twice": tried.checkpointing,
        "seconds": seconds,
        "tokens_per_second": counted[0].tokens / seconds["median"],
        "learned_tokens_per_second": counted[0].learned_tokens / seconds["median"],
        "operations_per_second": operations / seconds["median"],
        "share_of_multiplication_rate": operations / seconds["median"] / rate,
        "share_of_989_teraflops": operations / seconds["median"] / 989e12,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else tried.peak_bytes,
        "loss": [report.loss for report in reports],
    }


def make_model(shape: Shape, device: Any) -> Any:
    """Random weights of the dtype that the method wants, made on the device; what learns chosen."""
    import torch
    import transformers

    from tuition.recipe import AdapterSettings
    from tuition.train import attention
    from tuition.train.adapters import ADAPTERS

    attention.register()
    name, settings = shape.config
    stored = torch.bfloat16 if shape.method == "lora" or shape.masters == "split" else torch.float32
    torch.manual_seed(0)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, name)(**settings), dtype=stored
        )
    return ADAPTERS[shape.method](model, AdapterSettings(lora_r=16, lora_alpha=32), [])


def executed_operations(shape: Shape, rows: list[Any], config: Any, *, twice: bool) -> float:
    """Floating-point operations of an update: only what is computed, causal attention within rows.

    LoRA makes no gradients for frozen weights: 4 operations a weight and token instead of 6.
    """
    d, f, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head_dim = getattr(config, "head_dim", None) or d // config.num_attention_heads
    q, kv = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    body = layers * (2 * d * q + 2 * d * kv + 3 * d * f)
    inputs = [int(example.supervised.nonzero()[0][-1]) for example in rows]
    learned = sum(example.learned_tokens for example in rows)
    squares = sum(n * n for n in inputs)
    each = (4 if shape.method == "lora" else 6) + (2 if twice else 0)
    head = (4 if shape.method == "lora" else 6) * config.vocab_size * d * learned
    attention = (6 + (2 if twice else 0)) * layers * q * squares
    adapters = 6 * 16 * layers * (4 * d + 2 * q + 2 * kv + 3 * f + 2 * d) if shape.method == "lora" else 0
    return float(each * body * sum(inputs) + head + attention + adapters * sum(inputs))


def full_rows(shape: Shape) -> list[Any]:
    """Rows of 2,048 tokens, as published figures have them; at most an update's tokens."""
    import numpy as np

    length = min(2048, shape.tokens // 2)
    random = np.random.default_rng(0)
    vocabulary = shape.config[1]["vocab_size"]
    rows = []
    for _ in range(shape.tokens // length):
        ids = random.integers(2, vocabulary, length).tolist()
        rows.append(rendered({"ids": ids, "learned": [0] + [1] * (length - 1)}))
    return rows


def instructions(shape: Shape) -> list[Any]:
    """Short rows, 60 % learned, until an update is full."""
    vocabulary = shape.config[1]["vocab_size"]
    rows: list[Any] = []
    tokens = 0
    for row in random_instructions(shape.tokens // 16):
        tokens += len(row["ids"])
        if tokens > shape.tokens:
            break
        rows.append(rendered({**row, "ids": [2 + token % (vocabulary - 2) for token in row["ids"]]}))
    return rows


def multiplication_rate(device: Any, size: int) -> float:
    """Operations a second of bfloat16 products on random numbers, the median of ten."""
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in "ab")
    return 2 * size**3 / median_seconds(device, lambda: a @ b)


def copy_rate(device: Any, size: int) -> float:
    """Bytes a second, read and written."""
    import torch

    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(device, lambda: target.copy_(source))


def median_seconds(device: Any, work: Callable[[], object]) -> float:
    """Of ten calls after three."""
    import torch

    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return sorted(once() for _ in range(13))[5]


def beside_trl(until: float) -> Any:
    """TRL's and our updates of the 135M model on the same rows, each in a process of its own."""
    if find_spec("trl") is None or find_spec("datasets") is None:
        return "left out: trl is not installed"
    rows = random_instructions(64 * 5)
    batches = [rows[i : i + 64] for i in range(0, len(rows), 64)]
    accounts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({"model": "135m", "device": "cuda", "batches": batches}), encoding="utf-8")
        for name in (
            "tuition",
            "trl, default",
            "trl, activations kept",
            "trl, activations kept, padding free",
        ):
            if time.monotonic() + 45 > until:
                accounts[name] = "left out: no time left"
                continue
            command = [sys.executable, "-m", "benchmarks.contestants", name, str(job)]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=until - time.monotonic()
                )
            except subprocess.TimeoutExpired:
                accounts[name] = "left out: it took longer than there was time"
                continue
            accounts[name] = (
                json.loads(done.stdout.strip().splitlines()[-1])
                if done.returncode == 0
                else f"failed: {done.stderr[-500:]}"
            )
    return accounts


def write(folder: Path, results: dict[str, Any]) -> None:
    """What is known so far, as JSON and as a table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text("\n".join(table(results)) + "\n", encoding="utf-8")


def table(results: dict[str, Any]) -> list[str]:
    """The results for people."""
    lines = [
        f"{results['hardware']['device']}; "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items()),
        f"bfloat16 products {results['multiplication_rate'] / 1e12:,.1f} TFLOP/s, copies"
        f" {results['copy_bytes_per_second'] / 1e12:.2f} TB/s; kernels: {', '.join(results['kernels'])}",
        "",
        "| family | dtype | kernel | prefixes | right | loss differs by | gradient differs by |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["correctness"]:
        gaps = (
            f"{row['loss_gap']:.1e} | {row['gradient_gap']:.1e}" if "loss_gap" in row else f"{row['fault']} |"
        )
        lines.append(
            f"| {row['family']} | {row['dtype']} | {row['kernel'] or 'none'} |"
            f" {'shared' if row['shared'] else 'apart'} | {'yes' if row['ok'] else 'NO'} | {gaps} |"
        )
    lines += [
        "",
        "| shape | rows | tokens/s | learned tokens/s | TFLOP/s | share of products | of 989 | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results["throughput"]:
        if "fault" in row:
            lines.append(
                f"| {row['shape']}, {row['method']} | {row['workload']} | {row['fault']} | | | | | |"
            )
            continue
        lines.append(
            f"| {row['shape']}, {row['method']} | {row['workload']} | {row['tokens_per_second']:,.0f} |"
            f" {row['learned_tokens_per_second']:,.0f} | {row['operations_per_second'] / 1e12:,.0f} |"
            f" {row['share_of_multiplication_rate']:.0%} | {row['share_of_989_teraflops']:.0%} |"
            f" {row['peak_bytes'] / 1e9:.1f} GB |"
        )
    paths = {
        f"{row['shape']}, {row['method']}: {row['path']}." for row in results["throughput"] if "path" in row
    }
    lines += ["", *sorted(paths), *(f"Left out: {reason}" for reason in results["left_out"])]
    return lines


if __name__ == "__main__":
    assert tuition.__version__
    main()
