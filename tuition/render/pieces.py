"""Texts in pieces that begin at control tokens, so that each piece is tokenised once however often it is read.

A tokenizer finds its control tokens before anything else and works on what stands between them alone.
Where that holds for a token, shown by trying it, the ids of a text are the ids of its pieces in a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from tuition.render.template import ChatTemplate
from tuition.render.tokens import Ids, Tokens

_BEFORE = ("a", "a ", "a\n", "the end.", " ", "\n\n", "é", "1")
_AFTER = ("", "a", " a", "\n", "\na", "\n\n a", "user\nThe end.", "é", ".")


class Pieces:
    """Splits the texts of one template and tokenises each piece once.

    Args:
        tokens: the tokenizer.
        template: its source and special tokens name the control tokens that are tried; None splits nothing.
    """

    def __init__(self, tokens: Tokens, template: ChatTemplate | None) -> None:
        self._tokens = tokens
        self._template = template

    def split(self, text: str) -> list[str]:
        """The pieces of a text, at least one; all but the first begin with a control token."""
        starts = [0, *(match.start() for match in self._border.finditer(text) if match.start())]
        return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]

    def begins_at(self, text: str, position: int) -> bool:
        """True where a piece of `text` begins at `position`."""
        return self._border.match(text, position) is not None

    def last_border(self, text: str) -> int:
        """Where the last piece of a text begins."""
        return max((text.rfind(token) for token in self._clean), default=0)

    def encode(self, pieces: Iterable[str], mark: str = "") -> dict[str, Ids]:
        """The ids of each piece, in one batch; those with a cut mark are tokenised one by one.

        Returns:
            piece → (tokens,) int32.
        """
        wanted = list(dict.fromkeys(pieces))
        whole = [piece for piece in wanted if not mark or mark not in piece]
        ids = dict(zip(whole, self._tokens.encode(whole), strict=True))
        cut = {piece: self._tokens.encode_cut(piece, mark) for piece in wanted if piece not in ids}
        return ids | cut

    def encode_text(self, text: str, mark: str) -> Ids:
        """The ids of a whole text, as its pieces are tokenised."""
        pieces = self.split(text)
        ids = self.encode(pieces, mark)
        return np.concatenate([ids[piece] for piece in pieces])

    @cached_property
    def _border(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._clean)) or r"(?!)")

    @cached_property
    def _clean(self) -> tuple[str, ...]:
        """The control tokens of the template before which a text may be split, longest first."""
        if self._template is None:
            return ()
        named = {str(token) for token in self._template.special_tokens.values()}
        written = [s for s in self._tokens.special_spellings if s in named or s in self._template.source]
        return tuple(token for token in written if self._is_clean(token))

    def _is_clean(self, token: str) -> bool:
        """True when the ids before the token and from it on are those of the whole, as far as trying tells."""
        if any(_reaches_into(other, token) for other in self._tokens.added_spellings):
            return False
        pairs = [(before, token + after) for before in _BEFORE for after in _AFTER]
        whole = self._tokens.encode([a + b for a, b in pairs])
        first = self._tokens.encode([a for a, _ in pairs])
        second = self._tokens.encode([b for _, b in pairs])
        token_id = self._tokens.id_of(token)
        return all(
            int(b[0]) == token_id and np.array_equal(w, np.concatenate([a, b]))
            for w, a, b in zip(whole, first, second, strict=True)
        )


def _reaches_into(other: str, token: str) -> bool:
    """True when a match of `other` could begin before `token` and end inside or behind it."""
    tails = (other[at:] for at in range(1, len(other)))
    return any(token.startswith(tail) or tail.startswith(token) for tail in tails)
