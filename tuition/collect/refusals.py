"""What the store refuses, one class for each answer that a page or a command gives."""

from __future__ import annotations

from tuition.errors import UserError


class NotFoundError(UserError):
    """There is no such thing, or it is not this person's."""


class NotAllowedError(UserError):
    """The person's role does not allow it."""


class ConflictError(UserError):
    """Somebody else, or another tab, was there before; nothing was written."""


class TooManyError(UserError):
    """Too many tries; `wait_seconds` says when the next one is heard."""

    wait_seconds: float = 0.0
