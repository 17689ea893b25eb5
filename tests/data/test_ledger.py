"""The ledger balances: every row that arrives has a verdict, and no count is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuition.data import Ledger, finding
from tuition.data.ledger import FINDINGS_KEPT_PER_CODE
from tuition.errors import Origin


def at(line: int) -> Origin:
    return Origin("a.jsonl", line)


def fates(ledger: Ledger) -> list[str]:
    return [row["fate"] for row in ledger.to_rows()]


def test_a_kept_row_carries_its_numbers() -> None:
    ledger = Ledger()
    ledger.arrive(Origin("a.jsonl", 3, "x"))
    ledger.keep(at(3), parts=2, tokens=10, learned_tokens=4, side="validation")
    ledger.check_balance()
    assert list(ledger.to_rows()) == [
        {
            "file": "a.jsonl",
            "line": 3,
            "row_id": "x",
            "fate": "split",
            "parts": 2,
            "side": "validation",
            "tokens": 10,
            "learned_tokens": 4,
            "code": None,
            "reason": None,
        }
    ]


def test_a_rejected_row_carries_its_reason() -> None:
    ledger = Ledger()
    ledger.arrive(at(1))
    ledger.reject(at(1), finding("D005", at(1), "the answer in turn 2 is empty"))
    assert ledger.summary()["rejected"] == [
        {"file": "a.jsonl", "line": 1, "code": "D005", "reason": "the answer in turn 2 is empty"}
    ]
    (row,) = ledger.to_rows()
    assert (row["fate"], row["side"], row["code"]) == ("rejected", None, "D005")


@pytest.mark.parametrize("truncated_first", [True, False])
def test_a_truncated_row_is_kept_and_named(truncated_first: bool) -> None:
    ledger = Ledger()
    ledger.arrive(at(1))
    cut = finding("D021", at(1), "cut")
    steps = [lambda: ledger.truncate(at(1), cut), lambda: ledger.keep(at(1), tokens=5)]
    for step in steps if truncated_first else reversed(steps):
        step()
    ledger.check_balance()
    assert fates(ledger) == ["truncated"]
    assert (ledger.kept, [entry.reason for entry in ledger.truncated]) == (1, ["cut"])


def test_a_row_without_a_verdict_breaks_the_balance() -> None:
    ledger = Ledger()
    ledger.arrive(at(1), conversations=2)
    ledger.keep(at(1))
    with pytest.raises(RuntimeError, match=r"1 of 1 row is unaccounted for, the first is a\.jsonl:1"):
        ledger.check_balance()


def test_a_row_that_never_arrived_is_a_defect() -> None:
    with pytest.raises(ValueError, match="never arrived"):
        Ledger().keep(at(1))


def test_a_row_of_several_conversations_is_rejected_only_if_all_are() -> None:
    ledger = Ledger()
    bad = finding("D005", at(1), "empty")
    for line, verdicts in enumerate(["kk", "kr", "rk", "rr"], 1):
        ledger.arrive(at(line), conversations=2)
        for verdict in verdicts:
            ledger.keep(at(line)) if verdict == "k" else ledger.reject(at(line), bad)
    assert fates(ledger) == ["split", "kept", "kept", "rejected"]
    assert ledger.counts_by_code() == {"D005": 4}


def test_rows_on_one_line_are_settled_in_order() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.arrive(at(1))
    ledger.keep(at(1), tokens=1)
    ledger.reject(at(1), finding("D005", at(1), "empty"))
    ledger.keep(at(1), tokens=3)
    assert [(row["fate"], row["tokens"]) for row in ledger.to_rows()] == [
        ("kept", 1),
        ("rejected", 0),
        ("kept", 3),
    ]


def test_a_later_stage_may_take_back_what_was_kept() -> None:
    ledger = Ledger()
    ledger.arrive(at(1))
    ledger.keep(at(1))
    ledger.reject(at(1), finding("D005", at(1), "empty"))
    assert fates(ledger) == ["rejected"]


def test_a_row_that_is_left_out_is_accounted_for() -> None:
    ledger = Ledger()
    ledger.leave_out(at(1))
    ledger.arrive(at(2))
    ledger.keep(at(2))
    ledger.check_balance()
    assert fates(ledger) == ["left out", "kept"]
    assert (ledger.rows_in, ledger.kept, ledger.left_out, ledger.rejected) == (2, 1, 1, [])
    assert ledger.summary()["left_out"] == 1


def test_findings_beyond_the_limit_are_counted_and_reasons_are_all_kept() -> None:
    ledger = Ledger()
    rows = FINDINGS_KEPT_PER_CODE + 5
    for line in range(1, rows + 1):
        ledger.arrive(at(line))
        ledger.reject(at(line), finding("D005", at(line), "empty"))
    assert len(ledger.findings) == FINDINGS_KEPT_PER_CODE
    assert ledger.counts_by_code() == {"D005": rows}
    assert len(ledger.rejected) == rows


@given(st.lists(st.tuples(st.integers(1, 3), st.lists(st.sampled_from("krt"), min_size=3, max_size=3))))
def test_rows_in_are_rows_accounted_for(rows: list[tuple[int, list[str]]]) -> None:
    ledger = Ledger()
    for line, (conversations, verdicts) in enumerate(rows, 1):
        ledger.arrive(at(line), conversations=conversations)
        for verdict in verdicts[:conversations]:
            if verdict == "r":
                ledger.reject(at(line), finding("D005", at(line), "empty"))
                continue
            if verdict == "t":
                ledger.truncate(at(line), finding("D021", at(line), "cut"))
            ledger.keep(at(line))
    ledger.check_balance()
    assert ledger.rows_in == ledger.kept + len(ledger.rejected) == len(rows)
    assert "open" not in fates(ledger)
