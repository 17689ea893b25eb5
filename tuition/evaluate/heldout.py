"""Loss on held-out examples: a sum over all of them, divided once, whatever the batch or the packing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tuition.batch import Pack, make_packs
from tuition.conversation import Rendered
from tuition.interval import Score, ratio
from tuition.render.tokens import Ids, Tokens
from tuition.train.head import Head
from tuition.train.loss import token_losses, token_mean, within
from tuition.train.model import LoadedModel, base_of, evaluating
from tuition.train.trunk import over_trunks

T = TypeVar("T")
_EXAMPLES_AT_ONCE = 1024
_ROWS_AT_ONCE = 256  # positions whose logits exist at the same time


@dataclass(frozen=True, slots=True)
class ExampleMarks:
    """What one example adds up to.

    Attributes:
        nats: Σ weight × −log p over its learned tokens.
        weight: Σ weight.
        tokens: learned tokens.
        hits: learned tokens that the model finds most likely of all; None where that was not asked.
    """

    nats: float
    weight: float
    tokens: int
    hits: int | None = None

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.weight


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Figures over learned tokens.

    Attributes:
        loss: nats a token, each token by its weight.
        perplexity: exp(loss).
        bits_per_byte: bits over the UTF-8 bytes of the learned text, both by weight; comparable between tokenizers.
        tokens: learned tokens counted.
        examples: examples counted.
        token_accuracy: share of the learned tokens that the model, given all before, finds most likely.
        intervals: of loss, bits_per_byte and token_accuracy, over prompts; empty where not asked.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    examples: int
    token_accuracy: float | None = None
    intervals: dict[str, Score] = field(default_factory=dict)


def held_out_loss(
    loaded: LoadedModel,
    examples: Sequence[Rendered],
    *,
    text_bytes: float,
    packing: tuple[int | None, int],
    go_on: Callable[[], None] = lambda: None,
) -> HeldOut:
    """Score examples without learning from them; where there are many ranks, each some and all together.

    Args:
        text_bytes: UTF-8 bytes of the learned text by weight, see `learned_bytes`.
        packing: most examples in a pack (None: no limit), most tokens in a pack.
        go_on: called before each pack; what it raises ends the scoring.
    """
    total, weight, tokens = 0.0, 0.0, 0
    most_examples = packing[0] if loaded.packed else 1
    with evaluating(loaded.model):
        some = _packs(
            loaded,
            examples,
            most_examples,
            packing[1],
            share_prefixes=loaded.shares,
            share_trunks=loaded.trunks,
        )
        for pack, nats in _scored(loaded, some, partial(_nats, loaded, go_on)):
            total += nats
            weight += pack.weight
            tokens += len(pack.rows)
    return _held_out(total, weight, tokens, len(examples), text_bytes, None)


def _nats(loaded: LoadedModel, go_on: Callable[[], None], pack: Pack) -> float:
    """Σ weight × −log p over a pack."""
    go_on()
    losses = token_losses(loaded, pack)
    weights = torch.from_numpy(pack.weights).to(losses.device)
    # summed in float64, so that the figure does not depend on how examples were packed
    return float((losses.double() * weights.double()).sum())


def _scored(
    loaded: LoadedModel, packs: Iterable[list[Pack]], score: Callable[[Pack], T]
) -> Iterator[tuple[Pack, T]]:
    """What each pack comes to, in their order and the same on all ranks, of which each scores every n-th of n.

    The packs are those of one process and are added up in its order, so that the figures are its figures.
    """
    ranks = loaded.ranks
    for some in packs:
        mine = ranks.even(some[ranks.rank :: ranks.world], partial(some.__getitem__, 0))
        with torch.no_grad():
            found = over_trunks([loaded], lambda _, pack: score(pack), mine)
        everyone = ranks.all_of(found)
        for place, pack in enumerate(some):
            yield pack, everyone[place % ranks.world][place // ranks.world]


def totals(marks: Sequence[ExampleMarks], text_bytes: float) -> HeldOut:
    """The figures of all examples together."""
    tokens = sum(m.tokens for m in marks)
    hits = [m.hits for m in marks if m.hits is not None]
    accuracy = sum(hits) / tokens if len(hits) == len(marks) else None
    nats, weight = sum(m.nats for m in marks), sum(m.weight for m in marks)
    return _held_out(nats, weight, tokens, len(marks), text_bytes, accuracy)


def _held_out(
    nats: float, weight: float, tokens: int, examples: int, text_bytes: float, token_accuracy: float | None
) -> HeldOut:
    loss = nats / weight
    return HeldOut(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_byte=nats / math.log(2) / (text_bytes or 1),
        tokens=tokens,
        examples=examples,
        token_accuracy=token_accuracy,
    )


def with_intervals(
    held_out: HeldOut, marks: Sequence[ExampleMarks], prompts: Sequence[str], example_bytes: Sequence[float]
) -> HeldOut:
    """The same figures with their intervals, over prompts: `prompts` says what each example asks."""
    bits = [m.nats / math.log(2) for m in marks]
    intervals = {"loss": ratio([m.nats for m in marks], [m.weight for m in marks], lowest=0, groups=prompts)}
    if sum(example_bytes):
        intervals["bits_per_byte"] = ratio(bits, example_bytes, lowest=0, groups=prompts)
    if held_out.token_accuracy is not None:
        hits, tokens = [float(m.hits or 0) for m in marks], [float(m.tokens) for m in marks]
        intervals["token_accuracy"] = ratio(hits, tokens, lowest=0, highest=1, groups=prompts)
    return replace(held_out, intervals=intervals)


def score_examples(
    loaded: LoadedModel,
    examples: Sequence[Rendered],
    *,
    packing: tuple[int | None, int],
    accuracy: bool = False,
    on_scored: Callable[[int], None] = lambda done: None,
) -> list[ExampleMarks]:
    """The marks of each example, in the order given; where there are many ranks, all of them call this.

    Args:
        packing: most examples in a pack (None: no limit), most tokens in a pack.
        accuracy: also count the tokens that the model finds most likely.
        on_scored: told how many examples are scored so far, by this rank.
    """
    done = 0

    def score(pack: Pack) -> tuple[Tensor, Tensor | None]:
        nonlocal done
        if accuracy:
            losses, hits = within(loaded, partial(_losses_and_hits, pack))
        else:
            losses, hits = token_losses(loaded, pack), None
        done += len(pack.lengths)
        on_scored(done)
        # summed in float64, so that the figure does not depend on how examples were packed
        nats = losses.double() * torch.from_numpy(pack.weights).to(losses.device).double()
        return nats.cpu(), None if hits is None else hits.cpu()

    marks: list[ExampleMarks] = []
    most_examples = packing[0] if loaded.packed else 1
    waiting = iter(examples)
    with evaluating(loaded.model):
        # each example on its own: a prefix that several share belongs to none of them
        some = _packs(loaded, examples, most_examples, packing[1], share_prefixes=False)
        for pack, (nats, hits) in _scored(loaded, some, score):
            marks += _by_example(list(islice(waiting, len(pack.lengths))), nats, hits, pack)
    return marks


def _by_example(
    examples: Sequence[Rendered], nats: Tensor, hits: Tensor | None, pack: Pack
) -> Iterator[ExampleMarks]:
    counts = [example.learned_tokens for example in examples]
    each = nats.split(counts)
    hit = [None] * len(counts) if hits is None else [int(h.sum()) for h in hits.split(counts)]
    weights = torch.from_numpy(pack.weights).double().split(counts)
    for values, share, tokens, right in zip(each, weights, counts, hit, strict=True):
        yield ExampleMarks(float(values.sum()), float(share.sum()), tokens, right)


def _losses_and_hits(pack: Pack, loaded: LoadedModel) -> tuple[Tensor, Tensor]:
    """−log p of each learned token, and whether it is the likeliest; one pass through the model."""
    targets = torch.from_numpy(pack.targets).to(loaded.device)
    if loaded.head is not None:
        head = _Remembering(loaded.head.layer, loaded.head.scale, loaded.head.softcap)
        losses = token_losses(replace(loaded, head=head), pack)
        with torch.no_grad():
            pieces = head.hidden.split(_ROWS_AT_ONCE)
            likeliest = torch.cat([loaded.head.logits(rows).argmax(-1) for rows in pieces])
        return losses, likeliest == targets
    seen: list[Tensor] = []
    hook = base_of(loaded.model).register_forward_hook(lambda _, __, output: seen.append(output.logits[0]))
    try:
        losses = token_losses(loaded, pack)
    finally:
        hook.remove()
    logits = (
        seen[-1] if len(seen[-1]) == len(targets) else seen[-1][torch.from_numpy(pack.keep).to(loaded.device)]
    )
    return losses, logits.argmax(-1) == targets


class _Remembering(Head):
    """A head that keeps the hidden states it is given, so that the likeliest tokens need no second pass."""

    hidden: Tensor

    def terms(self, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        object.__setattr__(self, "hidden", hidden)
        return super().terms(hidden)


def _packs(
    loaded: LoadedModel,
    examples: Sequence[Rendered],
    most_examples: int | None,
    token_budget: int,
    *,
    share_prefixes: bool,
    share_trunks: bool = False,
) -> Iterator[list[Pack]]:
    """Packs of some examples at a time, so that memory does not grow with them."""
    for start in range(0, len(examples), _EXAMPLES_AT_ONCE):
        some = examples[start : start + _EXAMPLES_AT_ONCE]
        yield make_packs(
            some,
            token_mean,
            max_examples=most_examples,
            token_budget=token_budget,
            share_prefixes=share_prefixes,
            share_trunks=share_trunks,
            longest_alike=loaded.longest_alike,
        )


def learned_bytes(examples: Sequence[Rendered], tokens: Tokens) -> float:
    """UTF-8 bytes of the learned text, each by its weight, control tokens left out."""
    return sum(bytes_of_each(examples, tokens))


def bytes_of_each(examples: Sequence[Rendered], tokens: Tokens) -> list[float]:
    """UTF-8 bytes of the learned text of each example, each by its weight, control tokens left out."""
    return [
        sum(
            float(weight) * _text_bytes(example.ids[example.supervised == weight], tokens)
            for weight in np.unique(example.supervised[example.supervised > 0])
        )
        for example in examples
    ]


def _text_bytes(ids: Ids, tokens: Tokens) -> int:
    return len(tokens.decode([i for i in ids.tolist() if i not in tokens.special_ids]).encode())
