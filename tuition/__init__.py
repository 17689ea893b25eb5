"""tuition: supervised fine-tuning of language models, every token right and nothing lost.

The public API is the names below; each loads what it needs when it is first called.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # importing it takes longer than all else here, and meanwhile Ctrl-C meets nobody

__version__ = "0.1.0"

# PyTorch's OpenMP threads wait for one another by spinning. Beside a single other busy program that makes a
# small step thirty times slower, so they spin briefly and then sleep. Read when torch is loaded; yours wins.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Tensors of two megabytes and more on huge pages: a tenth of a step's time went into faulting in small ones.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Each update has other shapes, and oneDNN makes code for each. Kept for 1,024 of them, twice (PyTorch's own list and
# oneDNN's), it takes 0.4 GB, and lies in the heap where the large blocks would lie: the heap grew with each update.
os.environ.setdefault("LRU_CACHE_CAPACITY", "128")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
# Each update has another shape: without this a GPU's memory falls into pieces, none of which fits the next.
if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

if TYPE_CHECKING:
    from typing import Any

    from tuition.api import Run, check, evaluate, export, preview, train
    from tuition.conversation import Conversation, Message
    from tuition.errors import UserError
    from tuition.recipe import Recipe

_HOMES = {
    "Run": "tuition.api", "check": "tuition.api", "evaluate": "tuition.api", "export": "tuition.api",
    "preview": "tuition.api", "train": "tuition.api", "Conversation": "tuition.conversation",
    "Message": "tuition.conversation", "Recipe": "tuition.recipe", "UserError": "tuition.errors",
}  # fmt: skip

__all__ = [  # noqa: RUF022  in the order one meets them
    "train", "Run", "check", "preview", "evaluate", "export",
    "Recipe", "Conversation", "Message", "UserError", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Names load on first use: `import tuition` takes milliseconds and `tuition --help` imports no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tuition' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


class _Room(ModuleType):
    """A room that bears a verb's name: `tuition.train` is the folder of the loop and the verb in one."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return self._verb()(*arguments, **settings)

    def _verb(self) -> Any:
        return getattr(import_module("tuition.api"), self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> Any:
        """The verb's, for notebooks and `inspect`."""
        import inspect

        return inspect.signature(self._verb())

    @property
    def __doc__(self) -> str:  # type: ignore[override]  # of a module it is a text and no property
        return str(self._verb().__doc__)


class _Package(ModuleType):
    """Importing a room binds it here over the verb of the same name; it then answers as the verb too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("train", "evaluate") and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
