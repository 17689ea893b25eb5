"""A damaged file of a run is the user's to mend, whichever library noticed it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

from safetensors import SafetensorError

from tuition.errors import UserError, one_line

P = ParamSpec("P")
T = TypeVar("T")

# What JSON, tensors and random states are refused with, by Python, torch and safetensors. Running out of
# memory and a full disk are no damage.
_DAMAGE = (
    SafetensorError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def refuses_damage(load: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """A function of a checkpoint's folder, with every complaint about its content as a UserError."""

    @wraps(load)
    def loaded(folder: Path, *arguments: P.args, **options: P.kwargs) -> T:
        try:
            return load(folder, *arguments, **options)
        except _DAMAGE as error:
            raise UserError(
                f"the checkpoint cannot be read ({type(error).__name__}: {one_line(error, 160)})",
                where=str(folder),
                next_step="Remove the folder: the run goes on from the checkpoint before it",
            ) from error

    return cast(Callable[Concatenate[Path, P], T], loaded)
