"""One optimizer update of tuition beside those of other trainers, on the same token ids, supervision and weights.

Contestants run in processes of their own, in turns, so that a neighbour on the machine disturbs all alike. The
first updates of each, the heaviest among them, warm up and are not counted. Peers run as they are installed: what
tuition sets for threads and memory does not hold for them, but where their name says so. Before speed is believed,
everybody must have learned from as many tokens as the rows hold, found the same loss and gradient norm at step 0,
and moved the weights. Medians and ranges are printed and written as JSON and as a table to benchmarks/results/.

Run: python -m benchmarks.step [--model 17m|135m] [--workloads NAMES] [--data FILE --tokenizer FOLDER]
Without --data, short instructions are random tokens whose lengths spread as GSM8K's do. --sweep runs every
setting of the peers once; the best of them are those that run by default. --litgpt PYTHON names an interpreter
that can import litgpt, which pins other versions than tuition does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.contestants import MODELS, contestants
from benchmarks.figures import of_this_machine, spread, write_result
from benchmarks.workloads import VOCABULARY, Row, Workload, counts, needed_operations, workloads
from tuition.machine import hardware, versions

# float32 differs by the order of additions, bfloat16 by rounding.
LOSS_TOLERANCE, NORM_TOLERANCE = 2e-3, 1e-2
# The peers at their defaults, and at the best setting that --sweep found.
BESIDE = ("tuition", "trl, default", "trl, activations kept, 1 a pass")
MEMORY_AS_OURS = "memory as ours"
# What is worth the time only once: another peer on the first workload, less memory where memory counts.
MORE = {
    "17m": (f"trl, activations kept, 1 a pass, {MEMORY_AS_OURS}", "transformers.Trainer, textbook"),
    "135m": (
        f"trl, activations kept, 1 a pass, {MEMORY_AS_OURS}",
        "tuition, masters split",
        "tuition, masters split, activations computed twice",
    ),
}

LITGPT = ("litgpt, autocast",)
# What tuition sets when it is imported, and what PyTorch and its libraries do where nobody sets it: so peers run as
# they are installed. "memory as ours" leaves a peer what concerns memory; threads that wait longer suit it better.
_THREADS = {"GOMP_SPINCOUNT": "300000"}
_MEMORY = {
    "THP_MEM_ALLOC_ENABLE": "0",
    "LRU_CACHE_CAPACITY": "1024",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024",
}


def main() -> None:
    """Measure, check, print, write."""
    words = parser().parse_args()
    if not words.litgpt:
        print("litgpt is left out: --litgpt names a Python that can import it", file=sys.stderr)
    known = workloads(words.data, words.tokenizer)
    rates: list[float] = [multiplication_rate()]
    tables = {
        name: measure(known[name], names_for(name, words), words, rates)
        for name in words.workloads.split(",")
    }
    result = {
        "model": f"Llama {words.model}, vocabulary {VOCABULARY:,}",
        "rounds": words.rounds,
        "updates_each": words.updates,
        "updates_before": words.warm_up,
        "bfloat16_multiplication_rate": max(rates),
        "load_at_the_end": os.getloadavg(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all cores"),
        "workloads": [
            {**table, "contestants": with_shares(table["contestants"], max(rates))}
            for table in tables.values()
        ],
        "hardware": hardware("cpu"),
        "versions": {**versions(), "trl": _version("trl")},
    }
    write(result, of_this_machine(f"step-{words.model}{'-sweep' if words.sweep else ''}"))


def parser() -> argparse.ArgumentParser:
    """The words of the command."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    words.add_argument("--model", choices=list(MODELS), default="17m")
    words.add_argument("--workloads", default="instructions,prompt,turns", help="separated by commas")
    words.add_argument("--data", help="JSONL with question and answer; default: random tokens")
    words.add_argument("--tokenizer", help="folder with vocab.json and merges.txt, for --data")
    words.add_argument("--rounds", type=int, default=1, help="processes of each contestant, in turns")
    words.add_argument("--updates", type=int, default=5, help="counted updates of each contestant in a round")
    words.add_argument("--warm-up", type=int, default=2, help="updates of each that are not counted")
    words.add_argument("--only", help="contestants, separated by semicolons")
    words.add_argument("--sweep", action="store_true", help="every setting of the peers")
    words.add_argument("--litgpt", help="a Python that can import litgpt")
    return words


