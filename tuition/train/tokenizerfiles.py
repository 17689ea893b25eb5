"""tokenizer_config.json as both major versions of transformers read it.

Version 5 writes a class (`TokenizersBackend`) and a list of special tokens that version 4 refuses, and leaves out
what a tokenizer returns, which version 4 then takes for more than `generate` allows. Said in version 4's words,
both read the same tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuition import files

_CLASS_OF_5, _CLASS_OF_BOTH = "TokenizersBackend", "PreTrainedTokenizerFast"
_INPUTS_OF_5 = ["input_ids", "attention_mask"]  # version 4's own default has token_type_ids too


def readable_by_version_4(said: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration in words that both versions read; one that version 5 did not write, as it is."""
    if said.get("tokenizer_class") != _CLASS_OF_5:
        return dict(said)
    both = {key: value for key, value in said.items() if key != "backend"}
    both["tokenizer_class"] = _CLASS_OF_BOTH
    both.setdefault("model_input_names", _INPUTS_OF_5)
    if isinstance(both.get("extra_special_tokens"), list):  # version 4 wants names there, and this list here
        both["additional_special_tokens"] = both.pop("extra_special_tokens")
    return both


def make_readable_by_version_4(folder: Path) -> None:
    """Rewrite tokenizer_config.json where version 5 wrote it; tokenizer.json is the same in both."""
    file = folder / "tokenizer_config.json"
    if not file.exists():
        return
    said = json.loads(file.read_text(encoding="utf-8"))
    both = readable_by_version_4(said)
    if both != said:
        files.write_json(file, both)
