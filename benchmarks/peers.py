"""Other trainers on the same rows, each driven as its own documentation does; what was mended is said beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.contestants import LEARNING_RATE, MODELS, Moved, Stopwatch, Update, make_model
from benchmarks.workloads import VOCABULARY, labels

Contestant = Callable[[dict[str, Any]], list[Update]]


def trl(*, keeps_memory: bool = False, **changes: Any) -> Contestant:
    """TRL's SFTTrainer.

    Args:
        keeps_memory: glibc keeps what is freed, as in a run of ours.
        changes: of its default settings; `examples`: most in a forward pass, the rest is accumulated.
    """

    def run(job: dict[str, Any]) -> list[Update]:
        from trl import SFTConfig, SFTTrainer

        from tuition.train.memory import keep_freed_memory

        if keeps_memory:
            keep_freed_memory()

        def make(model: Any, rows: Any, settings: dict[str, Any], callback: Any) -> Any:
            return SFTTrainer(
                model=model, args=SFTConfig(**settings), train_dataset=rows,
                processing_class=_tokenizer(), callbacks=[callback],
            )  # fmt: skip

        return _by_a_trainer(job, make, changes)

    return run


def textbook(**changes: Any) -> Contestant:
    """transformers.Trainer as courses show it; mended: what is not learned and the padding carry no loss."""

    def run(job: dict[str, Any]) -> list[Update]:
        from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

        def make(model: Any, rows: Any, settings: dict[str, Any], callback: Any) -> Any:
            return Trainer(
                model=model, args=TrainingArguments(**settings), train_dataset=rows,
                data_collator=DataCollatorForSeq2Seq(_tokenizer()), callbacks=[callback],
            )  # fmt: skip

        return _by_a_trainer(job, make, changes)

    return run


def _by_a_trainer(job: dict[str, Any], make: Callable[..., Any], changes: dict[str, Any]) -> list[Update]:
    """The updates of a job by one of the trainers that descend from transformers' own."""
    from datasets import Dataset

    batch = len(job["batches"][0])
    settings = dict(changes)
    examples = settings.pop("examples", batch)
    updates: list[Update] = []
    rows = [row for rows in job["batches"] for row in rows]
    data = Dataset.from_list([{"input_ids": row["ids"], "labels": labels(row)} for row in rows])
    model = make_model(job["model"])
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "output_dir": folder, "per_device_train_batch_size": examples,
            "gradient_accumulation_steps": batch // examples, "max_steps": len(job["batches"]),
            "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant",
            "train_sampling_strategy": "sequential", "use_cpu": job.get("device", "cpu") == "cpu", "logging_steps": 1,
            "save_strategy": "no", "report_to": "none", "disable_tqdm": True, **settings,
        }  # fmt: skip
        trainer = make(model, data, settings, _clock(updates))
        moved = Moved(dict(model.named_parameters()))
        with _counted(trainer, updates):
            trainer.train()
    moved.check()
    return updates


