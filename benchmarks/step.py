"""One optimizer update, tuition beside TRL: same weights, same token ids, same supervision, same optimizer.

Each contestant runs in a process of its own, in turns, a few rounds over; the first update of each process
warms up and is not counted. Step 0's loss and gradient norm must agree, and weights must move. Medians and
ranges are printed and written as JSON and as a table to benchmarks/results/.

Run: python -m benchmarks.step [--model 17m|135m] [--data FILE --tokenizer FOLDER] [--rounds N] [--updates N]
Without --data, examples are random tokens whose lengths spread as instruction data does.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import CONTESTANTS, MODELS, VOCABULARY
from tuition.machine import hardware, versions

RESULTS = Path(__file__).parent / "results"
# float32 differs by the order of additions, bfloat16 by rounding.
LOSS_TOLERANCE, NORM_TOLERANCE = 2e-3, 1e-2


def main() -> None:
    """Measure, check, print, write."""
    words = parser().parse_args()
    names = words.only.split(";") if words.only else list(CONTESTANTS)
    batches = make_batches(words)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    gemm: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(words.rounds):
            for name in names:
                job = Path(folder) / "job.json"
                job.write_text(json.dumps({"model": words.model, "batches": batches}), encoding="utf-8")
                rounds[name].append(run(name, job))
                print(f"round {number + 1}: {name} done", file=sys.stderr, flush=True)
            gemm.append(multiplication_rate())
    refuse_different_work(rounds)
    result = {
        "what": f"updates of {words.batch} examples, Llama {words.model}, vocabulary {VOCABULARY:,}",
        "data": Path(words.data).name if words.data else "random tokens",
        "rounds": words.rounds,
        "updates_each": words.updates,
        "bfloat16_multiplication_rate": max(gemm),
        "contestants": {name: figures(rounds[name], batches, words.model, max(gemm)) for name in names},
        "hardware": hardware("cpu"),
        "versions": {**versions(), "trl": _version("trl")},
    }
    write(result, f"step-{words.model}-{platform.machine()}")


def parser() -> argparse.ArgumentParser:
    """The words of the command."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    words.add_argument("--model", choices=list(MODELS), default="17m")
    words.add_argument("--data", help="JSONL with question and answer; default: random tokens")
    words.add_argument("--tokenizer", help="folder with vocab.json and merges.txt, for --data")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--updates", type=int, default=4, help="counted updates of each contestant in a round")
    words.add_argument("--batch", type=int, default=8, help="examples of an update")
    words.add_argument("--only", help="contestants, separated by semicolons")
    return words


def make_batches(words: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """One batch to warm up and `updates` to count: ids, and where the learned part begins."""
    wanted = (words.updates + 1) * words.batch
    rows = _rows_of(words.data, words.tokenizer, wanted) if words.data else _random_rows(wanted)
    return [rows[i : i + words.batch] for i in range(0, wanted, words.batch)]


def _rows_of(data: str, tokenizer: str, wanted: int) -> list[dict[str, Any]]:
    from tokenizers import ByteLevelBPETokenizer

    encoder = ByteLevelBPETokenizer(f"{tokenizer}/vocab.json", f"{tokenizer}/merges.txt")
    encoder.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    rows = []
    for line in Path(data).read_text(encoding="utf-8").splitlines()[:wanted]:
        row = json.loads(line)
        prompt = f"<|im_start|>user\n{row['question']}<|im_end|>\n<|im_start|>assistant\n"
        before, after = encoder.encode(prompt).ids, encoder.encode(f"{row['answer']}<|im_end|>").ids
        rows.append({"ids": before + after, "learned_from": len(before)})
    return rows


def _random_rows(wanted: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(170), 0.5, wanted).astype(int), 8, 1000)
    return [
        {"ids": random.integers(0, 50000, n).tolist(), "learned_from": max(1, int(0.4 * n))} for n in lengths
    ]


