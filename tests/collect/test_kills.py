"""A share of `python -m tests.prove.posts`: the server is killed while people send."""

from __future__ import annotations

from pathlib import Path

from tests.prove import posts


def test_each_acknowledged_demonstration_is_there_exactly_once_through_ten_kills(tmp_path: Path) -> None:
    tally = posts.prove(10, 120, folder=tmp_path)
    assert tally.faults == []
    assert tally.acknowledged == 120 and tally.kills >= 8
