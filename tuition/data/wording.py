"""Answers whose wording shows that something went wrong before they came here: a failure that was saved as
an answer, a scraper's leftovers, a model that went round in circles. Rows are kept; people decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tuition.conversation import Conversation, Message
from tuition.data.catalogue import finding, quote
from tuition.errors import Finding

_PLACEHOLDERS = (
    "nan",
    "null",
    "none",
    "n/a",
    "undefined",
    "<noinput>",
    "<nooutput>",
    "todo",
    "[object object]",
)
_PAGE_STARTS = ("<!doctype html", "<html", "<?xml")
_FAILURES = (
    "too many requests",
    "rate limit exceeded",
    "502 bad gateway",
    "503 service unavailable",
    "504 gateway time-out",
    "internal server error",
    "error generating response",
    "if this issue persists please contact us",
    "!network error",
    "enable javascript and cookies",
)
_REFUSALS = (
    "as an ai language model",
    "as a language model",
    "as an ai model",
    "i'm sorry, but i can",
    "i'm sorry, but as an ai",
    "i am sorry, but i can",
    "i’m sorry, but i can",
    "sorry, but i can",
    "sorry, i can't",
    "i cannot assist",
    "i can't assist",
    "i cannot fulfill",
    "i can't help with",
    "i'm unable to",
)
_SHORT = 200  # characters: failures of a server are short, essays that mention one are long


def learned_answers(conversation: Conversation) -> Iterator[tuple[int, Message]]:
    """Each answer that is learned, with its place in the conversation, counted from 1."""
    for position, message in enumerate(conversation.messages, 1):
        if message.role == "assistant" and message.weight != 0:
            yield position, message


def useless_answers(conversation: Conversation) -> Iterator[Finding]:
    """D032 placeholder, D033 repeated question, D034 web page or failure, D035 refusal."""
    asked = ""
    for position, message in enumerate(conversation.messages, 1):
        if message.role == "user":
            asked = message.content
        if message.role != "assistant" or message.weight == 0 or conversation.plain:
            continue
        if code := _uselessness(message, asked):
            what = {"D032": "is", "D033": "repeats the question", "D034": "opens", "D035": "opens"}[code]
            shown = "" if code == "D033" else f" {quote(message.content.strip())}"
            yield finding(code, conversation.origin, f"the answer in turn {position} {what}{shown}")


def _uselessness(message: Message, asked: str) -> str | None:
    """The code of what is wrong with an answer, if anything is."""
    text = message.content
    if text == asked and text:
        return "D033"
    head = text[:40].lstrip().lower()
    if len(head) < 20 and head.rstrip() in _PLACEHOLDERS:
        return "D032"
    if head.startswith(_PAGE_STARTS) or (len(text) < _SHORT and _reports_failure(text.lower())):
        return "D034"
    return "D035" if head.startswith(_REFUSALS) else None


def _reports_failure(text: str) -> bool:
    return any(words in text for words in _FAILURES)


# --- what a scraper left ---

_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,5});")
_TAG = re.compile(
    r"</?(?:p|div|span|br|strong|em|font|td|tr|li|ul|ol)(?:\s[^<>]{0,200})?\s*/?>", re.IGNORECASE
)
_LABELLED_AT_ONCE = ("assistant:", "ai:", "ai assistant:", "chatgpt:", "gpt:", "bot:", "### response:")
_HTML_IS_MEANT = ("html", "```", "xml", "css", "markup", "jsx", "web", "escape", "entit", "svg")


def leftover_markup(conversation: Conversation) -> Iterator[Finding]:
    """D074 HTML where nobody speaks of it; D075 an answer that begins with the name of its role."""
    for position, message in learned_answers(conversation):
        text = message.content
        if (found := _markup_in(text)) and not _speaks_of_markup(conversation):
            yield finding("D074", conversation.origin, f"the answer in turn {position} holds {quote(found)}")
        if ":" in text[:24] and text[:40].lstrip().lower().startswith(_LABELLED_AT_ONCE):
            yield finding(
                "D075", conversation.origin, f"the answer in turn {position} opens {quote(text.strip(), 30)}"
            )


def _markup_in(text: str) -> str | None:
    if "&" not in text and "</" not in text and "<br" not in text.lower():
        return None
    found = _ENTITY.search(text) or _TAG.search(text)
    return found[0] if found else None


def _speaks_of_markup(conversation: Conversation) -> bool:
    """Whether HTML may well be what was asked for."""
    said = " ".join(message.content.lower() for message in conversation.messages)
    return any(word in said for word in _HTML_IS_MEANT)


# --- round and round ---

_TAIL = 240  # characters at the end that must repeat
_LONGEST_PIECE = 60
_SHORTEST_PIECE = 3  # rows of one letter are drawn, not said


def endless_answers(conversation: Conversation) -> Iterator[Finding]:
    """D076: the end of an answer is one piece over and over, as when a model was cut off in a loop."""
    for position, message in learned_answers(conversation):
        if len(message.content) >= _TAIL and (piece := _repeated_at_end(message.content)):
            yield finding(
                "D076",
                conversation.origin,
                f"the answer in turn {position} ends with {quote(piece)} repeated",
            )


def _repeated_at_end(text: str) -> str | None:
    """The piece that the last characters of a text consist of, if it holds a letter; found in one search."""
    tail = text[-_TAIL:]
    before = tail.rfind(tail[-_LONGEST_PIECE:], 0, -1)
    period = _TAIL - _LONGEST_PIECE - before
    if before < 0 or not _SHORTEST_PIECE <= period <= _LONGEST_PIECE or tail[period:] != tail[:-period]:
        return None
    piece = tail[-period:]
    return piece if any(character.isalpha() for character in piece) else None
