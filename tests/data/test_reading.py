"""Reading: streaming, several passes, duplicates, and what the room promises about itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import tuition.data
from tuition.data import CODES, Ledger, Reading

ROOM = Path(tuition.data.__file__).parent


def jsonl(path: Path, rows: int) -> str:
    path.write_text(
        "".join(json.dumps({"prompt": f"p{n}", "completion": "c" * 400}) + "\n" for n in range(rows))
    )
    return str(path)


def test_each_pass_has_a_ledger_of_its_own(tmp_path: Path) -> None:
    reading = Reading([jsonl(tmp_path / "a.jsonl", 3)])
    first, ledger = list(reading), reading.ledger
    assert list(reading) == first
    assert reading.ledger is not ledger
    assert (ledger.rows_in, reading.ledger.rows_in) == (3, 3)


def test_readings_may_share_a_ledger(tmp_path: Path) -> None:
    ledger = Ledger()
    for name in ("a.jsonl", "b.jsonl"):
        list(Reading([jsonl(tmp_path / name, 2)], ledger=ledger))
    assert ledger.rows_in == 4


def test_rows_pass_through_one_at_a_time(tmp_path: Path) -> None:
    reading = Reading([jsonl(tmp_path / "a.jsonl", 10_000)])
    tracemalloc.start()
    for conversation in reading:
        reading.ledger.keep(conversation.origin)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 3_000_000  # the file has 4.3 million bytes; ledger and fingerprints take 150 a row


def test_copies_are_kept_and_point_at_the_first(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b"}
    reading = Reading(
        rows=[row, {"question": "a", "answer": "b"}, {**row, "weight": 2}, {**row, "system": "s"}]
    )
    assert len(list(reading)) == 4
    assert [(f.code, f.origin.line) for f in reading.ledger.findings] == [("D030", 2), ("D030", 3)]
    assert "stands at <python>:1" in reading.ledger.findings[0].message


def test_rows_that_a_share_leaves_out_are_in_the_ledger_and_others_do_not_move_them(tmp_path: Path) -> None:
    def fates(rows: int) -> list[str]:
        reading = Reading([f"{jsonl(tmp_path / 'a.jsonl', rows)}#0.5"], seed=3)
        for conversation in reading:
            reading.ledger.keep(conversation.origin)
        reading.ledger.check_balance()
        return [row["fate"] for row in reading.ledger.to_rows()]

    few, more = fates(12), fates(40)
    assert set(few) == {"kept", "left out"}
    assert more[:12] == few


def test_a_share_above_one_yields_a_row_again_and_calls_it_no_duplicate(tmp_path: Path) -> None:
    reading = Reading([f"{jsonl(tmp_path / 'a.jsonl', 2)}#2"])
    contents = []
    for conversation in reading:
        contents.append(conversation.messages[0].content)
        reading.ledger.keep(conversation.origin)
    reading.ledger.check_balance()
    assert contents == ["p0", "p0", "p1", "p1"]
    assert (reading.ledger.rows_in, reading.ledger.kept, reading.ledger.findings) == (2, 2, [])
    assert [row["parts"] for row in reading.ledger.to_rows()] == [2, 2]


def test_an_error_in_a_repeated_row_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": ""}\n')
    reading = Reading([f"{tmp_path / 'a.jsonl'}#3"])
    assert list(reading) == []
    reading.ledger.check_balance()
    assert reading.ledger.counts_by_code() == {"D005": 1}


def test_an_id_counts_within_its_file(tmp_path: Path) -> None:
    for name, ids in (("a.jsonl", (7, 8, 7)), ("b.jsonl", (7,))):
        rows = [{"id": n, "prompt": f"{name} {place}", "completion": "b"} for place, n in enumerate(ids)]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    reading = Reading([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    list(reading)
    assert [(f.code, f.origin.line, f.message) for f in reading.ledger.findings] == [
        ("D028", 3, "the row at line 1 has the id '7' too")
    ]


def test_held_out_rows_that_are_learned_from_are_named() -> None:
    train = Reading(rows=[("a", "b"), ("c", "d")])
    held_out = Reading(rows=[("e", "f"), ("c", "d"), ("g", "d")], training=train)
    list(train), list(held_out)
    assert [(f.code, f.origin.line) for f in held_out.ledger.findings] == [("D039", 2)]
    assert held_out.ledger.findings[0].message == "the same conversation is learned from, at <python>:2"


def test_all_shapes_of_a_mixed_file_are_named() -> None:
    reading = Reading(rows=[("a", "b"), {"text": "c"}, ("d", "e")])
    list(reading)
    assert reading.shapes == {"<python>": "prompt/completion and text (no turns)"}


def test_an_instance_that_is_refused_costs_only_itself() -> None:
    task = {"instruction": "a", "instances": [{"input": "x", "output": ""}, {"input": "y", "output": "b"}]}
    reading = Reading(rows=[task])
    (conversation,) = reading
    reading.ledger.keep(conversation.origin)
    reading.ledger.check_balance()
    assert (reading.ledger.kept, reading.ledger.counts_by_code()) == (1, {"D005": 1})


def test_every_code_that_the_room_uses_is_explained_and_every_explained_one_is_used() -> None:
    sources = "".join(path.read_text() for path in ROOM.glob("*.py") if path.name != "catalogue.py")
    assert set(re.findall(r"\"(D\d{3})\"", sources)) == {code for code in CODES if code.startswith("D")}


@pytest.mark.parametrize("code", CODES)
def test_a_code_says_what_why_and_what_to_do(code: str) -> None:
    entry = CODES[code]
    assert entry.title and not entry.title.endswith(".")
    assert entry.explanation.endswith(".") and entry.mend.endswith(".")


def test_the_room_is_imported_without_the_heavy_libraries() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'pyarrow', 'pandas', 'huggingface_hub', 'spacy'}"
    program = f"import sys, tuition.data; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
