"""Texts as a terminal may show them: nothing in data steers it, and amounts read as people say them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.text import Text

if TYPE_CHECKING:
    from tuition.render.preview import TokenText

BRACKETS = "⟦⟧"  # around what is learned, where there is no colour


def printable(text: str) -> str:
    """The text with terminal control characters made visible: data must not move the cursor."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def plain(text: str) -> str:
    """Text as it is, for rich: neither its markup nor a terminal's."""
    return escape(printable(text))


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def shorten(text: str, length: int = 160) -> str:
    """The text on one screen: its start, and how much more there is."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text) - length:,} more)"


def highlighted(tokens: Sequence[TokenText], *, brackets: bool = False) -> Text:
    """Tokens as text: learned ones green, control tokens underlined, weights other than 1 before what they weigh.

    White space is visible where it is learned: line ends, tabs, and spaces that no letter follows or that
    begin what is learned.

    Args:
        brackets: around what is learned, for where no colour is shown.
    """
    text = Text()
    before = 0.0
    for token in tokens:
        learned = token.supervised > 0
        if brackets and learned != (before > 0):
            text.append(BRACKETS[before > 0])
        if learned and token.supervised not in (1.0, before):
            text.append(f"×{token.supervised:g} ", style="bold")
        shown = _visible_blanks(token.text, begins=not before) if learned else token.text
        style = "green" if learned else "dim"
        text.append(printable(shown), style=f"{style} underline" if token.special else style)
        before = token.supervised
    if brackets and before > 0:
        text.append(BRACKETS[1])
    return text


def _visible_blanks(text: str, *, begins: bool) -> str:
    unseen = r" {2,}| +$|^ +" if begins else r" {2,}| +$"
    dotted = re.sub(unseen, lambda blanks: "·" * len(blanks[0]), text)
    return dotted.replace("\n", "↵\n").replace("\t", "→")
