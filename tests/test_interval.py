"""How sure a figure is."""

import numpy as np
import pytest

from tuition.evaluate.lines import prompts_of
from tuition.interval import interval, ratio, score


def test_rights_and_wrongs_have_wilsons_interval():
    # Newcombe (1998), table I: 81 of 263 is 0.2553 to 0.3662; 15 of 148 is 0.0624 to 0.1605
    first, second = score([1.0] * 81 + [0.0] * 182), score([1.0] * 15 + [0.0] * 133)
    assert (first.low, first.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (second.low, second.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert first.method == "wilson"


def test_few_graded_prompts_have_students_interval():
    result = interval([0.2, 0.4, 0.9], lowest=0, highest=1, seed=0)
    assert (result.method, result.few) == ("t", True)
    spread = 4.3027 * np.std([0.2, 0.4, 0.9], ddof=1) / np.sqrt(3)
    assert result.low == max(0, 0.5 - spread) == 0
    assert result.high == min(1, 0.5 + spread) == 1
    ten = ratio(list(range(10)), [1.0] * 10)
    assert ten.high - ten.value == pytest.approx(2.2622 * np.std(range(10), ddof=1) / np.sqrt(10))


@pytest.mark.parametrize("prompts", [1, 4])
def test_fewer_than_five_prompts_decide_nothing(prompts):
    result = ratio([-8.0 - n for n in range(prompts)], [1.0] * prompts)
    assert (result.enough, result.side) == (False, 0)
    assert ratio([-8.0, -9.0, -8.5, -8.2, -8.1], [1.0] * 5).side == -1


def test_a_single_prompt_is_told_from_several_however_its_quotient_is_rounded():
    for nats in (10.96150653, 1 / 3, 0.1):
        one = ratio([nats], [42.0])
        assert one.low == one.high == one.value


def test_copies_of_one_prompt_are_too_few():
    assert not ratio([-8.0] * 9, [1.0] * 9, groups=["same"] * 9).enough


def test_thirty_graded_prompts_are_resampled():
    values = np.random.default_rng(0).random(30).tolist()
    result = score(values)
    assert (result.method, result.few) == ("bootstrap", False)
    assert result.low < result.value < result.high


def test_a_loss_is_nats_over_tokens_and_long_rows_count_more():
    assert ratio([10.0, 1.0], [9.0, 1.0]).value == pytest.approx(1.1)


def test_copies_of_the_rows_make_nothing_surer():
    random = np.random.default_rng(1)
    values = random.random(50).tolist()
    once = score(values)
    thrice = score(values * 3, groups=list(range(50)) * 3)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert (thrice.count, thrice.prompts) == (150, 50)


def test_students_interval_of_ten_covers_the_truth_in_about_95_of_100_simulations():
    random = np.random.default_rng(0)
    runs = [interval(random.random(10).tolist(), lowest=0, highest=1, seed=0) for _ in range(300)]
    assert 0.92 <= sum(run.low <= 0.5 <= run.high for run in runs) / 300 <= 0.98


def test_rows_that_ask_the_same_are_counted_beside_their_prompts() -> None:
    assert prompts_of(score([1.0, 0.0, 1.0])) == "3 prompts"
    assert prompts_of(score([1.0, 0.0, 1.0], groups=["a", "a", "b"])) == "3 rows with 2 prompts"
