"""Whether a text can be written: half a character (a lone surrogate) has no form in UTF-8."""

from __future__ import annotations


def encodable(text: str) -> bool:
    """Whether the text has a form in UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
