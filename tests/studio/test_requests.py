"""A small share of the requests that `python -m tests.prove.requests` sends."""

from __future__ import annotations

from pathlib import Path

from tests.prove.requests import fuzz


def test_requests_of_every_shape_end_below_500_and_store_nothing_that_they_may_not(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, 500, seed=1)
    assert outcome.surprises == []
    assert outcome.stored == []
    assert outcome.answers[200] > 10, "some of them are right"
