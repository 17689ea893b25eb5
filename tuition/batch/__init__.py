"""Which examples make an update, and how they are laid flat for the model.

Packing is an execution detail: it never changes the gradient. No torch here.
"""

from tuition.batch.pack import Pack, Weigh, make_packs
from tuition.batch.plan import Plan, make_plan

__all__ = ["Pack", "Plan", "Weigh", "make_packs", "make_plan"]
