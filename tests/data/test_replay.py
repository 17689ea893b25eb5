"""Replay: the share is met to the row, the same rows for a seed, nothing held out, nothing unaccounted for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tuition.data import Ledger, Replay, Sources, side_of
from tuition.errors import UserError

ROWS = [{"prompt": f"question {n}", "completion": "c"} for n in range(400)]


def chosen(path: Path, ledger: Ledger | None = None, **options: Any) -> list[str]:
    """The questions that are replayed, each kept in the ledger."""
    ledger = Ledger() if ledger is None else ledger
    settings = {"share": 0.1, "beside": 90, "val_split": 0.0, "seed": 0, **options}
    replay = Replay([str(path)], ledger=ledger, **settings)
    questions = []
    for conversation in replay.conversations():
        ledger.keep(conversation.origin)
        questions.append(conversation.messages[0].content)
    replay.report(len(questions))
    return questions


@pytest.mark.parametrize(
    ("share", "beside", "rows"), [(0.1, 90, 10), (0.05, 1900, 100), (0.5, 7, 7), (0.1, 1, 0)]
)
def test_the_share_is_of_all_training_examples(tmp_path: Path, share: float, beside: int, rows: int) -> None:
    file = write_jsonl(tmp_path / "general.jsonl", ROWS)
    assert len(chosen(file, share=share, beside=beside)) == rows


def test_rows_that_are_not_chosen_are_left_out(tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": "broken"}]
    ledger = Ledger()
    chosen(write_jsonl(tmp_path / "general.jsonl", rows), ledger)
    ledger.check_balance()
    assert (ledger.rows_in, ledger.kept, ledger.left_out, len(ledger.rejected)) == (401, 10, 391, 0)
    assert ledger.counts_by_code() == {}  # nothing is said about rows that nobody learns


def test_the_choice_depends_on_content_and_seed_and_not_on_order(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    one = write_jsonl(tmp_path / "one.jsonl", ROWS)
    other = write_jsonl(tmp_path / "other.jsonl", shuffled)
    assert sorted(chosen(one)) == sorted(chosen(other))
    assert set(chosen(one)) != set(chosen(one, seed=1))
    assert set(chosen(one)) < set(chosen(one, share=0.3))


def test_no_prompt_of_the_validation_split_is_replayed(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "general.jsonl", ROWS)
    replay = Replay([str(file)], share=0.9, beside=90, val_split=0.5, seed=3, ledger=Ledger())
    given = list(replay.conversations())
    assert 150 < len(given) < 250
    assert all(side_of(conversation, val_split=0.5, seed=3) == "train" for conversation in given)


def test_too_few_rows_are_all_taken_and_said(tmp_path: Path) -> None:
    ledger = Ledger()
    file = write_jsonl(tmp_path / "general.jsonl", [*ROWS[:5], {"prompt": "p", "completion": ""}])
    assert len(chosen(file, ledger)) == 5
    (finding,) = ledger.findings
    assert (finding.code, finding.origin.file, finding.origin.line) == ("D071", str(file), 0)
    assert finding.message == "5 of 10 examples came of it: 5.3% of the training examples, not 10.0%"
    assert (ledger.kept, ledger.left_out) == (5, 1)


def test_equal_rows_do_not_exceed_the_share(tmp_path: Path) -> None:
    assert len(chosen(write_jsonl(tmp_path / "general.jsonl", [ROWS[0]] * 50))) == 10


def test_a_share_of_a_replay_source_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "general.jsonl", ROWS)
    with pytest.raises(UserError, match="takes no share of its own"):
        chosen(Path(f"{file}#0.5"))


def test_sources_carry_what_is_replayed(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "general.jsonl", ROWS)
    sources = Sources(("a.jsonl",))
    assert sources.with_replay((), 0.1) == sources
    assert sources.with_replay([str(file)], 0.1) == Sources(
        ("a.jsonl",), replay=(str(file),), replay_share=0.1
    )
