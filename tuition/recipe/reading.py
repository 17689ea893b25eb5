"""All settings of a run, side by side and flat; read from a file and flags, with every fault shown at once."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError, model_validator

from tuition.errors import UserError
from tuition.foreign import require_readable
from tuition.recipe.elsewhere import ALIASES, VALUES, said_here
from tuition.recipe.running import JudgingSettings, RunSettings
from tuition.recipe.sections import (
    AdapterSettings,
    BatchSettings,
    DataSettings,
    LearnedSettings,
    ModelSettings,
    OptimizerSettings,
    RenderSettings,
)
from tuition.recipe.values import Section
from tuition.recipe.yamltext import LARGEST_BYTES, parse_yaml

S = TypeVar("S", bound=Section)


class Recipe(
    JudgingSettings,
    RunSettings,
    AdapterSettings,
    LearnedSettings,
    OptimizerSettings,
    BatchSettings,
    RenderSettings,
    DataSettings,
    ModelSettings,
):
    """All settings of a run: the sections side by side, flat in the file."""

    @model_validator(mode="after")
    def _adapter_settings_need_an_adapter(self) -> Recipe:
        given = sorted(set(AdapterSettings.model_fields) & self.model_fields_set)
        changed = [k for k in given if getattr(self, k) != AdapterSettings.model_fields[k].default]
        if self.method == "full" and changed:
            raise ValueError(f"{', '.join(changed)} is set, but method is full: set method: lora, or drop it")
        if self.parallel != "ddp" and (
            self.method == "qlora" or self.optimizer != "adamw" or self.masters == "split"
        ):
            raise ValueError(
                "parallel: fsdp and hsdp take method: full or lora, optimizer: adamw and whole masters"
            )
        if self.stream and (self.replay or self.group_by_prefix):
            raise ValueError(
                "stream takes no replay and no group_by_prefix, which need all rows at once: name general data "
                "among the data with a share, general.jsonl#0.05"
            )
        if self.method == "qlora" and self.init_lora_weights == "pissa":
            raise ValueError(
                "pissa takes its start from the weights, which qlora rounds to 4 bits: set method: lora"
            )
        return self

    @property
    def adapted(self) -> bool:
        """Whether the run makes an adapter, and no model of its own."""
        return self.method != "full"

    def section(self, kind: type[S]) -> S:
        """The settings of one room, as that room's own type."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})

    def replace(self, **changes: Any) -> Recipe:
        """A new recipe with some settings changed, checked again."""
        return make_recipe({**self.model_dump(mode="json", exclude_unset=True), **changes})

    def to_yaml(self) -> str:
        """The recipe as the file that gives it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def section_titles() -> dict[str, list[str]]:
    """The heading of each section → its settings, in the order of the recipe."""
    kinds = [c for c in reversed(Recipe.__mro__) if issubclass(c, Section) and c not in (Section, Recipe)]
    return {
        (kind.__doc__ or "").strip().splitlines()[0].rstrip("."): [
            name for name in kind.__annotations__ if name in Recipe.model_fields
        ]
        for kind in kinds
    }


_MOST_IN_A_SENTENCE = 3
_GIVEN_AS = {"model": "FOLDER_OR_HUB_NAME", "data": "FILE"}  # the settings without a default


def make_recipe(settings: dict[str, Any], *, where: str = "recipe") -> Recipe:
    """Check settings all at once and give the frozen recipe.

    Raises:
        UserError: naming every wrong key and value together, each with what would be right.
    """
    unknown = [key for key in settings if key not in Recipe.model_fields]
    known = {key: _as_text(value) for key, value in settings.items() if key in Recipe.model_fields}
    problems = _unknown_keys([str(key) for key in unknown])
    missing: list[str] = []
    try:
        recipe = Recipe.model_validate(known)
    except ValidationError as error:
        # a union gives a fault for each branch; the first, about the number, says more than "should be auto"
        faults = {_key_of(fault): fault for fault in reversed(error.errors())}
        for key in {ALIASES.get(str(key)) for key in unknown}:
            if key in faults and _is_missing(faults[key]):
                del faults[key]  # it is there, by another tool's name, which was said
        problems += [_wrong_value(fault) for fault in reversed(faults.values())]
        missing = [key for key, fault in reversed(faults.items()) if _is_missing(fault)]
    except UnicodeEncodeError as error:  # half of a character, which no file can hold
        problems.append(f"{ascii(error.object)[:60]} is no text")
    if problems:
        raise UserError(_together(problems), where=where, next_step=_mend(problems, missing))
    return recipe


def _as_text(value: Any) -> Any:
    """Paths from Python as the names that they are, alone or in a list."""
    if isinstance(value, list | tuple):
        return [_as_text(part) for part in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _together(problems: list[str]) -> str:
    """A few problems in one sentence, more of them a line each."""
    if len(problems) <= _MOST_IN_A_SENTENCE:
        return "; ".join(problems)
    return "\n  ".join(["these settings are to be mended:", *problems]) + "\n"


def _mend(problems: list[str], missing: list[str]) -> str:
    """What to do about wrong settings; where all that is wrong is that some are missing, how they are given."""
    these = "it" if len(problems) == 1 else "these"
    if len(missing) < len(problems):
        return f"Mend {these}; `tuition schema` lists every setting"
    return f"Give {' '.join(f'--{key} {_GIVEN_AS[key]}' for key in missing)}, or a recipe, which `tuition init` writes"


def load_recipe(path: Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe file, lay `overrides` over it and check the whole.

    Raises:
        UserError: no such file, not YAML, not a mapping, or wrong settings.
    """
    return make_recipe({**read_settings(path), **(overrides or {})}, where=str(path))


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Tags that would build Python objects are refused by the safe loader.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    _refuse_no_recipe(path)
    try:
        require_readable(path, LARGEST_BYTES, "Name the .yaml file with the settings", no_other="recipe")
        settings = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            "there is no such recipe, and no run to resume",
            where=str(path),
            next_step="Check the spelling; `tuition init` writes a recipe to start from",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot be read as YAML ({reason})", where=str(path), next_step="Mend that line"
        ) from None
    if not isinstance(settings, dict):
        raise UserError(
            "holds no settings",
            where=str(path),
            next_step="Write lines such as `model: PATH` and `data: FILE`",
        )
    return {str(key): value for key, value in settings.items()}


