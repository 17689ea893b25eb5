"""What all examples of several passes begin with: a trunk, computed once before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuition.batch.prefixes import LEAST_SAVED, Forest, Ids

# A trunk is one more pass: so many tokens it must save to be worth it.
_FEWEST_SAVED = 128


@dataclass(frozen=True, slots=True, eq=False)
class Trunk:
    """The first tokens of all examples of some packs, none of which is learned or predicts one that is.

    Attributes:
        ids: (tokens,) int64.
    """

    ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


def find_trunks(
    forests: Sequence[Forest], inputs: Sequence[Ids], first_rows: Sequence[int], lanes: int
) -> list[Trunk | None]:
    """For each pass its trunk; neighbours that share one have the same.

    Args:
        forests: the passes of a step, in the order in which they will be run.
        inputs: the tokens of each example.
        first_rows: of each example, the first token that predicts a learned one.
        lanes: passes that are run at once; where there are several, all of them share a trunk or none does, so that
            no lane waits while another's is computed.
    """
    trunks: list[Trunk | None] = []
    while len(trunks) < len(forests):
        rest = forests[len(trunks) :]
        run, depth = _longest_run(rest, inputs, first_rows)
        if depth * (run - 1) < _FEWEST_SAVED:
            trunks.append(None)
            continue
        first = next(iter(rest[0].leaves))
        trunks += [Trunk(inputs[first][:depth].astype(np.int64))] * run
    return trunks if lanes == 1 or len(set(trunks)) == 1 else [None] * len(forests)


def trunk_of_all(inputs: Sequence[Ids], first_rows: Sequence[int]) -> int:
    """Tokens of a trunk for all examples; 0: they have too little in common."""
    depth = common_start(range(len(inputs)), inputs, first_rows)
    return depth if depth >= _FEWEST_SAVED else 0


def common_start(places: Sequence[int], inputs: Sequence[Ids], first_rows: Sequence[int]) -> int:
    """How many first tokens some examples share, before any of them predicts a learned one."""
    first = inputs[places[0]]
    depth = first_rows[places[0]]
    for place in places[1:]:
        depth = min(depth, first_rows[place])
        differ = np.flatnonzero(first[:depth] != inputs[place][:depth])
        depth = int(differ[0]) if len(differ) else depth
    return depth


def _longest_run(
    forests: Sequence[Forest], inputs: Sequence[Ids], first_rows: Sequence[int]
) -> tuple[int, int]:
    """How many passes, from the first on, best share a trunk, and how long it is then.

    A pass joins while the trunk, shorter with it, saves more tokens in all, and a fair share of its own.
    """
    first = list(forests[0].leaves)
    run, depth = 1, common_start(first, inputs, first_rows)
    for forest in forests[1:]:
        shallower = min(depth, common_start([first[0], *forest.leaves], inputs, first_rows))
        if shallower * run <= depth * (run - 1) or shallower < LEAST_SAVED * forest.tokens:
            break
        run, depth = run + 1, shallower
    return run, depth
