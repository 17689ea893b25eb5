"""The next step of learning from people: an export is what TRL's preference training starts from."""

from __future__ import annotations

from pathlib import Path

import torch

import tuition


def test_an_export_trains_two_steps_of_dpo(full_run: tuition.Run, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    folder = full_run.export(tmp_path / "out")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {n} and {n}?"}],
            "chosen": [{"role": "assistant", "content": f"it is {2 * n}."}],
            "rejected": [{"role": "assistant", "content": "who knows"}],
        }
        for n in range(4)
    ]
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = DPOConfig(
        output_dir=str(tmp_path / "dpo"), max_steps=2, per_device_train_batch_size=2, learning_rate=1e-3,
        lr_scheduler_type="constant", warmup_steps=0, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, bf16=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        model, args=config, train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    result = trainer.train()
    assert result.global_step == 2
    # the first step compares the model with itself: the loss of preference training is then log 2
    assert abs(trainer.state.log_history[0].get("loss", result.training_loss) - 0.6931) < 0.3
    after = dict(trainer.model.named_parameters())
    assert any(not torch.equal(before[name], after[name].detach().cpu()) for name in before)
