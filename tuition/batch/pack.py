"""From the examples of a step to flat token rows: no padding, nothing after the last learned token, and what
several examples have in common at the start once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tuition.batch.balance import BY_LENGTH, Work
from tuition.batch.passes import for_lanes
from tuition.batch.plan import Plan
from tuition.batch.prefixes import Forest, Ids, shared_forests, side_by_side
from tuition.batch.trunks import Trunk, common_start, find_trunks, trunk_of_all
from tuition.conversation import Rendered
from tuition.grouping import groups_within

Weigh = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""How an objective weighs the tokens of one example: `supervised` in, loss weights out."""


UNBOUNDED = 2**62
"""A token budget that no examples fill: all of them make one pack."""


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """One forward pass: segments side by side in one row.

    A segment is an example, or a part of examples that continues another segment.

    Attributes:
        ids: (tokens,) int64, the segments' tokens; an example ends before its last learned token, which is
            only ever a target.
        positions: (tokens,) int64, counted from 0 within each example.
        lengths: tokens of each segment, in order.
        parents: the segment that each continues, always an earlier one; −1: it begins an example, or continues
            the trunk.
        keep: (rows,) int64, flat positions whose next token is learned; a position stands once for each
            next token that follows it.
        targets: (rows,) int64, those next tokens.
        weights: (rows,) float32, their loss weights, added up over the examples that share the row.
        rows: (learned,) int64, the row of each learned token, example by example in the order given.
        tokens: of the examples, those that are shared counted for each.
        shared_tokens: those of them that are not computed again.
        trunk: what all its examples begin with, computed before this pack and others; None: the pack holds all.
    """

    ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    keep: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    tokens: int
    shared_tokens: int
    trunk: Trunk | None = None

    @property
    def weight(self) -> float:
        """Sum of the loss weights, in float64."""
        return float(self.weights.sum(dtype=np.float64))

    @property
    def held_tokens(self) -> int:
        """Tokens whose activations there are at the same time, those of its trunk too."""
        return len(self.ids) + len(self.trunk.ids if self.trunk else ())


def make_packs(
    examples: Sequence[Rendered],
    weigh: Weigh,
    *,
    max_examples: int | None,
    token_budget: int,
    share_prefixes: bool = False,
    share_trunks: bool = False,
    lanes: int = 1,
    work: Work = BY_LENGTH,
    longest_alike: int | None = None,
) -> list[Pack]:
    """Lay the examples of one step into packs: in the order given, or those that share a prefix together.

    Args:
        examples: each with at least one learned token.
        weigh: the objective's token weights.
        max_examples: most examples in a pack; None: as many as the budget allows.
        token_budget: most tokens in a pack; a single longer example gets a pack of its own.
        share_prefixes: tokens that examples have in common at the start stand once, where that pays.
        share_trunks: so do those that the examples of several packs have in common; they stand in none of them.
        lanes: so many packs will be run at once: they cost about the same, and hold no more than the budget
            together.
        work: what an example costs.
        longest_alike: an example of more tokens changes what is computed beside it, and gets a pack of its own;
            None: none does.
    """
    inputs = _inputs(examples)
    if longest_alike is not None and len(examples) > 1 and max(map(len, inputs)) > longest_alike:
        lay = partial(
            make_packs,
            weigh=weigh,
            max_examples=max_examples,
            token_budget=token_budget,
            share_prefixes=share_prefixes,
            share_trunks=share_trunks,
            lanes=lanes,
            work=work,
        )
        return [pack for group in _apart_where_longer(examples, inputs, longest_alike) for pack in lay(group)]
    forests = shared_forests(inputs, max_examples, token_budget) if share_prefixes and inputs else []
    first_rows = _first_rows(examples) if forests and share_trunks else None
    if not forests:
        groups = groups_within([len(example) for example in examples], token_budget, most=max_examples)
        forests = [side_by_side(group, inputs) for group in groups]
    if lanes > 1 and len(examples) > 1:
        costs = [work.of(example) for example in examples]
        trunk = trunk_of_all(inputs, first_rows) if first_rows else 0
        forests = for_lanes(forests, inputs, costs, lanes, max_examples, token_budget, trunk)
    trunks: list[Trunk | None] = [None] * len(forests)
    if first_rows:
        trunks = find_trunks(forests, inputs, first_rows, lanes)
    return _lay_all_flat(forests, trunks, examples, inputs, weigh)


def _apart_where_longer(
    examples: Sequence[Rendered], inputs: Sequence[Ids], longest: int
) -> Iterator[list[Rendered]]:
    """Neighbours whose inputs are not longer stay together; each longer one stands alone."""
    together: list[Rendered] = []
    for example, ids in zip(examples, inputs, strict=True):
        if len(ids) <= longest:
            together.append(example)
            continue
        if together:
            yield together
        yield [example]
        together = []
    if together:
        yield together


