"""One optimizer update, tuition beside plain transformers, on the same examples with the same loss.

Llama of 17 million parameters with random weights, 16 examples an update whose lengths spread as
instruction data does (log-normal, median 120 tokens, 60 % learned). Plain transformers pads the batch
and computes every logit. Runs are interleaved; medians and ranges are printed and written as JSON.
Run: make bench
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from tuition.batch import Plan, make_packs
from tuition.conversation import Rendered
from tuition.errors import Origin
from tuition.machine import hardware, versions
from tuition.recipe import OptimizerSettings
from tuition.train import attention
from tuition.train.loop import Learner, train_step
from tuition.train.loss import token_mean
from tuition.train.optimizer import adamw

REPEATS = 5
BATCH = 16
CPU = torch.device("cpu")
SETTINGS = OptimizerSettings(learning_rate=1e-5, warmup_steps=0, lr_scheduler="constant")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print, write."""
    batches = [make_examples(seed) for seed in range(REPEATS + 1)]
    ours, plain = Packed(), Padded()
    rows = []
    for number, batch in enumerate(batches):
        a, b = ours.update(batch), plain.update(batch)
        assert abs(a["loss"] - b["loss"]) < 1e-4 * b["loss"], "not the same work"
        if number:  # the first warms up
            rows.append((a, b))
    learned = [int(sum(e.learned_tokens for e in batch)) for batch in batches[1:]]
    result = {
        "what": "one update of 16 examples, Llama 17M, float32",
        "learned_tokens_per_second": {
            "tuition": spread([n / a["seconds"] for n, (a, _) in zip(learned, rows, strict=True)]),
            "plain transformers, padded": spread(
                [n / b["seconds"] for n, (_, b) in zip(learned, rows, strict=True)]
            ),
        },
        "hardware": hardware("cpu"),
        "versions": versions(),
    }
    for name, figures in result["learned_tokens_per_second"].items():
        print(
            f"{name:28} {figures['median']:8,.0f} learned tokens/s  ({figures['low']:,.0f} to {figures['high']:,.0f})"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"step-{platform.machine()}.json").write_text(
        json.dumps(result, indent=2) + "\n", encoding="utf-8"
    )


def make_model() -> LlamaForCausalLM:
    """The same random weights each time."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50304,
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
        )
    ).train()


def make_examples(seed: int) -> list[Rendered]:
    """Sixteen examples of random tokens."""
    random = np.random.default_rng(seed)
    examples = []
    for length in np.clip(random.lognormal(np.log(120), 0.7, BATCH).astype(int), 8, 1024):
        supervised = np.zeros(length, dtype=np.float32)
        supervised[int(0.4 * length) :] = 1.0
        examples.append(
            Rendered(random.integers(0, 50000, length).astype(np.int32), supervised, Origin("random", 1))
        )
    return examples


class Packed:
    """tuition's own step."""

    def __init__(self) -> None:
        attention.register()
        model = make_model()
        model.set_attn_implementation(attention.NAME)
        optimizer = adamw(model.parameters(), SETTINGS)
        self.learner = Learner(model, CPU, torch.float32, packed=True, optimizer=optimizer)
        self.plan = Plan(examples=BATCH, batch_size=BATCH, steps=100, seed=0)

    def update(self, batch: list[Rendered]) -> dict[str, float]:
        """One update: its loss and seconds."""
        packs = make_packs(batch, token_mean, max_examples=None, token_budget=4096)
        report = train_step(self.learner, packs, batch, self.plan, SETTINGS, 1)
        return {"loss": report.loss, "seconds": report.seconds}


class Padded:
    """Plain transformers: a padded batch, every logit, SDPA with its mask."""

    def __init__(self) -> None:
        self.model = make_model()
        self.optimizer = adamw(self.model.parameters(), SETTINGS)

    def update(self, batch: list[Rendered]) -> dict[str, float]:
        """One update: its loss and seconds."""
        started = time.perf_counter()
        width = max(len(example) for example in batch)
        ids, labels = torch.zeros(len(batch), width, dtype=torch.long), torch.full((len(batch), width), -100)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for row, example in enumerate(batch):
            tokens = torch.from_numpy(example.ids.astype(np.int64))
            ids[row, : len(example)], mask[row, : len(example)] = tokens, 1
            labels[row, : len(example)] = torch.where(torch.from_numpy(example.supervised) > 0, tokens, -100)
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), SETTINGS.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item(), "seconds": time.perf_counter() - started}


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


if __name__ == "__main__":
    main()
