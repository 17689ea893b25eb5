"""The form of a recipe, made from its schema: what a control shows, what it was filled with, and the command.

No setting is only in the page: whatever the form says, `arguments` types.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_origin

import yaml
from pydantic.fields import FieldInfo

from tuition.errors import UserError
from tuition.recipe import Recipe, make_recipe, parse_yaml

# What a person decides first, in this order; everything else has a default that is right for most.
FIRST = ("model", "data", "method", "epochs", "batch_size", "learning_rate", "max_length", "val_split")
_PLACED = "output_dir"  # the name of the run says it


@dataclass(frozen=True, slots=True)
class Control:
    """One setting in the form.

    Attributes:
        kind: choice, list or text.
        choices: with choice, the values there are.
        default: what an empty control means, in words; empty where it must be filled.
        value: what it was filled with.
    """

    name: str
    kind: str
    choices: tuple[str, ...]
    default: str
    description: str
    value: str
    required: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Controls that belong together."""

    title: str
    controls: list[Control]

    @property
    def filled(self) -> int:
        """How many are not left at their default."""
        return sum(bool(control.value) for control in self.controls)


def groups(schema: Mapping[str, Any], filled: Mapping[str, str]) -> list[Group]:
    """All settings: those that are decided first, then the others by the room that receives them."""
    properties: dict[str, Any] = schema["properties"]
    required = set(schema["required"])

    def control(name: str) -> Control:
        return _control(name, properties[name], filled.get(name, ""), name in required)

    first = Group("", [control(name) for name in FIRST])
    rest = []
    for section in reversed(Recipe.__mro__):
        names = [
            n for n in inspect.get_annotations(section) if n in properties and n not in (*FIRST, _PLACED)
        ]
        if names:
            rest.append(Group(_title(section), [control(name) for name in names]))
    return [first, *rest]


def read_form(schema: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, str]:
    """What the controls were filled with, those left empty apart."""
    known = schema["properties"].keys() - {_PLACED}
    return {name: text.strip() for name, text in form.items() if name in known and text.strip()}


def settings_of(schema: Mapping[str, Any], filled: Mapping[str, str]) -> dict[str, Any]:
    """The settings that a filled form means.

    Raises:
        UserError: a control holds what is no value, each of them named.
    """
    settings, faults = {}, []
    for name, text in filled.items():
        try:
            settings[name] = _value(schema["properties"][name], text)
        except yaml.YAMLError:
            faults.append(f"'{name}' is {text[:60]!r}, which is no value")
    if faults:
        raise UserError("; ".join(faults), where="recipe", next_step="Mend these")
    return settings


def filled_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """The form that means these settings; a setting at its default is left empty."""
    filled = {}
    for name, value in settings.items():
        field = Recipe.model_fields.get(name)
        if field is None or name == _PLACED or _is_default(field, value):
            continue
        by_lines = _several(name) and isinstance(value, list | tuple)
        filled[name] = "\n".join(map(str, value)) if by_lines else _word(value)
    return filled


def _is_default(field: FieldInfo, value: Any) -> bool:
    return not field.is_required() and _plain(field.get_default()) == _plain(value)


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings as values of their types.

    Raises:
        UserError: naming every wrong one.
    """
    recipe = make_recipe(dict(settings))
    values = recipe.model_dump(mode="json")
    return {name: _short(values[name]) for name in Recipe.model_fields if name in settings}


def as_yaml(settings: Mapping[str, Any]) -> str:
    """The recipe file with these settings, and no others."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)


def read_yaml(text: str) -> dict[str, Any]:
    """The settings in a recipe that was edited as text.

    Raises:
        UserError: it is no recipe.
    """
    try:
        settings = parse_yaml(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"this is not YAML ({reason})", where="recipe", next_step="Mend that line") from None
    if not isinstance(settings, dict):
        raise UserError("there are no settings", where="recipe", next_step="Write lines such as `epochs: 3`")
    return {str(key): value for key, value in settings.items()}


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """The words behind `tuition` that train with these settings."""
    words = ["train"]
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if _several(name):
            for item in value:
                words += _flag(flag, str(item))
        elif isinstance(value, list | dict) or value is None:
            words += ["--set", f"{name}={json.dumps(value, ensure_ascii=False)}"]
        else:
            words += _flag(flag, _word(value))
    return words


def _flag(flag: str, value: str) -> list[str]:
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


def _control(name: str, said: Mapping[str, Any], value: str, required: bool) -> Control:
    choices = tuple(said.get("enum", ())) or (("true", "false") if said.get("type") == "boolean" else ())
    kind = "choice" if choices else "list" if _several(name) else "text"
    default = "" if required else _word(said.get("default"))
    return Control(name, kind, choices, default, str(said.get("description", "")), value, required)


def _value(said: Mapping[str, Any], text: str) -> Any:
    if said.get("type") == "array" and "prefixItems" not in said:
        return [line.strip() for line in text.splitlines() if line.strip()]
    kinds = {branch.get("type") for branch in said.get("anyOf", [said])}
    if "string" in kinds and not kinds & {"integer", "number", "array", "object"}:
        return text
    return parse_yaml(text)


def _several(name: str) -> bool:
    """Whether a flag may be given several times: a list of any length."""
    annotation = Recipe.model_fields[name].annotation
    return get_origin(annotation) is tuple and Ellipsis in getattr(annotation, "__args__", ())


def _short(value: Any) -> Any:
    """3.0 as 3, as a person writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _word(value: Any) -> str:
    """A value as it would be typed."""
    value = _short(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False) if value else "none"
    return "none" if value is None else str(value)


def _title(section: type) -> str:
    return (section.__doc__ or section.__name__).strip().splitlines()[0].rstrip(".")