def packs_on_a_trunk(examples: Sequence[Rendered], weigh: Weigh) -> list[Pack]:
    """Each example in a pack of its own, and what all have in common at the start in a trunk, however short."""
    inputs = _inputs(examples)
    depth = common_start(range(len(examples)), inputs, _first_rows(examples))
    trunk = Trunk(inputs[0][:depth].astype(np.int64))
    forests = [side_by_side([place], inputs) for place in range(len(examples))]
    return _lay_all_flat(forests, [trunk] * len(forests), examples, inputs, weigh)


def largest_group(
    lengths: npt.NDArray[np.int64], plan: Plan, *, max_examples: int | None, token_budget: int
) -> list[int]:
    """Positions of the examples of the pack with the most tokens that a plan will ever make.

    Args:
        lengths: (examples,) tokens of each example.
    """
    largest: list[int] = []
    most = -1
    for step in range(1, plan.steps + 1):
        chosen = plan.examples_of(step)
        for group in groups_within(lengths[chosen].tolist(), token_budget, most=max_examples):
            tokens = int(lengths[chosen[group]].sum())
            if tokens > most:
                largest, most = [int(i) for i in chosen[group]], tokens
    return largest


def largest_in_order(
    lengths: npt.NDArray[np.int64], *, max_examples: int | None, token_budget: int
) -> list[int]:
    """Positions of the examples of the pack with the most tokens, where all are packed in the order given."""
    groups = groups_within(lengths.tolist(), token_budget, most=max_examples)
    return max(groups, key=lambda group: int(lengths[group].sum()))


def _inputs(examples: Sequence[Rendered]) -> list[Ids]:
    """The tokens of each example that anything learned follows."""
    return [example.ids[: int(np.flatnonzero(example.supervised)[-1])] for example in examples]


def _first_rows(examples: Sequence[Rendered]) -> list[int]:
    """Of each example, the first token that predicts a learned one."""
    return [int(np.flatnonzero(example.supervised)[0]) - 1 for example in examples]


def _lay_all_flat(
    forests: Sequence[Forest],
    trunks: Sequence[Trunk | None],
    examples: Sequence[Rendered],
    inputs: Sequence[Ids],
    weigh: Weigh,
) -> list[Pack]:
    packs: list[Pack] = []
    for forest, trunk in zip(forests, trunks, strict=True):
        if trunk is not None:
            forest.cut_off(len(trunk))
        first = not packs or packs[-1].trunk is not trunk
        packs.append(_lay_flat(forest, examples, inputs, weigh, trunk, first=first))
    return packs


def _lay_flat(
    forest: Forest,
    examples: Sequence[Rendered],
    inputs: Sequence[Ids],
    weigh: Weigh,
    trunk: Trunk | None,
    *,
    first: bool,
) -> Pack:
    """One pack.

    Args:
        first: of those on its trunk, whose tokens are counted with it.
    """
    nodes, begin = forest.nodes, len(trunk) if trunk else 0
    lengths = [node.stop - node.start for node in nodes]
    place_of = {node: place for place, node in enumerate(nodes)}
    spans = [np.arange(stop - n, stop) for n, stop in zip(lengths, np.cumsum(lengths), strict=True)]
    keep, targets, weights = [], [], []
    for place, leaf in sorted(forest.leaves.items()):
        flat, example = np.concatenate([spans[place_of[node]] for node in leaf.chain()]), examples[place]
        learned = np.flatnonzero(example.supervised)
        keep.append(flat[learned - 1 - begin])  # a token is predicted at the position before it
        targets.append(example.ids[learned])
        weights.append(weigh(example.supervised)[learned])
    pairs = np.concatenate(keep).astype(np.int64) << 32 | np.concatenate(targets)
    distinct, rows = np.unique(pairs, return_inverse=True)
    tokens = sum(len(inputs[place]) for place in forest.leaves)
    return Pack(
        ids=np.concatenate([inputs[node.example][node.start : node.stop] for node in nodes]).astype(np.int64),
        positions=np.concatenate([np.arange(node.start, node.stop, dtype=np.int64) for node in nodes]),
        lengths=tuple(lengths),
        parents=tuple(place_of[node.parent] if node.parent else -1 for node in nodes),
        keep=distinct >> 32,
        targets=distinct & 0xFFFFFFFF,
        weights=np.bincount(rows, weights=np.concatenate(weights)).astype(np.float32),
        rows=rows.astype(np.int64),
        tokens=tokens,
        shared_tokens=tokens - sum(lengths) - (begin if first else 0),
        trunk=trunk,
    )
