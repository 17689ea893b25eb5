"""A trunk holds what several packs begin with, and nothing that is learned or predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.batch.test_prefixes import example, said_by_examples, said_by_packs
from tuition.batch import Pack, make_packs, packs_on_a_trunk, trunks
from tuition.batch.trunks import common_start
from tuition.conversation import Rendered
from tuition.train.loss import token_mean

SYSTEM, OTHER = list(range(100, 300)), list(range(500, 700))


def on_trunks(examples: Sequence[Rendered], budget: int, lanes: int = 1) -> list[Pack]:
    return make_packs(
        examples, token_mean, max_examples=None, token_budget=budget,
        share_prefixes=True, share_trunks=True, lanes=lanes,
    )  # fmt: skip


def answers(system: list[int], count: int, tokens: int = 20) -> list[Rendered]:
    """Prompts of their own behind one system prompt, the last five tokens of each learned."""
    own = [[1000 + i] * tokens for i in range(count)]
    return [example([*system, *ids], range(200 + tokens - 5, 200 + tokens)) for ids in own]


@pytest.mark.parametrize("lanes", [1, 2])
def test_what_all_passes_begin_with_stands_in_none_of_them(lanes: int) -> None:
    rows = answers(SYSTEM, 12)
    packs = on_trunks(rows, budget=300 * lanes, lanes=lanes)
    assert len(packs) > 1
    trunk = packs[0].trunk
    assert trunk is not None
    assert trunk.ids.tolist() == SYSTEM
    assert all(pack.trunk is trunk for pack in packs)
    assert [token for pack in packs for token in pack.ids if token < 1000] == []
    assert all(min(pack.positions) == len(SYSTEM) for pack in packs)
    assert said_by_packs(packs) == said_by_examples(rows, "token_mean")
    assert sum(pack.shared_tokens for pack in packs) == 11 * len(SYSTEM)


def test_passes_with_another_beginning_have_a_trunk_of_their_own() -> None:
    rows = [*answers(SYSTEM, 8), *answers(OTHER, 8)]
    packs = on_trunks(rows, budget=280)
    trunks = {pack.trunk for pack in packs if pack.trunk}
    assert sorted(trunk.ids.tolist()[0] for trunk in trunks) == [100, 500]
    assert said_by_packs(packs) == said_by_examples(rows, "token_mean")


def test_lanes_have_one_trunk_for_all_of_them_or_none() -> None:
    rows = [*answers(SYSTEM, 8), *answers(OTHER, 8)]
    assert [pack.trunk for pack in on_trunks(rows, budget=1200, lanes=2)] == [None] * 2


def test_a_trunk_ends_before_the_first_token_that_predicts_a_learned_one() -> None:
    rows = [example([*SYSTEM, i, i], [150, 201]) for i in range(1000, 1006)]
    packs = on_trunks(rows, budget=201)
    assert packs[0].trunk is not None
    assert len(packs[0].trunk) == 149
    assert said_by_packs(packs) == said_by_examples(rows, "token_mean")


def test_one_pass_needs_no_trunk_and_nor_does_a_short_beginning() -> None:
    assert on_trunks(answers(SYSTEM, 12), budget=10**6)[0].trunk is None
    short = [example([*SYSTEM[:40], *[i] * 60], [99]) for i in range(1000, 1003)]
    assert all(pack.trunk is None for pack in on_trunks(short, budget=110))


def test_each_example_alone_on_what_all_have_in_common() -> None:
    rows = answers(SYSTEM, 3)
    packs = packs_on_a_trunk(rows, token_mean)
    assert [pack.lengths for pack in packs] == [(19,)] * 3
    assert said_by_packs(packs) == said_by_examples(rows, "token_mean")


def test_beginnings_that_are_too_short_are_not_compared_pass_by_pass_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty rows are the same, so that prefixes are shared, and all begin with the same ten tokens."""
    rows = [example([*range(100, 110), *[1000 + max(0, i - 40)] * 600], [605]) for i in range(140)]
    compared = []

    def counting(*given: Any) -> int:
        compared.append(given)
        return common_start(*given)

    monkeypatch.setattr(trunks, "common_start", counting)
    packs = make_packs(
        rows, token_mean, max_examples=1, token_budget=10**6, share_prefixes=True, share_trunks=True
    )
    assert {len(pack.trunk.ids) for pack in packs if pack.trunk} == {604}
    assert len(compared) < 3 * len(rows)
