"""What an answer is worth, and how sure the mean is."""

from decimal import Decimal

import numpy as np
import pytest

from tuition.errors import UserError
from tuition.evaluate.metrics import (
    METRICS,
    contains,
    exact_match,
    f1,
    final_number,
    longest_common_subsequence,
    number,
    rouge_l,
    squad_f1,
)
from tuition.interval import score


def test_exact_match_ignores_whitespace_at_the_ends_and_nothing_else():
    assert exact_match(" 42\n", "42") == 1
    assert exact_match("a  b", "a b") == 0
    assert exact_match("Yes", "yes") == 0
    assert exact_match("e\u0301", "é") == 0, "no Unicode normalisation behind the reader's back"


def test_contains_asks_for_the_same_case():
    assert contains("It is Paris.", "Paris ") == 1
    assert contains("It is paris.", "Paris") == 0


def test_an_empty_expectation_is_met_by_an_empty_answer_only():
    assert contains("", " ") == 1
    assert contains("anything", "") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18", "18"),
        ("The answer is 18.", "18"),
        ("3 + 4 = 7 apples", "7"),
        ("$1,234,567.50 in all", "1234567.5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("it fell by \u22124 degrees", "-4"),
        ("5-3", "3"),
        ("(2)-3", "3"),
        ("50 %", "50"),
        ("50%", "50"),
        ("12kg", "12"),
        (".5", "0.5"),
        ("1.5e3 J", "1500"),
        ("1, 2, 3", "3"),
        ("3,4", "4"),
        ("CO2 weighs 44", "44"),
        ("44 g of CO2", "44"),
        ("**7**", "7"),
        (r"\boxed{-8}", "-8"),
        ("答案是18", "18"),
        ("48/2 = <<48/2=24>>24\n#### 72", "72"),
        ("#### 72 dollars", "72"),
        ("12 of them\n#### none", "12"),
        ("#### 1\n#### 2", "2"),
        ("#### Solution\n3 + 4\n= 7", "7"),
    ],
)
def test_the_final_number_of_a_text(text, expected):
    assert final_number(text) == Decimal(expected)


@pytest.mark.parametrize("text", ["", "no number", "v1.5", "CO2", "####"])
def test_a_text_without_a_number_has_none(text):
    assert final_number(text) is None


def test_numbers_are_compared_as_decimals():
    assert number("so it costs $1,200.00.", "#### 1200") == 1
    assert number("0.30000000000000004", "0.3") == 0
    assert number("72", "72 or 73") == 0


def test_no_number_scores_nothing_even_where_none_is_expected():
    assert number("none", "none") == 0


def test_an_enormous_number_is_harmless():
    assert number("1e999 " + "9" * 100_000, "5") == 0


def test_f1_counts_words_with_repetition_without_order_or_case():
    assert f1("the cat sat", "Sat the cat!") == 1
    assert f1("cat cat cat", "cat") == pytest.approx(2 * 1 / 4)
    assert f1("a b c d", "a b x") == pytest.approx(2 * 2 / 7)
    assert f1("dog", "cat") == 0


def test_squad_f1_leaves_articles_and_punctuation_out():
    assert squad_f1("The Eiffel Tower.", "eiffel tower") == 1
    assert squad_f1("in the Eiffel Tower", "Eiffel Tower") == pytest.approx(2 * 2 / 5)
    assert squad_f1("U.S.", "US") == 1


def test_rouge_l_counts_words_in_order():
    assert rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "police kill the gunman") == pytest.approx(0.5)


def test_chinese_characters_are_words_of_their_own():
    assert f1("北京市", "北京") == pytest.approx(2 * 2 / 5)


@pytest.mark.parametrize("metric", METRICS)
def test_two_empty_texts_agree_except_that_they_hold_no_number(metric):
    assert METRICS[metric]("", "") == (0 if metric == "number" else 1)
    assert METRICS[metric]("", "word 5") == 0
    assert METRICS[metric]("...", "?!") == 0


def test_the_longest_common_subsequence_equals_the_textbook_table():
    random = np.random.default_rng(0)
    for _ in range(200):
        first, second = (random.choice(list("abcd"), random.integers(0, 12)).tolist() for _ in range(2))
        assert longest_common_subsequence(first, second) == textbook_lcs(first, second)


def textbook_lcs(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_a_score_is_the_mean_with_an_interval_around_it():
    result = score([0, 1, 1, 1])
    assert (result.value, result.count) == (0.75, 4)
    assert (result.low, result.high) == pytest.approx((0.30064, 0.95441), abs=1e-5), "Wilson's, of 3 in 4"


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(1).random(50).tolist()
    assert score(values, seed=3) == score(values, seed=3)
    assert score(values, seed=3) != score(values, seed=4)


def test_all_right_and_all_wrong_have_the_width_of_the_wilson_interval():
    right, wrong = score([1.0] * 20), score([0.0] * 20)
    assert (right.value, right.high) == (1, 1)
    assert right.low == pytest.approx(0.83887, abs=1e-5)
    assert (wrong.value, wrong.low) == (0, 0)
    assert wrong.high == pytest.approx(1 - 0.83887, abs=1e-5)


def test_no_prompt_is_an_error_with_a_next_step():
    with pytest.raises(UserError, match="no prompt to score"):
        score([])


def test_the_interval_covers_the_truth_in_about_95_of_100_simulations():
    random = np.random.default_rng(0)
    runs = [score((random.random(80) < 0.3).astype(float), seed=run) for run in range(150)]
    covered = sum(run.low <= 0.3 <= run.high for run in runs)
    assert 0.90 <= covered / len(runs) <= 0.99
