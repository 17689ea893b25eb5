"""How the weights move: the update rule and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from tuition.recipe import OptimizerSettings
from tuition.train.libraries import bitsandbytes
from tuition.train.pieces import in_rows

# In names of weights that are tables of rows and no maps between spaces: Muon leaves them to AdamW.
_TABLES = ("embed", "lm_head", "wte", "wpe", "trainable_tokens")


class AdamW(torch.optim.AdamW):
    """PyTorch's fused AdamW, which can be given a weight piece by piece: `begin` once, then `move` each."""

    def begin(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Count an update of these weights. Who was never moved before gets moments of zero."""
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros(weight.shape, dtype=torch.float32)
                state["exp_avg_sq"] = torch.zeros(weight.shape, dtype=torch.float32)
            state["step"] += 1
        self._groups = {id(weight): group for group in self.param_groups for weight in group["params"]}

    def move(
        self, weight: torch.nn.Parameter, rows: slice, values: torch.Tensor, gradient: torch.Tensor
    ) -> None:
        """Move some rows of a weight on a CPU.

        Args:
            values: the numbers of these rows, float32, contiguous, which are changed; gradient: likewise.
        """
        group, state = self._groups[id(weight)], self.state[weight]
        torch._fused_adamw_(
            [values],
            [gradient],
            [in_rows(state["exp_avg"])[rows]],
            [in_rows(state["exp_avg_sq"])[rows]],
            [],
            [state["step"]],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def adamw(parameters: Mapping[str, torch.nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) on float32 masters; vectors (norms, biases) are never decayed."""
    return AdamW(_groups(parameters.values(), settings), **_adam(settings), fused=True)


def adamw_8bit(parameters: Mapping[str, torch.nn.Parameter], settings: OptimizerSettings) -> Any:
    """AdamW with its moments in 8 bits, a scale for each block of 256 (Dettmers et al. 2022), by bitsandbytes.

    Weights of fewer than 4,096 numbers keep float32 moments.
    """
    return bitsandbytes().optim.AdamW8bit(_groups(parameters.values(), settings), **_adam(settings))


def muon(parameters: Mapping[str, torch.nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Muon for the matrices of the layers, AdamW for embeddings, head and vectors.

    Updates are scaled to AdamW's size (Liu et al. 2025, arXiv 2502.16982), so that its learning rates hold.
    """
    matrices = {
        name: p for name, p in parameters.items() if p.ndim == 2 and not any(t in name for t in _TABLES)
    }
    rest = {name: p for name, p in parameters.items() if name not in matrices}
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(
            torch.optim.Muon(
                list(matrices.values()),
                lr=float(settings.learning_rate),
                weight_decay=settings.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if rest:
        parts.append(adamw(rest, settings))
    return Together(parts)


class Together(torch.optim.Optimizer):
    """Several optimizers that take their steps as one, each over parameters of its own."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.defaults = {}
        self.param_groups = [group for part in parts for group in part.param_groups]
        self.state = parts[0].state
        for part in parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no loss is computed anew
        """Each part's update."""
        for part in self.parts:
            part.step()


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": adamw,
    "adamw_8bit": adamw_8bit,
    "muon": muon,
}


# What each remembers of a number, in bytes; Muon of those in the layers' matrices, of others as AdamW.
MOMENT_BYTES = {"adamw": 8, "adamw_8bit": 2, "muon": 4}


def moment_bytes(name: str, parameters: Mapping[str, torch.nn.Parameter]) -> int:
    """What an optimizer will remember of these weights after its first step, in bytes."""
    each = MOMENT_BYTES[name]
    tables = MOMENT_BYTES["adamw"] if name == "muon" else each
    return sum(
        p.numel() * (tables if p.ndim < 2 or any(t in key for t in _TABLES) else each)
        for key, p in parameters.items()
    )


def _groups(parameters: Iterable[torch.nn.Parameter], settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Matrices, which are decayed, and vectors, which are not."""
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _adam(settings: OptimizerSettings) -> dict[str, Any]:
    return {
        "lr": float(settings.learning_rate),
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "eps": settings.adam_epsilon,
    }


def cosine(progress: float) -> float:
    """From 1 to 0.1 along half a cosine (InstructGPT's choice ends at a tenth of the peak)."""
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float) -> float:
    """From 1 to 0 in a straight line."""
    return 1 - progress


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "linear": linear, "constant": constant}


def learning_rate_at(step: int, *, steps: int, settings: OptimizerSettings) -> float:
    """The learning rate of update `step`, counted from 1: a pure function, so that a resume cannot shift it."""
    warmup = warmup_updates(settings.warmup_steps, steps)
    peak = float(settings.learning_rate)
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup - 1) / max(1, steps - warmup)  # the last update still moves
    return peak * SCHEDULES[settings.lr_scheduler](min(1.0, progress))


def warmup_updates(warmup_steps: float, steps: int) -> int:
    """Updates of warm-up: a count, or below 1 a share of all updates."""
    return round(warmup_steps * steps) if warmup_steps < 1 else min(int(warmup_steps), steps - 1)


def default_learning_rate(method: str, parameters: int) -> float:
    """What `learning_rate: auto` means, by method and size.

    Small models take larger rates. The first row was measured on the starter (2.6 million parameters:
    2e-4 in full and 2e-3 for LoRA answer best); from one billion up 1e-5 to 2e-5 is the field's habit
    (InstructGPT: 9.65e-6 at 1.3 to 6 billion), and LoRA wants about ten times the rate of full fine-tuning.
    """
    full, lora = next((full, lora) for limit, full, lora in _RATES if parameters <= limit)
    return full if method == "full" else lora


_RATES: tuple[tuple[float, float, float], ...] = (  # parameters at most, full, LoRA
    (10e6, 2e-4, 2e-3),
    (100e6, 1e-4, 1e-3),
    (1e9, 5e-5, 4e-4),
    (5e9, 2e-5, 2e-4),
    (math.inf, 1e-5, 1e-4),
)
