"""What an answer is worth against the expected one.

A metric is a function of two texts that gives the score of one prompt. Nothing here generates answers or
reads files; an answer that is empty scores like any other and is never left out.
"""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal

ANSWER_MARKER = "####"  # GSM8K writes its final number after it
NUMBER = re.compile(
    r"""
    (?<![A-Za-z\d.])                    # not inside a word or another number: CO2, v1.5, 7-3
    (?P<sign>(?:(?<!\))[-\u2212])?)     # hyphen or minus, but (2)-3 is a subtraction
    (?:[$€£¥](?P<inner_sign>[-\u2212]?))?   # $-5
    (?P<digits>
        (?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?
        |\.\d+
    )
    (?P<exponent>(?:[eE][+-]?\d{1,3}(?!\d))?)
    """,
    re.VERBOSE,
)
# Scripts that write no spaces count one character as one word; elsewhere a word is a run of letters.
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")


def exact_match(answer: str, expected: str) -> float:
    """1 if both are the same character for character; only whitespace at the two ends is ignored."""
    return float(answer.strip() == expected.strip())


def contains(answer: str, expected: str) -> float:
    """1 if the expected text stands somewhere in the answer, with the same case.

    Every text contains the empty one, so an empty expectation is met by an empty answer only.
    """
    if not expected.strip():
        return exact_match(answer, expected)
    return float(expected.strip() in answer)


def number(answer: str, expected: str) -> float:
    """1 if the final numbers of both texts are equal as decimals: `$1,200.00` is `1200`.

    Signs of currency and percent and units are ignored (`50 %` is `50`), and a fraction is not read as
    one. No number in the expected text or in the answer scores 0.
    """
    found, wanted = final_number(answer), final_number(expected)
    return float(wanted is not None and found == wanted)


def final_number(text: str) -> Decimal | None:
    """The last number after the last `####`, or the last number of the text if none stands there."""
    after_marker = text.rpartition(ANSWER_MARKER)[2]
    numbers = list(NUMBER.finditer(after_marker)) or list(NUMBER.finditer(text))
    return decimal(numbers[-1]) if numbers else None


def decimal(found: re.Match[str]) -> Decimal:
    """The value of one match of `NUMBER`."""
    magnitude = Decimal(found["digits"].replace(",", "") + found["exponent"])
    return magnitude.copy_negate() if found["sign"] or found["inner_sign"] else magnitude


def f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall of the words, counted with repetition, without order or case.

    Words are as in `words`. Unlike SQuAD's, articles count, so that no language is favoured.
    """
    return _f1_of(words, answer, expected)


def squad_f1(answer: str, expected: str) -> float:
    """`f1` with the words of SQuAD's own script (Rajpurkar, 2016): a, an and the are left out, and words
    are what stands between spaces once punctuation is removed."""
    return _f1_of(squad_words, answer, expected)


def _f1_of(divide: Callable[[str], list[str]], answer: str, expected: str) -> float:
    given, wanted = divide(answer), divide(expected)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return overlap(shared, given, wanted) if given or wanted else exact_match(answer, expected)


def squad_words(text: str) -> list[str]:
    """Words without case, ASCII punctuation and English articles."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def rouge_l(answer: str, expected: str) -> float:
    """ROUGE-L (Lin, 2004), F-measure with equal weight of precision and recall.

    As `f1`, but counts the words of the longest common subsequence, so order matters. The whole text is
    one sequence (not sentence by sentence, as ROUGE-Lsum does) and words are not stemmed.
    """
    given, wanted = words(answer), words(expected)
    shared = longest_common_subsequence(given, wanted)
    return overlap(shared, given, wanted) if given or wanted else exact_match(answer, expected)


def words(text: str) -> list[str]:
    """Runs of letters and digits without case; in Chinese and Japanese each character is a word."""
    return WORD.findall(text.casefold())


def overlap(shared: int, given: Sequence[str], wanted: Sequence[str]) -> float:
    """2 × shared words ÷ words of both: the harmonic mean of precision and recall."""
    return 2 * shared / (len(given) + len(wanted))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence of two lists of words.

    Bit-parallel (Hyyrö, 2004): one integer holds a whole row of the textbook table, a bit a word of
    `first` that is 0 where the length grows, so that answers of thousands of words take milliseconds.
    """
    places: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(first):
        places[word] |= 1 << place
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        matches = row & places[word]
        row = ((row + matches) | (row - matches)) & everywhere
    return len(first) - row.bit_count()


METRICS: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "contains": contains,
    "number": number,
    "f1": f1,
    "squad_f1": squad_f1,
    "rouge_l": rouge_l,
}
