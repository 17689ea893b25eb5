"""The files of a model folder, read with bounds: objects of JSON, their numbers, the index and the tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tuition.errors import UserError, one_line
from tuition.foreign import require_readable

# Every JSON object that a library may open in a model folder.
OBJECTS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "processor_config.json", "preprocessor_config.json", "chat_template.json",
    "adapter_config.json",
)  # fmt: skip
_OBJECT_BYTES = 16 << 20
_HEADER_BYTES = 64 << 20
_DEEPEST = 48
_LARGEST_NUMBER = 2**31
_MOST_LAYERS = 1_000
_MOST_GROWTH = 1_000
_LONGEST_LIST = 10_000
_MOST_COUNTED = 100_000
_INDEX = "model.safetensors.index.json"

_SIZE = re.compile(
    r"(^(n|num)_|_(size|dim|layers|heads|embeddings|positions|experts|labels)$|^(r|lora_alpha)$)"
)
_COUNT = re.compile(r"^(n|num)_|_(layers|heads|experts|labels|beams|groups)$|^(depth|r)$")
_NO_COUNT = re.compile(r"size|dim|token|position|embed|embd|ctx|inner|length|param|seq|mel|freq")
_LAYERS = re.compile(r"layers?$|^depth$|blocks$")
_FREE = re.compile(r"theta|base|factor|_id$|seed|hash")

# What configurations call the most positions, in the order they are asked.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_LONGEST_BY_DEFAULT = 8192


def refuse(path: Path, what: str, next_step: str) -> UserError:
    """The refusal of one file of a model folder."""
    return UserError(what, where=str(path), next_step=next_step)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: it is too large, too deep, or no object.
    """
    require_readable(path, _OBJECT_BYTES, "Copy or download the model again", no_other="such file of a model")
    content = _parsed(path)
    if not isinstance(content, dict):
        raise refuse(path, "holds no JSON object", "Copy or download the model again")
    if any(depth > _DEEPEST for depth, _, _ in _values(content)):
        raise refuse(path, "is nested too deep", "Copy or download the model again")
    return content


def positions_in(folder: Path) -> int | None:
    """The most positions that the model of a folder can hold, as its config.json says; None: it does not."""
    path = folder / "config.json"
    said = read_object(path) if path.exists() else {}
    inner = said.get("text_config")
    for part in (inner if isinstance(inner, dict) else {}, said):
        for name in POSITIONS:
            value = part.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def longest_example(asked: int | str, positions: int | None) -> int:
    """The most tokens of an example: as asked; where `max_length` is auto, what the model can hold, at most 8,192.

    Raises:
        UserError: more is asked for than the model holds.
    """
    if asked == "auto":
        return min(positions or _LONGEST_BY_DEFAULT, _LONGEST_BY_DEFAULT)
    if positions is not None and int(asked) > positions:
        raise UserError(
            f"max_length {asked:,} is more than the {positions:,} positions the model holds",
            where="max_length",
            next_step=f"Set max_length: {positions} or auto",
        )
    return int(asked)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise refuse(path, "is nested too deep", "Copy or download the model again") from None
    except ValueError as error:  # UnicodeDecodeError too
        raise refuse(
            path, f"cannot be read as JSON ({str(error)[:120]})", "Copy or download the model again"
        ) from None


def check_growth(path: Path) -> None:
    """Refuse a tokenizer.json whose normalizer makes a text many times longer: replacements multiply.

    Raises:
        UserError: it is no JSON object, or a character would become more than a thousand.
    """
    content = _parsed(path)
    if not isinstance(content, dict):
        raise refuse(path, "holds no JSON object", "Copy or download the model again")
    growth = 1
    for part in (content.get("normalizer"), content.get("decoder"), content.get("pre_tokenizer")):
        for _, key, value in _values(part):
            if key in ("content", "prepend", "replacement") and isinstance(value, str):
                growth *= max(1, len(value))
    if growth > _MOST_GROWTH:
        raise refuse(
            path,
            f"its replacements could make a text {growth:,} times as long",
            "Copy or download the model again",
        )


