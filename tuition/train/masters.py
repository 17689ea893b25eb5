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
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from tuition.grouping import groups_within
from tuition.train import gradients
from tuition.train.model import base_of, trainable_parameters
from tuition.train.optimizer import AdamW
from tuition.train.pieces import in_rows, pieces_of

# Of float32 gradients that exist while the optimizer moves their masters. A GPU wants few calls.
HANDED_OVER_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}

Piece = tuple[str, slice]
"""A weight's name, and rows of it."""


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
            gradients.sum_apart(p)
        # Few rows of the embedding are read in a step: a dense gradient of it would be a second matrix,
        # vocabulary × width, summed in bfloat16.
        embedding = base_of(model).get_input_embeddings()
        if type(embedding) is torch.nn.Embedding and embedding.weight.requires_grad:
            embedding.sparse = True

    def compile(self, backend: str, device: torch.device) -> str:
        """Have compiled code move the masters where it pays; here it does not, see `SplitMasters.compile`."""
        return ""

    def lend(self) -> dict[int, Parameter]:
        """Weights over the same numbers, by id of the model's own, whose gradients are kept apart until `join`."""
        lent = {name: Parameter(p.data) for name, p in self.working.items()}
        if self.split:
            for p in lent.values():
                gradients.sum_apart(p)
        self._lent.append(lent)
        return {id(self.working[name]): p for name, p in lent.items()}

    def join(self) -> None:
        """Each gradient becomes one tensor, that of the model's own weight: those of lent ones are added to it."""
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

    def norms(self) -> list[Tensor]:
        """The norms of what the step's gradients are made of: together they are the gradient's."""
        if not self._in_pieces():
            return [_norm(gradient) for gradient in self.gather().values()]
        return [_norm(self._gradient(piece)) for piece in self._pieces()]

    def _take(self, name: str) -> Tensor | None:
        return gradients.take(self._holders(name), self._slot)

    def _holders(self, name: str) -> list[Any]:
        """The weights of this name, the model's own and those that were lent, in whose order gradients are added."""
        return [self.working[name], *(lent[name] for lent in self._lent)]

    @property
    def _slot(self) -> str:
        return "main_grad" if self.split else "grad"

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer, *, shrink: float = 1.0) -> None:
        """Move the masters by the gradients times `shrink`, and the model's copies with them. Gradients are gone after.

        On a CPU in pieces that stay in its cache, from the passes' gradients to the copies; elsewhere, and by other
        optimizers, a few weights at a time. Float32 gradients of all of them never exist together.
        """
        if isinstance(optimizer, AdamW) and self._in_pieces():
            self._update_in_pieces(optimizer, shrink)
            return
        for names in self._in_groups():
            for name in names:
                self.hand_over(name, shrink)
            optimizer.step()
            self.publish(names)
            for name in names:
                self.parameters[name].grad = None

    def _update_in_pieces(self, optimizer: AdamW, shrink: float) -> None:
        pieces = self._pieces()
        optimizer.begin(self.parameters[name] for name in dict.fromkeys(name for name, _ in pieces))
        for name, rows in pieces:
            gradient, values = self._gradient((name, rows)), self._open((name, rows))
            if shrink != 1.0:
                gradient.mul_(shrink)
            optimizer.move(self.parameters[name], rows, values, gradient)
            self._close((name, rows), values)
        self.forget_gradients()

    def _in_pieces(self) -> bool:
        """Whether the weights are whole and on a CPU."""
        return all(
            weight.device.type == "cpu" and not isinstance(weight, DTensor) and weight.is_contiguous()
            for weight in self.working.values()
        )

    def _pieces(self) -> list[Piece]:
        """All weights that have a gradient, which is now the model's own weight's, piece by piece."""
        if self._lent:
            self.join()
        return [
            (name, rows)
            for name, weight in self.working.items()
            if getattr(weight, self._slot) is not None
            for rows in pieces_of(weight)
        ]

    def _gradient(self, piece: Piece) -> Tensor:
        """Rows of a weight's gradient, float32, good until this thread asks for others."""
        return gradients.piece_of(self.working[piece[0]], self._slot, piece[1])

    def _open(self, piece: Piece) -> Tensor:
        """Rows of a master, to be moved."""
        name, rows = piece
        return in_rows(self.parameters[name].detach())[rows]

    def _close(self, piece: Piece, values: Tensor) -> None:
        """The model's copy follows."""
        if self.split:
            name, rows = piece
            in_rows(self.working[name].detach())[rows] = values

    def hand_over(self, name: str, shrink: float) -> None:
        """A master gets its gradient, in float32, and nobody else keeps it."""
        gradient = self._take(name)
        self.parameters[name].grad = gradient if gradient is None else _shrunk(gradient, shrink)

    def _in_groups(self) -> list[list[str]]:
        """All names, those of small weights together."""
        names, masters = list(self.parameters), list(self.parameters.values())
        bound = HANDED_OVER_BYTES.get(masters[0].device.type, 64 << 20) if masters else 0
        groups = groups_within((4 * master.numel() for master in masters), bound)
        return [[names[place] for place in group] for group in groups]

    def forget_gradients(self) -> None:
        """Begin a step: no gradient is left from another."""
        for name, p in self.working.items():
            p.grad = self.parameters[name].grad = None
            for holder in self._holders(name):
                gradients.forget(holder, self._slot)

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
                p.data = self.parameters[name].data
                gradients.forget(p, room=True)
            self.parameters, self.split = self.working, False


def _shrunk(gradient: Tensor, shrink: float) -> Tensor:
    """Times `shrink`, in float32; nobody else has the gradient."""
    if gradient.dtype != torch.float32 and gradient.device.type != "cpu":
        # by one operation, at which a CPU is slower
        factor = torch.full([1] * gradient.ndim, shrink, dtype=torch.float32, device=gradient.device)
        return gradient * factor
    wide = gradient.float()
    return wide if shrink == 1.0 else wide.mul_(shrink)


def _norm(gradient: Tensor) -> Tensor:
    mine: Tensor = gradient.to_local() if isinstance(gradient, DTensor) else gradient
    norm: Tensor = torch.linalg.vector_norm(mine, dtype=torch.float32)
    return norm
