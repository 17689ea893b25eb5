"""One optimizer update of tuition with shared prefixes computed once, beside the same with each computed alone.

Llama of 17.6 or 135 million parameters with random weights, 16 examples an update of random tokens. Both
learners start from the same weights and take the same examples in turns; loss and gradient norm of every update
must agree. The first update warms up and is not counted. Seconds of CPU are given beside seconds, because
neighbours on a machine change the latter more. Medians and ranges are printed and written as JSON and as a table
to benchmarks/results/.

Run: python -m benchmarks.prefix [--model 17m|135m] [--updates N] [--threads N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import tuition  # before torch: it says how threads wait
from benchmarks.contestants import LEARNING_RATE, make_model
from benchmarks.figures import of_this_machine, spread, write_result
from benchmarks.workloads import VOCABULARY
from tuition.batch import Pack, Plan
from tuition.conversation import Rendered
from tuition.errors import Origin
from tuition.machine import hardware, versions
from tuition.recipe import OptimizerSettings

BATCH = 16
SETTINGS = OptimizerSettings(learning_rate=LEARNING_RATE, warmup_steps=0, lr_scheduler="constant")
# Loss and gradient norm, relative; updates of bfloat16 drift apart by rounding.
TOLERANCE = {"float32": (1e-5, 1e-3), "bfloat16": (2e-3, 1e-2)}


@dataclass(frozen=True, slots=True)
class Workload:
    """What an update is made of, and the most tokens in the passes that are run at once."""

    make_batch: Callable[[np.random.Generator], list[Rendered]]
    token_budget: int = 4096


def long_prompt(random: np.random.Generator) -> list[Rendered]:
    """400 tokens of system prompt and tools for all, then a question of 20 and a learned answer of 40."""
    prompt = some(random, 400)
    return [example([prompt, some(random, 20)], some(random, 40)) for _ in range(BATCH)]


def longer_prompt(random: np.random.Generator) -> list[Rendered]:
    """1,000 tokens for all, then a question of 160 and a learned answer of 40."""
    prompt = some(random, 1000)
    return [example([prompt, some(random, 160)], some(random, 40)) for _ in range(BATCH)]


def split_conversations(random: np.random.Generator) -> list[Rendered]:
    """Four conversations of four turns, as templates split them that drop earlier reasoning: each turn with its
    reasoning is learned after the turns before without theirs."""
    made = []
    for _ in range(4):
        history = [some(random, 30)]
        for _ in range(4):
            question, reasoning, answer = some(random, 30), some(random, 60), some(random, 40)
            made.append(example([*history, question], np.concatenate([reasoning, answer])))
            history += [question, answer]
    return made


def nothing_shared(random: np.random.Generator) -> list[Rendered]:
    """Lengths as instruction data spreads them, 60 % learned."""
    lengths = np.clip(random.lognormal(np.log(170), 0.5, BATCH).astype(int), 8, 1000)
    return [example([some(random, max(1, int(0.4 * n)))], some(random, int(0.6 * n))) for n in lengths]


WORKLOADS = {
    "long prompt: 400 tokens shared, 60 own": Workload(long_prompt),
    "little memory: 1,000 tokens shared, 200 own, one example a pass": Workload(longer_prompt, 2 * 1280),
    "four conversations, split at four turns": Workload(split_conversations),
    "nothing shared": Workload(nothing_shared),
}
# Millions of parameters, and the workloads that are worth that model's time.
MODELS = {"17m": ("17.6M", tuple(WORKLOADS)), "135m": ("135M", tuple(WORKLOADS)[:1])}


def some(random: np.random.Generator, count: int) -> Any:
    """Random tokens."""
    return random.integers(0, VOCABULARY, count).astype(np.int32)


def example(context: list[Any], answer: Any) -> Rendered:
    """Context that is given and an answer that is learned."""
    ids = np.concatenate([*context, answer])
    supervised = np.zeros(len(ids), dtype=np.float32)
    supervised[-len(answer) :] = 1.0
    return Rendered(ids, supervised, Origin("benchmark", 1))


def main() -> None:
    """Measure, check, print, write."""
    import torch

    from tuition.train.memory import keep_freed_memory

    assert tuition.__version__
    words = argparse.ArgumentParser(description="Shared prefixes computed once, beside computed for each.")
    words.add_argument("--model", choices=MODELS, default="17m")
    words.add_argument("--updates", type=int, default=5, help="counted updates of each")
    words.add_argument("--threads", type=int, help="of torch; default: its own choice")
    given = words.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    keep_freed_memory()
    rows = []
    size, workloads = MODELS[given.model]
    for dtype in TOLERANCE:
        for name in workloads:
            found = measure(WORKLOADS[name], given.model, dtype, given.updates)
            rows.append({"workload": name, "dtype": dtype, **found})
            print(f"{name}, {dtype}: done", file=sys.stderr, flush=True)
    result = {
        "what": f"updates of {BATCH} examples, Llama {size}, vocabulary {VOCABULARY:,}",
        "updates_each": given.updates,
        "threads": torch.get_num_threads(),
        "rows": rows,
        "hardware": hardware("cpu"),
        "versions": versions(),
    }
    write(result, given.model)


def measure(workload: Workload, model: str, dtype: str, updates: int) -> Any:
    """The same updates by two learners, one of which shares."""
    learners = {"on": learner_of(model, dtype, share=True), "off": learner_of(model, dtype, share=False)}
    random = np.random.default_rng(0)
    reports: dict[str, list[Any]] = {"on": [], "off": []}
    cpu: dict[str, list[float]] = {"on": [], "off": []}
    for number in range(1, updates + 2):
        batch = workload.make_batch(random)
        for name in ("on", "off") if number % 2 else ("off", "on"):
            started = time.process_time()
            reports[name].append(update(learners[name], batch, number, workload.token_budget))
            cpu[name].append(time.process_time() - started)
        refuse_different_work(reports["on"][-1], reports["off"][-1], dtype)
    on, off = (reports[name][1:] for name in ("on", "off"))
    less = [b / a for a, b in zip(cpu["on"][1:], cpu["off"][1:], strict=True)]
    return {
        "tokens_an_update": statistics.median(report.tokens for report in on),
        "shared_tokens_an_update": statistics.median(report.shared_tokens for report in on),
        "seconds": {"on": spread([r.seconds for r in on]), "off": spread([r.seconds for r in off])},
        "cpu_seconds": {"on": spread(cpu["on"][1:]), "off": spread(cpu["off"][1:])},
        "times_as_little_cpu": spread(less),
        "tokens_per_second": {
            "on": spread([r.tokens_per_second for r in on]),
            "off": spread([r.tokens_per_second for r in off]),
        },
        "milliseconds_to_lay_out": {
            name: layout_milliseconds(batch, learner, workload.token_budget)
            for name, learner in learners.items()
        },
        "times_as_fast": spread([b.seconds / a.seconds for a, b in zip(on, off, strict=True)]),
        "loss": {"on": reports["on"][0].loss, "off": reports["off"][0].loss},
        "grad_norm": {"on": reports["on"][0].grad_norm, "off": reports["off"][0].grad_norm},
    }


def layout_milliseconds(batch: list[Rendered], learner: Any, token_budget: int) -> float:
    """Median time to find shared prefixes and make the packs of one update."""
    times = []
    for _ in range(21):
        started = time.perf_counter()
        packs_of(batch, learner, token_budget)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def packs_of(batch: list[Rendered], learner: Any, token_budget: int) -> list[Pack]:
    """The passes of one update, as a run makes them."""
    from tuition.train.loop import packs_of as passes_of
    from tuition.train.loss import token_mean

    return passes_of(learner, batch, token_mean, (None, token_budget))


def learner_of(model: str, dtype: str, *, share: bool) -> Any:
    """The same random weights each time; the self-check decides as it does in a run."""
    import torch

    from tuition.train import attention
    from tuition.train.learner import make_learner
    from tuition.train.selfcheck import choose_path

    attention.register()
    learner = make_learner(make_model(model), torch.device("cpu"), getattr(torch, dtype), SETTINGS)
    check = choose_path(learner, long_prompt(np.random.default_rng(0)), share_prefixes=share)
    assert check.shares == share, check.how
    return learner


def update(learner: Any, batch: list[Rendered], number: int, token_budget: int) -> Any:
    """One update; the time to lay out its packs is part of it."""
    from tuition.train.loop import train_step

    started = time.perf_counter()
    packs = packs_of(batch, learner, token_budget)
    plan = Plan(examples=len(batch), batch_size=len(batch), steps=10**6, seed=0)
    report = train_step(learner, packs, batch, plan, SETTINGS, number)
    seconds = time.perf_counter() - started
    return replace(report, seconds=seconds, tokens_per_second=report.tokens / seconds)


def refuse_different_work(on: Any, off: Any, dtype: str) -> None:
    """Stop unless both found the same loss and gradient norm over the same tokens."""
    loss, norm = TOLERANCE[dtype]
    same = abs(on.loss / off.loss - 1) < loss and abs(on.grad_norm / off.grad_norm - 1) < norm
    same &= on.tokens == off.tokens and on.learned_tokens == off.learned_tokens
    if not (same and on.grad_norm > 0):
        raise SystemExit(f"not the same work: {on} and {off}")


def write(result: dict[str, Any], model: str) -> None:
    """The table to the screen, and both to the results folder."""
    lines = [
        f"{result['what']}; {result['updates_each']} updates each, in turns, {result['threads']} threads",
        "",
        "| workload | tokens an update | of them shared | layout, off, on | tokens/s, off | tokens/s, on (range) | times as fast (range) | CPU seconds, off, on | times as little CPU (range) | loss off, on | norm off, on |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        speed, times = row["tokens_per_second"], row["times_as_fast"]
        layout, cpu, less = row["milliseconds_to_lay_out"], row["cpu_seconds"], row["times_as_little_cpu"]
        lines.append(
            f"| {row['workload']}, {row['dtype']} | {row['tokens_an_update']:,.0f} | {row['shared_tokens_an_update']:,.0f}"
            f" | {layout['off']:.2f}, {layout['on']:.2f} ms"
            f" | {speed['off']['median']:,.0f}"
            f" | {speed['on']['median']:,.0f} ({speed['on']['low']:,.0f} to {speed['on']['high']:,.0f})"
            f" | {times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})"
            f" | {cpu['off']['median']:.2f}, {cpu['on']['median']:.2f}"
            f" | {less['median']:.2f} ({less['low']:.2f} to {less['high']:.2f})"
            f" | {row['loss']['off']:.5f}, {row['loss']['on']:.5f}"
            f" | {row['grad_norm']['off']:.4f}, {row['grad_norm']['on']:.4f} |"
        )
    table = "\n".join(lines) + "\n"
    print(table)
    write_result(of_this_machine(f"prefix-{model}"), result, table)


if __name__ == "__main__":
    main()
