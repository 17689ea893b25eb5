"""A trunk: what all examples of several passes begin with, computed once, before the passes that continue it.

Each layer's keys and values of it are lent to every lane, which continues them and sums their gradients in float32.
When all passes are done, these sums go backward through the trunk. It is exact: nothing of a trunk is learned
itself, so keys and values are all that reaches the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any, TypeVar

import torch
from torch import Tensor

from tuition.batch import Pack, Trunk
from tuition.train.lanes import side_by_side
from tuition.train.loss import run_trunk
from tuition.train.model import LoadedModel

Result = TypeVar("Result")


def over_trunks(
    lanes: Sequence[LoadedModel], work: Callable[[LoadedModel, Pack], Result], packs: Sequence[Pack]
) -> list[Result]:
    """Do every pass, `side_by_side`, those that share a trunk on it, and then the trunk's backward pass.

    Returns:
        What each pass gave, in their order.
    """
    results: list[Result] = []
    for trunk, passes in groupby(packs, key=lambda pack: pack.trunk):
        if trunk is None:
            results += side_by_side(lanes, work, list(passes))
            continue
        with grown(lanes, trunk):
            results += side_by_side(lanes, work, list(passes))
    return results


@contextmanager
def grown(lanes: Sequence[LoadedModel], trunk: Trunk) -> Iterator[None]:
    """Inside, the lanes' passes continue a trunk. What fails inside leaves it without gradients."""
    recorded = _Recorded()
    run_trunk(replace(lanes[0], before=recorded), trunk)
    for lane in lanes:
        lane.before = _Lent(recorded)
    try:
        yield
        recorded.backward([lane.before for lane in lanes])
    finally:
        for lane in lanes:
            lane.before = None


class _Recorded:
    """The trunk's own keys and values, by the number that a layer has in every lane."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: torch.nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Note a layer's; one that is computed again for its backward pass is noted already."""
        self.layers.setdefault(_number_of(layer), (key, value))
        return key, value

    def backward(self, lent: Sequence[Any]) -> None:
        """The trunk's backward pass, from the lanes' sums, in their order."""
        reached, slopes = [], []
        for layer, pair in self.layers.items():
            for place, tensor in enumerate(pair):
                found = [lane.layers[layer][place].grad for lane in lent]
                sums = [slope for slope in found if slope is not None]
                if sums:
                    reached.append(tensor)
                    slopes.append(sum(sums[1:], sums[0]).to(tensor.dtype))
        if reached:
            torch.autograd.backward(reached, slopes)


class _Lent:
    """Keys and values for one lane, in float32, where the gradients of many passes are summed."""

    def __init__(self, recorded: _Recorded) -> None:
        self.layers = {layer: (_leaf(key), _leaf(value)) for layer, (key, value) in recorded.layers.items()}

    def extend(self, layer: torch.nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(1, tokens, heads, head_dim) each → the trunk's tokens, and then these."""
        keys, values = self.layers[_number_of(layer)]
        return torch.cat([keys.to(key.dtype), key], dim=1), torch.cat([values.to(value.dtype), value], dim=1)


def _number_of(layer: torch.nn.Module) -> int:
    number: int = vars(layer)["layer_idx"]  # transformers' own name, for its caches
    return number


def _leaf(tensor: Tensor) -> Tensor:
    wide = tensor.detach() if tensor.dtype == torch.float64 else tensor.detach().float()
    return wide.requires_grad_(tensor.requires_grad)
