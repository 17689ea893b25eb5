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
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tuition  # before torch: it says how memory is taken
from benchmarks.figures import RESULTS
from benchmarks.gpu_speed import SHAPES, SMOKE_SHAPES, Shape, throughput
from benchmarks.workloads import random_instructions

NEEDS = ("torch", "transformers", "peft", "numpy", "pydantic", "yaml", "pyarrow", "safetensors", "tokenizers")


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
    import torch

    if not given.smoke and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no CUDA device here; --smoke tries the script on the CPU")
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
