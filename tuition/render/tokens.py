"""From text to token ids, as serving tokenises, with no way for content to forge a control token.

Loading a tokenizer goes through transformers; this file itself imports neither it nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tuition.errors import UserError
from tuition.render.content import strings_in as strings_in
from tuition.render.modelfolder import check_tokenizer, open_model
from tuition.render.words import Words, words_of

Ids = npt.NDArray[np.int32]

_ANCHORS = ("\n", "a", ".")


def load_tokenizer(model: str, revision: str | None = None, *, trusted: str | None = None) -> Any:
    """The tokenizer of a local folder or a hub name.

    Args:
        trusted: the setting `trust_remote_code`; None: no code is run.

    Raises:
        UserError: the folder has no tokenizer, something in it is refused, or the name is unknown.
    """
    opened = open_model(model, revision, trusted=trusted)
    check_tokenizer(opened.path)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(opened.path, **opened.arguments)
        # settings that fit no use are found here, and not by the first row
        tokenizer.decode(tokenizer(["a"], add_special_tokens=False)["input_ids"][0])
        return tokenizer
    except BaseException as error:  # damage ends in exceptions of several libraries, and in Rust's panics
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UserError(
            f"no tokenizer can be loaded ({_first_sentence(error)})",
            where=model,
            next_step="The model's folder needs tokenizer.json and tokenizer_config.json beside config.json",
        ) from error


class Tokens:
    """A tokenizer as rendering needs it: batches of ids, continuations, and content that stays content."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._blank: dict[int, bool] = {}

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text, exactly as serving tokenises a rendered chat (nothing added).

        Returns:
            one (tokens,) int32 array a text.
        """
        if not texts:
            return []
        if "" in texts:  # some tokenizers put a space even before nothing
            filled = iter(self.encode([text for text in texts if text]))
            return [next(filled) if text else np.zeros(0, dtype=np.int32) for text in texts]
        if self._is_plain_backend and _is_at_rest(self.tokenizer.backend_tokenizer):
            return self._encode_plain(texts)
        batch = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return [np.array(ids, dtype=np.int32) for ids in batch]

    def _encode_plain(self, texts: Sequence[str]) -> list[Ids]:
        """Word by word where that is the same and saves time, by the tokenizers library elsewhere."""
        words = self._words
        ids = [words.ids(text) if words is not None and text.isascii() else None for text in texts]
        others = [text for text, known in zip(texts, ids, strict=True) if known is None]
        if others:
            encodings = self.tokenizer.backend_tokenizer.encode_batch_fast(others, add_special_tokens=False)
            rest = iter([np.array(encoding.ids, dtype=np.int32) for encoding in encodings])
            return [next(rest) if known is None else known for known in ids]
        return [known for known in ids if known is not None]

    @cached_property
    def _words(self) -> Words | None:
        return words_of(self.tokenizer.backend_tokenizer)

    @cached_property
    def _is_plain_backend(self) -> bool:
        """True when calling the tokenizer does nothing but call the tokenizers library."""
        from transformers import PreTrainedTokenizerFast as Fast

        own = type(self.tokenizer)
        return (
            issubclass(own, Fast)
            and own.__call__ is Fast.__call__
            and own._encode_plus is Fast._encode_plus
            and not self.tokenizer.split_special_tokens
        )

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
        """Ids of the tokens that the tokenizer flags as special; the one for unknown text is text."""
        flagged = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset((flagged | set(self.tokenizer.all_special_ids)) - self._only_unknown)

    @cached_property
    def _only_unknown(self) -> frozenset[int]:
        """The unknown token, unless it has another part to play, as GPT-2's has."""
        names = self.tokenizer.special_tokens_map.items()
        played = {name for name, token in names if token == self.tokenizer.unk_token}
        return frozenset({self.tokenizer.unk_token_id} if played == {"unk_token"} else ())

    @cached_property
    def special_spellings(self) -> tuple[str, ...]:
        """Spellings of the special tokens, longest first. Short ones that text uses daily are none."""
        special = self.special_ids | self._only_unknown
        spellings = {str(self.tokenizer.convert_ids_to_tokens(i)) for i in special}
        return tuple(sorted((s for s in spellings if len(s) > 1), key=len, reverse=True))

    @cached_property
    def markup_spellings(self) -> tuple[str, ...]:
        """Spellings of the added tokens that are not flagged special, such as `<tool_call>`."""
        added = self.tokenizer.added_tokens_decoder.items()
        return tuple(token.content for i, token in added if i not in self.special_ids)

    @property
    def added_spellings(self) -> tuple[str, ...]:
        """Spellings of every token that is found before a text is tokenised."""
        return tuple(token.content for token in self.tokenizer.added_tokens_decoder.values())

    @cached_property
    def normalise(self) -> Callable[[str], str] | None:
        """What is done to a text before some of the added tokens are looked for; None where nothing is."""
        normalizer = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "normalizer", None)
        reads_normalised = any(token.normalized for token in self.tokenizer.added_tokens_decoder.values())
        return normalizer.normalize_str if normalizer and reads_normalised else None

    def id_of(self, token: str) -> int:
        """The id of a token by its spelling."""
        return int(self.tokenizer.convert_tokens_to_ids(token))

    @property
    def eos_id(self) -> int | None:
        """The tokenizer's end-of-sequence token."""
        return None if self.tokenizer.eos_token_id is None else int(self.tokenizer.eos_token_id)

    def is_blank(self, token: int) -> bool:
        """True for a token that writes only white space, or may: some vocabularies know no line break."""
        if token not in self._blank:
            self._blank[token] = token in self._only_unknown or not self.decode([token]).strip()
        return self._blank[token]

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


def _is_at_rest(backend: Any) -> bool:
    """True when the library would neither cut nor pad nor read control tokens as text."""
    return backend.truncation is None and backend.padding is None and not backend.encode_special_tokens


def _first_sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).split(". ")[0][:200]
