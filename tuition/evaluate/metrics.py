"""What an answer is worth against the expected one, and how sure the mean over the prompts is.

A metric is a function of two texts that gives the score of one prompt. Nothing here generates answers,
reads files or compares two models; an answer that is empty scores like any other and is never left out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from tuition.errors import UserError

RESAMPLES = 2_000
NORMAL_QUANTILE = 1.959963984540054  # of 97.5 %: two-sided 95 %

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


@dataclass(frozen=True)
class Score:
    """A mean over prompts with its 95 % interval.

    Attributes:
        value: the mean; 0 to 1 for every metric of `METRICS`, −1 to 1 for a difference of two.
        low: lower end of the interval.
        high: upper end of the interval.
        count: number of prompts.
    """

    value: float
    low: float
    high: float
    count: int


def score(values: Sequence[float], *, seed: int = 0) -> Score:
    """Mean of one metric over prompts, with a 95 % interval.

    The prompts are resampled 2,000 times and the interval is the 2.5th to 97.5th percentile of the means
    (percentile bootstrap). Where all prompts score 0, or all score 1, every resample is the same and the
    bootstrap would claim certainty; the Wilson interval is given instead, so 20 of 20 is 84 % to 100 %.
    Below some 30 prompts the bootstrap is too narrow: read such an interval as a lower bound of the doubt.

    Args:
        values: one score a prompt, each within 0 to 1.

    Raises:
        UserError: there is no prompt.
    """
    return interval(values, lowest=0.0, highest=1.0, seed=seed)


def interval(values: Sequence[float], *, lowest: float, highest: float, seed: int) -> Score:
    """`score` for values within `lowest` to `highest`, which paired differences need as −1 to 1."""
    if not len(values):
        raise UserError("there is no prompt to score", next_step="Hold out some rows with val_split.")
    prompts = np.asarray(values, dtype=np.float64)
    mean = float(prompts.mean())
    if np.all(prompts == prompts[0]):
        low, high = interval_of_one_value(mean, len(prompts), lowest, highest)
    else:
        low, high = bootstrap(prompts, seed)
    return Score(mean, low, high, len(prompts))


def bootstrap(prompts: np.ndarray, seed: int) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the means of `RESAMPLES` resamples of `prompts`."""
    generator = np.random.default_rng(seed)
    count = len(prompts)
    at_once = max(1, 1_000_000 // count)  # so that memory stays flat, however many prompts there are
    means = [
        prompts[generator.integers(0, count, (min(at_once, RESAMPLES - done), count))].mean(axis=1)
        for done in range(0, RESAMPLES, at_once)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def interval_of_one_value(value: float, count: int, lowest: float, highest: float) -> tuple[float, float]:
    """Interval where all prompts score the same.

    Some other score was seen 0 times in `count`, so its rate is at most the Wilson bound z² / (count + z²);
    in the worst case all of it lies at an end of the range. For 0 and 1 this is the Wilson interval itself.
    """
    unseen = NORMAL_QUANTILE**2 / (count + NORMAL_QUANTILE**2)
    return value - unseen * (value - lowest), value + unseen * (highest - value)


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
    given, wanted = words(answer), words(expected)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return overlap(shared, given, wanted) if given or wanted else exact_match(answer, expected)


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
    "rouge_l": rouge_l,
}
