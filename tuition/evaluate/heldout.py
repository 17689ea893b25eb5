"""Loss on held-out examples: a sum over all of them, divided once, whatever the batch or the packing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from tuition.batch import Pack, make_packs
from tuition.conversation import Rendered
from tuition.render.tokens import Tokens
from tuition.train.loss import token_losses, token_mean
from tuition.train.model import LoadedModel, evaluating

_EXAMPLES_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Figures over learned tokens.

    Attributes:
        loss: nats a token, each token by its weight.
        perplexity: exp(loss).
        bits_per_byte: bits over the UTF-8 bytes of the learned text; comparable between tokenizers.
        tokens: learned tokens counted.
        examples: examples counted.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    examples: int


def held_out_loss(
    loaded: LoadedModel,
    examples: Sequence[Rendered],
    *,
    text_bytes: int,
    packing: tuple[int | None, int],
    go_on: Callable[[], None] = lambda: None,
) -> HeldOut:
    """Score examples without learning from them.

    Args:
        text_bytes: UTF-8 bytes of the learned text, see `learned_bytes`.
        packing: most examples in a pack (None: no limit), most tokens in a pack.
        go_on: called before each pack; what it raises ends the scoring.
    """
    total, weight, tokens = 0.0, 0.0, 0
    most_examples = packing[0] if loaded.packed else 1
    with evaluating(loaded.model):
        for pack in _packs(examples, most_examples, packing[1]):
            go_on()
            losses = token_losses(loaded, pack)
            weights = torch.from_numpy(pack.weights).to(losses.device)
            # summed in float64, so that the figure does not depend on how examples were packed
            total += float((losses.double() * weights.double()).sum())
            weight += pack.weight
            tokens += len(pack.targets)
    loss = total / weight
    return HeldOut(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_byte=total / math.log(2) / max(1, text_bytes),
        tokens=tokens,
        examples=len(examples),
    )


def _packs(examples: Sequence[Rendered], most_examples: int | None, token_budget: int) -> Iterator[Pack]:
    """Packs of some examples at a time, so that memory does not grow with them."""
    for start in range(0, len(examples), _EXAMPLES_AT_ONCE):
        some = examples[start : start + _EXAMPLES_AT_ONCE]
        yield from make_packs(some, token_mean, max_examples=most_examples, token_budget=token_budget)


def learned_bytes(examples: Sequence[Rendered], tokens: Tokens) -> int:
    """UTF-8 bytes of the learned text, control tokens left out."""
    return sum(
        len(
            tokens.decode(
                [i for i in example.ids[example.supervised > 0].tolist() if i not in tokens.special_ids]
            ).encode()
        )
        for example in examples
    )
