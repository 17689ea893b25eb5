"""A step's examples cut into passes so that several can be run at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tuition.batch.balance import shares
from tuition.batch.prefixes import Forest, Ids, shared_forests, side_by_side
from tuition.grouping import groups_within

# A shorter pass spends its time on calls, not on numbers.
_FEWEST_TOKENS = 64
# All cores on one pass reach about 0.7 of what each reaches on its own: lanes may have so much more to do.
_WORTH = 1.4


def for_lanes(
    whole: list[Forest],
    inputs: Sequence[Ids],
    costs: Sequence[float],
    lanes: int,
    max_examples: int | None,
    token_budget: int,
    trunk: int = 0,
) -> list[Forest]:
    """Passes that cost about the same, to be dealt to the lanes in turn; `whole` where that would not be faster.

    Args:
        whole: the step laid out for one lane.
        inputs: the tokens of each example, none longer than a lane's part of the budget.
        costs: of each example. Passes that share prefixes are only made about as long as one another.
        token_budget: most tokens in all passes that are run at once.
        trunk: tokens that all examples begin with, which will be computed before the passes, by all cores.
    """
    tokens = sum(forest.tokens for forest in whole)
    if tokens < lanes * _FEWEST_TOKENS:
        return whole
    rounds = -(-tokens // token_budget)
    lay = _with_prefixes if any(_shares(forest, inputs) for forest in whole) else partial(_evenly, costs)
    passes = lay(inputs, lanes * rounds, max_examples, token_budget // lanes)
    own = [forest.tokens - trunk for forest in passes]
    longest = sum(max(own[i : i + lanes]) for i in range(0, len(own), lanes))
    return whole if rounds == 1 and longest * lanes + _WORTH * trunk > _WORTH * tokens else passes


def _shares(forest: Forest, inputs: Sequence[Ids]) -> bool:
    return forest.tokens < sum(len(inputs[place]) for place in forest.leaves)


def _evenly(
    costs: Sequence[float], inputs: Sequence[Ids], passes: int, max_examples: int | None, token_budget: int
) -> list[Forest]:
    lengths = [len(ids) for ids in inputs]
    forests = []
    for taken in shares(costs, passes):
        for group in groups_within([lengths[place] for place in taken], token_budget, most=max_examples):
            forests.append(side_by_side([taken[i] for i in group], inputs))
    return forests


def _with_prefixes(
    inputs: Sequence[Ids], passes: int, max_examples: int | None, token_budget: int
) -> list[Forest]:
    """The shortest passes of which so many are enough; examples with the same beginning stay together."""
    few, enough = 1, token_budget
    while enough - few > token_budget // 64 + 1:
        middle = (few + enough) // 2
        suffices = len(shared_forests(inputs, max_examples, middle)) <= passes
        few, enough = (few, middle) if suffices else (middle, enough)
    return shared_forests(inputs, max_examples, enough)
