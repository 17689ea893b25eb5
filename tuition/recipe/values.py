"""What single settings may be: names that a disk can hold, `auto`, pairs as a flag gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

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


def _names_on_disk(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(name_on_disk, names))


def _several(value: Any) -> Any:
    """One name or path as the only one of a list, and paths as names; anything else as it is."""
    values = (value,) if isinstance(value, str | Path) else value
    if not isinstance(values, list | tuple):
        return values
    return tuple(str(part) if isinstance(part, Path) else part for part in values)


def _at_least_one(steps: int | Auto) -> int | Auto:
    if steps != "auto" and steps < 1:
        raise ValueError("must be at least 1")
    return steps


Name = Annotated[str, AfterValidator(name_on_disk)]
Names = Annotated[tuple[str, ...], BeforeValidator(_several), AfterValidator(_names_on_disk)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]  # one may stand without a list
Steps = Annotated[int | Auto, AfterValidator(_at_least_one)]


def as_texts(value: Any) -> list[str] | None:
    """One text, or several, as a list; None for anything else, which its type then refuses."""
    if isinstance(value, str):
        return [value]
    is_list = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    return list(value) if is_list else None


def as_written(default: object) -> str:
    """A setting's default as a recipe would have it."""
    if isinstance(default, tuple | bool):
        return json.dumps(default)
    return "null" if default is None else str(default)


def between_commas(value: Any) -> Any:
    """The names in one text or several, `a,b` as a flag is typed; anything else as it is."""
    texts = as_texts(value)
    if texts is None:
        return value
    names = [part.strip() for text in texts for part in text.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def pairs(value: Any, *, parse: bool = False) -> Any:
    """`name=value,name=value`, as a flag is typed, as a dictionary; anything else as it is.

    Args:
        parse: read each value as YAML does, so that `false` is no text.

    Raises:
        ValueError: a part is no pair.
    """
    if not isinstance(value, str):
        return value
    found: dict[str, Any] = {}
    for part in value.split(","):
        name, equals, text = part.partition("=")
        if not equals:
            raise ValueError(f"'{part}' is not name=value")
        try:
            found[name.strip()] = parse_yaml(text) if parse else text
        except yaml.YAMLError:
            raise ValueError(f"'{text}' is not a YAML value") from None
    return found


class Section(BaseModel):
    """Settings that one room receives."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
