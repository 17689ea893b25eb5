"""The command that runs EleutherAI's lm-evaluation-harness on a model as it was exported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tuition.errors import UserError, typed
from tuition.evaluate.load import base_named_by
from tuition.recipe import load_recipe
from tuition.render import load_tokenizer
from tuition.train.folder import RunFolder
from tuition.train.naming import step_of


def harness_command(model: str, tasks: Sequence[str], *, python: str = sys.executable) -> list[str]:
    """The words of the command.

    Args:
        model: a run folder, an adapter, a model folder or a hub name.
        tasks: names that the harness knows, or YAML files of tasks of your own.
        python: the interpreter of the environment that has lm_eval.

    Raises:
        UserError: no task is named, or the run has no model yet.
    """
    if not tasks:
        raise UserError(
            "no task is named", where="--harness", next_step="Name some: --harness hellaswag,arc_easy"
        )
    command = [python, "-m", "lm_eval", "--model", "hf", "--model_args", model_arguments(model)]
    command += ["--tasks", ",".join(tasks), *_pace()]
    command += ["--apply_chat_template"] if _has_template(model) else []
    folder = RunFolder(Path(model))
    kept = ["--output_path", str(folder.path / "harness"), "--log_samples"]
    return command + (kept if folder.holds_a_run() else [])


def _pace() -> list[str]:
    """How many rows at a time. The harness finds out by itself on a GPU; on a CPU its search takes longer than the work."""
    import torch

    return ["--batch_size", "auto"] if torch.cuda.is_available() else ["--device", "cpu", "--batch_size", "8"]


def model_arguments(model: str) -> str:
    """What --model_args says: the folder of the weights, or the base and its adapter."""
    if step_of(model) is not None:
        raise UserError(
            "the harness loads no checkpoint",
            where=model,
            next_step=f"Export it first: tuition export {typed(model)} --to DIR, then --harness on DIR",
        )
    folder = RunFolder(Path(model))
    weights = folder.kept_model() if folder.holds_a_run() else Path(model)
    if not (weights / "adapter_config.json").exists():
        return f"pretrained={weights if weights.exists() else model}"
    base, revision = base_named_by(str(weights)) or (model, None)
    # without a tokenizer named, the harness takes the base's, which may write prompts otherwise or not at all
    return f"pretrained={base},peft={weights},tokenizer={weights}" + (
        f",revision={revision}" if revision else ""
    )


def _has_template(model: str) -> bool:
    """Whether prompts are written with a chat template, as training wrote them."""
    folder = RunFolder(Path(model))
    if folder.holds_a_run():
        return load_recipe(folder.recipe).chat_template != "none"
    return load_tokenizer(model).chat_template is not None


def run_harness(command: Sequence[str]) -> int:
    """Run the command in its own environment; its exit code.

    Raises:
        UserError: that environment has no lm_eval.
    """
    python = command[0]
    try:
        there = (
            subprocess.run([python, "-c", "import lm_eval"], capture_output=True, check=False).returncode == 0
        )
    except OSError as error:
        raise UserError(
            f"cannot be started ({error.strerror})", where=python, next_step="Name a Python: --python PATH"
        ) from None
    if not there:
        raise UserError(
            "lm_eval cannot be imported there",
            where=python,
            next_step="Install it (pip install lm_eval) or name the Python that has it: --python PATH",
        )
    return subprocess.run(list(command), check=False).returncode