def _refuse_no_recipe(path: Path) -> None:
    """A model or data where the recipe stands: the flags that take them have a name."""
    if (path / "config.json").is_file():
        raise UserError(
            "is a model, not a recipe",
            where=str(path),
            next_step=f"Before it stands --model: --model {path} --data FILE",
        )
    if path.is_file() and path.suffix in (".jsonl", ".csv", ".tsv", ".parquet", ".gz"):
        raise UserError(
            "is data, not a recipe",
            where=str(path),
            next_step=f"Before each file stands --data: --model FOLDER_OR_HUB_NAME --data {path}",
        )


def _unknown_keys(keys: list[str]) -> list[str]:
    """A sentence for each, and one for all keys that mean the same here."""
    alike: dict[str, list[str]] = {}
    for key in keys:
        alike.setdefault(_meant(key), []).append(f"'{key}'")
    return [
        f"unknown {'key' if len(same) == 1 else 'keys'} {', '.join(same)}{meant}"
        for meant, same in alike.items()
    ]


def _meant(key: str) -> str:
    """What an unknown key is here: another tool's name, or one of ours that is spelled nearly so."""
    said = said_here(key)
    if said is not None:
        return f": {said}"
    near = difflib.get_close_matches(key, Recipe.model_fields, n=1, cutoff=0.75)
    return f": did you mean '{near[0]}'?" if near else ""


def _key_of(fault: Any) -> str:
    """The setting a fault is about: pydantic adds the branch of a union behind it."""
    return str(fault["loc"][0]) if fault["loc"] else str(fault["msg"])


def _is_missing(fault: Any) -> bool:
    """Whether a setting was not given, and not only a part of its value."""
    return fault["type"] == "missing" and len(fault["loc"]) == 1


def _wrong_value(fault: Any) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    key = str(fault["loc"][0])
    if _is_missing(fault):
        return f"'{key}' is missing"
    if fault["type"] == "missing":
        part = fault["loc"][-1]
        message = f"part {part + 1 if isinstance(part, int) else part} is missing"
    shown = repr(fault["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return f"'{key}' is {shown}: {message[0].lower()}{message[1:]}{_value_of_another(key, fault['input'])}"


def _value_of_another(key: str, value: Any) -> str:
    """Where a value is another tool's, ours; where it is a choice of one other setting, that one is meant."""
    choices = get_args(Recipe.model_fields[key].annotation) if key in Recipe.model_fields else ()
    if isinstance(value, str) and value in VALUES and VALUES[value] in choices:
        return f" (here it is '{VALUES[value]}')"
    fields = Recipe.model_fields.items()
    others = [name for name, field in fields if name != key and value in get_args(field.annotation)]
    return f" ({value} is a value of '{others[0]}')" if isinstance(value, str) and len(others) == 1 else ""
