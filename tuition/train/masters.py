"""Float32 masters of the weights that learn, beside bfloat16 copies that the model computes with.

A bare bfloat16 weight of 1 never moves at a learning rate of 1e-5: the update is less than half of its last
bit. So the optimizer moves masters, gradients are summed over a step in float32, and after each update the
copies follow. Where the model computes in float32, its parameters are the masters and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tuition.train.cross_entropy import add_gradient
from tuition.train.model import base_of, trainable_parameters

# Of float32 gradients that exist while the optimizer moves their masters. A GPU wants few calls.
_HANDED_OVER_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}


class Masters:
    """The weights that learn, as the optimizer and checkpoints see them.

    Args:
        model: with its weights as loaded or made; those that learn become `dtype` copies of masters.
        dtype: what the model computes in.

    Attributes:
        parameters: float32 parameters by the model's own names; tied ones once.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.working: dict[str, Any] = dict(trainable_parameters(model))
        self.split = dtype != torch.float32
        if not self.split:
            self.parameters = self.working
            return
        self.parameters = {name: Parameter(p.data.float()) for name, p in self.working.items()}
        for p in self.working.values():
            p.data = p.data.to(dtype)
            p.main_grad = None
            p.register_post_accumulate_grad_hook(_move_gradient)
        # Few rows of the embedding are read in a step: as a sparse gradient, each is added to its float32 sum,
        # where a dense one would be a second vocabulary × width matrix, summed in bfloat16.
        embedding = base_of(model).get_input_embeddings()
        if type(embedding) is torch.nn.Embedding and embedding.weight.requires_grad:
            embedding.sparse = True

    def slots(self) -> list[tuple[Any, str]]:
        """Where each weight keeps its gradient until it is handed over: (weight, name of the attribute)."""
        return [(p, "main_grad" if self.split else "grad") for p in self.working.values()]

    def gather(self) -> dict[str, Tensor]:
        """The step's gradients by name: float32, or as the only pass that made one left it."""
        found = {name: p.main_grad if self.split else p.grad for name, p in self.working.items()}
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer, *, shrink: float = 1.0) -> None:
        """Move the masters by the gradients times `shrink`, and the model's copies with them.

        A few at a time, so that float32 gradients of all of them never exist together. Gradients are gone after.
        """
        for names in self._in_groups():
            for name in names:
                self.hand_over(name, shrink)
            optimizer.step()
            self.publish(names)
            for name in names:
                self.parameters[name].grad = None

    def hand_over(self, name: str, shrink: float) -> None:
        """A master gets its gradient, in float32, and nobody else keeps it."""
        working, master = self.working[name], self.parameters[name]
        if self.split:
            gradient, working.main_grad = working.main_grad, None
            master.grad = gradient if gradient is None else gradient.float()
        if master.grad is not None and shrink != 1.0:
            master.grad.mul_(shrink)

    def _in_groups(self) -> list[list[str]]:
        """All names, those of small weights together."""
        groups: list[list[str]] = [[]]
        taken = 0
        for name, master in self.parameters.items():
            taken += 4 * master.numel()
            if groups[-1] and taken > _HANDED_OVER_BYTES.get(master.device.type, 64 << 20):
                groups.append([])
                taken = 4 * master.numel()
            groups[-1].append(name)
        return groups

    def forget_gradients(self) -> None:
        """Begin a step: no gradient is left from another."""
        for name, p in self.working.items():
            p.grad = self.parameters[name].grad = None
            if self.split:
                p.main_grad = None

    @torch.no_grad()
    def publish(self, names: Iterable[str] = ()) -> None:
        """The model's copies follow these masters; none named: all."""
        if self.split:
            chosen = list(names) or list(self.working)
            torch._foreach_copy_(
                [self.working[name] for name in chosen], [self.parameters[name] for name in chosen]
            )

    def settle(self) -> None:
        """The model's weights become the masters themselves, to be written. Training is over after this."""
        if self.split:
            for name, p in self.working.items():
                p.data, p.main_grad = self.parameters[name].data, None
            self.parameters, self.split = self.working, False


def _move_gradient(parameter: Any) -> None:
    """A gradient joins those of the passes before as soon as it is made, and its own memory is free again."""
    gradient, parameter.grad = parameter.grad, None
    if gradient is not None:
        add_gradient(parameter, gradient)
