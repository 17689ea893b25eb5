"""Checkpoints: everything that fixes the next step, in safetensors and JSON, each folder with a manifest.

No pickle is written or read. A checkpoint is complete only when its manifest says so and agrees.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tuition import files
from tuition.errors import UserError
from tuition.train.damage import refuses_damage
from tuition.train.model import trainable_parameters

_NAME = re.compile(r"step-(\d+)")


@dataclass(slots=True)
class Progress:
    """How far a run is: what a resume needs beside tensors.

    Attributes:
        step: updates done.
        tokens: real tokens seen.
        learned_tokens: learned tokens seen.
        seconds: time spent training, over all sittings.
        best_step: the update with the lowest held-out loss; None before the first evaluation.
        best_eval_loss: that loss, nats a token.
    """

    step: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_eval_loss: float | None = None


def save_checkpoint(
    root: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    *,
    fingerprint: str,
) -> Path:
    """Write `root/step-N`, verify it, then remove those that are neither the best nor the newest.

    Raises:
        OSError: disk full or no permission; older checkpoints stand untouched.
    """
    final = root / f"step-{progress.step}"
    if final.exists() and files.manifest_faults(final):  # a resume passed it over and came here again
        files.remove_folder(final)
    if not final.exists():
        root.mkdir(parents=True, exist_ok=True)
        temporary = files.fresh_folder(root / f".step-{progress.step}.tmp")
        parameters = trainable_parameters(model)
        save_file(
            {name: p.detach().contiguous().cpu() for name, p in parameters.items()},
            temporary / "weights.safetensors",
        )
        save_file(_optimizer_tensors(optimizer, parameters), temporary / "optimizer.safetensors")
        save_file(_random_tensors(), temporary / "random.safetensors")
        files.write_json(
            temporary / "state.json", {**asdict(progress), **_random_values(), "fingerprint": fingerprint}
        )
        files.publish_folder(temporary, final)
    faults = files.manifest_faults(final)
    if faults:
        raise OSError(f"{final} was written but does not read back: {'; '.join(faults)}")
    _rotate(root, keep={progress.step, progress.best_step})
    return final


def newest_checkpoint(root: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint by step, and a sentence for each damaged one that was passed over."""
    passed: list[str] = []
    for step in sorted(checkpoint_steps(root), reverse=True):
        folder = root / f"step-{step}"
        faults = files.manifest_faults(folder)
        if not faults:
            return folder, passed
        passed.append(f"{folder} is damaged: {'; '.join(faults)}")
    return None, passed


def checkpoint_steps(root: Path) -> list[int]:
    """The steps that have a checkpoint folder, in no order."""
    if not root.exists():
        return []
    return [int(match[1]) for entry in root.iterdir() if (match := _NAME.fullmatch(entry.name))]


@refuses_damage
def load_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, fingerprint: str
) -> Progress:
    """Put model, optimizer and random numbers back as they were after that step.

    Raises:
        UserError: it belongs to another run, or does not fit this model.
    """
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if state["fingerprint"] != fingerprint:
        raise UserError(
            f"the checkpoint belongs to another run (fingerprint {state['fingerprint'][:12]}, here {fingerprint[:12]})",
            where=str(folder),
            next_step="Resume in the folder it came from, or start a new run",
        )
    load_weights(folder, model)
    _restore_optimizer(optimizer, trainable_parameters(model), load_file(folder / "optimizer.safetensors"))
    _restore_random(state, load_file(folder / "random.safetensors"))
    return Progress(**{name: state[name] for name in Progress.__dataclass_fields__})


@refuses_damage
def load_weights(folder: Path, model: torch.nn.Module) -> None:
    """Copy a checkpoint's weights into the parameters that learn.

    Raises:
        UserError: the checkpoint is damaged, or names or shapes differ.
    """
    faults = files.manifest_faults(folder)
    if faults:
        raise UserError(
            f"the checkpoint is damaged: {'; '.join(faults)}",
            where=str(folder),
            next_step="Resume the run: it goes on from the newest whole one; or set keep: last",
        )
    parameters = trainable_parameters(model)
    weights = load_file(folder / "weights.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != {name: tuple(p.shape) for name, p in parameters.items()}:
        raise UserError(
            "the checkpoint does not fit this model",
            where=str(folder),
            next_step="Resume with the run's own recipe",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def _rotate(root: Path, keep: set[int | None]) -> None:
    for step in checkpoint_steps(root):
        if step not in keep:
            files.remove_folder(root / f"step-{step}")


def _optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach().contiguous().cpu()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def _restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, torch.nn.Parameter],
    tensors: dict[str, torch.Tensor],
) -> None:
    for name, tensor in tensors.items():
        owner, key = name.rsplit("/", 1)
        parameter = parameters[owner]
        device = parameter.device if tensor.ndim or key == "step" else tensor.device
        optimizer.state[parameter][key] = tensor.to(device)


def _random_tensors() -> dict[str, torch.Tensor]:
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda-{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _random_values() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    return {"python_random": [version, list(words), gauss]}


def _restore_random(state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors["torch"])
    for name, tensor in tensors.items():
        if name.startswith("cuda-") and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensor, int(name.removeprefix("cuda-")))
    version, words, gauss = state["python_random"]
    random.setstate((version, tuple(words), gauss))