def _clock(updates: list[Update]) -> Any:
    """Times each update, and reads loss and norm from the trainer's own log."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            updates.append({"tokens": 0, "learned": 0})
            self.watch = Stopwatch()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            updates[-1] |= self.watch.read()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "grad_norm" in logs:
                updates[-1] |= {"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"])}

    return Clock()


@contextmanager
def _counted(trainer: Any, updates: list[Update]) -> Iterator[None]:
    """Count what really goes into the model: tokens that are no padding, and those with a loss."""
    own = trainer.training_step

    def training_step(model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        attended = inputs.get("attention_mask")
        updates[-1]["tokens"] += int(inputs["input_ids"].numel() if attended is None else attended.sum())
        updates[-1]["learned"] += int((inputs["labels"][:, 1:] != -100).sum())
        return own(model, inputs, *rest, **more)

    trainer.training_step = training_step
    yield


def litgpt(precision: str) -> Contestant:
    """litgpt's model, padding and loss in the loop of its recipe for full fine-tuning, with our weights laid into it."""

    def run(job: dict[str, Any]) -> list[Update]:
        import lightning
        import torch
        from litgpt import GPT
        from litgpt.data.base import get_sft_collate_fn
        from litgpt.utils import chunked_cross_entropy

        fabric = lightning.Fabric(devices=1, accelerator="cpu", precision=precision)
        with fabric.init_module():
            model = GPT(_litgpt_config(job["model"]))
        model.load_state_dict(_litgpt_weights(job["model"], model.config))
        model.lm_head.weight = model.transformer.wte.weight
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True, weight_decay=0.0)
        model, optimizer = fabric.setup(model, optimizer)
        collate, moved = get_sft_collate_fn(), Moved(dict(model.named_parameters()))
        updates: list[Update] = []
        for rows in job["batches"]:
            watch = Stopwatch()
            made = collate([_litgpt_row(row) for row in rows])
            logits = model(made["input_ids"])
            loss = chunked_cross_entropy(logits[..., :-1, :], made["labels"][..., 1:], chunk_size=0)
            fabric.backward(loss)
            norm = fabric.clip_gradients(model, optimizer, max_norm=1.0)
            optimizer.step()
            optimizer.zero_grad()
            learned = int((made["labels"][:, 1:] != -100).sum())
            tokens = sum(len(row["ids"]) for row in rows)
            updates.append(
                watch.read()
                | {"loss": float(loss), "grad_norm": float(norm), "tokens": tokens, "learned": learned}
            )
        moved.check()
        return updates

    return run


def _litgpt_config(name: str) -> Any:
    from litgpt import Config

    shape = MODELS[name]
    return Config(
        name="llama", block_size=2048, n_layer=shape["num_hidden_layers"], n_embd=shape["hidden_size"],
        n_head=shape["num_attention_heads"], n_query_groups=shape["num_key_value_heads"],
        intermediate_size=shape["intermediate_size"], padded_vocab_size=VOCABULARY, vocab_size=VOCABULARY,
        norm_class_name="RMSNorm", norm_eps=1e-6, mlp_class_name="LLaMAMLP", bias=False,
        parallel_residual=False, rotary_percentage=1.0, rope_base=10000,
    )  # fmt: skip


def _litgpt_weights(name: str, config: Any) -> dict[str, Any]:
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama

    weights: dict[str, Any] = {}
    copy_weights_hf_llama(config, {}, weights, make_model(name).state_dict())
    return weights


def _litgpt_row(row: dict[str, list[int]]) -> dict[str, Any]:
    import torch

    counted = {"raw": len(row["ids"]), "raw_plus_prompt_template": len(row["ids"])}
    return {
        "input_ids": torch.tensor(row["ids"]),
        "labels": torch.tensor(labels(row)),
        "token_counts": counted,
    }


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


PEERS: dict[str, Contestant] = {
    "trl, default": trl(),
    "trl, activations kept": trl(gradient_checkpointing=False),
    "trl, activations kept, 4 a pass": trl(gradient_checkpointing=False, examples=4),
    "trl, activations kept, 2 a pass": trl(gradient_checkpointing=False, examples=2),
    "trl, activations kept, 1 a pass": trl(gradient_checkpointing=False, examples=1),
    "trl, activations kept, 1 a pass, memory as ours": trl(
        gradient_checkpointing=False, examples=1, keeps_memory=True
    ),
    "trl, default, memory as ours": trl(keeps_memory=True),
    "trl, activations kept, padding free": trl(
        gradient_checkpointing=False, padding_free=True, max_length=None
    ),
    "trl, activations kept, float32": trl(gradient_checkpointing=False, bf16=False),
    "trl, activations kept, float32, 1 a pass": trl(gradient_checkpointing=False, bf16=False, examples=1),
    "transformers.Trainer, textbook": textbook(),
    "litgpt, float32": litgpt("32-true"),
    "litgpt, autocast": litgpt("bf16-mixed"),
}
