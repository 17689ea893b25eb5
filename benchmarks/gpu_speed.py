"""How fast updates of real shapes are: random weights, a few updates as a run takes them."""

from __future__ import annotations

import gc
import time
import traceback
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.figures import spread
from benchmarks.workloads import random_instructions, rendered


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
    Shape("Qwen3-0.6B", _QWEN3, "full", "float32", 32768, 40, 90),
    Shape("Llama-3.1-8B", _LLAMA8B, "lora", "float32", 16384, 70, 110),
    # with moments it is 96 GB before anything is computed, and a second pass would add up gradients in float32: one
    # pass, of what fits beside it
    Shape("Llama-3.1-8B", _LLAMA8B, "full", "split", 10240, 138, 120),
    Shape("SmolLM2-135M", _SMOLLM2, "full", "float32", 65536, 20, 75),
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


def throughput(shape: Shape, device: Any, rate: float) -> list[dict[str, Any]]:
    """Updates of full-length rows all of which is learned, of instructions as people write them, and on a GPU of the
    rows again without compiled code."""
    found, gpu = [], device.type == "cuda"
    parts = [("rows of 2,048, all learned", full_rows, gpu), ("instructions", instructions, gpu)]
    if gpu:
        parts.append(("rows of 2,048, all learned, not compiled", full_rows, False))
    for workload, make, compiled in parts:
        try:
            row = updates_of(shape, make(shape), device, rate, compiled=compiled)
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


def updates_of(shape: Shape, rows: list[Any], device: Any, rate: float, *, compiled: bool) -> dict[str, Any]:
    """Train a few updates as a run does: self-check, compiled layers, trial of the largest pass, steps.

    Args:
        rows: examples of one update; each update takes the same, so that only speed varies.
        rate: the device's own rate of matrix products, operations a second.
        compiled: layers and loss by compiled code.
    """
    import torch

    from tuition.batch import Plan
    from tuition.recipe import OptimizerSettings
    from tuition.train.compiled import compile_layers
    from tuition.train.learner import make_learner
    from tuition.train.loss import token_mean
    from tuition.train.selfcheck import choose_path
    from tuition.train.trial import try_largest_step

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    settings = OptimizerSettings(learning_rate=1e-5, warmup_steps=0, masters=shape.masters)
    learner = make_learner(make_model(shape, device), device, torch.bfloat16, settings)
    check = choose_path(learner, rows)
    started = time.perf_counter()
    if compiled:
        check = compile_layers(learner, check, rows)
    compile_seconds = time.perf_counter() - started
    steps = 3 if device.type == "cpu" else UPDATES
    plan = Plan(examples=len(rows), batch_size=len(rows), steps=steps, seed=0)
    tried = try_largest_step(learner, rows, [], plan, token_mean, (None, shape.tokens), checkpointing="auto")
    reports, took, passes = take_updates(learner, rows, plan, settings, tried.token_budget)
    seconds, counted = spread(took[2:]), reports[2]
    operations = executed_operations(shape, rows, learner.model.config, twice=tried.checkpointing)
    return {
        "path": check.how,
        "compile_seconds": compile_seconds,
        "passes_an_update": passes,
        "tokens": counted.tokens,
        "learned_tokens": counted.learned_tokens,
        "activations_computed_twice": tried.checkpointing,
        "seconds": seconds,
        "tokens_per_second": counted.tokens / seconds["median"],
        "learned_tokens_per_second": counted.learned_tokens / seconds["median"],
        "operations_per_second": operations / seconds["median"],
        "share_of_multiplication_rate": operations / seconds["median"] / rate,
        "share_of_989_teraflops": operations / seconds["median"] / 989e12,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else tried.peak_bytes,
        "loss": [report.loss for report in reports],
    }


def take_updates(
    learner: Any, rows: list[Any], plan: Any, settings: Any, token_budget: int
) -> tuple[list[Any], list[float], int]:
    """All updates of a plan over the same rows: their reports, the seconds of each, and the passes of one."""
    import torch

    from tuition.train.loop import packs_of, train_step
    from tuition.train.loss import token_mean

    learner.model.train()
    reports, stamps, passes = [], [time.perf_counter()], 0
    for number in range(1, plan.steps + 1):
        packs = packs_of(learner, rows, token_mean, (None, token_budget))
        passes = len(packs)
        reports.append(train_step(learner, packs, rows, plan, settings, number))
        if learner.device.type == "cuda" and number == plan.steps:
            torch.cuda.synchronize()  # an update is asked for and not waited for: each is in the next one's time
        stamps.append(time.perf_counter())
    return reports, [stop - start for start, stop in pairwise(stamps)], passes


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
