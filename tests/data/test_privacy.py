"""Personal data and keys are found, what only looks like them is not, and nothing is shown in full."""

from __future__ import annotations

import time

import pytest

from tuition.conversation import Conversation, Message
from tuition.data.privacy import masked, passes_luhn, passes_mod_97, personal_data
from tuition.errors import Origin

LETTERS = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3hJ5"


def found(text: str) -> list[tuple[str, str]]:
    conversation = Conversation((Message("assistant", text),), Origin("a", 1))
    return [(f.code, f.message) for f in personal_data(conversation)]


PLANTED: dict[str, tuple[str, str]] = {
    # value → code, the kind that is named
    "jane.doe+list@mail.company.co.uk": ("D045", "an e-mail address"),
    "jörg@bäckerei.de": ("D045", "an e-mail address"),
    "+49 30 901820": ("D045", "a phone number"),
    "+44 20 7946 0958": ("D045", "a phone number"),
    "+1 415 867 5309": ("D045", "a phone number"),
    "+14158675309": ("D045", "a phone number"),
    "+49 (0)30 9018-2000": ("D045", "a phone number"),
    "+86 138 0013 8000": ("D045", "a phone number"),
    "(415) 867-5309": ("D045", "a phone number"),
    "415-867-5309": ("D045", "a phone number"),
    "1-415-867-5309": ("D045", "a phone number"),
    "415.867.5309": ("D045", "a phone number"),
    "06 12 34 56 78": ("D045", "a phone number"),
    "020 7946 0958": ("D045", "a phone number"),
    "0171 1234567": ("D045", "a phone number"),
    "030/1234567": ("D045", "a phone number"),
    "(030) 1234 567": ("D045", "a phone number"),
    "4111 1111 1111 1111": ("D046", "a payment card"),
    "4012888888881881": ("D046", "a payment card"),
    "5500-0000-0000-0004": ("D046", "a payment card"),
    "3782 822463 10005": ("D046", "a payment card"),
    "DE89 3704 0044 0532 0130 00": ("D046", "a bank account (IBAN)"),
    "GB29NWBK60161331926819": ("D046", "a bank account (IBAN)"),
    "NO93 8601 1117 947": ("D046", "a bank account (IBAN)"),
    "AKIAIOSFODNN7EXAMPLE": ("D047", "an AWS access key"),
    "ghp_" + LETTERS: ("D047", "a GitHub token (gh…_)"),
    "github_pat_" + LETTERS + LETTERS[:20]: ("D047", "a GitHub token"),
    "hf_" + LETTERS[:34]: ("D047", "a Hugging Face token"),
    "sk-" + LETTERS: ("D047", "an API key (sk-…)"),
    "sk-proj-" + LETTERS + "_-" + LETTERS: ("D047", "an API key (sk-…)"),
    "sk-ant-api03-" + LETTERS: ("D047", "an API key (sk-…)"),
    "xoxb-123456789012-" + LETTERS[:24]: ("D047", "a Slack token"),
    "AIza" + LETTERS[:35]: ("D047", "a Google API key"),
    "sk_" + "live_" + LETTERS[:24]: ("D047", "a Stripe key"),
    f"eyJ{LETTERS}.eyJ{LETTERS}.{LETTERS}": ("D047", "a JSON web token"),
    "-----BEGIN RSA PRIVATE KEY-----": ("D047", "a private key"),
    "-----BEGIN OPENSSH PRIVATE KEY-----": ("D047", "a private key"),
}


@pytest.mark.parametrize("value", PLANTED)
@pytest.mark.parametrize("around", ["{}", "Write to {}, please.", "<{}>", "a: '{}'", "({})", "x\n{}\ny"])
def test_planted_data_is_found_and_masked(value: str, around: str) -> None:
    code, kind = PLANTED[value]
    assert found(around.format(value)) == [(code, f"turn 1 holds {kind}: {masked(value)}")]


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-17, 17.05.2024, 05/17/2024 and 17-05-2024 10:30:45",
        "from 01.02.2023 to 03.04.2024, or 01-02-2023 until 12-31-2024",
        "1234567890 people, 12,345,678,901 atoms, 0.1234567890123 and 1e10",
        "3 + 415 - 867 = -449; 100-200-3000; 10 000 000 000",
        "x = 20000000000 +30000000000*2 and 5+4915112345678",
        "ISBN 978-3-16-148410-0 and 0-306-40615-2",
        "192.168.100.200 and 10.0.0.1, version 1.415.867.5309",
        "48/2 = <<48/2=24>>24 clips. 48+24 = <<48+24=72>>72 #### 72",
        "4111 1111 1111 1112 is no card, nor is 1234567890123456 or 0000000000000000",
        "the id is 550e8400-e29b-41d4-a716-446655440000",
        "sha 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "me@example.com, git@github.com:a/b.git, user@localhost and @property",
        "call 555-0142 or (212) 555-0142",
        "DE89 3704 0044 0532 0130 01 has wrong check digits",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx, hf_xxx, AKIA and ghp_short",
        "a sk-learn pipeline; task-management; risk-assessment-for-beginners",
        "-----BEGIN PUBLIC KEY-----",
        "pi is 3.14159265358979323846",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "It took 4539 5787 6362 1486 8000 steps",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_several_of_a_kind_are_one_finding() -> None:
    assert found("ann@mail.org, bob@mail.org, ann@mail.org") == [
        ("D045", "turn 1 holds an e-mail address: 2 of this kind, the first an…rg")
    ]


def test_reasoning_and_tool_calls_are_looked_into() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"key": "sk-" + LETTERS}}}
    message = Message("assistant", "", tool_calls=(call,), reasoning="ask ann@mail.org")
    codes = [f.code for f in personal_data(Conversation((message,), Origin("a", 1)))]
    assert codes == ["D045", "D047"]


@pytest.mark.parametrize("value", PLANTED)
def test_a_mask_shows_less_than_half_and_never_more_than_six_characters(value: str) -> None:
    shown = masked(value).replace("…", "")
    assert len(shown) <= 6 and len(shown) < len(value) / 2
    assert value not in masked(value)


def test_check_digits() -> None:
    assert passes_luhn("79927398713") and not any(passes_luhn(f"7992739871{n}") for n in "012456789")
    assert passes_mod_97("GB82WEST12345698765432") and not passes_mod_97("GB82WEST12345698765423")


@pytest.mark.parametrize(
    "piece", ["a@", "a.", "1 ", "0", "+49 ", "sk-a-", "eyJaaaaaaaaaa.", "DE89 ", "(0", "-"]
)
def test_hostile_text_is_looked_through_in_bounded_time(piece: str) -> None:
    began = time.process_time()
    found(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 1
