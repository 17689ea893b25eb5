"""A model written so that others load it with plain transformers: weights, configuration, stop tokens, tokenizer.

Into a folder that `files.publish_folder` makes appear; nothing here is durable by itself.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tuition import files
from tuition.errors import one_line
from tuition.train.model import attention_of, ordinary_attention
from tuition.train.tokenizerfiles import make_readable_by_version_4

# What a tokenizer's folder may hold. Copied as they are when the vocabulary did not change, because
# saving again rewrites them in a form that tools of the previous major version cannot read.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip


@contextmanager
def disk_faults_of(folder: Path) -> Iterator[None]:
    """Other libraries write into the folder inside; what a disk refuses them becomes an OSError that names it."""
    try:
        with files.named(folder):
            yield
    except SafetensorError as error:
        raise OSError(errno.EIO, one_line(error), str(folder)) from error


def stop_tokens_of(model: Any) -> list[int]:
    """The tokens that end an answer when the model is served."""
    return _as_list(model.generation_config.eos_token_id)


def stop_tokens_in(folder: Path) -> list[int]:
    """The stop tokens that generation_config.json in a folder names; none where there is no such file."""
    file = folder / "generation_config.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return _as_list(said.get("eos_token_id"))


def _as_list(tokens: int | Sequence[int] | None) -> list[int]:
    """Stop tokens in any of the ways in which a configuration writes them."""
    if tokens is None:
        return []
    return [tokens] if isinstance(tokens, int) else list(tokens)


def set_stop_tokens(model: Any, tokenizer: Any, stop_ids: Sequence[int]) -> None:
    """Write the learned stop tokens where every server looks for them: generation_config."""
    generation = model.generation_config
    stops = list(dict.fromkeys([*stop_ids, *stop_tokens_of(model)]))
    if stops:
        generation.eos_token_id = stops[0] if len(stops) == 1 else stops
    if tokenizer.pad_token_id is not None:
        generation.pad_token_id = tokenizer.pad_token_id
    elif generation.pad_token_id is None and stops:
        generation.pad_token_id = stops[-1]


def save_model(model: Any, folder: Path, *, config_dropout_of: str | None = None) -> None:
    """Write weights, configuration and generation configuration as plain transformers loads them.

    Args:
        config_dropout_of: the base model's folder, whose dropout rates the configuration gets back; None: none is changed.
    """
    with attention_of(model, ordinary_attention(model)):
        model.save_pretrained(folder, safe_serialization=True)
    if config_dropout_of is not None:
        _restore_dropout(folder / "config.json", config_dropout_of)


def _restore_dropout(config_file: Path, base: str) -> None:
    """Fine-tuning switched dropout off for the run; what is written says what the base's configuration said."""
    original = Path(base) / "config.json"
    if not original.exists():
        return
    before = json.loads(original.read_text(encoding="utf-8"))
    config = json.loads(config_file.read_text(encoding="utf-8"))
    for name in config.keys() & before.keys():
        if name.endswith(("dropout", "pdrop", "dropout_rate")):
            config[name] = before[name]
    files.write_json(config_file, config)


def save_tokenizer(tokenizer: Any, folder: Path, *, base: str, vocabulary_changed: bool, plain: bool) -> None:
    """Write the tokenizer beside the model, with the chat template that training used.

    Args:
        base: the model it came from; its files are copied when the vocabulary did not change, to the byte
            where version 4 of transformers reads them.
        vocabulary_changed: True when control tokens were added.
        plain: the model learned plain text: it is shipped without a template that it never saw.
    """
    source = Path(base)
    if source.is_dir() and not vocabulary_changed:
        for name in TOKENIZER_FILES:
            if (source / name).is_file() and not (source / name).is_symlink():
                files.copy(source / name, folder / name)
    else:
        tokenizer.save_pretrained(folder)
    make_readable_by_version_4(folder)
    template = folder / "chat_template.jinja"
    if plain:
        files.remove_file(template)
        _drop_key(folder / "tokenizer_config.json", "chat_template")
    elif isinstance(tokenizer.chat_template, str):
        files.write_text(template, tokenizer.chat_template)


def _drop_key(file: Path, key: str) -> None:
    if file.exists() and key in (content := json.loads(file.read_text(encoding="utf-8"))):
        del content[key]
        files.write_json(file, content)
