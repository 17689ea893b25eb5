"""Shared prefixes stand once, and a pack still says exactly what its examples say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuition.batch import SHORTEST_PREFIX, Pack, make_packs
from tuition.conversation import Rendered
from tuition.errors import Origin
from tuition.train.loss import LOSSES, token_mean

Meaning = Counter[tuple[tuple[int, ...], int]]
"""(all tokens before, the token learned after them) → weight: all that a loss depends on."""


def example(ids: Sequence[int], learned: Sequence[int], weight: float = 1.0) -> Rendered:
    supervised = np.zeros(len(ids), dtype=np.float32)
    supervised[list(learned)] = weight
    return Rendered(np.array(ids, dtype=np.int32), supervised, Origin("f", 1))


def shared(examples: Sequence[Rendered], budget: int = 10**6, most: int | None = None) -> list[Pack]:
    return make_packs(examples, token_mean, max_examples=most, token_budget=budget, share_prefixes=True)


def said_by_examples(examples: Sequence[Rendered], objective: str) -> Meaning:
    meaning: Meaning = Counter()
    for one in examples:
        weights = LOSSES[objective](one.supervised)
        for i in np.flatnonzero(one.supervised):
            meaning[tuple(one.ids[:i].tolist()), int(one.ids[i])] += float(weights[i])
    return meaning


def said_by_packs(packs: Sequence[Pack]) -> Meaning:
    meaning: Meaning = Counter()
    for pack in packs:
        starts = np.cumsum([0, *pack.lengths])
        segment_of = np.repeat(np.arange(len(pack.lengths)), pack.lengths)
        for place, target, weight in zip(pack.keep, pack.targets, pack.weights, strict=True):
            segment, stop, before = segment_of[place], place + 1, []
            while segment >= 0:
                span = slice(starts[segment], stop)
                before = [*zip(pack.ids[span].tolist(), pack.positions[span].tolist(), strict=True), *before]
                segment = pack.parents[segment]
                stop = starts[segment + 1]
            if pack.trunk is not None:
                before = [*((int(token), i) for i, token in enumerate(pack.trunk.ids)), *before]
            assert [position for _, position in before] == list(range(len(before)))
            meaning[tuple(token for token, _ in before), int(target)] += float(weight)
    return meaning


@st.composite
def steps(draw: st.DrawFn) -> list[Rendered]:
    """Examples glued from a few long pieces, so that they share beginnings of every kind, or are equal."""
    pieces = [[piece] * draw(st.integers(1, 40)) for piece in (5, 6, 7)]
    made = []
    for _ in range(draw(st.integers(1, 9))):
        chosen = draw(st.lists(st.sampled_from(pieces), min_size=1, max_size=5))
        ids = [1, *(token for piece in chosen for token in piece)]
        learned = draw(st.sets(st.integers(1, len(ids) - 1), min_size=1))
        made.append(example(ids, sorted(learned), draw(st.sampled_from([0.5, 1.0, 3.0]))))
    return made


@given(
    examples=steps(),
    budget=st.sampled_from([1, 60, 200, 10**6]),
    most=st.sampled_from([None, 1, 3]),
    objective=st.sampled_from(sorted(LOSSES)),
    trunks=st.booleans(),
)
def test_a_tree_of_segments_says_exactly_what_the_examples_say(
    examples: list[Rendered], budget: int, most: int | None, objective: str, trunks: bool
) -> None:
    packs = make_packs(
        examples, LOSSES[objective], max_examples=most, token_budget=budget,
        share_prefixes=True, share_trunks=trunks,
    )  # fmt: skip
    expected, got = said_by_examples(examples, objective), said_by_packs(packs)
    assert got.keys() == expected.keys()
    for key, weight in expected.items():
        assert got[key] == pytest.approx(weight, rel=1e-5)
    assert sum(len(pack.rows) for pack in packs) == sum(e.learned_tokens for e in examples)
    assert sum(pack.tokens for pack in packs) == sum(int(np.flatnonzero(e.supervised)[-1]) for e in examples)
    for pack in packs:
        assert sum(pack.lengths) == len(pack.ids)
        assert all(parent < segment for segment, parent in enumerate(pack.parents))
        assert pack.held_tokens <= max(budget, *(len(e) for e in examples))
    distinct = {pack.trunk: len(pack.trunk) for pack in packs if pack.trunk}
    computed = sum(len(pack.ids) for pack in packs) + sum(distinct.values())
    assert sum(pack.shared_tokens for pack in packs) == sum(pack.tokens for pack in packs) - computed


@given(examples=steps())
def test_rows_name_the_learned_tokens_example_by_example(examples: list[Rendered]) -> None:
    (pack,) = shared(examples)
    assert pack.targets[pack.rows].tolist() == [i for e in examples for i in e.ids[e.supervised > 0].tolist()]


SYSTEM, FIRST = list(range(100, 140)), list(range(200, 230))


def test_a_nested_tree_holds_each_prefix_once() -> None:
    rows = [
        example([*SYSTEM, *FIRST, 1, 2, 3], [71, 72]),
        example([*SYSTEM, 9, 8, 7], [42]),
        example([*SYSTEM, *FIRST, 4, 5], [71]),
    ]
    (pack,) = shared(rows)
    assert pack.lengths == (40, 2, 30, 2, 1)
    assert pack.parents == (-1, 0, 0, 2, 2)
    assert pack.ids.tolist() == [*SYSTEM, 9, 8, *FIRST, 1, 2, 4]
    assert pack.positions.tolist() == [*range(40), 40, 41, *range(40, 70), 70, 71, 70]
    assert pack.shared_tokens == 40 + 40 + 30
    assert pack.tokens == 72 + 42 + 71


def test_a_token_learned_by_two_examples_counts_with_both_weights() -> None:
    rows = [example([*SYSTEM, 1, 2], [10, 41], 1.0), example([*SYSTEM, 3, 4], [10, 41], 0.5)]
    (pack,) = shared(rows)
    assert pack.keep.tolist() == [9, 40, 41]
    assert pack.targets.tolist() == [SYSTEM[10], 2, 4]
    assert pack.weights.tolist() == [1.5, 1.0, 0.5]
    assert pack.rows.tolist() == [0, 1, 0, 2]


def test_the_last_shared_position_predicts_what_each_example_says_next() -> None:
    (pack,) = shared([example([*SYSTEM, 1], [40]), example([*SYSTEM, 2], [40])])
    assert pack.lengths == (40,)
    assert pack.keep.tolist() == [39, 39]
    assert pack.targets.tolist() == [1, 2]


def test_the_same_example_twice_is_computed_once_and_counted_twice() -> None:
    (pack,) = shared([example([*SYSTEM, 1, 2], [40, 41])] * 2)
    assert pack.lengths == (41,)
    assert pack.weights.tolist() == [2.0, 2.0]
    assert pack.shared_tokens == 41


def test_an_example_that_begins_another_is_its_first_segment() -> None:
    (pack,) = shared([example([*SYSTEM, 1, 2, 3, 4], [43]), example([*SYSTEM, 1], [40])])
    assert pack.lengths == (40, 3)
    assert pack.parents == (-1, 0)


def test_short_prefixes_are_not_worth_a_segment() -> None:
    common = SYSTEM[: SHORTEST_PREFIX - 1]
    rows = [example([*common, end] * 3, [3 * len(common) + 2]) for end in (1, 2)]
    (pack,) = shared(rows)
    assert pack.parents == (-1, -1)
    assert pack.shared_tokens == 0


def test_where_little_is_saved_the_order_stays_as_given() -> None:
    long = [example([9, *range(5000)], [5000]), example([3, *range(5000)], [5000])]
    few = [example([*SYSTEM, 1], [40]), example([*SYSTEM, 2], [40])]
    (pack,) = shared([*long, *few])
    assert pack.shared_tokens == 0
    assert pack.ids[0] == 9


def test_examples_with_the_same_beginning_come_into_the_same_pack() -> None:
    other = list(range(300, 340))
    rows = [example([*(SYSTEM, other)[i % 2], i, i], [41]) for i in range(8)]
    packs = shared(rows, budget=40 + 8)
    assert [len(pack.ids) for pack in packs] == [44, 44]
    assert all(pack.shared_tokens == 3 * 40 for pack in packs)
    assert [len(pack.ids) for pack in shared(rows, most=2)] == [42] * 4


def test_nothing_is_shared_unless_asked() -> None:
    (pack,) = make_packs([example([*SYSTEM, 1], [40])] * 2, token_mean, max_examples=None, token_budget=10**6)
    assert pack.lengths == (40, 40)
