"""Float32 masters of the weights that learn, beside bfloat16 copies that the model computes with.

A bare bfloat16 weight of 1 never moves at a learning rate of 1e-5: the update is less than half of its last
bit. So the optimizer moves masters, gradients are summed over a step in float32, and after each update the
copies follow. Where the model computes in float32, its parameters are the masters and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tuition.grouping import groups_within
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
        self._lent: list[dict[str, Any]] = []
        if not self.split:
            self.parameters = self.working
            return
        self.parameters = {name: Parameter(p.data.float()) for name, p in self.working.items()}
        for p in self.working.values():
            p.data = p.data.to(dtype)
            _sum_apart(p)
        # Few rows of the embedding are read in a step: as a sparse gradient, each is added to its float32 sum,
        # where a dense one would be a second vocabulary × width matrix, summed in bfloat16.
        embedding = base_of(model).get_input_embeddings()
        if type(embedding) is torch.nn.Embedding and embedding.weight.requires_grad:
            embedding.sparse = True

    def lend(self) -> dict[int, Parameter]:
        """Weights over the same numbers, by id of the model's own, whose gradients are kept apart until `join`."""
        lent = {name: Parameter(p.data) for name, p in self.working.items()}
        if self.split:
            for p in lent.values():
                _sum_apart(p)
        self._lent.append(lent)
        return {id(self.working[name]): p for name, p in lent.items()}

    def join(self) -> None:
        """Gradients of lent weights are added to the model's own."""
        if self._lent:
            for name, own in self.working.items():
                setattr(own, self._slot, self._take(name))

    def slots(self) -> list[tuple[Any, str]]:
        """Where each weight keeps its gradient until it is handed over: (weight, name of the attribute)."""
        return [(p, self._slot) for p in self.working.values()]

    def gather(self) -> dict[str, Tensor]:
        """The step's gradients by name: float32, or as the only pass that made one left it."""
        self.join()
        found = {name: getattr(p, self._slot) for name, p in self.working.items()}
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def sums(self) -> Iterator[Tensor]:
        """The step's gradients one after the other."""
        self.join()
        found = (getattr(p, self._slot) for p in self.working.values())
        return (gradient for gradient in found if gradient is not None)

    def _take(self, name: str) -> Tensor | None:
        """A weight's gradient, that of lent ones added in the order in which they were lent; nobody keeps a part."""
        total: Tensor | None = None
        for holder in (self.working[name], *(lent[name] for lent in self._lent)):
            part = getattr(holder, self._slot)
            setattr(holder, self._slot, None)
            if part is not None:
                total = part if total is None else total.float().add_(part)
        return total

    @property
    def _slot(self) -> str:
        return "main_grad" if self.split else "grad"

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
        master = self.parameters[name]
        gradient = self._take(name)
        master.grad = gradient if gradient is None else gradient.float()
        if master.grad is not None and shrink != 1.0:
            master.grad.mul_(shrink)

    def _in_groups(self) -> list[list[str]]:
        """All names, those of small weights together."""
        names, masters = list(self.parameters), list(self.parameters.values())
        bound = _HANDED_OVER_BYTES.get(masters[0].device.type, 64 << 20) if masters else 0
        groups = groups_within((4 * master.numel() for master in masters), bound)
        return [[names[place] for place in group] for group in groups]

    def forget_gradients(self) -> None:
        """Begin a step: no gradient is left from another."""
        for name, p in self.working.items():
            p.grad = self.parameters[name].grad = None
            if self.split:
                p.main_grad = None
            for lent in self._lent:
                setattr(lent[name], self._slot, None)

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
        self._lent.clear()
        if self.split:
            for name, p in self.working.items():
                p.data, p.main_grad = self.parameters[name].data, None
            self.parameters, self.split = self.working, False


def _sum_apart(parameter: Any) -> None:
    """Let a weight keep the sum of its gradients itself, in float32, whatever its own dtype."""
    parameter.main_grad = None
    parameter.register_post_accumulate_grad_hook(_move_gradient)


def _move_gradient(parameter: Any) -> None:
    """A gradient joins those of the passes before as soon as it is made, and its own memory is free again."""
    gradient, parameter.grad = parameter.grad, None
    if gradient is not None:
        add_gradient(parameter, gradient)