def names_for(workload: str, words: argparse.Namespace) -> list[str]:
    """The contestants of a workload."""
    if words.only:
        return str(words.only).split(";")
    if words.sweep:
        return [name for name in contestants() if words.litgpt or not name.startswith("litgpt")]
    if workload != "instructions":
        return list(BESIDE)
    return [*BESIDE, *MORE.get(words.model, ()), *(LITGPT if words.litgpt else ())]


def measure(
    workload: Workload, names: list[str], words: argparse.Namespace, rates: list[float]
) -> dict[str, Any]:
    """All contestants on one workload, in turns."""
    rows = workload.rows(workload.batch * (words.warm_up + words.updates))
    batches = [rows[i : i + workload.batch] for i in range(0, len(rows), workload.batch)]
    # the most work comes first, so that memory grows less in what is counted
    heaviest = max(batches, key=lambda batch: needed_operations(batch, MODELS[words.model]))
    batches.remove(heaviest)
    batches.insert(0, heaviest)
    accounts: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({"model": words.model, "batches": batches}), encoding="utf-8")
        for number in range(words.rounds):
            for name in names:
                python = words.litgpt if name.startswith("litgpt") else sys.executable
                accounts[name].append(run(python, name, job))
                print(f"{workload.name}, round {number + 1}: {name}", file=sys.stderr, flush=True)
            rates.append(multiplication_rate())
    refuse_different_work(accounts, batches)
    shape = MODELS[words.model]
    return {
        "workload": f"{workload.name}, {workload.batch} an update",
        "tokens_an_update": statistics.median(counts(batch)["tokens"] for batch in batches[words.warm_up :]),
        "learned_tokens_an_update": statistics.median(
            counts(batch)["learned"] for batch in batches[words.warm_up :]
        ),
        "contestants": {name: figures(accounts[name], batches, shape, words.warm_up) for name in names},
    }


