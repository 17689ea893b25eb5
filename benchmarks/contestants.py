"""Those who take the updates: each trains the same random model on the same tokens, in a process of its own.

Run by benchmarks.step: `python -m benchmarks.contestants NAME JOB.json` prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import tuition  # before torch: it says how threads wait
from tuition.batch import Plan, make_packs
from tuition.conversation import Rendered
from tuition.errors import Origin
from tuition.recipe import OptimizerSettings

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
}  # fmt: skip
VOCABULARY = 50304


def make_model(name: str) -> Any:
    """A Llama with the same random float32 weights each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, tie_word_embeddings=True, max_position_embeddings=2048, **MODELS[name]
    )
    return LlamaForCausalLM(config).train()


def ours(dtype: str) -> Any:
    """tuition's own loop, step by step."""

    def run(job: dict[str, Any]) -> list[dict[str, float]]:
        import torch

        from tuition.train import attention
        from tuition.train.loop import make_learner, train_step
        from tuition.train.loss import token_mean
        from tuition.train.memory import keep_freed_memory
        from tuition.train.selfcheck import choose_path

        keep_freed_memory()
        attention.register()
        settings = OptimizerSettings(learning_rate=LEARNING_RATE, warmup_steps=0, lr_scheduler="constant")
        learner = make_learner(make_model(job["model"]), torch.device("cpu"), getattr(torch, dtype), settings)
        batches = [[_rendered(row) for row in batch] for batch in job["batches"]]
        choose_path(learner, batches[0])
        plan = Plan(examples=len(batches[0]), batch_size=len(batches[0]), steps=10**6, seed=0)
        before = _one_weight(learner.masters.parameters)
        updates = []
        for number, batch in enumerate(batches, 1):
            packs = make_packs(batch, token_mean, max_examples=None, token_budget=4096)
            report = train_step(learner, packs, batch, plan, settings, number)
            updates.append({"seconds": report.seconds, "loss": report.loss, "grad_norm": report.grad_norm})
        assert not np.array_equal(before, _one_weight(learner.masters.parameters)), "no weight moved"
        return updates

    return run


def trl(**changes: Any) -> Any:
    """TRL's SFTTrainer on the same ids and labels, in the same order."""

    def run(job: dict[str, Any]) -> list[dict[str, float]]:
        from datasets import Dataset
        from transformers import TrainerCallback
        from trl import SFTConfig, SFTTrainer

        model = make_model(job["model"])
        updates: list[dict[str, float]] = []

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                self.started = time.perf_counter()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                updates.append({"seconds": time.perf_counter() - self.started})

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
                if logs and "grad_norm" in logs:
                    updates[-1] |= {"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"])}

        rows = [row for batch in job["batches"] for row in batch]
        data = Dataset.from_list([{"input_ids": r["ids"], "labels": _labels(r)} for r in rows])
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "output_dir": folder, "per_device_train_batch_size": len(job["batches"][0]),
                "max_steps": len(job["batches"]), "learning_rate": LEARNING_RATE,
                "lr_scheduler_type": "constant", "train_sampling_strategy": "sequential", "use_cpu": True,
                "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
                **changes,
            }  # fmt: skip
            trainer = SFTTrainer(
                model=model, args=SFTConfig(**settings), train_dataset=data,
                processing_class=_tokenizer(), callbacks=[Clock()],
            )  # fmt: skip
            before = _one_weight(dict(model.named_parameters()))
            trainer.train()
        assert not np.array_equal(before, _one_weight(dict(model.named_parameters()))), "no weight moved"
        return updates

    return run


CONTESTANTS: dict[str, Any] = {
    "tuition": ours("bfloat16"),
    "tuition, float32": ours("float32"),
    "trl, default": trl(),
    "trl, activations kept": trl(gradient_checkpointing=False),
    "trl, activations kept, float32": trl(gradient_checkpointing=False, bf16=False),
}


def _rendered(row: dict[str, Any]) -> Rendered:
    supervised = np.zeros(len(row["ids"]), dtype=np.float32)
    supervised[row["learned_from"] :] = 1.0
    return Rendered(np.array(row["ids"], dtype=np.int32), supervised, Origin("benchmark", 1))


def _labels(row: dict[str, Any]) -> list[int]:
    start = int(row["learned_from"])
    return [-100] * start + list(row["ids"][start:])


def _one_weight(parameters: dict[str, Any]) -> Any:
    name = next(name for name in parameters if "q_proj" in name)
    return parameters[name].detach().float().numpy().copy()


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def main() -> None:
    """Take the updates of a job and print seconds, losses and the peak of memory."""
    import resource

    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    assert tuition.__version__
    updates = CONTESTANTS[name](job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"updates": updates, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
