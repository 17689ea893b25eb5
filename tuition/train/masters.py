"""Float32 masters of the weights that learn, beside bfloat16 copies that the model computes with.

A bare bfloat16 weight of 1 never moves at a learning rate of 1e-5: the update is less than half of its last
bit. So the optimizer moves masters, gradients are summed over a step in float32, and after each update the
copies follow. Where the model computes in float32, its parameters are the masters and nothing is copied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tuition.train.cross_entropy import add_gradient
from tuition.train.model import base_of, trainable_parameters


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
        for name, p in self.working.items():
            p.data = p.data.to(dtype)
            p.main_grad = torch.empty_like(self.parameters[name])
            p.main_grad_is_fresh = True
            p.register_post_accumulate_grad_hook(_move_gradient)
        # Few rows of the embedding are read in a step: as a sparse gradient, each is added to its float32 sum,
        # where a dense one would be a second vocabulary × width matrix, summed in bfloat16.
        embedding = base_of(model).get_input_embeddings()
        if type(embedding) is torch.nn.Embedding and embedding.weight.requires_grad:
            embedding.sparse = True

    def gather(self) -> list[Tensor]:
        """Gradients of the masters, float32, ready for the optimizer; in the order of `parameters`."""
        if self.split:
            for name, p in self.working.items():
                self.parameters[name].grad = None if p.main_grad_is_fresh else p.main_grad
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def forget_gradients(self) -> None:
        """Begin a step: no gradient is left from another."""
        for name, p in self.working.items():
            p.grad = None
            if self.split:
                p.main_grad_is_fresh = True
                self.parameters[name].grad = None

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the masters by their gradients, and the model's copies with them."""
        optimizer.step()
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """After an update: the model's copies follow the masters."""
        if self.split:
            torch._foreach_copy_(list(self.working.values()), list(self.parameters.values()))

    def settle(self) -> None:
        """The model's weights become the masters themselves, to be written. Training is over after this."""
        if self.split:
            for name, p in self.working.items():
                p.data, p.main_grad = self.parameters[name].data, None
            self.parameters, self.split = self.working, False


def _move_gradient(parameter: Any) -> None:
    """A bfloat16 gradient joins its float32 sum as soon as it is made, and its memory is free again."""
    gradient, parameter.grad = parameter.grad, None
    if gradient is not None:
        add_gradient(parameter, gradient)
