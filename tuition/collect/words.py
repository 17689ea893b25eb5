"""The words of prompts, for a search that reads no text: how a prompt is cut into them, and how they are asked for.

A word is found whatever its case and accents, the last one by its beginning, as one types it. Scripts that set no blanks between words
(Chinese, Japanese) are cut into their characters, so that any part of a text is found.
"""

from __future__ import annotations

import json
import re
import unicodedata

_WITHOUT_BLANKS = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
# letters, but for those of New Tai Lue and two Vedic signs, which the index takes for marks between words
_WORD = re.compile(r"[^\W_\u19b0-\u19c9\u1cf2\u1cf3]+")
_MOST_WORDS = 20  # that are looked for: more narrow nothing down


def words_of(messages: str) -> str:
    """What is indexed of a prompt: the texts of its conversation, without instructions that many prompts share.

    Args:
        messages: as the store keeps them, in JSON.
    """
    said = (message for message in json.loads(messages) if message["role"] not in ("system", "developer"))
    return _apart(" ".join(message.get("content") or "" for message in said))


def query_of(words: str) -> str:
    """The full-text query for prompts that hold all of these words; empty where none is a word."""
    found = _WORD.findall(_apart(unicodedata.normalize("NFC", words)))[:_MOST_WORDS]
    return " ".join(f'"{word}"' for word in found) + "*" if found else ""


def _apart(text: str) -> str:
    return _WITHOUT_BLANKS.sub(r" \1 ", text)