def _values(content: Any) -> Iterator[tuple[int, str, Any]]:
    """Every value with its depth and the key above it; never deeper than one level beyond what is allowed."""
    waiting: list[tuple[int, str, Any]] = [(0, "", content)]
    while waiting:
        depth, key, value = waiting.pop()
        yield depth, key, value
        if depth > _DEEPEST:
            continue
        if isinstance(value, dict):
            waiting += [(depth + 1, str(name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(depth + 1, key, inner) for inner in value]


def check_numbers(path: Path, content: dict[str, Any]) -> None:
    """Refuse sizes that no model has: libraries make lists and layers of them before they look at a weight.

    Raises:
        UserError: naming the key.
    """
    for _, key, value in _values(content):
        if isinstance(value, list) and len(value) > _LONGEST_LIST:
            raise refuse(
                path,
                f"{key} lists {len(value):,} values, as no model does",
                "Copy or download the model again",
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if reason := _absurd(key, value):
            shown = str(value) if len(str(value)) < 40 else f"{str(value)[:40]}…"
            raise refuse(path, f"{key} is {shown}: {reason}", "Copy or download the model again")


def _absurd(key: str, value: float) -> str | None:
    """Why a number cannot be; None where it can."""
    if _FREE.search(key):
        return None
    if value < 0 and _SIZE.search(key):
        return "a size is not negative"
    if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        return "no model has that many"
    if _LAYERS.search(key) and value > _MOST_LAYERS:
        return f"no model has more than {_MOST_LAYERS:,} layers"
    if _COUNT.search(key) and not _NO_COUNT.search(key) and value > _MOST_COUNTED:
        return "no model has that many"
    return None


def shards_of(folder: Path) -> list[Path]:
    """The safetensors files that hold the model: the one, or those that the index names; none if there are none.

    Raises:
        UserError: the index cannot be read or names a file that is not in the folder itself.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / _INDEX
    if not index.is_file():
        return []
    listed = read_object(index).get("weight_map")
    names = {str(name) for name in listed.values()} if isinstance(listed, dict) else set()
    if not names:
        raise refuse(index, "names no files", "Copy or download the model again")
    for name in sorted(names):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors") or "\0" in name:
            raise refuse(
                index,
                f"names {name[:80]!r}, which is no safetensors file in the model folder",
                "Copy or download the model again",
            )
    return [folder / name for name in sorted(names)]


def check_tensors(folder: Path, shards: Sequence[Path]) -> int:
    """Refuse safetensors whose headers lie; how many tensors they hold.

    Raises:
        UserError: naming the file that is missing or damaged, or the configuration with more layers than tensors.
    """
    tensors = sum(len(_tensors_in(shard)) for shard in shards)
    config = folder / "config.json"
    if config.exists():
        for _, key, value in _values(read_object(config)):
            if key in ("num_hidden_layers", "n_layer") and isinstance(value, int) and value > tensors:
                raise refuse(
                    config,
                    f"{key} is {value:,}, and the weights hold {tensors:,} tensors",
                    "Copy or download the model again",
                )
    return tensors


def _tensors_in(shard: Path) -> list[str]:
    from safetensors import safe_open

    if not shard.is_file():
        raise refuse(shard, "is missing", "Copy or download the model again")
    with shard.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if header > min(_HEADER_BYTES, shard.stat().st_size):
        raise refuse(
            shard,
            f"is damaged: its header would be {header:,} bytes long",
            "Copy or download the model again",
        )
    try:
        with safe_open(shard, framework="numpy") as tensors:
            return list(tensors.keys())
    except Exception as error:  # the library's own exception, and those of the disk
        raise refuse(
            shard, f"is damaged ({one_line(error, 160)})", "Copy or download the model again"
        ) from None
