"""The table of first rows says what a dict would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuition.data.firstseen import FirstSeen


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=3000))
def test_the_first_number_of_each_mark_is_remembered_as_a_dict_does(marks: list[int]) -> None:
    seen, expected = FirstSeen(), {}
    for number, mark in enumerate(marks):
        assert seen.find(mark) == expected.get(mark & (2**64 - 1) or 1)
        assert seen.note(mark, number) == expected.setdefault(mark & (2**64 - 1) or 1, number)
    assert len(seen) == len(expected)


def test_it_grows_beyond_its_first_size() -> None:
    seen = FirstSeen()
    for number in range(5000):
        seen.note(number * 2**32, number)
    assert [seen.find(number * 2**32) for number in range(5000)] == list(range(5000))
