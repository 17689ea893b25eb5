"""Files of every layout: rows with their lines, and verdicts on files that are none."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tuition.data import Reading, read_rows
from tuition.errors import UserError

PAIRS = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(3)]


def rows_of(path: Path) -> list[tuple[int, object]]:
    return [(row.origin.line, row.value) for row in read_rows(str(path)) if row.value is not None]


def verdicts(path: Path) -> list[tuple[int, str]]:
    return [(row.origin.line, row.finding.code) for row in read_rows(str(path)) if row.finding]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def zstd(content: bytes) -> bytes:
    import pyarrow

    return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))


LINES = "".join(json.dumps(row) + "\n" for row in PAIRS)


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.jsonl", LINES, [1, 2, 3]),
        ("a.jsonl", LINES.removesuffix("\n"), [1, 2, 3]),
        ("a.ndjson", LINES.replace("\n", "\r\n"), [1, 2, 3]),
        ("a.jsonl", "\n" + LINES.replace("\n", "\n\n"), [2, 4, 6]),
        ("a.json", json.dumps(PAIRS), [1, 2, 3]),  # all on one line: by position
        ("a.json", json.dumps(PAIRS) + "\n", [1, 2, 3]),
        ("a.json", json.dumps(PAIRS, indent=2), [2, 6, 10]),
        ("a.json", "[\n" + ",\n".join(json.dumps(row) for row in PAIRS) + "\n]\n", [2, 3, 4]),
        ("a.csv", "prompt,completion\np0,c0\np1,c1\np2,c2\n", [2, 3, 4]),
        ("a.tsv", "prompt\tcompletion\np0\tc0\n\np1\tc1\r\np2\tc2", [2, 4, 5]),
    ],
)
def test_rows_are_read_with_the_lines_they_begin_on(
    tmp_path: Path, name: str, text: str, lines: list[int]
) -> None:
    expected = list(zip(lines, PAIRS, strict=True))
    for file in (
        write(tmp_path / name, text),
        write(tmp_path / f"{name}.gz", gzip.compress(text.encode())),
        write(tmp_path / f"{name}.zst", zstd(text.encode())),
    ):
        assert (rows_of(file), verdicts(file)) == (expected, [])


def test_zstd_frames_that_follow_each_other_are_one_file(tmp_path: Path) -> None:
    frames = b"".join(zstd(line.encode()) for line in LINES.splitlines(keepends=True))
    assert rows_of(write(tmp_path / "a.jsonl.zst", frames)) == list(zip([1, 2, 3], PAIRS, strict=True))


def test_a_mark_in_a_compressed_file_is_skipped_too(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.zst", zstd(b"\xef\xbb\xbf" + LINES.encode()))
    assert (len(rows_of(file)), verdicts(file)) == (3, [(0, "D053")])


def test_parquet_rows_are_read_by_position(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == list(zip([1, 2, 3], PAIRS, strict=True))


@pytest.mark.parametrize("name", ["stream.arrow", "file.arrow", "a.feather"])
def test_arrow_rows_are_read_by_position_in_either_layout(tmp_path: Path, name: str) -> None:
    import pyarrow
    import pyarrow.feather

    table = pyarrow.Table.from_pylist(PAIRS)
    if name == "a.feather":
        pyarrow.feather.write_feather(table, str(tmp_path / name))
    else:
        writer = pyarrow.ipc.new_file if name == "file.arrow" else pyarrow.ipc.new_stream
        with writer(str(tmp_path / name), table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    assert rows_of(tmp_path / name) == list(zip([1, 2, 3], PAIRS, strict=True))
    assert verdicts(tmp_path / name) == []


def test_an_arrow_file_that_points_outside_itself_is_refused(tmp_path: Path) -> None:
    import pyarrow

    table = pyarrow.table({"text": ["text", "more"]})
    with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as stream:
        stream.write_table(table)
    sound, offsets = (tmp_path / "a.arrow").read_bytes(), struct.pack("<3i", 0, 4, 8)
    assert sound.count(offsets) == 1
    write(tmp_path / "a.arrow", sound.replace(offsets, struct.pack("<3i", 0, 4, 1 << 30)))
    assert (rows_of(tmp_path / "a.arrow"), verdicts(tmp_path / "a.arrow")) == ([], [(0, "D066")])


def test_a_parquet_text_that_is_not_utf8_spoils_its_row_only(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    spoilt = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": spoilt}), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [(1, {"text": "a"}), (3, {"text": "c"})]
    assert verdicts(tmp_path / "a.parquet") == [(2, "D051")]


def test_a_single_object_may_be_spread_over_a_json_file(tmp_path: Path) -> None:
    task = {"Definition": ["Negate."], "Instances": [{"input": "up", "output": ["down"]}]}
    assert rows_of(write(tmp_path / "task.json", json.dumps(task, indent=1))) == [(1, task)]


def test_the_layout_counts_and_not_the_name(tmp_path: Path) -> None:
    array = write(tmp_path / "array.jsonl", json.dumps(PAIRS))
    lines = write(tmp_path / "lines.json", LINES)
    assert [value for _, value in rows_of(array)] == [value for _, value in rows_of(lines)] == PAIRS
    assert verdicts(array) == verdicts(lines) == [(0, "D060")]


@pytest.mark.parametrize("first", ["[1, 2]", "[]"])
def test_a_line_that_is_a_list_does_not_make_the_file_an_array(tmp_path: Path, first: str) -> None:
    file = write(tmp_path / "a.jsonl", f"{first}\n{LINES}")
    assert verdicts(file) == [(1, "D056")]
    assert len(rows_of(file)) == 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_costs_no_row(tmp_path: Path, name: str) -> None:
    text = {"a.jsonl": LINES, "a.json": json.dumps(PAIRS, indent=1), "a.csv": "prompt,completion\np0,c0\n"}[
        name
    ]
    marked = write(tmp_path / name, b"\xef\xbb\xbf" + text.encode())
    plain = write(tmp_path / f"plain{marked.suffix}", text)
    assert rows_of(marked) == rows_of(plain)
    assert verdicts(marked) == [(0, "D053")]


# --- arrays with bad rows ---


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ('{"prompt": "a",}', "D054"),
        ('{"prompt": "a, "completion": "b"}', "D054"),
        ('{"prompt": "a}', "D054"),
        ('{"prompt": "a", "prompt": "b"}', "D055"),
        ("7", "D056"),
        ('"a, ]"', "D056"),
        ("[[]]", "D056"),
        ("nul", "D054"),
        ('{"a": ' * 70 + "1" + "}" * 70, "D057"),
    ],
)
def test_a_bad_element_costs_one_row_of_the_array(tmp_path: Path, bad: str, code: str) -> None:
    elements = [json.dumps(PAIRS[0]), bad, *map(json.dumps, PAIRS[1:])]
    file = write(tmp_path / "a.json", "[\n" + ",\n".join(elements) + "\n]")
    assert rows_of(file) == list(zip([2, 4, 5], PAIRS, strict=True))
    assert verdicts(file) == [(3, code)]


def test_bytes_that_are_not_utf8_spoil_one_element(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.json", b'[\n{"prompt": "\xff"},\n{"prompt": "caf\xc3\xa9", "completion": "c"}\n]'
    )
    assert rows_of(file) == [(3, {"prompt": "café", "completion": "c"})]
    assert verdicts(file) == [(2, "D051")]


def test_an_array_that_is_cut_off_keeps_the_rows_before(tmp_path: Path) -> None:
    whole = json.dumps(PAIRS, indent=1)
    cut = write(tmp_path / "cut.json", whole[:-20])
    assert [value for _, value in rows_of(cut)] == PAIRS[:2]
    assert verdicts(cut) == [(10, "D054"), (0, "D061")]


def test_text_behind_an_array_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    assert verdicts(write(tmp_path / "a.json", json.dumps(PAIRS, indent=1) + '\n[{"prompt": "x"}]')) == [
        (0, "D061")
    ]


def test_elements_longer_than_the_window_are_read_whole(tmp_path: Path) -> None:
    rows = [{"prompt": "é" * 700_000, "completion": "x" * size} for size in (1, 3_000_000, 5)]
    file = write(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False))
    assert [value for _, value in rows_of(file)] == rows


# --- tables ---


def test_cells_are_text_and_nothing_else(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 'prompt,completion\n007,"nan"\n"a ""b"", c","line\nbreak "\n')
    assert rows_of(file) == [
        (2, {"prompt": "007", "completion": "nan"}),
        (3, {"prompt": 'a "b", c', "completion": "line\nbreak "}),
    ]


def test_a_bad_record_costs_one_line_of_the_table(tmp_path: Path) -> None:
    text = b'prompt,completion\np0,c0\nonly\na,b,c\n\xff,x\n"never closed,x\np1,c1\n"a"b,x\np2,c2\n'
    file = write(tmp_path / "a.csv", text)
    assert rows_of(file) == list(zip([2, 7, 9], PAIRS, strict=True))
    assert verdicts(file) == [(3, "D063"), (4, "D063"), (5, "D051"), (6, "D065"), (8, "D065")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,prompt\na,b\n", "twice. Rename one"),
        ("prompt,\na,b\n", "column 2 of the header has no name. Name it"),
        ("prompt;completion\na;b\n", "the delimiter seems to be ';'. Write the file with commas"),
    ],
)
def test_an_unclear_header_is_said_once(tmp_path: Path, text: str, message: str) -> None:
    (row,) = read_rows(str(write(tmp_path / "a.csv", text)))
    assert row.finding is not None and (row.origin.line, row.finding.code) == (0, "D064")
    assert message in str(row.finding)


def test_a_table_without_a_header_is_told_from_one_with_strange_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "What is 2 + 2?,4\nWhat is 3 + 3?,6\n")
    reading = Reading([str(file)])
    assert list(reading) == []
    assert [(f.origin.line, f.code) for f in reading.ledger.findings] == [(0, "D064"), (2, "D001")]


def test_a_header_that_is_nearly_right_is_not_taken_for_a_row(tmp_path: Path) -> None:
    reading = Reading([str(write(tmp_path / "a.csv", "Prompt , completion\na,b\n"))])
    assert list(reading) == []
    (finding,) = reading.ledger.findings
    assert finding.code == "D001" and "--mapping 'prompt=Prompt ,completion= completion'" in finding.fix


# --- what is no data ---


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.jsonl", b"", "D050"),
        ("a.jsonl", b"\xef\xbb\xbf\n \r\n", "D050"),
        ("a.json", b"[]", "D050"),
        ("a.csv", b"prompt,completion\n", "D050"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "D059"),
        ("a.jsonl", b"\n<!DOCTYPE html><html>", "D059"),
        ("a.jsonl", b"\x80\x04\x95\x00", "D059"),
        ("a.json", b"PK\x03\x04", "D059"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "D059"),
        ("a.csv", "prompt,completion\n".encode("utf-16"), "D059"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd and more", "D059"),
        ("a.feather", b"FEA1", "D059"),
        ("a.parquet", b"ARROW1", "D059"),
        ("a.arrow", b"PAR1", "D059"),
        ("a.arrow", b"ARROW1 and no more", "D066"),
        ("a.arrow", b"neither", "D066"),
        ("a.arrow", b"", "D066"),
        ("a.parquet", b"PAR1 and no more", "D066"),
        ("a.parquet", b"", "D066"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 9, mtime=0)[:-9], "D062"),
        ("a.jsonl.gz", b"plain", "D062"),
        ("a.jsonl.zst", zstd(b"{}" * 9)[:-9], "D062"),
        ("a.jsonl.zst", b"plain", "D062"),
    ],
)
def test_a_file_that_is_no_data_gets_a_verdict(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    found = verdicts(write(tmp_path / name, content))
    assert (0, code) in found
    assert rows_of(tmp_path / name) == []


@pytest.mark.parametrize(("name", "compress"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)])
def test_a_damaged_archive_keeps_the_rows_before_the_damage(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    content = compress("".join(f'{{"text": "row {n * 7919}"}}\n' for n in range(20_000)).encode())
    file = write(tmp_path / name, content[: len(content) // 2])
    assert len(rows_of(file)) > 1000
    assert verdicts(file)[-1] == (0, "D062")


def test_a_row_beyond_the_limit_is_passed_over_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuition.data.jsonfiles.MAX_ROW_BYTES", 1000)
    long = json.dumps({"text": "x" * 5000})
    file = write(tmp_path / "a.jsonl", f"{long}\n{LINES}{long}")
    assert verdicts(file) == [(1, "D058"), (5, "D058")]
    assert [line for line, _ in rows_of(file)] == [2, 3, 4]


def test_a_missing_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", LINES)
    with pytest.raises(UserError, match=r"Did you mean .*train\.jsonl\?"):
        list(read_rows(str(tmp_path / "trian.jsonl")))
