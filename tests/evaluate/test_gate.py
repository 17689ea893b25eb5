"""Conditions that a model must meet."""

import pytest

from tuition.errors import UserError
from tuition.evaluate.gate import Figure, judge_conditions, read_conditions
from tuition.interval import Score

FIGURES = {
    "exact_match": Figure(Score(0.30, 0.2, 0.4, 100), Score(0.05, -0.01, 0.11, 100)),
    "loss": Figure(Score(1.1, 1.0, 1.3, 100), Score(-0.4, -0.5, -0.3, 100)),
    "forgetting": Figure(Score(0.02, 0.01, 0.03, 100)),
}


def met(text, **options):
    return [judged.met for judged in judge_conditions(read_conditions([text]), FIGURES, **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exact_match>=0.3", True),
        ("exact_match > 0.3", False),
        ("exact_match>=30%", True),
        ("exact_match>=baseline", True),
        ("exact_match>=baseline+0.05", True),
        ("exact_match >= baseline + 5%", True),
        ("exact_match>=baseline+.06", False),
        ("loss<=1.2", True),
        ("loss<1e0", False),
        ("loss<=baseline-0.4", True),
        ("loss<=baseline − 0.41", False),
        ("forgetting<=0.02", True),
        ("loss>=-1", True),
    ],
)
def test_a_condition_holds_or_not(text, expected):
    assert met(text) == [expected]


def test_several_conditions_are_all_judged():
    assert met("exact_match>=0.3 and loss<=1 and forgetting<=0.02") == [True, False, True]


def test_certainty_asks_the_whole_interval():
    assert met("exact_match>=0.2", certain=True) == [True]
    assert met("exact_match>=0.25", certain=True) == [False]
    assert met("exact_match>=baseline", certain=True) == [False]
    assert met("loss<=1.3", certain=True) == [True]
    assert met("loss<=1.2", certain=True) == [False]


def test_one_prompt_makes_nothing_certain():
    one = {"loss": Figure(Score(1.0, 1.0, 1.0, 1, 1))}
    (judged,) = judge_conditions(read_conditions(["loss<=2"]), one)
    assert (judged.met, judged.decided) == (True, False)
    assert str(judged) == "met: loss<=2 (it is 1; prompts are too few for an interval)"
    assert not judge_conditions(read_conditions(["loss<=2"]), one, certain=True)[0].met


def test_a_mean_of_decimals_is_not_failed_by_rounding():
    figures = {"number": Figure(Score(0.3, 0.2, 0.4, 10), Score(0.3 - 0.25, 0, 1, 10))}
    assert 0.3 - 0.25 < 0.05
    assert judge_conditions(read_conditions(["number>=baseline+0.05"]), figures)[0].met


def test_each_condition_is_said_with_its_figure_and_interval():
    (one,) = judge_conditions(read_conditions(["exact_match>=baseline+0.06"]), FIGURES)
    assert str(one) == (
        "NOT MET: exact_match>=baseline+0.06 (tuned − base is 0.05, 95 % interval -0.01 to 0.11; "
        "the interval allows either)"
    )


@pytest.mark.parametrize(
    "text", ["", "loss", "loss=1", "loss==1", "loss<=", "<=1", "loss<=baseline*2", "loss<=1,2"]
)
def test_what_is_no_condition_is_refused_with_an_example(text):
    with pytest.raises(UserError, match=r"is no condition.*exact_match>=baseline\+0.05"):
        read_conditions([text])


def test_a_figure_that_was_not_measured_is_an_error_and_not_a_pass():
    with pytest.raises(
        UserError, match=r"'number' is not measured. Measured are: exact_match, loss, forgetting"
    ):
        met("number>=0.5")
    with pytest.raises(UserError, match="not measured against a baseline"):
        met("forgetting<=baseline")


def test_a_condition_as_long_as_a_book_is_refused_at_once() -> None:
    for text in ("a" * 200_000, "a" + " " * 100_000 + "b", "a>=1 and " * 20_000):
        with pytest.raises(UserError, match="is no condition"):
            read_conditions([text])
