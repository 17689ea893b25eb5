"""The order is a pure function, and packs hold exactly the examples."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuition.batch import make_packs, make_plan
from tuition.batch.plan import epoch_order
from tuition.conversation import Rendered
from tuition.errors import Origin
from tuition.train.loss import LOSSES

token_mean = LOSSES["token_mean"]


def example(length: int, learned: list[int]) -> Rendered:
    supervised = np.zeros(length, dtype=np.float32)
    supervised[learned] = 1.0
    return Rendered(np.arange(length, dtype=np.int32), supervised, Origin("f", 1))


@given(examples=st.integers(1, 60), batch=st.integers(1, 20), seed=st.integers(0, 9))
def test_each_epoch_takes_every_example_once(examples: int, batch: int, seed: int) -> None:
    plan = make_plan(examples=examples, batch_size=batch, epochs=2, max_steps=None, seed=seed)
    taken = [i for step in range(1, plan.steps + 1) for i in plan.examples_of(step)]
    assert sorted(taken) == sorted([*range(examples)] * 2)


def test_the_order_does_not_depend_on_what_was_asked_before() -> None:
    first = make_plan(examples=50, batch_size=7, epochs=3, max_steps=None, seed=3)
    again = make_plan(examples=50, batch_size=7, epochs=3, max_steps=None, seed=3)
    assert again.examples_of(17).tolist() == first.examples_of(17).tolist()
    assert epoch_order(8, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


@given(keys=st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_examples_with_the_same_key_follow_one_another_in_every_epoch(keys: list[str], seed: int) -> None:
    plan = make_plan(examples=len(keys), batch_size=7, epochs=2, max_steps=None, seed=seed, keys=keys)
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        order = [int(i) for step in steps for i in plan.examples_of(step)]
        assert sorted(order) == list(range(len(keys)))
        runs = [key for key, _ in groupby(keys[i] for i in order)]
        assert len(runs) == len(set(keys))


def test_large_groups_come_no_earlier_than_small_ones() -> None:
    keys = ["large"] * 40 + ["small"]
    first = [
        int(
            make_plan(examples=41, batch_size=1, epochs=1, max_steps=None, seed=s, keys=keys).examples_of(1)[
                0
            ]
        )
        for s in range(400)
    ]
    assert 150 < first.count(40) < 250


def test_epochs_and_the_last_partial_update_are_counted() -> None:
    plan = make_plan(examples=10, batch_size=4, epochs=1, max_steps=None, seed=0)
    assert (plan.steps, plan.steps_per_epoch, plan.epoch_of(3)) == (3, 3, 1.0)
    assert [len(plan.examples_of(step)) for step in (1, 2, 3)] == [4, 4, 2]


def test_a_segment_ends_before_its_last_learned_token_and_predicts_it() -> None:
    (pack,) = make_packs(
        [example(5, [2, 3]), example(3, [1])], token_mean, max_examples=None, token_budget=99
    )
    assert pack.ids.tolist() == [0, 1, 2, 0]
    assert pack.positions.tolist() == [0, 1, 2, 0]
    assert pack.lengths == (3, 1)
    assert pack.keep.tolist() == [1, 2, 3]
    assert pack.targets.tolist() == [2, 3, 1]


def test_packs_keep_to_the_budget_and_to_the_examples_asked_for() -> None:
    examples = [example(10, [9]) for _ in range(5)]
    assert [len(p.lengths) for p in make_packs(examples, token_mean, max_examples=None, token_budget=25)] == [
        2,
        2,
        1,
    ]
    assert [len(p.lengths) for p in make_packs(examples, token_mean, max_examples=3, token_budget=999)] == [
        3,
        2,
    ]
    assert [len(p.lengths) for p in make_packs(examples, token_mean, max_examples=None, token_budget=1)] == [
        1
    ] * 5


def test_example_mean_gives_each_example_the_same_weight() -> None:
    packs = make_packs(
        [example(9, [1]), example(9, [1, 2, 3, 4])],
        LOSSES["example_mean"],
        max_examples=None,
        token_budget=99,
    )
    assert packs[0].weights.tolist() == [1.0, 0.25, 0.25, 0.25, 0.25]
    assert packs[0].weight == 2.0
