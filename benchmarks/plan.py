"""The memory that `tuition plan` calculates beside the peaks that are measured, on this machine's CPU.

`python -m benchmarks.plan` writes benchmarks/results/plan-ARCH.json. Each model takes a few updates in a process of
its own; what Python and its libraries take is taken off: the peak of a tiny model's updates, taken before. With
`--tables` it prints the table of docs/scale.md and measures nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np

import tuition  # noqa: F401  before torch: it says how threads wait
from benchmarks.figures import of_this_machine, write_result

import torch  # isort: skip

CASES = [("17m", "bfloat16", 2048), ("17m", "float32", 2048), ("135m", "bfloat16", 1024)]
SEGMENT = 256


def measured(model: str, dtype: str, tokens: int) -> int:
    """The peak of some updates, in bytes, over what a tiny model's updates had taken."""
    from benchmarks.contestants import make_model
    from tuition.train import attention
    from tuition.train.memory import keep_freed_memory, peak_memory

    attention.register()
    take_updates(tiny_model(), dtype, rows_of(2 * SEGMENT, vocabulary=512))
    before = peak_memory(torch.device("cpu"))
    made = make_model(model)
    keep_freed_memory()
    take_updates(made, dtype, rows_of(tokens, vocabulary=40_000))
    return peak_memory(torch.device("cpu")) - before


def take_updates(model: Any, dtype: str, rows: list[Any]) -> None:
    """The self-check and three updates of one pass, as a run takes them."""
    from tuition.batch import Plan, make_packs
    from tuition.recipe import OptimizerSettings
    from tuition.train.learner import make_learner
    from tuition.train.loop import train_step
    from tuition.train.loss import token_mean
    from tuition.train.memory import give_back_freed_memory
    from tuition.train.selfcheck import choose_path

    settings = OptimizerSettings(learning_rate=1e-5, warmup_steps=0, lr_scheduler="constant")
    packs = make_packs(rows, token_mean, max_examples=None, token_budget=10**6)
    learner = make_learner(model, torch.device("cpu"), getattr(torch, dtype), settings)
    choose_path(learner, rows)
    plan = Plan(len(rows), len(rows), 1000, 0)
    for step in range(1, 4):
        train_step(learner, packs, rows, plan, settings, step)
        if step == 1:
            give_back_freed_memory()


def rows_of(tokens: int, *, vocabulary: int) -> list[Any]:
    """Examples of random tokens, half of them learned."""
    from tuition.conversation import Rendered
    from tuition.errors import Origin

    random = np.random.default_rng(0)
    supervised = np.zeros(SEGMENT, dtype=np.float32)
    supervised[SEGMENT // 2 :] = 1.0
    return [
        Rendered(random.integers(10, vocabulary, SEGMENT).astype(np.int32), supervised, Origin("r", line + 1))
        for line in range(tokens // SEGMENT)
    ]


def tiny_model() -> Any:
    """It takes next to nothing, and brings every library to the memory that it needs."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=512, tie_word_embeddings=True, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


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


def tables() -> None:
    """The table of docs/scale.md: memory a GPU, and time for a billion tokens."""
    from transformers import LlamaConfig, Qwen3Config

    from tuition.recipe import make_recipe
    from tuition.train.budget import budget_of, shape_of

    configs = {
        "Qwen3 0.6B": Qwen3Config(
            vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
            num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
        ),
        "Llama 3.1 8B": LlamaConfig(
            vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8,
        ),
        "Llama 3.1 70B": LlamaConfig(
            vocab_size=128_256, hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80,
            num_attention_heads=64, num_key_value_heads=8,
        ),
    }  # fmt: skip
    print("| model, method | 1 | 8 | 64 | 1,024 |\n|---|---|---|---|---|")
    for name, config in configs.items():
        shape = shape_of(config)
        for method in ("full", "lora", "qlora"):
            cells = []
            for ranks in (1, 8, 64, 1024):
                parallel = "fsdp" if ranks > 1 and method != "qlora" else "ddp"
                given = {
                    "model": name,
                    "data": "d",
                    "dtype": "bfloat16",
                    "method": method,
                    "parallel": parallel,
                }
                adapter = {} if method == "full" else {"lora_r": 16}
                budget = budget_of(
                    shape, make_recipe({**given, **adapter}), ranks=ranks, gpu="h200",
                    tokens_per_update=4096.0 * ranks, learned_share=0.5, mean_length=512,
                )  # fmt: skip
                assert budget.tokens_per_second is not None
                hours = 1e9 / budget.tokens_per_second / 3600
                time = f"{hours:,.1f} h" if hours >= 0.1 else f"{60 * hours:.1f} min"
                cells.append(f"{budget.bytes / 1e9:,.1f} GB{'' if budget.fits else ' ✗'}, {time}")
            print(f"| {name}, {method} | {' | '.join(cells)} |")


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
    write_result(of_this_machine("plan"), rows)


if __name__ == "__main__":
    if sys.argv[1:] == ["--tables"]:
        tables()
    elif len(sys.argv) > 1:
        print(measured(*json.loads(sys.argv[1])))
    else:
        main()
