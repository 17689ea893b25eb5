"""What examples of one step have in common at the start, found by sorting: a tree in which it stands once.

Each node holds tokens that follow those of its parent. An example is the chain of nodes from a root to its
leaf; examples with the same beginning share the first nodes of their chains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]

# Another node is another call of the attention in each layer: so many tokens it must save to be worth it.
SHORTEST_PREFIX = 16
# Below this share of a step's tokens, the step is laid out as if nothing were shared.
LEAST_SAVED = 0.02


@dataclass(slots=True, eq=False)
class Node:
    """Tokens `start` to `stop` of every example that passes through.

    Attributes:
        example: the first of them that was added, and `rank` how many were added before it.
        parent: the node that ends at `start`; None: the examples begin here, or are cut off here.
    """

    example: int
    rank: int
    start: int
    stop: int
    parent: Node | None

    def chain(self) -> list[Node]:
        """The nodes from the root to this one."""
        return [*(self.parent.chain() if self.parent else ()), self]


class Forest:
    """Trees of examples that make one pack.

    Examples are added in the order of their tokens, so that each shares more with the one before it than
    with any earlier one.
    """

    def __init__(self) -> None:
        self.leaves: dict[int, Node] = {}
        self.tokens = 0
        self._nodes: list[Node] = []
        self._last: Node | None = None

    @property
    def nodes(self) -> list[Node]:
        """All nodes, each after its parent."""
        return sorted(self._nodes, key=lambda node: (node.rank, node.start))

    def shares(self, common: int) -> int:
        """How many of the `common` first tokens an example would share with the one added last."""
        node = self._node_at(common)
        if node is None or common == node.stop or common - node.start >= SHORTEST_PREFIX:
            return common if node is not None else 0
        return node.start

    def add(self, example: int, length: int, common: int) -> None:
        """Add an example whose `common` first tokens are those of the one added before."""
        rank, shared = len(self.leaves), self.shares(common)
        parent = self._node_at(shared)
        if parent is not None and shared < parent.stop:
            parent = self._cut(parent, shared)
        if parent is None or shared < length:
            parent = self._grow(Node(example, rank, shared, length, parent))
        self.leaves[example] = self._last = parent
        self.tokens += length - shared

    def cut_off(self, depth: int) -> None:
        """Leave out the first tokens of every example: they are computed elsewhere. None may end there."""
        self._nodes = [node for node in self._nodes if node.stop > depth]
        for node in self._nodes:
            node.start = max(node.start, depth)
            if node.parent is not None and node.parent.stop <= depth:
                node.parent = None

    def _node_at(self, depth: int) -> Node | None:
        """The node of the last example that holds its token before `depth`."""
        node = self._last
        while node is not None and node.start >= depth:
            node = node.parent
        return node

    def _cut(self, node: Node, depth: int) -> Node:
        """Let a node end at `depth`: its other tokens stay where they are, as its child."""
        upper = self._grow(Node(node.example, node.rank, node.start, depth, node.parent))
        node.start, node.parent = depth, upper
        return upper

    def _grow(self, node: Node) -> Node:
        self._nodes.append(node)
        return node


def side_by_side(places: Iterable[int], inputs: Sequence[Ids]) -> Forest:
    """Examples that share nothing, in the order given."""
    forest = Forest()
    for place in places:
        forest.add(place, len(inputs[place]), 0)
    return forest


def shared_forests(inputs: Sequence[Ids], max_examples: int | None, token_budget: int) -> list[Forest]:
    """Examples in groups that fit into a pack, those with the same beginning together.

    Args:
        inputs: the tokens of each example.
        max_examples: most examples in a pack; None: as many as the budget allows.
        token_budget: most tokens in a pack, shared ones counted once.

    Returns:
        The groups; none where sharing does not pay.
    """
    neighbours = list(_by_beginning(inputs))
    saved = sum(common for _, common in neighbours if common >= SHORTEST_PREFIX)
    if saved < max(1.0, LEAST_SAVED * sum(map(len, inputs))):
        return []
    forests = [Forest()]
    for place, common in neighbours:
        forest, length = forests[-1], len(inputs[place])
        full = bool(forest.leaves) and forest.tokens + length - forest.shares(common) > token_budget
        if full or len(forest.leaves) == max_examples:
            forests.append(forest := Forest())
        forest.add(place, length, common if forest.leaves else 0)
    return forests


def _by_beginning(inputs: Sequence[Ids]) -> Iterator[tuple[int, int]]:
    """Places of the examples in the order of their tokens, and how many first tokens each has of the one before."""
    keys = [ids.astype(">u4").tobytes() for ids in inputs]
    before = np.empty(0, dtype=np.int32)
    for place in sorted(range(len(inputs)), key=keys.__getitem__):
        ids = inputs[place]
        most = min(len(ids), len(before))
        differ = np.flatnonzero(ids[:most] != before[:most])
        yield place, int(differ[0]) if len(differ) else most
        before = ids
