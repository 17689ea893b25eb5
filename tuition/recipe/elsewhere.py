"""What other tools call our settings, and what theirs that have none here mean.

Nothing here is ever read as a setting: errors, `tuition explain` and the docs name it to whoever comes from there.
"""

from __future__ import annotations

# Their name → ours.
ALIASES: dict[str, str] = {
    "model_name_or_path": "model", "base_model": "model", "model_id": "model",
    "model_revision": "revision",
    "fine_tune_type": "method", "finetuning_type": "method", "adapter": "method", "train_type": "method",
    "tuner_type": "method", "use_peft": "method",
    "dataset": "data", "datasets": "data", "dataset_name": "data", "training_file": "data", "train_file": "data",
    "train_data": "data", "data_path": "data",
    "validation_file": "val_data", "val_dataset": "val_data", "eval_dataset": "val_data",
    "val_set_size": "val_split", "val_size": "val_split", "split_dataset_ratio": "val_split",
    "test_size": "val_split",
    "template": "chat_template", "chat_template_path": "chat_template",
    "train_on_what": "train_on", "assistant_only_loss": "train_on", "completion_only_loss": "train_on",
    "mask_prompt": "train_on", "train_on_inputs": "train_on", "train_on_prompt": "train_on",
    "max_seq_length": "max_length", "sequence_len": "max_length", "cutoff_len": "max_length",
    "max_seq_len": "max_length", "model_max_length": "max_length", "block_size": "max_length",
    "excess_length_strategy": "too_long", "truncation_strategy": "too_long",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs",
    "iters": "max_steps", "max_iters": "max_steps", "num_steps": "max_steps",
    "global_batch_size": "batch_size", "train_batch_size": "batch_size",
    "per_device_train_batch_size": "micro_batch_size", "mini_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "batch_size",
    "random_seed": "seed", "data_seed": "seed",
    "lr": "learning_rate", "learning_rate_multiplier": "learning_rate",
    "lr_scheduler_type": "lr_scheduler", "lr_schedule": "lr_scheduler",
    "warmup_ratio": "warmup_steps", "warmup": "warmup_steps",
    "optim": "optimizer", "max_norm": "max_grad_norm", "gradient_clipping": "max_grad_norm",
    "adam_eps": "adam_epsilon", "beta1": "adam_beta1", "beta2": "adam_beta2",
    "rslora": "use_rslora", "dora": "use_dora",
    "load_in_4bit": "method", "quantization_bit": "method",
    "label_smoothing_factor": "label_smoothing", "neftune_noise_alpha": "neftune_alpha", "use_dft_loss": "token_loss",
    "unfrozen_parameters": "train_only", "trainable_parameters": "train_only", "freeze_parameters": "freeze",
    "lora_rank": "lora_r", "rank": "lora_r", "r": "lora_r", "alpha": "lora_alpha",
    "lora_target_modules": "target_modules", "lora_target": "target_modules",
    "output": "output_dir", "out_dir": "output_dir", "save_path": "output_dir",
    "save_total_limit": "keep_checkpoints", "keep_latest_k": "keep_checkpoints",
    "save_steps": "save_every_steps", "save_freq": "save_every_steps",
    "eval_steps": "eval_every_steps", "steps_per_eval": "eval_every_steps",
    "logger": "report_to", "use_wandb": "report_to", "logging_backends": "report_to",
    "metric_for_best_model": "best_by", "predict_with_generate": "eval_metrics", "compute_metrics": "eval_metrics",
    "do_causal_lm_eval": "eval_metrics", "eval_causal_lm_metrics": "eval_metrics",
    "load_best_model_at_end": "keep", "early_stopping": "early_stopping_patience",
    "generation_max_length": "eval_max_new_tokens", "eval_max_tokens": "eval_max_new_tokens",
    "save_strategy": "keep_every_epoch", "max_eval_samples": "eval_prompts",
    "logging_steps": "log_every_steps", "steps_per_report": "log_every_steps",
    "gradient_checkpointing": "activation_checkpointing", "use_gradient_checkpointing": "activation_checkpointing",
    "fsdp": "parallel", "deepspeed": "parallel", "ddp": "parallel", "distributed": "parallel",
    "torch_dtype": "dtype", "bf16": "dtype", "fp16": "dtype", "use_cpu": "device",
    "model_name": "model", "load_in_8bit": "method",
    "data_files": "data", "train_dataset": "data", "streaming": "stream",
    "ddp_timeout": "heartbeat_seconds", "test_datasets": "val_data", "chat_template_jinja": "chat_template",
    "train_on_responses_only": "train_on", "mask_history": "train_on", "roles_to_train": "train_on",
    "loss_type": "token_loss", "random_state": "seed", "max_steps_per_epoch": "max_steps",
    "per_gpu_train_batch_size": "micro_batch_size", "total_batch_size": "batch_size",
    "clip_grad_norm": "max_grad_norm", "grad_clip": "max_grad_norm",
    "peft_use_dora": "use_dora", "peft_use_rslora": "use_rslora", "pissa_init": "init_lora_weights",
    "lora_attn_modules": "target_modules", "lora_target_linear": "target_modules",
    "enable_activation_checkpointing": "activation_checkpointing", "torch_compile": "compile",
    "enable_thinking": "chat_template_kwargs", "eval_strategy": "eval_every_steps",
    "evals_per_epoch": "eval_every_steps", "saves_per_epoch": "save_every_steps", "wandb_project": "report_to",
}  # fmt: skip