def run(name: str, job: Path) -> dict[str, Any]:
    """A contestant's own account of its updates."""
    command = [sys.executable, "-m", "benchmarks.contestants", name, str(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    account: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return account


def refuse_different_work(rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Stop unless everybody found the same loss and gradient at step 0."""
    first = {name: accounts[0]["updates"][0] for name, accounts in rounds.items()}
    loss, norm = (
        statistics.median(update[key] for update in first.values()) for key in ("loss", "grad_norm")
    )
    for name, update in first.items():
        same = abs(update["loss"] / loss - 1) < LOSS_TOLERANCE
        same &= abs(update["grad_norm"] / norm - 1) < NORM_TOLERANCE
        if not same or not update["grad_norm"] > 0:
            raise SystemExit(f"{name} did other work: {update}, others {loss:.5f} and {norm:.5f}")


def figures(
    accounts: list[dict[str, Any]], batches: list[list[dict[str, Any]]], model: str, peak_rate: float
) -> dict[str, Any]:
    """Speed and memory of a contestant over all its counted updates."""
    updates = [
        (update["seconds"], batch)
        for account in accounts
        for update, batch in zip(account["updates"][1:], batches[1:], strict=True)
    ]
    tokens = [(seconds, sum(len(r["ids"]) for r in batch)) for seconds, batch in updates]
    learned = [(s, sum(len(r["ids"]) - r["learned_from"] for r in batch)) for s, batch in updates]
    rates = [needed_operations(batch, model) / seconds for seconds, batch in updates]
    return {
        "learned_tokens_per_second": spread([n / seconds for seconds, n in learned]),
        "tokens_per_second": spread([n / seconds for seconds, n in tokens]),
        "share_of_multiplication_rate": spread([rate / peak_rate for rate in rates]),
        "peak_bytes": max(account["peak_bytes"] for account in accounts),
        "loss_at_step_0": accounts[0]["updates"][0]["loss"],
        "grad_norm_at_step_0": accounts[0]["updates"][0]["grad_norm"],
    }


def needed_operations(batch: list[dict[str, Any]], model: str) -> float:
    """What an update needs: body on every token, head on learned ones, causal attention within examples."""
    m = MODELS[model]
    width, inner, heads = m["hidden_size"], m["intermediate_size"], m["num_attention_heads"]
    shared = width * m["num_key_value_heads"] // heads
    body = m["num_hidden_layers"] * (2 * width * width + 2 * width * shared + 3 * width * inner)
    lengths = np.array([len(row["ids"]) for row in batch], dtype=np.float64)
    learned = sum(len(row["ids"]) - row["learned_from"] for row in batch)
    attention = 6 * m["num_hidden_layers"] * width * float((lengths**2).sum())
    return 6 * body * float(lengths.sum()) + 6 * VOCABULARY * width * learned + attention


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


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def write(result: dict[str, Any], name: str) -> None:
    """The table to the screen, and both to the results folder."""
    lines = [
        f"{result['what']}; {result['data']}; {result['rounds']} rounds of {result['updates_each']} updates,"
        f" bfloat16 products at {result['bfloat16_multiplication_rate'] / 1e9:,.0f} GFLOP/s",
        "",
        "| | learned tokens/s (range) | tokens/s | share of product rate | peak memory | loss, norm at step 0 |",
        "|---|---|---|---|---|---|",
    ]
    for contestant, found in result["contestants"].items():
        learned = found["learned_tokens_per_second"]
        lines.append(
            f"| {contestant} | {learned['median']:,.0f} ({learned['low']:,.0f} to {learned['high']:,.0f})"
            f" | {found['tokens_per_second']['median']:,.0f}"
            f" | {found['share_of_multiplication_rate']['median']:.1%}"
            f" | {found['peak_bytes'] / 1e9:.2f} GB"
            f" | {found['loss_at_step_0']:.4f}, {found['grad_norm_at_step_0']:.4f} |"
        )
    table = "\n".join(lines) + "\n"
    print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(table, encoding="utf-8")


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    main()
