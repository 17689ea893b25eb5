"""Personal data and secrets in the text of a conversation. What is found is never shown in full.

These look for forms that can be known: addresses, numbers with check digits, keys with fixed beginnings. Names
and places have no form; a named-entity tool such as presidio looks for those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tuition.conversation import Conversation
from tuition.data.catalogue import finding
from tuition.data.turns import text_of
from tuition.errors import Finding

Find = Callable[[str], Iterator[str]]


def personal_data(conversation: Conversation) -> Iterator[Finding]:
    """D045, D046, D047: one finding for each kind and turn, with the first of its kind masked."""
    for position, message in enumerate(conversation.messages, 1):
        text = text_of(message)
        for kind, (code, find) in KINDS_OF_DATA.items():
            found = list(dict.fromkeys(find(text)))
            if found:
                several = f"{len(found)} of this kind, the first " if len(found) > 1 else ""
                shown = f"turn {position} holds {kind}: {several}{masked(found[0])}"
                yield finding(code, conversation.origin, shown)


def masked(value: str) -> str:
    """A few characters of the beginning and the end, by which its owner knows it and nobody else can use it."""
    value = " ".join(value.split())
    shown = min(4, len(value) // 5)
    return f"{value[:shown]}…{value[-min(2, shown) :] if shown else ''}"


# --- e-mail ---

_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,4}[a-zA-Z]{2,24}(?![\w@])")
# Reserved for examples (RFC 2606), and addresses behind which there is no person
_NOBODY = re.compile(
    r"@(?:[\w-]+\.)*(?:example\.\w+|[\w-]+\.(?:example|test|invalid|localhost))$|^git@", re.I
)


def emails(text: str) -> Iterator[str]:
    """Addresses, but for those of the domains that are reserved for examples."""
    if "@" in text:
        for found in _EMAIL.finditer(text):
            if not _NOBODY.search(found[0]):
                yield found[0]


# --- phone ---

_PHONE = re.compile(
    r"""
    (?<![\w+.,/=#-])(?<!\d[ ])(?:
      \+(?!1[\s.(-]?)[2-9]\d{0,2}(?:[ .-]?\(0?\d{0,4}\))?(?:[ ./-]?\d){6,12}     # international
    | (?:\+?1[ .-]?)?\([2-9]\d{2}\)[ .-]?[2-9]\d{2}[ .-]\d{4}                 # (415) 867-5309
    | (?:\+?1[ -])?[2-9]\d{2}([.-])[2-9]\d{2}\1\d{4}                         # 415-867-5309
    | \+1[ .-]?[2-9]\d{2}[ .-]?[2-9]\d{2}[ .-]?\d{4}                          # +1 415 867 5309
    | 0[1-9](?:([ .-])\d{2})(?:\2\d{2}){3}                                    # 06 12 34 56 78
    | \(0[1-9]\d{1,4}\)[ ]?\d{3,4}(?:[ -]?\d{2,4}){1,2}                       # (030) 1234 567
    | 0[1-9]\d{1,4}(?:[ /]|[ ]?[/-][ ]?)\d{3,8}(?:[ -]\d{2,4}){0,2}           # 030 1234567, 020 7946 0958
    )(?![\w*^-]|[.,]\d)
    """,
    re.VERBOSE,
)
_FICTION = re.compile(r"555\D?01\d\d$")  # numbers that are kept free for films


def phones(text: str) -> Iterator[str]:
    """Numbers with a country code, and the common national ways to write one: plain digits are no phone."""
    if _has_digits(text, 7):
        for found in _PHONE.finditer(text):
            digits = sum(map(str.isdigit, found[0]))
            if 9 <= digits <= 15 and not _FICTION.search(found[0]):
                yield found[0]


def _has_digits(text: str, least: int) -> bool:
    return sum(map(text.count, "0123456789")) >= least


# --- cards and accounts ---

_CARD = re.compile(
    r"(?<![\d.,+-])(?<!\d )(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?![\d-]|[.,]\d| \d)"
)
_ISSUERS = re.compile(
    r"4|5[1-5]|2(?:2[2-9]|[3-6]|7[01]|720)|3[47]|3(?:0[0-5]|[689])|35|6(?:011|4[4-9]|5|2|[37])|50"
)
_CARD_LENGTHS = {"4": (13, 16, 19), "5": (16,), "2": (16,), "3": (14, 15, 16), "6": (16, 17, 18, 19)}


def cards(text: str) -> Iterator[str]:
    """Numbers of payment cards: an issuer's beginning and length, and the check digit of Luhn."""
    if _has_digits(text, 13):
        for found in _CARD.finditer(text):
            digits = re.sub(r"\D", "", found[0])
            issued = _ISSUERS.match(digits) and len(digits) in _CARD_LENGTHS[digits[0]]
            if issued and len(set(digits)) > 1 and passes_luhn(digits):
                yield found[0]


def passes_luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![a-z])")
_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 "
    "FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 "
    "LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 "
    "SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBANS.split()}


def ibans(text: str) -> Iterator[str]:
    """Bank accounts: the country's length and the check digits (ISO 13616, remainder 1 of 97)."""
    if _has_digits(text, 10):
        for found in _IBAN.finditer(text):
            compact = found[0].replace(" ", "")[: _IBAN_LENGTHS.get(found[0][:2], 0)]
            if len(compact) == _IBAN_LENGTHS.get(found[0][:2]) and passes_mod_97(compact):
                yield compact


def passes_mod_97(iban: str) -> bool:
    """Whether the two check digits fit the account, letters counting from A = 10."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


# --- keys and tokens ---

# Kind → what must stand in the text before the pattern is tried, and the pattern
_SECRETS: dict[str, tuple[str, str]] = {
    "an AWS access key": ("IA", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    "a GitHub token": ("github_pat_", r"(?<!\w)github_pat_\w{40,255}"),
    "a GitHub token (gh…_)": ("gh", r"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,255}"),
    "a Hugging Face token": ("hf_", r"(?<!\w)hf_[A-Za-z0-9]{30,64}(?!\w)"),
    "an API key (sk-…)": ("sk-", r"(?<![\w-])sk-(?:[a-z]{2,8}\d{0,2}-)*[A-Za-z0-9_-]{20,200}"),
    "a Slack token": ("xox", r"(?<!\w)xox[abeoprs]-[0-9A-Za-z-]{10,200}"),
    "a Google API key": ("AIza", r"(?<!\w)AIza[\w-]{35}(?![\w-])"),
    "a Stripe key": ("k_live_", r"(?<!\w)[rs]k_live_[0-9A-Za-z]{16,200}"),
    "a JSON web token": ("eyJ", r"(?<![\w-])eyJ[\w-]{10,4000}\.eyJ[\w-]{10,4000}\.[\w-]{10,2000}"),
    "a private key": ("PRIVATE KEY", r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"),
}
_LEAST_DISTINCT = 8  # sk-xxxxxxxxxxxxxxxxxxxx is a placeholder


def _finder(hint: str, pattern: str) -> Find:
    compiled = re.compile(pattern)

    def find(text: str) -> Iterator[str]:
        if hint in text:
            for found in compiled.finditer(text):
                if len(set(found[0])) >= _LEAST_DISTINCT:
                    yield found[0]

    return find


KINDS_OF_DATA: dict[str, tuple[str, Find]] = {
    "an e-mail address": ("D045", emails),
    "a phone number": ("D045", phones),
    "a payment card": ("D046", cards),
    "a bank account (IBAN)": ("D046", ibans),
    **{kind: ("D047", _finder(*form)) for kind, form in _SECRETS.items()},
}
