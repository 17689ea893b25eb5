"""The journey with bad data: each defect is reported, the rows are set aside, training goes on and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


def test_training_goes_on_with_the_rest_and_the_run_says_what_was_set_aside(
    run: Any, tmp_path: Path, llama: Path
) -> None:
    file = planted(tmp_path)
    words = ("--model", llama, "--output-dir", "run", "--max-steps", 1, "--samples", 0, "--val-split", 0)
    assert run("train", "--data", file, *words, "--allow-unproved", "ledger")[0] == 0
    facts = json.loads(Path("run/run.json").read_text())["data"]
    assert facts["rows_in"] == facts["kept"] + facts["rejected"] == KEPT + len(REJECTED)
    ledger = [json.loads(line) for line in Path("run/ledger.jsonl").read_text().splitlines()]
    aside = {row["line"]: row["code"] for row in ledger if row["fate"] == "rejected"}
    assert aside.items() >= {line: code for line, (_, code) in enumerate(REJECTED, 3)}.items()
    report = Path("run/report.html").read_text()
    assert f"{facts['rejected']} rejected rows" in report
    assert all(code in report for code in {code for _, code in REJECTED[:20]})