# Where the same value would mean another thing here: their name → what to write.
_AS_HERE: dict[str, tuple[str, ...]] = {
    "it counts the examples of one update on all ranks: per_device_train_batch_size × gradient_accumulation_steps "
    "× GPUs": ("gradient_accumulation_steps",),
    "it only bounds memory; batch_size says how many examples make an update": (
        "per_device_train_batch_size", "per_gpu_train_batch_size", "mini_batch_size",
    ),
    "answers alone are learned anyway (assistant); all learns the prompts too": (
        "train_on_inputs", "train_on_prompt", "mask_prompt", "completion_only_loss",
        "assistant_only_loss", "train_on_responses_only", "roles_to_train", "train_on_what",
    ),
    "assistant learns every answer, last the last one alone": ("mask_history",),
    "method: lora, where it is true": ("use_peft",),
    "init_lora_weights: pissa": ("pissa_init",),
    "compile: on": ("torch_compile",),
    "method: qlora, where it is true or 4": ("load_in_4bit", "quantization_bit"),
    "method: qlora, which holds the base in 4 bits, is the nearest": ("load_in_8bit",),
    "a number below 1 is a share of all updates": ("warmup_ratio",),
    "dtype: bfloat16, or auto, which measures": ("bf16",),
    "float16 needs a scaled loss and is not done here: dtype: bfloat16, or auto": ("fp16",),
    "target_modules: all-linear": ("lora_target_linear",),
    "all-linear is what others call all": ("lora_target",),
    "a file with a Jinja template, or auto, the tokenizer's own; templates have no names here": ("template",),
    "chat_template_kwargs: {enable_thinking: false}": ("enable_thinking",),
    "token_loss: dft": ("use_dft_loss",),
    "updates, and auto is ten a run": ("evals_per_epoch", "saves_per_epoch", "eval_strategy"),
    "report_to: wandb": ("use_wandb", "wandb_project"),
    "keep_every_epoch: true for epoch; save_every_steps for steps": ("save_strategy",),
    "parallel: fsdp divides the weights as ZeRO-3 does": ("deepspeed",),
}  # fmt: skip

