"""A file with planted defects: each is reported at its line with its code, and no row is unaccounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuition.data import CODES, Reading

GOOD = '{"prompt": "a %d", "completion": "b"}'
FIRST = '{"prompt": "a 1", "completion": "b", "id": "first"}'


def chat(*turns: dict[str, object], **row: object) -> str:
    return json.dumps({"messages": list(turns), **row})


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def call(**function: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function}]}


CALL = call(name="f", arguments="{}")

# Line of the file → what is planted there, and the code it must get.
REJECTED: list[tuple[str | bytes, str]] = [
    ('{"prompt": "a", "completion": "b",}', "D054"),  # trailing comma
    ('{"prompt": "a", "completion": "b"},', "D054"),  # a comma after the row
    ("{'prompt': 'a', 'completion': 'b'}", "D054"),  # Python's quotes
    ('{"prompt": "a", "completion": NaN}', "D054"),
    ('{"prompt": "a", "completion": None}', "D054"),
    ('{"prompt": "a", "compl', "D054"),  # cut off
    ('{"prompt": "a\tb", "completion": "b"}', "D054"),  # a raw tab
    ('{"prompt": "\\d", "completion": "b"}', "D054"),  # a lone backslash
    ('{"prompt": "a", "completion": "b"} {"prompt": "c", "completion": "d"}', "D054"),
    ('{"prompt": "a", "completion": "b", "n": ' + "9" * 5000 + "}", "D054"),
    ('{"prompt": "a", "prompt": "c", "completion": "b"}', "D055"),
    ('["a", "b"]', "D056"),
    ('"a"', "D056"),
    ("null", "D056"),
    ('{"a": ' * 80 + "1" + "}" * 80, "D057"),
    ('{"x": ' + "[" * 5000 + "]" * 5000 + "}", "D057"),
    (b'{"prompt": "caf\xe9", "completion": "b"}', "D051"),
    (b'{"prompt": "a\x00", "completion": "b"}', "D052"),
    ('{"prompt": "\\ud83d", "completion": "b"}', "D015"),
    ('{"task": "a", "solution": "b"}', "D001"),
    ("{}", "D001"),
    ('{"prompt": "a", "chosen": "b", "rejected": "c"}', "D002"),
    ('{"prompt": "a", "completion": 4}', "D003"),
    ('{"prompt": "a", "completion": {"text": "b"}}', "D003"),
    ('{"prompt": "a", "completion": ""}', "D005"),
    ('{"prompt": "a", "completion": " \\n"}', "D005"),
    ('{"prompt": "a", "completion": null}', "D005"),
    ('{"prompt": "a", "completion": "b", "weight": 0}', "D009"),
    ('{"prompt": "a", "completion": "b", "weight": -1}', "D010"),
    (chat(USER), "D004"),
    (chat(), "D013"),
    (chat(USER, {"role": "asistant", "content": "a"}), "D006"),
    (chat(USER, {"role": "assistant", "text_": "a"}), "D007"),
    ('{"messages": ["Hi", "Yo"]}', "D007"),
    ('{"messages": "Hi"}', "D003"),
    (chat({"role": "user", "content": [{"type": "image_url"}]}, ANSWER), "D008"),
    (chat(USER, {**ANSWER, "weight": 0}), "D009"),
    (chat(USER, {**ANSWER, "weight": "heavy"}), "D010"),
    (chat(USER, call(name="f", arguments='{"x": ')), "D011"),
    (chat(USER, call(name="f", arguments="x = 1")), "D011"),
    (chat(USER, call(arguments="{}")), "D011"),
    (chat(USER, ANSWER, tools="[1]"), "D012"),
    ('{"instruction": "a", "instances": []}', "D013"),
    ('{"data": {"prompt": "a"}, "annotations": []}', "D014"),
    ('{"prompt": "a", "completion": "b", "weight": 1e308}', "D010"),
    ('{"prompt": "a", "completion": "b", "weight": 1e-320}', "D010"),
]

# What to do where the code alone does not say it: the line of the file → the step.
STEPS = {
    3: "Remove that comma.",
    4: "Remove the commas at the ends of the lines, or make it an array.",
    5: "Write the file with json.dumps; str() of a dict is not JSON.",
    7: "Write true, false or null: json.dumps does.",
    8: "Write the row again; its end is missing.",
    9: "Write it as \\n or \\t: json.dumps does.",
    10: "Write a backslash twice: json.dumps does.",
    11: "Write one object per line.",
    37: "Write messages as a list, [...], in the source.",
    41: "Write the row again; its end is missing.",
}

WARNED: list[tuple[str, str]] = [
    ('{"prompt": "GrÃ¼n?", "completion": "b"}', "D072"),
    ('{"prompt": "whose?", "completion": "itâ€™s his"}', "D072"),
    ('{"prompt": "say it", "completion": "a\u202eb"}', "D073"),
    ('{"prompt": "", "completion": "b"}', "D020"),
    (chat({"role": "system", "content": None}, USER, ANSWER), "D078"),
    (chat({"role": "system", "content": " "}, USER, ANSWER), "D078"),
    (chat(USER, ANSWER, {"role": "user", "content": "and?"}), "D021"),
    (chat(USER, {"role": "user", "content": "hello?"}, ANSWER), "D022"),
    (chat({"role": "assistant", "content": "Hello!"}, USER, ANSWER), "D023"),
    (chat({"role": "user", "content": "s"}, {"role": "system", "content": "s"}, ANSWER), "D024"),
    (chat({"role": "user", "content": "t"}, call(name="f", arguments="{}")), "D025"),
    (chat({"role": "user", "content": "u"}, {"role": "tool", "content": "r"}, ANSWER), "D026"),
    (chat(USER, call(name="f", arguments={"x": None}), tools=[{"name": "f"}]), "D027"),
    (
        chat({"role": "user", "content": "v"}, ANSWER, tools=[{"name": "f", "parameters": {"x": None}}]),
        "D027",
    ),
    (chat({"role": "user", "content": "y", "thoughts": "z"}, ANSWER), "D042"),
    (chat({"role": "user", "content": "w"}, CALL, USER, ANSWER, tools=[{"name": "f"}]), "D029"),
    ('{"prompt": "x", "completion": "b", "id": "first"}', "D028"),
    (GOOD % 1, "D030"),
    ('{"prompt": "a\\u0007", "completion": "b"}', "D031"),
    ('{"prompt": "c", "completion": "nan"}', "D032"),
    ('{"prompt": "d", "completion": "d"}', "D033"),
    ('{"prompt": "e", "completion": "Too many requests in 1 hour. Try again later."}', "D034"),
    ('{"prompt": "f", "completion": "<!DOCTYPE html><html></html>"}', "D034"),
    ('{"prompt": "g", "completion": "As an AI language model, I cannot."}', "D035"),
    ('{"prompt": "h", "completion": "b<|endoftext|>"}', "D036"),
    ('{"prompt": "l", "completion": "salt &amp; pepper"}', "D074"),
    ('{"prompt": "m", "completion": "one<br/>two"}', "D074"),
    ('{"prompt": "n", "completion": "Assistant: hello"}', "D075"),
    (json.dumps({"prompt": "o", "completion": "Well, " + "and so on, " * 40}), "D076"),
    ('{"instruction": "i", "input": "<noinput>", "output": "b"}', "D040"),
    ('{"prompt": "j", "completion": "b", "difficulty": "hard"}', "D042"),
    ('{"question": "k", "answer": "b", "context": "where it is said"}', "D043"),
]


def planted(tmp_path: Path) -> str:
    """The defects between good rows, with a byte-order mark, blank lines and a mixture of line ends."""
    lines = [FIRST, "", *(row for row, _ in REJECTED), "  ", *(row for row, _ in WARNED), GOOD % 2]
    as_bytes = [line if isinstance(line, bytes) else line.encode() for line in lines]
    ends = [b"\r\n" if number % 3 == 0 else b"\n" for number in range(len(lines))]
    file = tmp_path / "planted.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b"".join(line + end for line, end in zip(as_bytes, ends, strict=True)))
    return str(file)


def test_each_planted_defect_is_reported_at_its_line(tmp_path: Path) -> None:
    reading = Reading([planted(tmp_path)])
    for conversation in reading:
        reading.ledger.keep(conversation.origin)
    ledger = reading.ledger
    first_warned = 3 + len(REJECTED) + 1
    expected = [(0, "D053")]
    expected += [(line, code) for line, (_, code) in enumerate(REJECTED, 3)]
    expected += [(line, code) for line, (_, code) in enumerate(WARNED, first_warned)]
    assert [(f.origin.line, f.code) for f in ledger.findings] == expected
    assert len({code for _, code in expected}) >= 25
    mends = [
        STEPS.get(f.origin.line, CODES[f.code].mend.replace("FILE", f.origin.file)) for f in ledger.findings
    ]
    assert [f.fix for f in ledger.findings] == mends
    assert [(e.origin.line, e.code) for e in ledger.rejected] == expected[1 : len(REJECTED) + 1]
    ledger.check_balance()
    assert ledger.rows_in == ledger.kept + len(ledger.rejected) == 2 + len(REJECTED) + len(WARNED)


def test_every_finding_ends_with_a_step_and_is_one_short_line(tmp_path: Path) -> None:
    reading = Reading([planted(tmp_path)])
    list(reading)
    for finding in reading.ledger.findings:
        assert finding.fix.endswith("."), finding
        assert not finding.message.endswith("."), finding
        assert "\n" not in str(finding) and len(finding.message) < 400


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ('{"prompt": "a",}', "a comma stands before the closing bracket"),
        ('{"prompt": "a"},', "a comma follows the object"),
        ("{'prompt': 'a'}", "single quotes are not JSON's"),
        ('{"prompt": NaN}', "NaN is not JSON"),
        ('{"prompt": True}', "a word of Python's"),
        ('{"prompt": "a', "the row is cut off"),
        ('{"prompt": "a"', "too early, at column 15: the row is cut off"),
        ('{"prompt": "a\tb"}', "a raw line break or tab"),
        ('{"prompt": "\\d"}', "a lone backslash"),
        ('{"a": 1} {"b": 2}', "something follows the object"),
    ],
)
def test_invalid_json_says_what_people_usually_did(tmp_path: Path, row: str, hint: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(GOOD % 1 + "\n" + row + "\n")
    reading = Reading([str(file)])
    list(reading)
    (finding,) = reading.ledger.findings
    assert (finding.code, finding.origin.line) == ("D054", 2)
    assert hint in finding.message


def test_turns_after_the_final_answer_are_cut_off_and_counted(tmp_path: Path) -> None:
    more = [{"role": "user", "content": "and?"}, {"role": "user", "content": "hello?"}]
    reading = Reading(rows=[[USER, ANSWER, *more]])
    (conversation,) = reading
    assert [message.content for message in conversation.messages] == ["q", "a"]
    assert "the last 2 turns after the final answer are set aside" in [
        f.message for f in reading.ledger.findings
    ]


def test_a_tool_result_answers_the_call_of_its_id(tmp_path: Path) -> None:
    def findings(answered_id: str | None) -> list[str]:
        result = {"role": "tool", "content": "r", **({"tool_call_id": answered_id} if answered_id else {})}
        row = {"messages": [USER, call(name="f", arguments="{}"), result, ANSWER], "tools": [{"name": "f"}]}
        reading = Reading(rows=[row])
        list(reading)
        return [finding.code for finding in reading.ledger.findings]

    assert (findings("c"), findings(None), findings("d")) == ([], [], ["D026"])


def test_parallel_calls_may_be_answered_one_after_the_other() -> None:
    def codes(results: int) -> list[tuple[str, str]]:
        calls = [{"function": {"name": "f", "arguments": "{}"}}] * 2
        turns = [USER, {"role": "assistant", "tool_calls": calls}]
        turns += [{"role": "tool", "content": "r"}] * results + [USER, ANSWER]
        reading = Reading(rows=[{"messages": turns, "tools": [{"name": "f"}]}])
        list(reading)
        return [(f.code, f.message) for f in reading.ledger.findings]

    assert codes(2) == []
    assert codes(1) == [("D029", "a call is not answered before turn 4, a turn of the user")]
    assert codes(0) == [("D029", "2 calls are not answered before turn 3, a turn of the user")]


def test_columns_that_are_not_used_are_named_once_per_file() -> None:
    reading = Reading(
        rows=[{"prompt": str(n), "completion": "b", "topic": "x", "context": "y"} for n in range(9)]
    )
    list(reading)
    assert [(f.code, f.message.split(": ")[1]) for f in reading.ledger.findings] == [
        ("D043", "'context'"),
        ("D042", "'topic'"),
    ]


def test_markup_that_was_asked_for_labels_that_are_words_and_rules_are_left_alone() -> None:
    rows = [
        {"prompt": "How is an ampersand written in HTML?", "completion": "As &amp;"},
        {"prompt": "a", "completion": "```\n<br>\n```"},
        {"prompt": "b", "completion": "Answers: there are three."},
        {"prompt": "c", "completion": "Title\n" + "-" * 400},
        {"prompt": "d", "completion": "x < y && y </ z"},
        {"prompt": "e", "completion": " ".join(str(number) for number in range(200))},
    ]
    reading = Reading(rows=rows)
    list(reading)
    assert reading.ledger.findings == []


def test_a_question_with_another_answer_is_named_and_a_copy_is_not_named_twice() -> None:
    def codes(*answers: str) -> list[str]:
        reading = Reading(rows=[{"prompt": "q", "completion": answer} for answer in answers])
        list(reading)
        return [f.code for f in reading.ledger.findings]

    assert (codes("a", "b"), codes("a", "a"), codes("a", "b", "b")) == (["D077"], ["D030"], ["D077", "D030"])
