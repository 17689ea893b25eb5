"""A mapping that the user gives goes before every shape, and names that are not there are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuition.conversation import Conversation
from tuition.data import Reading
from tuition.errors import UserError

PAIR = {"prompt": "question_text", "completion": "reply"}


def read(mapping: dict[str, str], *rows: Any) -> tuple[list[Conversation], list[tuple[str, int]]]:
    reading = Reading(rows=rows, mapping=mapping)
    conversations = list(reading)
    return conversations, [(f.code, f.origin.line) for f in reading.ledger.findings]


def turns(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


def test_columns_are_read_under_the_names_that_the_mapping_gives() -> None:
    (one,), found = read(PAIR, {"question_text": "Hi", "reply": "Yo"})
    assert turns(one) == [("user", "Hi"), ("assistant", "Yo")]
    assert found == []


def test_everything_that_can_be_mapped_is_used() -> None:
    mapping = {**PAIR, "system": "s", "tools": "t", "group": "g", "id": "i", "weight": "w"}
    row = {"question_text": "Hi", "reply": "Yo", "s": "S", "t": '[{"name": "f"}]', "g": 4, "i": 9, "w": "0.5"}
    (one,), found = read(mapping, row)
    assert turns(one)[0] == ("system", "S")
    assert one.tools[0]["function"]["name"] == "f"
    assert (one.group, one.origin.row_id, one.weight, found) == ("4", "9", 0.5, [])


@pytest.mark.parametrize("value", [[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]])
def test_lists_of_messages_and_running_text_can_be_mapped(value: Any) -> None:
    (chat,), _ = read({"messages": "dialogue"}, {"dialogue": value})
    assert turns(chat) == [("user", "Hi"), ("assistant", "Yo")]
    (text,), _ = read({"text": "body"}, {"body": "Once upon a time"})
    assert (text.plain, turns(text)) == (True, [("assistant", "Once upon a time")])


def test_a_mapping_goes_before_the_shape_that_a_row_has() -> None:
    row = {"prompt": "from", "completion": "to", "question_text": "Hi", "reply": "Yo"}
    (one,), found = read(PAIR, row)
    assert turns(one) == [("user", "Hi"), ("assistant", "Yo")]
    assert found == [("D042", 1)]  # prompt and completion are not used: said, but no surprise


def test_a_shape_may_be_read_the_other_way_round() -> None:
    (one,), _ = read({"prompt": "completion", "completion": "prompt"}, {"prompt": "a", "completion": "b"})
    assert turns(one) == [("user", "b"), ("assistant", "a")]


def test_a_row_without_a_column_is_rejected_with_the_nearest_name() -> None:
    reading = Reading(rows=[{"question_txt": "Hi", "reply": "Yo"}], mapping=PAIR)
    assert list(reading) == []
    assert reading.ledger.rejected[0].code == "D016"
    assert reading.ledger.rejected[0].reason == (
        "there is no column 'question_text', which the mapping gives as prompt; the nearest is 'question_txt'"
    )


def test_a_column_beside_may_be_missing_in_some_rows_and_not_in_all() -> None:
    mapping = {**PAIR, "system": "sys"}
    row = {"question_text": "Hi", "reply": "Yo"}
    conversations, found = read(mapping, row, {**row, "sys": "S"})
    assert ([len(c.messages) for c in conversations], found) == ([2, 3], [])
    assert read(mapping, row, {"question_text": "Ho", "reply": "Ya"})[1] == [("D044", 0)]


def test_a_table_with_mapped_columns_has_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question_text,reply\nHi,Yo\n")
    reading = Reading([str(tmp_path / "a.csv")], mapping=PAIR)
    assert [turns(c) for c in reading] == [[("user", "Hi"), ("assistant", "Yo")]]
    assert reading.ledger.findings == []
    assert list(reading.shapes.values()) == ["mapped: prompt from question_text, completion from reply"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"promt": "q", "completion": "r"},
            r"'promt' is nothing that a column can be. Did you mean prompt\?",
        ),
        ({"prompt": "q"}, "this one names prompt"),
        ({"system": "s"}, "this one names neither"),
        ({}, "this one names neither"),
        ({"prompt": "q", "completion": "r", "text": "t"}, "names completion and prompt and text"),
        ({"prompt": "q", "completion": ""}, "completion must name a column, and is ''"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_at_the_door(mapping: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Reading(rows=[], mapping=mapping)
    assert caught.value.where == "mapping"
