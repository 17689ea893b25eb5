"""Which examples make an update, and how they are laid flat for the model.

Packing is an execution detail: it never changes the gradient. No torch here.
"""

from tuition.batch.pack import (
    UNBOUNDED,
    Pack,
    Weigh,
    largest_group,
    largest_in_order,
    make_packs,
    packs_on_a_trunk,
)
from tuition.batch.plan import Plan, make_plan
from tuition.batch.prefixes import SHORTEST_PREFIX
from tuition.batch.trunks import Trunk

__all__ = [
    "SHORTEST_PREFIX",
    "UNBOUNDED",
    "Pack",
    "Plan",
    "Trunk",
    "Weigh",
    "largest_group",
    "largest_in_order",
    "make_packs",
    "make_plan",
    "packs_on_a_trunk",
]
