"""Those who take the updates: each trains the same random model on the same rows, in a process of its own.

Run by benchmarks.step: `python -m benchmarks.contestants NAME JOB.json` prints one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tuition  # before torch: it says how threads wait
from benchmarks.workloads import VOCABULARY, rendered

LEARNING_RATE = 1e-5
MODELS: dict[str, dict[str, int]] = {
    "17m": {
        "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6,
        "num_attention_heads": 8, "num_key_value_heads": 4,
    },
    "135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    },
    "tiny": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip

Update = dict[str, float]
"""seconds, cpu_seconds, loss, grad_norm, tokens, learned (both as the contestant counted them itself)."""


class Stopwatch:
    """Seconds and seconds of CPU since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def read(self) -> Update:
        """Both."""
        return {
            "seconds": time.perf_counter() - self._started[0],
            "cpu_seconds": time.process_time() - self._started[1],
        }


class Moved:
    """Refuses a contestant whose weights stand still: speed without learning is none.

    Args:
        parameters: by name.
        whole: all numbers of one of them.
    """

    def __init__(
        self, parameters: dict[str, Any], whole: Callable[[Any], Any] = lambda p: p.detach()
    ) -> None:
        self._whole = whole
        self._watched = {
            name: p for name, p in parameters.items() if name.endswith(("q_proj.weight", "norm.weight"))
        }
        self._before = {name: self._digest(p) for name, p in self._watched.items()}

    def check(self) -> None:
        """Stop unless every watched weight is another than before."""
        still = [name for name, p in self._watched.items() if self._digest(p) == self._before[name]]
        if still:
            raise SystemExit(f"{still[0]} did not move")

    def _digest(self, parameter: Any) -> bytes:
        numbers = self._whole(parameter).float().cpu().contiguous().numpy()
        return hashlib.blake2b(numbers.data).digest()


def make_model(name: str) -> Any:
    """A Llama with the same random float32 weights each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, tie_word_embeddings=True, max_position_embeddings=2048, **MODELS[name]
    )
    return LlamaForCausalLM(config).train()


def ours(
    dtype: str, *, share: bool = True, twice: bool = False, masters: str = "float32"
) -> Callable[[dict[str, Any]], list[Update]]:
    """tuition's own step, self-check before it, as a run takes it.

    Args:
        share: what rows have in common at the start is computed once.
        twice: activations are computed twice, for less memory.
        masters: as in a recipe.
    """

    def run(job: dict[str, Any]) -> list[Update]:
        import torch

        from tuition.batch import Plan
        from tuition.recipe import OptimizerSettings
        from tuition.train import attention
        from tuition.train.learner import make_learner
        from tuition.train.loop import packs_of, train_step
        from tuition.train.loss import token_mean
        from tuition.train.memory import (
            checkpoint_activations,
            give_back_freed_memory,
            keep_freed_memory,
        )
        from tuition.train.selfcheck import choose_path
        from tuition.train.storage import whole

        keep_freed_memory()
        attention.register()
        settings = OptimizerSettings.model_validate(
            {
                "learning_rate": LEARNING_RATE,
                "warmup_steps": 0,
                "lr_scheduler": "constant",
                "masters": masters,
            }
        )
        device = torch.device(job.get("device", "cpu"))
        learner = make_learner(make_model(job["model"]).to(device), device, getattr(torch, dtype), settings)
        batches = [[rendered(row) for row in batch] for batch in job["batches"]]
        check = choose_path(learner, batches[0], share_prefixes=share)
        assert check.packed, check.how
        if twice:
            checkpoint_activations(learner.model)
        plan = Plan(examples=len(batches[0]), batch_size=len(batches[0]), steps=10**6, seed=0)
        moved, updates = Moved(learner.masters.parameters, whole), []
        for number, batch in enumerate(batches, 1):
            watch = Stopwatch()
            packs = packs_of(learner, batch, token_mean, (None, 4096))
            report = train_step(learner, packs, batch, plan, settings, number)
            if number == 1:  # as a run does
                give_back_freed_memory()
            updates.append(
                watch.read()
                | {"loss": report.loss, "grad_norm": report.grad_norm, "learned": report.learned_tokens}
                # the last token of a row is only ever a target
                | {"tokens": report.tokens + len(batch)}
            )
        moved.check()
        return updates

    return run


def contestants() -> dict[str, Callable[[dict[str, Any]], list[Update]]]:
    """All, by name; peers that are not installed fail when they are called."""
    from benchmarks.peers import PEERS

    return {
        "tuition": ours("bfloat16"),
        "tuition, masters split": ours("bfloat16", masters="split"),
        "tuition, masters split, activations computed twice": ours("bfloat16", twice=True, masters="split"),
        "tuition, nothing shared": ours("bfloat16", share=False),
        "tuition, float32": ours("float32"),
        **PEERS,
    }


def main() -> None:
    """Take the updates of a job and print seconds, losses and the peak of memory."""
    import resource

    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    assert tuition.__version__
    updates = contestants()[name](job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if job.get("device") == "cuda":
        import torch

        peak = torch.cuda.max_memory_allocated()
    print(json.dumps({"updates": updates, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