# Theirs that have no setting here: why, or where it is done.
_NO_SETTING: dict[str, tuple[str, ...]] = {
    "examples always share a pass without padding, which never changes the result; "
    "micro_batch_size: 1 takes them one at a time": (
        "packing", "sample_packing", "neat_packing", "padding_free", "packed", "packing_strategy", "eval_packing",
        "eval_sample_packing", "pad_to_sequence_len", "group_by_length", "multipack", "pad_to_multiple_of",
    ),
    "the fastest attention that is exact on this machine is taken": (
        "flash_attention", "flash_attn", "attn_implementation", "attn_impl", "sdp_attention", "xformers_attention",
    ),
    "the head is computed at learned tokens only and in chunks, without another package": (
        "use_liger_kernel", "enable_liger_kernel", "liger_kernel", "use_liger",
    ),
    "shapes are found by themselves, see `tuition check DATA`; mapping says which columns hold what where they "
    "are not": (
        "dataset_text_field", "dataset_format", "field_messages", "message_property_mappings", "formatting",
        "dataset_kwargs", "formatting_func", "response_template", "instruction_template",
    ),
    "data takes paths; data: FILE#0.1 learns a share of a file": ("dataset_dir", "max_samples", "num_samples"),
    "data is prepared once, laid on the disk and found again by its hash": (
        "preprocessing_num_workers", "dataloader_num_workers", "dataset_num_proc", "overwrite_cache",
        "dataset_prepared_path", "remove_unused_columns", "dataloader_pin_memory",
    ),
    "the tokenizer and its special tokens are the model's own; the end of a turn is found from the template": (
        "eos_token", "pad_token", "special_tokens", "tokenizer", "tokenizer_name", "train_on_eos", "add_eos_token",
    ),
    "`tuition train RUN --resume` goes on with a run, and --resume-if-begun begins it where there is none": (
        "resume_from_checkpoint", "auto_resume_from_checkpoints",
    ),
    "a run folder is never written over; output_dir: auto takes the first free name": ("overwrite_output_dir",),
    "`tuition push RUN --to OWNER/NAME` uploads, after an export was read back": (
        "push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo",
    ),
    "`tuition export RUN --to DIR` merges an adapter and reads the folder back": ("merge_lora", "save_merged"),
    "the order is shuffled anew for each epoch, as a function of seed, epoch and step": ("shuffle",),
    "training, and validation where rows are held out, is what `tuition train` does": (
        "do_train", "do_eval", "stage", "task", "task_type", "trainer",
    ),
    "weights are written as safetensors": ("save_safetensors",),
    "rows of new tokens are learned beside an adapter by themselves; other weights with method: full and train_only": (
        "modules_to_save", "lora_modules_to_save", "additional_target",
    ),
    "the precision of matrix products is PyTorch's own setting, and is left as it is": ("tf32",),
    "passes are made smaller by themselves, before step 1, where memory asks for it": ("auto_find_batch_size",),
    "a checkpoint always holds all that a resume needs": ("save_only_model",),
    "held-out rows are laid into passes as training rows are": ("per_device_eval_batch_size", "eval_batch_size"),
    "the report draws the losses": ("plot_loss",),
    "every setting is checked": ("strict",),
    "the model's own folder says what it is": ("model_type",),
}  # fmt: skip


# Their values of settings that are called as ours → ours.
VALUES: dict[str, str] = {
    "adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw",
    "adamw_bnb_8bit": "adamw_8bit", "paged_adamw_8bit": "adamw_8bit",
    "constant_with_warmup": "constant",
    "bf16": "bfloat16", "fp32": "float32",
}  # fmt: skip


def by_name(sentences: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Each name with the sentence that it stands below."""
    return {name: sentence for sentence, names in sentences.items() for name in names}


AS_HERE = by_name(_AS_HERE)
NO_SETTING = by_name(_NO_SETTING)


def said_here(name: str) -> str | None:
    """What a setting of another tool is here, as a clause; None where no tool that we know has it."""
    if name in NO_SETTING:
        return NO_SETTING[name]
    if name not in ALIASES:
        return None
    here, note = ALIASES[name], AS_HERE.get(name, "")
    if note.startswith(f"{here}:"):
        return f"here it is {note}"
    return f"here it is '{here}'" + (f" ({note})" if note else "")
