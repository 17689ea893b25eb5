"""Whatever bytes a file holds: findings or UserError, never another exception, and the ledger balances."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.security.bounds import MOST_CPU_SECONDS
from tuition.data import Reading
from tuition.data.formats import FORMATS
from tuition.errors import UserError

fearless = settings(max_examples=100)


def read_all(reading: Reading) -> Reading:
    """Read, keep what comes, and check that every row is accounted for and can be reported."""
    for conversation in reading:
        for message in conversation.messages:
            message.content.encode("utf-8")
        reading.ledger.keep(conversation.origin)
    ledger = reading.ledger
    ledger.check_balance()
    assert ledger.rows_in == ledger.kept + len(ledger.rejected)
    assert sum(ledger.counts_by_code().values()) >= len(ledger.findings) >= len(ledger.counts_by_code())
    json.dumps(ledger.summary()), json.dumps(list(ledger.to_rows()))
    return reading


FRAGMENTS = rb'{ } [ ] " \ , : "" null NaN 1e999 \ud800 "prompt" prompt,completion'.split()
RAW = [b"\n", b"\r", b"\t", b" ", b"\x00", b"\xff", b"\xc3", b"\xef\xbb\xbf"]
fragments = st.sampled_from([b'{"prompt": "a", "completion": "b"}', *FRAGMENTS, *RAW])
file_bytes = st.binary(max_size=200) | st.lists(fragments | st.binary(max_size=4)).map(b"".join)


@fearless
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz"])
@given(content=file_bytes)
@example(content=b"[" * 100_000)
@example(content=b'[{"a":' * 30_000)
@example(content=b'{"a":' * 100_000)
@example(content=b"\xff\xfe")
@example(content=b'["')
def test_arbitrary_bytes_never_raise(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    reading = read_all(Reading([str(file)]))
    assert reading.ledger.rows_in or reading.ledger.findings


@settings(fearless, max_examples=20)
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_are_no_parquet(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1" + content + b"PAR1")
    read_all(Reading([str(file)]))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "[1]", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
field_names = sorted(set().union(*(shape.reads for shape in FORMATS.values()), {"weight", "group", "id"}))
turn = st.dictionaries(
    st.sampled_from(
        ["role", "from", "content", "value", "tool_calls", "function_call", "weight", "name", "thinking"]
    ),
    json_values | st.sampled_from(["user", "assistant", "function_call", "tool"]),
)
call = st.fixed_dictionaries(
    {"role": st.just("assistant"), "tool_calls": st.lists(st.fixed_dictionaries({"function": json_values}))}
)
fields = st.dictionaries(st.sampled_from(field_names), json_values)
shaped = st.sampled_from(list(FORMATS.values())).flatmap(
    lambda shape: st.builds(
        lambda needed, others: {**others, **needed},
        st.fixed_dictionaries(dict.fromkeys(shape.needs, json_values | st.lists(turn | call, max_size=3))),
        fields,
    )
)


@settings(fearless, max_examples=150)
@given(rows=st.lists(shaped | fields | json_values, max_size=4))
def test_rows_of_any_content_never_raise(rows: list[Any]) -> None:
    read_all(Reading(rows=rows))


def oasst(parts: int) -> bytes:
    rows = [{"message_id": "0", "parent_id": None, "message_tree_id": "t", "role": "prompter", "text": "q"}]
    for n in range(1, parts):
        role = "assistant" if n % 2 else "prompter"
        rows.append(
            {"message_id": str(n), "parent_id": str(n - 1), "message_tree_id": "t", "role": role, "text": "a"}
        )
    return b"\n".join(json.dumps(row).encode() for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.jsonl", b"[" * 1_000_000),
        ("deep.json", b'{"messages": ' * 200_000),
        ("quotes.json", b'["' * 300_000),
        ("quotes.csv", b'prompt,completion\n"' * 20_000),
        ("escapes.jsonl", b'{"a": "' + b"\\" * 1_000_000),
        ("digits.jsonl", b'{"prompt": ' + b"9" * 1_000_000 + b"}"),
        ("keys.jsonl", b"".join(b'{"k%d": 1}\n' % n for n in range(2000))),
        ("columns.csv", b",".join(b"c%d" % n for n in range(100_000)) + b"\n1\n2\n"),
        ("blank.json", b"[" + b" " * 3_000_000),
        ("commas.json", b"[" + b"," * 1_000_000),
        ("chain.jsonl", oasst(5_000)),
        ("chat.jsonl", json.dumps({"messages": [{"role": "tool", "content": "x"}] * 20_000}).encode()),
    ],
)
def test_hostile_files_are_read_in_bounded_time(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    began = time.process_time()
    read_all(Reading([str(file)]))
    assert time.process_time() - began < MOST_CPU_SECONDS


def test_python_rows_that_hold_themselves_are_refused_or_read() -> None:
    knot: dict[str, Any] = {"prompt": "a", "completion": "b"}
    knot["messages"] = [knot]
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    read_all(
        Reading(
            rows=[knot, {"prompt": deep, "completion": "a"}, [deep], deep, object(), None, ("a", "b", "c")]
        )
    )


@pytest.mark.parametrize("name", ["missing.jsonl", "a.pdf", ".", "/dev/null", "fifo.jsonl"])
def test_what_is_no_data_file_is_a_user_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.pdf").write_text("x")
    os.mkfifo(tmp_path / "fifo.jsonl")
    with pytest.raises(UserError):
        list(Reading([str(tmp_path / name)]))
