"""Secrets taken out of what is shown or written: passwords in addresses, keys, and secrets of the environment.

Nothing here remembers a secret; the environment is read when there is something to say.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

HIDDEN = "***"
_SHORTEST = 6  # a shorter value stands in ordinary words

_OF_ENVIRONMENT = re.compile(
    r"token|secret|passw|pwd|passphrase|credential|api_?key|_(key|pat|pass|auth|sas|dsn)$", re.IGNORECASE
)
# bos_token, pad_token and their like are no secrets
_NAME = (
    r"(?<![a-z_-])(?:[\w-]{0,40}(?:secret|passw(?:or)?d|passphrase|credentials?|api[_-]?key|access[_-]?key(?:[_-]id)?"
    r"|private[_-]?key)|(?:--?)?(?:(?:hf|hub|api|access|auth|refresh|session|bearer|github|gitlab|wandb)[_-])*token|sig|pwd)"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # https://user:password@host, and https://token@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://)[^\s/@'\"]{1,500}@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    # api_key=…, "password": …, ?sig=…
    (re.compile(rf"({_NAME}[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;)]{{4,}}", re.IGNORECASE), rf"\1{HIDDEN}"),
    # --hf-token …
    (
        re.compile(
            r"(--[\w-]{0,40}(?:token|secret|password|passwd|api-?key|access-?key)\s+[\"']?)(?!-)[^\s\"']{4,}",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # keys that are known by their beginning
    (
        re.compile(
            r"\b(?:hf_|sk-|sk_|ghp_|gho_|ghs_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza)[\w-]{12,}"
        ),
        HIDDEN,
    ),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
)


def redact(text: str) -> str:
    """The text with `***` for each secret that can be known as one."""
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _secrets() -> list[str]:
    """Values of environment variables that are named like secrets, the longest first; paths are none."""
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and _OF_ENVIRONMENT.search(name) and not Path(value[:200]).exists()
    }
    return sorted(found, key=len, reverse=True)
