"""The tuned model beside the model it came from."""

import json
from dataclasses import replace

import pytest

from tuition.errors import UserError
from tuition.evaluate.compare import Answer
from tuition.evaluate.compare import compare as judged


def answer(base, tuned, expected="yes", prompt="?"):
    return Answer(prompt=prompt, expected=expected, base=base, tuned=tuned, origin="held.jsonl:1")


def compare(answers, metric, **options):
    """Compare answers of which each has a prompt of its own."""
    asked = [replace(given, prompt=f"{n}?") for n, given in enumerate(answers)]
    return judged(asked, metric, **options)


WIN, LOSS = answer("no", "yes"), answer("yes", "no")
RIGHT, WRONG = answer("yes", "yes"), answer("no", "no")


def test_every_answer_is_a_win_a_loss_or_counted_as_both_right_or_both_wrong():
    result = compare([WIN, WIN, LOSS, RIGHT, WRONG, WRONG], "exact_match")
    assert (len(result.wins), len(result.losses)) == (2, 1)
    assert (result.both_right, result.both_wrong) == (1, 2)
    assert (result.base.value, result.tuned.value) == (pytest.approx(2 / 6), pytest.approx(3 / 6))
    assert result.difference.value == pytest.approx(1 / 6)


def test_a_clear_gain_is_better_and_the_mirror_image_is_worse():
    assert compare([WIN] * 20 + [WRONG] * 20, "exact_match").verdict == "better"
    assert compare([LOSS] * 20 + [WRONG] * 20, "exact_match").verdict == "worse"


def test_a_gain_that_may_be_chance_is_not_decided():
    result = compare([WIN] * 6 + [LOSS] * 5 + [RIGHT] * 20, "exact_match")
    assert result.verdict == "not decided"
    assert result.difference.low < 0 < result.difference.high


def test_two_answers_decide_nothing_even_where_both_became_right():
    result = compare([WIN, WIN], "exact_match")
    assert (result.difference.value, result.difference.high) == (1, 1)
    assert result.verdict == "not decided"


def test_models_that_score_alike_are_not_proved_equal():
    result = compare([RIGHT] * 10, "exact_match")
    assert result.difference.value == 0
    assert result.difference.low == pytest.approx(-result.difference.high)
    assert result.difference.high == pytest.approx(0.2775, abs=1e-4)


def test_pairing_decides_what_two_separate_intervals_could_not():
    result = compare([WIN] * 8 + [RIGHT] * 50 + [WRONG] * 42, "exact_match")
    assert result.tuned.low < result.base.high, "the two intervals overlap"
    assert result.verdict == "better"


def test_a_graded_metric_counts_every_rise_as_a_win():
    result = compare([answer("a", "a b", expected="a b c"), answer("a", "a", expected="a b")], "f1")
    assert [len(result.wins), len(result.losses), result.both_right, result.both_wrong] == [1, 0, 0, 1]


def test_the_same_seed_gives_the_same_comparison():
    answers = [WIN] * 9 + [LOSS] * 4 + [RIGHT] * 7
    assert compare(answers, "exact_match", seed=5) == compare(answers, "exact_match", seed=5)


def test_to_json_keeps_everything_and_is_json():
    row = json.loads(json.dumps(compare([WIN, LOSS], "exact_match").to_json()))
    assert row["wins"] == [
        {"prompt": "0?", "expected": "yes", "base": "no", "tuned": "yes", "origin": "held.jsonl:1"}
    ]
    assert row["difference"]["value"] == 0
    assert row["verdict"] == "not decided"


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"no metric 'blue'.*exact_match, contains, number"):
        compare([WIN], "blue")


def test_no_answers_are_refused():
    with pytest.raises(UserError, match="no prompt to score"):
        compare([], "exact_match")


def test_rows_that_share_a_prompt_are_one_piece_of_evidence():
    alone, together = (
        compare([WIN] * 40 + [LOSS] * 20, "exact_match"),
        judged([WIN] * 40 + [LOSS] * 20, "exact_match"),
    )
    assert alone.verdict == "better"
    assert (together.tuned.count, together.tuned.prompts) == (60, 1)
    assert together.verdict == "not decided"
