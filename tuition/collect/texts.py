"""Texts at the store's door: what is no text, is too long or would be lost is refused here, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuition.errors import UserError
from tuition.utf8 import encodable

MOST_CHARACTERS = 400_000  # of one turn: a book chapter, and well below what a page can edit
MOST_TURNS = 200
Turns = list[dict[str, str]]


def plain_text(text: object, what: str, *, longest: int = MOST_CHARACTERS, empty: bool = True) -> str:
    """The text itself.

    Raises:
        UserError: it is no text, is empty where `empty` is False, too long, or has no UTF-8 form.
    """
    if not isinstance(text, str):
        raise UserError(f"{what} is no text", next_step="Send it as text")
    if not empty and not text.strip():
        raise UserError(f"{what} is empty", next_step="Write something first")
    if len(text) > longest:
        raise UserError(
            f"{what} has {len(text):,} characters, more than {longest:,}", next_step="Shorten or divide it"
        )
    if not encodable(text):
        raise UserError(f"{what} holds half a character", next_step="Write that character anew")
    return text


def read_turns(turns: Sequence[Mapping[str, Any]], *, finished: bool) -> Turns:
    """The turns that a person wrote after a prompt, checked.

    Args:
        finished: they begin and end with the assistant, alternate, and none is empty; a draft need not.

    Raises:
        UserError: they are not.
    """
    if len(turns) > MOST_TURNS:
        raise UserError(f"there are more than {MOST_TURNS} turns", next_step="Divide the conversation")
    read = []
    for number, turn in enumerate(turns):
        role = "assistant" if number % 2 == 0 else "user"
        if turn.get("role") != role:
            raise UserError(f"turn {number + 1} must be the {role}'s", next_step="Let the two take turns")
        text = plain_text(turn.get("content"), f"turn {number + 1}", empty=not finished)
        read.append({"role": role, "content": text})
    if finished and len(read) % 2 == 0:
        raise UserError("the last turn must be the assistant's answer", next_step="Write the answer first")
    return read