def run(python: str, name: str, job: Path) -> dict[str, Any]:
    """A contestant's own account of its updates."""
    command = [python, "-m", "benchmarks.contestants", name, str(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment_of(name))
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    account: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return account


def environment_of(name: str) -> dict[str, str]:
    """Our own is what `import tuition` makes of it."""
    if name.startswith("tuition"):
        return dict(os.environ)
    return {**os.environ, **_THREADS, **({} if name.endswith(MEMORY_AS_OURS) else _MEMORY)}


def refuse_different_work(accounts: dict[str, list[dict[str, Any]]], batches: list[list[Row]]) -> None:
    """Stop unless everybody saw the same tokens and found the same loss and gradient at step 0."""
    first = {name: runs[0]["updates"][0] for name, runs in accounts.items()}
    loss, norm = (
        statistics.median(update[key] for update in first.values()) for key in ("loss", "grad_norm")
    )
    for name, runs in accounts.items():
        same = abs(first[name]["loss"] / loss - 1) < LOSS_TOLERANCE
        same &= abs(first[name]["grad_norm"] / norm - 1) < NORM_TOLERANCE
        seen = [{key: update[key] for key in ("tokens", "learned")} for update in runs[0]["updates"]]
        if not same or not first[name]["grad_norm"] > 0 or seen != [counts(batch) for batch in batches]:
            raise SystemExit(f"{name} did other work: {runs[0]['updates']}, others {loss:.5f} and {norm:.5f}")


def figures(
    accounts: list[dict[str, Any]], batches: list[list[Row]], shape: dict[str, int], warm_up: int
) -> dict[str, Any]:
    """Speed and memory of a contestant over all its counted updates."""
    updates = [
        (update, counts(batch), needed_operations(batch, shape))
        for account in accounts
        for update, batch in zip(account["updates"][warm_up:], batches[warm_up:], strict=True)
    ]
    return {
        "learned_tokens_per_second": spread([n["learned"] / u["seconds"] for u, n, _ in updates]),
        "learned_tokens_per_cpu_second": spread([n["learned"] / u["cpu_seconds"] for u, n, _ in updates]),
        "tokens_per_second": spread([n["tokens"] / u["seconds"] for u, n, _ in updates]),
        "needed_operations_per_second": spread([needed / u["seconds"] for u, _, needed in updates]),
        "peak_bytes": max(account["peak_bytes"] for account in accounts),
        "loss_at_step_0": accounts[0]["updates"][0]["loss"],
        "grad_norm_at_step_0": accounts[0]["updates"][0]["grad_norm"],
    }


def with_shares(found: dict[str, Any], rate: float) -> dict[str, Any]:
    """Each contestant with its share of the machine's rate of matrix products.

    Counted is what the update needs where nothing is shared: who pads, or computes a head or a layer in vain,
    gets nothing for it, and who shares prefixes can pass 100 %.
    """
    return {
        name: {
            **figures,
            "share_of_multiplication_rate": {
                key: value / rate for key, value in figures["needed_operations_per_second"].items()
            },
        }
        for name, figures in found.items()
    }


def multiplication_rate() -> float:
    """The machine's bfloat16 matrix products at 2,048, operations a second."""
    code = (
        "import tuition, torch, time\n"
        "a, b = (torch.randn(2048, 2048).bfloat16() for _ in 'ab')\n"
        "best = 1e9\n"
        "for _ in range(12):\n"
        "    started = time.perf_counter(); a @ b; best = min(best, time.perf_counter() - started)\n"
        "print(2 * 2048**3 / best)\n"
    )
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def write(result: dict[str, Any], name: str) -> None:
    """The table to the screen, and both to the results folder."""
    lines = [
        f"{result['model']}; {result['rounds']} rounds of {result['updates_each']} updates; bfloat16 products at"
        f" {result['bfloat16_multiplication_rate'] / 1e9:,.0f} GFLOP/s; threads: {result['threads']};"
        f" load {result['load_at_the_end'][0]:.1f}; {', '.join(f'{k} {v}' for k, v in result['versions'].items())}",
    ]
    for table in result["workloads"]:
        lines += ["", f"**{table['workload']}** ({table['learned_tokens_an_update']:,.0f} of"
                  f" {table['tokens_an_update']:,.0f} tokens are learned)", "", _HEADINGS, "|---" * 8 + "|"]  # fmt: skip
        first = next(iter(table["contestants"].values()))
        lines += [_line(contestant, found, first) for contestant, found in table["contestants"].items()]
    text = "\n".join(lines) + "\n"
    print(text)
    write_result(name, result, text)


_HEADINGS = (
    "| | learned tokens/s (range) | a CPU second | tokens/s | share of product rate | peak memory"
    " | first row is so many times as fast, a CPU second | loss, norm at step 0 |"
)


def _line(contestant: str, found: dict[str, Any], first: dict[str, Any]) -> str:
    learned, cpu = found["learned_tokens_per_second"], found["learned_tokens_per_cpu_second"]
    times = first["learned_tokens_per_second"]["median"] / learned["median"]
    cpu_times = first["learned_tokens_per_cpu_second"]["median"] / cpu["median"]
    return (
        f"| {contestant} | {learned['median']:,.0f} ({learned['low']:,.0f} to {learned['high']:,.0f})"
        f" | {cpu['median']:,.0f}"
        f" | {found['tokens_per_second']['median']:,.0f}"
        f" | {found['share_of_multiplication_rate']['median']:.0%}"
        f" | {found['peak_bytes'] / 1e9:.2f} GB"
        f" | {times:.1f}, {cpu_times:.1f}"
        f" | {found['loss_at_step_0']:.4f}, {found['grad_norm_at_step_0']:.4f} |"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
