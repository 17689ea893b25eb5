"""The memory that `tuition plan` calculates beside the peaks that are measured, on this machine's CPU.

`python -m benchmarks.plan` writes benchmarks/results/plan-ARCH.json. Each model takes a few updates in a process of
its own; what Python and its libraries take before the model is made is taken off.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tuition  # noqa: F401  before torch: it says how threads wait

RESULTS = Path(__file__).resolve().parent / "results"
CASES = [("17m", "bfloat16", 2048), ("17m", "float32", 2048), ("135m", "bfloat16", 1024)]
SEGMENT = 256


def measured(model: str, dtype: str, tokens: int) -> int:
    """The peak of some updates, in bytes, over what there was before the model."""
    import torch

    from benchmarks.contestants import make_model
    from tuition.batch import Plan, make_packs
    from tuition.conversation import Rendered
    from tuition.errors import Origin
    from tuition.recipe import OptimizerSettings
    from tuition.train import attention
    from tuition.train.loop import make_learner, train_step
    from tuition.train.loss import token_mean
    from tuition.train.memory import keep_freed_memory, peak_memory
    from tuition.train.selfcheck import choose_path

    keep_freed_memory()
    attention.register()
    cpu, random = torch.device("cpu"), np.random.default_rng(0)
    rows = []
    for line in range(tokens // SEGMENT):
        supervised = np.zeros(SEGMENT, dtype=np.float32)
        supervised[SEGMENT // 2 :] = 1.0
        rows.append(
            Rendered(random.integers(10, 40_000, SEGMENT).astype(np.int32), supervised, Origin("r", line + 1))
        )
    settings = OptimizerSettings(learning_rate=1e-5, warmup_steps=0, lr_scheduler="constant")
    packs = make_packs(rows, token_mean, max_examples=None, token_budget=10**6)
    before = peak_memory(cpu)
    learner = make_learner(make_model(model), cpu, getattr(torch, dtype), settings)
    choose_path(learner, rows)
    plan = Plan(len(rows), len(rows), 1000, 0)
    for step in range(1, 4):
        train_step(learner, packs, rows, plan, settings, step)
    return peak_memory(cpu) - before


def calculated(model: str, dtype: str, tokens: int) -> dict[str, int]:
    """The parts, as `tuition plan` gives them."""
    from transformers import LlamaConfig

    from benchmarks.contestants import MODELS, VOCABULARY
    from tuition.recipe import make_recipe
    from tuition.train.budget import budget_of, shape_of

    config = LlamaConfig(
        vocab_size=VOCABULARY, tie_word_embeddings=True, max_position_embeddings=2048, **MODELS[model]
    )
    recipe = make_recipe({"model": model, "data": "rows", "dtype": dtype})
    budget = budget_of(
        shape_of(config), recipe, ranks=1, gpu=None, tokens_per_update=tokens, learned_share=0.5, mean_length=SEGMENT,
        kind="cpu",
    )  # fmt: skip
    return budget.parts


def main() -> None:
    """Measure each case in its own process, print and write what came."""
    rows: list[dict[str, Any]] = []
    for case in CASES:
        said = subprocess.run(
            [sys.executable, "-m", "benchmarks.plan", json.dumps(case)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        peak, parts = json.loads(said.splitlines()[-1]), calculated(*case)
        total = sum(parts.values())
        rows.append(
            {"model": case[0], "dtype": case[1], "tokens": case[2], "measured": peak, "calculated": total,
             "ratio": total / peak, "parts": parts}
        )  # fmt: skip
        print(f"{case}: measured {peak / 1e6:,.0f} MB, calculated {total / 1e6:,.0f} MB, {total / peak:.2f}")
    path = RESULTS / f"plan-{platform.machine()}.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measured(*json.loads(sys.argv[1])))
    else:
        main()
