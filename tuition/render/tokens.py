"""From text to token ids, as serving tokenises, with no way for content to forge a control token.

Loading a tokenizer goes through transformers; this file itself imports neither it nor torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuition.errors import UserError

Ids = npt.NDArray[np.int32]

# Unicode promises never to assign these, so content has no use for them. One that a conversation does
# not contain marks the places where a control token's spelling in content is cut in two.
_CUT_MARKS = tuple(chr(point) for point in range(0xFDD0, 0xFDF0))
_ANCHORS = ("\n", "a", ".")


def load_tokenizer(model: str, revision: str | None = None) -> Any:
    """The tokenizer of a local folder or a hub name. Remote code is never run.

    Raises:
        UserError: the folder has no tokenizer, or the name is unknown.
    """
    check_local_folder(model)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"no tokenizer can be loaded ({_first_sentence(error)})",
            where=model,
            next_step="The model's folder needs tokenizer.json and tokenizer_config.json beside config.json",
        ) from error


def check_local_folder(model: str) -> None:
    """Refuse a path that is not a folder, before a hub is asked for it by mistake.

    Raises:
        UserError: the name looks like a path and is missing, or is a file.
    """
    path = Path(model)
    if path.exists() and not path.is_dir():
        raise UserError("the model is a file, not a folder", where=model, next_step="Name its folder")
    looks_local = model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model
    if looks_local and not path.exists():
        raise UserError(
            "no such model folder",
            where=model,
            next_step="Give a local folder or a hub name such as owner/name",
        )


class Tokens:
    """A tokenizer as rendering needs it: batches of ids, continuations, and content that stays content."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text, exactly as serving tokenises a rendered chat (nothing added).

        Returns:
            one (tokens,) int32 array a text.
        """
        if not texts:
            return []
        batch = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return [np.asarray(ids, dtype=np.int32) for ids in batch]

    def encode_cut(self, text: str, mark: str) -> Ids:
        """Token ids of a text whose cut marks keep the spelling of control tokens plain."""
        first, *rest = text.split(mark)
        return np.concatenate([self.encode([first])[0], *(self.continuation(piece) for piece in rest)])

    def continuation(self, text: str) -> Ids:
        """Token ids of `text` where something stands before it.

        SentencePiece-like tokenizers put a space before the start of a text; in the middle of one there
        is none. So the text is encoded behind an anchor, and the anchor's ids are taken off again.
        """
        for anchor in _ANCHORS:
            alone, behind = self.encode([anchor, anchor + text])
            if len(behind) >= len(alone) and np.array_equal(behind[: len(alone)], alone):
                return behind[len(alone) :]
        return self.encode([text])[0]

    def plain_prompt(self, text: str) -> Ids:
        """Token ids of a plain prompt: what the tokenizer puts in front (BOS), then the text."""
        return np.concatenate([self.prefix_ids, self.encode([text])[0]])

    @cached_property
    def prefix_ids(self) -> Ids:
        """What this tokenizer puts before every plain text: BOS, or nothing."""
        with_special = self.tokenizer("a", return_attention_mask=False)["input_ids"]
        without = self.tokenizer("a", add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for start in range(len(with_special) - len(without) + 1):
            if with_special[start : start + len(without)] == without:
                return np.asarray(with_special[:start], dtype=np.int32)
        return np.zeros(0, dtype=np.int32)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that the tokenizer flags as special."""
        flagged = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset(flagged | set(self.tokenizer.all_special_ids))

    @cached_property
    def special_spellings(self) -> tuple[str, ...]:
        """Spellings of the special tokens, longest first. Short ones that text uses daily are none."""
        spellings = {str(self.tokenizer.convert_ids_to_tokens(i)) for i in self.special_ids}
        return tuple(sorted((s for s in spellings if len(s) > 1), key=len, reverse=True))

    def control_tokens_in(self, texts: Iterable[str]) -> list[str]:
        """The special tokens that content spells out, each once, in the order they appear."""
        return list(dict.fromkeys(self._special_pattern.findall("\0".join(texts))))

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.special_spellings)) or r"(?!)")

    @property
    def eos_id(self) -> int | None:
        """The tokenizer's end-of-sequence token."""
        return None if self.tokenizer.eos_token_id is None else int(self.tokenizer.eos_token_id)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that these tokens add in the middle of a text, leading spaces kept."""
        anchor = self._anchor_ids
        return self.decode([*anchor, *ids])[len(self.decode(anchor)) :]

    @cached_property
    def _anchor_ids(self) -> list[int]:
        return [int(i) for i in self.encode(["a"])[0]]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of `ids`, control tokens spelled out, spaces untouched."""
        return str(
            self.tokenizer.decode(
                [int(i) for i in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def cut_mark_for(texts: Iterable[str]) -> str | None:
    """A mark that occurs in none of the texts; None when they hold every one of them."""
    joined = "\0".join(texts)
    return next((mark for mark in _CUT_MARKS if mark not in joined), None)


def cut_control_tokens(value: Any, spellings: Sequence[str], mark: str) -> Any:
    """The same strings, lists and mappings with a cut mark inside each spelling of a control token."""
    if isinstance(value, str):
        for spelling in spellings:
            value = value.replace(spelling, spelling[0] + mark + spelling[1:])
        return value
    if isinstance(value, Mapping):
        return {key: cut_control_tokens(item, spellings, mark) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cut_control_tokens(item, spellings, mark) for item in value]
    return value


def strings_in(value: Any) -> Iterable[str]:
    """Every string in nested lists and mappings, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_in(item)


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0][:200]
