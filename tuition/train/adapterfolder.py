"""The door of an adapter folder: its configuration is looked at before peft acts on it.

peft imports modules, opens pickles and makes matrices as an adapter's configuration says; what a LoRA
adapter does not need is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuition.render.modelfiles import check_numbers, check_tensors, read_object, refuse
from tuition.render.modelfolder import check_entries, unread_pickles

WEIGHTS = "adapter_model.safetensors"
# Each makes peft import a module, open other files, or build layers that the weights do not hold.
_BEYOND = (
    "megatron_config", "corda_config", "lora_ga_config", "eva_config", "arrow_config", "layer_replication",
    "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
_LONGEST_PATTERN = 20_000
_MOST_REPEATS = 16
_AGAIN = "Copy or download the adapter again"


def read_adapter(folder: Path) -> dict[str, Any]:
    """The configuration of a LoRA adapter.

    Raises:
        UserError: it cannot be read, is of another kind, or would do more than lay LoRA over a model.
    """
    path = folder / "adapter_config.json"
    check_entries(folder)
    config = read_object(path)
    check_numbers(path, config)
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise refuse(path, f"is a {str(config['peft_type'])[:40]} adapter", "tuition loads LoRA adapters")
    beyond = next((key for key in _BEYOND if config.get(key)), None)
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if library and not str(library).startswith("transformers."):
        beyond = "auto_mapping"
    if beyond is not None:
        raise refuse(
            path,
            f"asks for more than LoRA matrices ({beyond})",
            f"Remove {beyond} from it if the adapter does without",
        )
    for pattern in _patterns(config):
        if fault := fault_of_pattern(pattern):
            raise refuse(
                path, f"has a pattern of module names that {fault}", "List the names of the modules instead"
            )
    return config


def check_adapter(folder: Path) -> Path:
    """The file with the adapter's weights, after everything in the folder was looked at.

    Raises:
        UserError: the weights are a pickle or damaged, or the configuration is refused.
    """
    config = read_adapter(folder)
    weights = folder / WEIGHTS
    if not weights.exists():
        pickles = unread_pickles(folder)
        named = folder / pickles[0] if pickles else folder
        what = "is a pickle, which can run code when it is read; " if pickles else ""
        raise refuse(
            named,
            f"{what}the adapter has no {WEIGHTS}",
            "Have it saved again with safe_serialization=True; pickled adapters are not read",
        )
    check_tensors(folder, [weights])
    _check_ranks(folder / "adapter_config.json", config, weights)
    return weights


def _check_ranks(path: Path, config: dict[str, Any], weights: Path) -> None:
    """Ranks are at most those of the stored matrices: peft makes the matrices before it reads them."""
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as tensors:
        names = [name for name in tensors.keys() if "_A" in name]  # noqa: SIM118  it is no dictionary
        shapes = [tensors.get_slice(name).get_shape() for name in names]
    largest = max((shape[0] for shape in shapes if shape), default=0)
    by_name = config.get("rank_pattern")
    ranks = [config.get("r"), *(by_name.values() if isinstance(by_name, dict) else [])]
    for rank in ranks:
        if isinstance(rank, int) and rank > max(largest, 1024):
            raise refuse(path, f"has rank {rank:,}, and its largest matrix has {largest:,} rows", _AGAIN)


def _patterns(config: dict[str, Any]) -> Iterator[str]:
    for key in _PATTERNS:
        value = config.get(key)
        several = value if isinstance(value, list | dict) else [value]
        yield from (pattern for pattern in several if isinstance(pattern, str))


def fault_of_pattern(pattern: str) -> str | None:
    """Why a regular expression may take forever; None where it takes time in proportion to a name's length."""
    from re import _parser  # type: ignore[attr-defined]  # the only parser of expressions there is

    if len(pattern) > _LONGEST_PATTERN:
        return f"is longer than {_LONGEST_PATTERN:,} characters"
    try:
        parsed = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return "is no regular expression"
    repeats, nested = _repeats(parsed, inside=False)
    if nested:
        return "repeats a repetition, which can take forever"
    return "has too many repetitions" if repeats > _MOST_REPEATS else None


def _repeats(parsed: Any, *, inside: bool) -> tuple[int, bool]:
    """How many unbounded repetitions there are, and whether one stands inside another."""
    count, nested = 0, False
    for operation, argument in parsed:
        repeat = str(operation) in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and argument[1] > 64
        count += repeat
        nested = nested or (repeat and inside)
        for part in _parts(argument):
            more, deeper = _repeats(part, inside=inside or repeat)
            count, nested = count + more, nested or deeper
    return count, nested


def _parts(argument: Any) -> Iterator[Any]:
    """The expressions within an operation, however it holds them."""
    if type(argument).__name__ == "SubPattern":
        yield argument
    elif isinstance(argument, list | tuple):
        for item in argument:
            yield from _parts(item)
