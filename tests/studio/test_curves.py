"""Curves of runs that go on: only what is new is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuition import curves


def write(path: Path, rows: list[dict[str, float]], *, mode: str = "a") -> None:
    with path.open(mode) as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def points(folder: Path) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    run = curves.read_curves(folder)
    return [(row["step"], row["loss"]) for row in run.training], [
        (row["step"], row["eval_loss"]) for row in run.held_out
    ]


def test_a_journal_that_grows_is_read_on_from_where_it_was_and_half_a_line_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "metrics.jsonl"
    assert points(tmp_path) == ([], [])
    write(journal, [{"step": 1, "loss": 3.0}, {"step": 1, "eval_loss": 2.0}])
    with journal.open("a") as stream:
        stream.write('{"step": 2, "lo')
    assert points(tmp_path) == ([(1, 3.0)], [(1, 2.0)])
    read = []
    parse = curves.parse_row
    monkeypatch.setattr(curves, "parse_row", lambda line: read.append(line) or parse(line))
    with journal.open("a") as stream:
        stream.write('ss": 2.5}\n')
    write(journal, [{"step": 1, "loss": 2.9}])  # a resumed run writes a step again
    assert points(tmp_path)[0] == [(1, 2.9), (2, 2.5)]
    assert len(read) == 2


def test_a_journal_that_was_replaced_or_cut_is_read_anew(tmp_path: Path) -> None:
    journal = tmp_path / "metrics.jsonl"
    write(journal, [{"step": n, "loss": 1.0} for n in range(5)])
    assert len(points(tmp_path)[0]) == 5
    write(journal, [{"step": 9, "loss": 7.0}], mode="w")
    assert points(tmp_path)[0] == [(9, 7.0)]
    journal.unlink()
    assert points(tmp_path) == ([], [])


def test_a_long_journal_keeps_so_many_points_and_every_spike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "MOST_POINTS", 100)
    write(tmp_path / "metrics.jsonl", [{"step": n, "loss": 50.0 if n == 777 else 1.0} for n in range(1000)])
    kept = points(tmp_path)[0]
    assert len(kept) <= 100 and (777, 50.0) in kept
    assert [step for step, _ in kept] == sorted(step for step, _ in kept)
