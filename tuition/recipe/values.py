"""What single settings may be: names that a disk can hold, `auto`, pairs as a flag gives them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
)

from tuition.recipe.yamltext import parse_yaml

Auto = Literal["auto"]


_LONGEST_NAME = 4_000


def name_on_disk(name: str) -> str:
    """A name that a disk may hold, and that moves no cursor where it is shown."""
    if not name or len(name) > _LONGEST_NAME:
        raise ValueError(f"must have 1 to {_LONGEST_NAME:,} characters")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        raise ValueError("must not hold control characters")
    return name


Name = Annotated[str, AfterValidator(name_on_disk)]


def pairs(value: Any, *, parse: bool = False) -> Any:
    """`name=value,name=value`, as a flag is typed, as a dictionary; anything else as it is.

    Args:
        parse: read each value as YAML does, so that `false` is no text.
    """
    if not isinstance(value, str):
        return value
    pairs = dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
    return {name.strip(): parse_yaml(text) for name, text in pairs.items()} if parse else pairs


class Section(BaseModel):
    """Settings that one room receives."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
