"""Safe mends are made and listed one by one; everything else is copied as it stands or stays out by name."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuition.data import FixedRow, Reading, fixed_rows

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
GOOD = '{"prompt": "a",  "completion": "b, ]", "n": 1.10}'


def fix(tmp_path: Path, content: str | bytes, name: str = "a.jsonl") -> list[FixedRow]:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(fixed_rows(str(tmp_path / name)))


def mends(rows: list[FixedRow]) -> list[tuple[int, str, str]]:
    return [(mend.origin.line, mend.code, mend.done) for row in rows for mend in row.mends]


def chat(*turns: dict[str, object], **row: object) -> str:
    return json.dumps({"messages": list(turns), **row})


def test_rows_without_a_defect_are_copied_character_for_character(tmp_path: Path) -> None:
    rows = fix(tmp_path, f"{GOOD}\n\n  {GOOD} \n")
    assert [row.line for row in rows] == [GOOD, GOOD]
    assert mends(rows) == []


CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]}
TWICE = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '"{\\"x\\": 1}"'}}]}
READ = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
TOOLS = [{"name": "f"}]

MENDED: list[tuple[str, object, str, str]] = [
    # the row, what it becomes, the code and the sentence of the mend
    ('{"prompt": "a, ]", "completion": "b",}', {"prompt": "a, ]", "completion": "b"}, "D054", "the comma"),
    ('{"prompt": "a", "completion": "b"},', {"prompt": "a", "completion": "b"}, "D054", "the comma"),
    ('{"prompt": "a", "completion": "b", "tags": [1, 2, ], },', None, "D054", "3 commas"),
    (
        '{"instruction": "a", "input": "<noinput>", "output": "b"}',
        {"instruction": "a", "input": "", "output": "b"},
        "D040",
        "'<noinput>' as an empty text",
    ),
    (
        chat({"role": " User", "content": "q"}, ANSWER),
        {"messages": [USER, ANSWER]},
        "D006",
        "the role ' User' of turn 1 as 'user'",
    ),
    (
        chat(USER, {"role": "AI", "content": "a"}),
        {"messages": [USER, ANSWER]},
        "D006",
        "'AI' of turn 2 as 'assistant'",
    ),
    (
        chat(USER, CALL, tools=TOOLS),
        {"messages": [USER, READ], "tools": TOOLS},
        "D049",
        "the arguments in turn 2",
    ),
    (
        chat(USER, TWICE, tools=TOOLS),
        {"messages": [USER, READ], "tools": TOOLS},
        "D049",
        "the arguments in turn 2",
    ),
    (chat(USER, ANSWER, USER), {"messages": [USER, ANSWER]}, "D021", "removed the turn after"),
    (
        chat(USER, ANSWER, USER, USER, system="S"),
        {"messages": [USER, ANSWER], "system": "S"},
        "D021",
        "the 2 turns",
    ),
]


@pytest.mark.parametrize(("written", "becomes", "code", "done"), MENDED)
def test_each_safe_mend_is_made_and_listed(
    tmp_path: Path, written: str, becomes: object, code: str, done: str
) -> None:
    rows = fix(tmp_path, f"{GOOD}\n{written}\n")
    ((line, mended_code, sentence),) = mends(rows)
    assert (line, mended_code) == (2, code)
    assert done in sentence
    assert json.loads(rows[1].line or "") == rows[1].value
    assert becomes is None or rows[1].value == becomes


def test_several_mends_of_a_row_are_all_listed(tmp_path: Path) -> None:
    row = chat({"role": "Human", "content": "q"}, {"role": "GPT", "content": "a"}, USER)[:-1] + ",}"
    rows = fix(tmp_path, row)
    assert [code for _, code, _ in mends(rows)] == ["D054", "D006", "D006", "D021"]


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("{'prompt': 'a'}", "D054"),
        ('{"prompt": "a", "prompt": "b", "completion": "c",}', "D054"),
        ('{"prompt": "a", "prompt": "b"}', "D055"),
        ('{"prompt": "a, }', "D054"),
        (b'{"prompt": "\xff"}', "D051"),
        ("[1, 2]", "D056"),
        ('{"prompt": "a", "completion": "b", "n": 1e999,}', "D003"),
    ],
)
def test_what_would_have_to_be_guessed_stays_out_with_its_reason(
    tmp_path: Path, written: str | bytes, code: str
) -> None:
    content = f"{GOOD}\n".encode() + (written if isinstance(written, bytes) else written.encode()) + b"\n"
    good, bad = fix(tmp_path, content)
    assert (good.line, bad.value, bad.line, bad.mends) == (GOOD, None, None, ())
    assert bad.finding is not None and (bad.finding.code, bad.finding.origin.line) == (code, 2)


def test_unknown_roles_and_broken_arguments_are_not_guessed(tmp_path: Path) -> None:
    broken = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x = 1"}}]}
    rows = fix(tmp_path, chat(USER, {"role": "asistant", "content": "a"}) + "\n" + chat(USER, broken))
    assert mends(rows) == []


def test_a_whole_file_is_mended_once(tmp_path: Path) -> None:
    array = json.dumps([json.loads(GOOD)] * 2, indent=1)
    rows = fix(tmp_path, b"\xef\xbb\xbf" + array.replace("\n", "\r\n").encode())
    assert mends(rows) == [
        (0, "D053", "left the byte-order mark out"),
        (0, "D060", "wrote one object per line"),
        (0, "D067", "wrote line feeds for the line ends of Windows"),
    ]
    lines = [row.line for row in rows if row.line is not None]
    assert [json.loads(line) for line in lines] == [json.loads(GOOD)] * 2
    assert not any("\n" in line for line in lines)


def test_a_verdict_on_the_file_is_passed_on(tmp_path: Path) -> None:
    (row,) = fix(tmp_path, b"PK\x03\x04")
    assert row.finding is not None and row.finding.code == "D059"


def test_half_a_character_is_kept_as_it_is(tmp_path: Path) -> None:
    (row,) = fix(tmp_path, '{"prompt": "\\ud83d", "completion": "b",}')
    assert row.line == '{"prompt": "\\ud83d", "completion": "b"}'


def test_a_hostile_row_is_looked_through_in_bounded_time(tmp_path: Path) -> None:
    began = time.process_time()
    fix(tmp_path, "[" + ", " * 1_000_000 + "\n" + '{"a": [' + "1," * 1_000_000 + "],}\n")
    assert time.process_time() - began < 5


def test_tables_become_json_lines(tmp_path: Path) -> None:
    import datetime

    import pyarrow.parquet

    rows = fix(tmp_path, "instruction,input,output\na,<noinput>,b\n", "a.csv")
    assert [row.line for row in rows] == ['{"instruction": "a", "input": "", "output": "b"}']
    day = datetime.date(2024, 1, 1)
    table = pyarrow.Table.from_pylist([{"prompt": "a", "completion": "b", "day": day}])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    (dated,) = fixed_rows(str(tmp_path / "a.parquet"))
    assert dated.finding is not None and dated.finding.code == "D003"


def codes_of(file: Path) -> dict[str, int]:
    reading = Reading([str(file)])
    for conversation in reading:
        reading.ledger.keep(conversation.origin)
    return reading.ledger.counts_by_code()


def test_the_mended_file_is_clean_and_needs_no_second_mend(tmp_path: Path) -> None:
    content = "\r\n".join([GOOD, *(written for written, *_ in MENDED)])
    rows = fix(tmp_path, b"\xef\xbb\xbf" + content.encode())
    assert {"D006", "D021", "D040", "D053", "D054"} <= codes_of(tmp_path / "a.jsonl").keys()
    mended = tmp_path / "mended.jsonl"
    mended.write_text("".join(f"{row.line}\n" for row in rows if row.line is not None))
    # the planted rows are alike once they are mended, and their columns are not all learned
    assert codes_of(mended).keys() <= {"D030", "D042", "D077"}
    again = list(fixed_rows(str(mended)))
    assert mends(again) == []
    assert [row.line for row in again] == mended.read_text().splitlines()
    assert len(again) == 1 + len(MENDED)


@settings(max_examples=100)
@given(
    content=st.binary(max_size=120)
    | st.lists(st.sampled_from(list('{}[],:" \n\r"a1')), max_size=40).map("".join)
)
def test_arbitrary_bytes_are_mended_or_refused(tmp_path: Path, content: str | bytes) -> None:
    for row in fix(tmp_path, content):
        assert (row.value is None) == (row.line is None)
        assert row.line is None or json.loads(row.line) is not None
        assert row.value is not None or row.finding is not None or row.mends
