"""Passwords as argon2id hashes and tokens as SHA-256, so that a copied store opens no door."""

from __future__ import annotations

import hashlib
import secrets
from functools import cache
from typing import TYPE_CHECKING

from tuition.collect.texts import plain_text
from tuition.errors import UserError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST_PASSWORD = 10


def token_sha(token: str) -> str:
    """What the store keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def hash_password(password: str) -> str:
    """What the store keeps of a password.

    Raises:
        UserError: it is too short, or no text.
    """
    plain_text(password, "the password", longest=1_000)
    if len(password) < SHORTEST_PASSWORD:
        raise UserError(
            f"the password has fewer than {SHORTEST_PASSWORD} characters", next_step="Choose a longer one"
        )
    return _hasher().hash(password)


def fits(hashed: str, password: str) -> bool:
    """Whether a hash is this password's."""
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        return _hasher().verify(hashed, plain_text(password, "the password", longest=1_000))
    except (Argon2Error, InvalidHashError, UserError):
        return False


@cache
def decoy() -> str:
    """The hash of a password that nobody has, which takes as long to check as any."""
    return _hasher().hash(secrets.token_urlsafe(16))


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()  # argon2id with RFC 9106's second parameters
