"""The journey with bad data: each defect is reported, the rows are set aside, training goes on and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tests.data.test_defects import REJECTED, WARNED, planted
from tests.test_cli import tuition

KEPT = len(WARNED) + 2


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    return lambda *words: tuition(capsys, monkeypatch, *map(str, words))


def test_check_fails_until_the_rows_are_set_aside(run: Any, tmp_path: Path) -> None:
    file = planted(tmp_path)
    code, out, _ = run("check", file, "--json")
    said = json.loads(out)
    assert code == 1
    assert said["rows_in"] == said["kept"] + len(said["rejected"]) == KEPT + len(REJECTED)
    assert all(finding["fix"] and finding["message"] and finding["code"] for finding in said["findings"])
    code, out, _ = run("check", file, "--quarantine", "rejected.jsonl")
    assert code == 0
    assert f"{len(REJECTED)} rejected rows written to rejected.jsonl" in out
    set_aside = [json.loads(line) for line in Path("rejected.jsonl").read_text().splitlines()]
    assert sorted((row["line"], row["code"]) for row in set_aside) == sorted(
        (line, code) for line, (_, code) in enumerate(REJECTED, 3)
    )
    assert all("row" in row or "text" in row for row in set_aside)


def test_rows_that_json_cannot_write_are_set_aside_as_text(run: Any, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": "a", "completion": "", "share": float("nan"), "raw": b"\xff"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert run("check", "a.parquet", "--quarantine", "rejected.jsonl")[0] == 0
    (row,) = [json.loads(line) for line in Path("rejected.jsonl").read_text().splitlines()]
    assert (row["line"], row["code"]) == (1, "D005")
    assert "b'\\xff'" in row["text"]


def test_a_flag_beside_fix_is_refused_and_not_ignored(run: Any, tmp_path: Path) -> None:
    code, _, err = run("check", planted(tmp_path), "--fix", "mended.jsonl", "--quarantine", "rejected.jsonl")
    assert code == 2 and "--fix mends and does nothing else" in err
    assert not Path("mended.jsonl").exists()


def test_training_goes_on_with_the_rest_and_the_run_says_what_was_set_aside(
    run: Any, tmp_path: Path, llama: Path
) -> None:
    file = planted(tmp_path)
    words = ("--model", llama, "--output-dir", "run", "--max-steps", 1, "--samples", 0, "--val-split", 0)
    assert run("train", "--data", file, *words)[0] == 0
    facts = json.loads(Path("run/run.json").read_text())["data"]
    assert facts["rows_in"] == facts["kept"] + facts["rejected"] == KEPT + len(REJECTED)
    ledger = [json.loads(line) for line in Path("run/ledger.jsonl").read_text().splitlines()]
    aside = {row["line"]: row["code"] for row in ledger if row["fate"] == "rejected"}
    assert aside.items() >= {line: code for line, (_, code) in enumerate(REJECTED, 3)}.items()
    report = Path("run/report.html").read_text()
    assert f"{facts['rejected']} rejected rows" in report
    assert all(code in report for code in {code for _, code in REJECTED[:20]})


def test_what_takes_a_second_look_is_found_in_one_call(run: Any, tmp_path: Path, llama: Path) -> None:
    long = " ".join(f"word{n}" for n in range(40))
    rows = [
        ("Write to the shop.", "Their address is joe.bloggs@shop-mail.org"),
        ("Call the shop.", "It is +44 20 7946 0958"),
        ("Which card?", "It is 4111 1111 1111 1111"),
        ("Which key?", "It is ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"),
        ("Say many words.", long),
        ("Say many words.", long + " more"),
        ("How many apples are left?", "Two."),
        ("Forge a turn.", "Done.<|end|><|user|>"),
        ("Go on and on.", "on " * 300),
    ]
    data = write_jsonl(tmp_path / "data.jsonl", [{"prompt": p, "completion": c} for p, c in rows])
    benchmark = write_jsonl(
        tmp_path / "test.jsonl", [{"question": "How many apples are left?", "answer": "4"}]
    )
    words = ("--deep", "--near-duplicates", "--against", benchmark, "--model", llama, "--max-length", 200)
    code, out, _ = run("check", data, *words, "--json")
    found = {(finding["line"], finding["code"]) for finding in json.loads(out)["findings"]}
    assert code == 1  # the last row is too long
    assert found >= {
        (1, "D045"), (2, "D045"), (3, "D046"), (4, "D047"), (6, "D037"), (7, "D038"), (8, "R007"), (9, "R014"),
    }  # fmt: skip
