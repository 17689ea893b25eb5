"""Every shape, one row each: the turns that come out, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuition.conversation import Conversation
from tuition.data import FORMATS, Reading
from tuition.data.formats import REFUSED_SHAPES


def read(*rows: Any) -> list[Conversation]:
    return list(Reading(rows=rows))


def codes(*rows: Any) -> list[str]:
    reading = Reading(rows=rows)
    list(reading)
    return [finding.code for finding in reading.ledger.findings]


def turns(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Yo\n"}]
HI_TURNS = [("user", "Hi"), ("assistant", " Yo\n")]

SHAPES: dict[str, tuple[str, dict[str, Any], list[list[tuple[str, str]]]]] = {
    "OpenAI chat": ("messages", {"messages": HI, "parallel_tool_calls": False}, [HI_TURNS]),
    "messages as a JSON cell": ("messages", {"messages": json.dumps(HI)}, [HI_TURNS]),
    "Claude style with a system text": (
        "messages",
        {
            "system": "Be kind.",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, HI[1]],
        },
        [[("system", "Be kind."), *HI_TURNS]],
    ),
    "ultrachat, where messages win over prompt": ("messages", {"prompt": "Hi", "messages": HI}, [HI_TURNS]),
    "content in parts": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, "i"]}, HI[1]]},
        [HI_TURNS],
    ),
    "ShareGPT": (
        "conversations",
        {"id": "x", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": " Yo\n"}]},
        [HI_TURNS],
    ),
    "conversations with role and content": ("conversations", {"conversations": HI}, [HI_TURNS]),
    "prompt and completion": (
        "prompt completion",
        {"prompt": "The sky is", "completion": " blue."},
        [[("user", "The sky is"), ("assistant", " blue.")]],
    ),
    "prompt and completion as messages": (
        "prompt completion",
        {"prompt": HI[:1], "completion": HI[1:]},
        [HI_TURNS],
    ),
    "prompt and response": ("prompt response", {"prompt": "Hi", "response": " Yo\n"}, [HI_TURNS]),
    "Alpaca": (
        "alpaca",
        {"instruction": "Add", "input": "1 2", "output": "3"},
        [[("user", "Add\n\n1 2"), ("assistant", "3")]],
    ),
    "Alpaca without input": ("alpaca", {"instruction": "Hi", "input": "", "output": " Yo\n"}, [HI_TURNS]),
    "Alpaca with system and history": (
        "alpaca",
        {"instruction": "Hi", "output": " Yo\n", "system": "S", "history": [["q", "a"]]},
        [[("system", "S"), ("user", "q"), ("assistant", "a"), *HI_TURNS]],
    ),
    "Dolly": (
        "dolly",
        {"instruction": "Who?", "context": "Bo is.", "response": "Bo", "category": "closed_qa"},
        [[("user", "Who?\n\nBo is."), ("assistant", "Bo")]],
    ),
    "GSM8K": ("question answer", {"question": "Hi", "answer": " Yo\n"}, [HI_TURNS]),
    "OpenOrca": (
        "question response",
        {"id": "flan.1", "system_prompt": "S", "question": "Hi", "response": " Yo\n"},
        [[("system", "S"), *HI_TURNS]],
    ),
    "query and response": ("query response", {"query": "Hi", "response": " Yo\n"}, [HI_TURNS]),
    "FLAN": ("flan", {"inputs": "Hi", "targets": " Yo\n", "task_name": "t"}, [HI_TURNS]),
    "input and target": ("input target", {"input": "Hi", "target": " Yo\n"}, [HI_TURNS]),
    "input and output": ("input output", {"input": "Hi", "output": " Yo\n"}, [HI_TURNS]),
    "Natural Instructions": (
        "natural instructions",
        {
            "Definition": ["Negate."],
            "Positive Examples": [],
            "Instances": [
                {"id": "1", "input": "up", "output": ["down", "low"]},
                {"input": "in", "output": "out"},
            ],
        },
        [
            [("user", "Negate.\n\nup"), ("assistant", "down")],
            [("user", "Negate.\n\nin"), ("assistant", "out")],
        ],
    ),
    "seed tasks": (
        "seed tasks",
        {
            "id": "s",
            "instruction": "Hi",
            "instances": [{"input": "", "output": "a"}, {"input": "x", "output": "b"}],
        },
        [[("user", "Hi"), ("assistant", "a")], [("user", "Hi\n\nx"), ("assistant", "b")]],
    ),
    "OpenAssistant tree": (
        "oasst",
        {
            "message_tree_id": "t",
            "prompt": {
                "message_id": "t",
                "role": "prompter",
                "text": "Hi",
                "replies": [
                    {"role": "assistant", "text": "worse", "rank": 1, "replies": []},
                    {"role": "assistant", "text": "best", "rank": 0},
                ],
            },
        },
        [[("user", "Hi"), ("assistant", "best")], [("user", "Hi"), ("assistant", "worse")]],
    ),
    "Label Studio": (
        "label studio",
        {
            "id": 1,
            "data": {"prompt": "Hi"},
            "annotations": [
                {"result": [{"from_name": "box", "type": "textarea", "value": {"text": [" Yo\n"]}}]},
                {"was_cancelled": True, "result": []},
            ],
        },
        [HI_TURNS],
    ),
    "Argilla": (
        "argilla",
        {
            "id": "a",
            "status": "completed",
            "prompt": "Hi",
            "answer.responses": [" Yo\n", "draft"],
            "answer.responses.status": ["submitted", "draft"],
            "answer.responses.users": ["u", "v"],
            "answer.suggestion": None,
        },
        [HI_TURNS],
    ),
    "running text": ("text", {"text": " Once upon\n"}, [[("assistant", " Once upon\n")]]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_of_each_shape_becomes_its_turns(name: str) -> None:
    shape, row, expected = SHAPES[name]
    reading = Reading(rows=[row])
    assert [turns(conversation) for conversation in reading] == expected
    assert reading.shapes == {"<python>": FORMATS[shape].describe}


def test_every_shape_that_yields_conversations_is_in_the_table() -> None:
    assert {shape for shape, _, _ in SHAPES.values()} == set(FORMATS) - set(REFUSED_SHAPES)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, "D002"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}, "D002"),
        ({"input": {"messages": HI[:1]}, "preferred_output": HI[1:], "non_preferred_output": HI[1:]}, "D002"),
        ({"messages": HI[:1], "chosen": HI[1], "rejected": HI[1]}, "D002"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "chosen": "a", "rejected": "b"}, "D002"),
        ({"prompt": "Hi", "completion": "a", "label": False}, "D017"),
        ({"messages": HI, "kto_tag": False}, "D017"),
    ],
)
def test_rows_that_compare_or_judge_answers_are_no_demonstrations(row: dict[str, Any], code: str) -> None:
    assert codes(row) == [code]


def test_tuples_lists_and_dictionaries_are_rows_from_python() -> None:
    conversations = read(("Hi", " Yo\n"), HI, {"messages": HI})
    assert [turns(c) for c in conversations] == [HI_TURNS] * 3
    assert [str(c.origin) for c in conversations] == ["<python>:1", "<python>:2", "<python>:3"]


def test_rows_that_are_tokens_already_are_asked_for_their_text() -> None:
    reading = Reading(rows=[{"input_ids": [1, 2], "labels": [-100, 2]}])
    assert list(reading) == []
    (finding,) = reading.ledger.findings
    assert finding.code == "D001" and "token ids" in finding.message and "Give the text" in finding.fix


def test_a_row_of_no_shape_shows_its_keys_and_the_nearest_shape() -> None:
    reading = Reading(rows=[{"Prompt": "Hi", "completions": "Yo"}])
    assert list(reading) == []
    (finding,) = reading.ledger.findings
    assert finding.code == "D001"
    assert "'Prompt', 'completions'" in finding.message
    assert "nearest shape: prompt/completion (Prompt → prompt, completions → completion?)" in finding.message
    assert "tuition check '<python>' --quarantine rejected.jsonl" in finding.fix


def test_id_group_and_weight_of_a_row_are_honoured() -> None:
    (conversation,) = read({"id": 7, "group": 3, "weight": 0.5, "prompt": "a", "completion": "b"})
    assert (conversation.origin.row_id, conversation.group, conversation.weight) == ("7", "3", 0.5)


def test_the_weights_of_messages_are_kept() -> None:
    (conversation,) = read({"messages": [HI[0], {**HI[1], "weight": 0}, HI[0], {**HI[1], "weight": 1}]})
    assert [message.weight for message in conversation.messages] == [None, 0.0, None, 1.0]
    (conversation,) = read({"messages": [HI[0], {**HI[1], "train": False}, HI[0], {**HI[1], "loss": True}]})
    assert [message.weight for message in conversation.messages] == [None, 0.0, None, 1.0]
    for marks in ({"train": 1}, {"train": True, "weight": 1}, {"train_detail": [{"begin_offset": 0}]}):
        assert codes({"messages": [HI[0], {**HI[1], **marks}]}) == ["D010"]


def test_assistant_turns_inside_a_prompt_are_context() -> None:
    (conversation,) = read({"prompt": [*HI, HI[0]], "completion": HI[1:]})
    assert [message.weight for message in conversation.messages] == [None, 0.0, None, None]


def test_an_answer_that_paths_of_a_tree_share_is_learned_once() -> None:
    def reply(role: str, text: str, *replies: Any) -> dict[str, Any]:
        return {"role": role, "text": text, "replies": list(replies)}

    tree = reply(
        "prompter",
        "q",
        reply("assistant", "a", *(reply("prompter", q, reply("assistant", f"to {q}")) for q in ("r", "s"))),
    )
    first, second = read({"message_tree_id": "t", "prompt": tree})
    assert [message.weight for message in first.messages] == [None, None, None, None]
    assert [message.weight for message in second.messages] == [None, 0.0, None, None]
    assert first.group == second.group == "t"


def test_flat_rows_of_openassistant_are_joined_to_their_trees(tmp_path: Path) -> None:
    rows = [
        {"message_id": "1", "parent_id": None, "message_tree_id": "1", "role": "prompter", "text": "q"},
        {"message_id": "2", "parent_id": "1", "message_tree_id": "1", "role": "assistant", "text": "a"},
        {"message_id": "3", "parent_id": None, "message_tree_id": "3", "role": "prompter", "text": "r"},
        {"message_id": "4", "parent_id": "3", "message_tree_id": "3", "role": "assistant", "text": "b"},
        {"message_id": "5", "parent_id": "9", "message_tree_id": "3", "role": "assistant", "text": "lost"},
    ]
    file = tmp_path / "flat.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = Reading([str(file)])
    assert [turns(c) for c in reading] == [
        [("user", "q"), ("assistant", "a")],
        [("user", "r"), ("assistant", "b")],
    ]
    assert [(e.origin.line, e.code) for e in reading.ledger.rejected] == [(5, "D013")]


# --- tools and reasoning ---

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def test_tool_calls_are_read_from_strings_and_objects_alike() -> None:
    def row(arguments: Any) -> dict[str, Any]:
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        return {
            "tools": json.dumps([WEATHER]),
            "messages": [
                {"role": "user", "content": "Rain?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "no"},
                {"role": "assistant", "content": "No.", "reasoning_content": "It said no."},
            ],
        }

    as_text, as_object = read(row('{"city": "Oslo"}'), row({"city": "Oslo"}))
    assert as_text.messages == as_object.messages
    assert as_text.tools == (WEATHER,)
    assert as_text.messages[1].tool_calls == ({"id": "c1", **CALL},)
    assert as_text.messages[1].content == ""
    assert as_text.messages[2].tool_call_id == "c1"
    assert as_text.messages[3].reasoning == "It said no."


def test_the_function_calls_of_sharegpt_and_of_early_openai_are_tool_calls() -> None:
    sharegpt = {
        "tools": json.dumps([WEATHER["function"]]),
        "conversations": [
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
            {"from": "observation", "value": "no"},
            {"from": "gpt", "value": "No."},
        ],
    }
    early = {
        "functions": [WEATHER["function"]],
        "messages": [
            {"role": "user", "content": "Rain today?"},
            {"role": "assistant", "function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
            {"role": "function", "name": "weather", "content": "no"},
            {"role": "assistant", "content": "No."},
        ],
    }
    reading = Reading(rows=[sharegpt, early])
    for conversation in reading:
        assert [message.role for message in conversation.messages] == [
            "user",
            "assistant",
            "tool",
            "assistant",
        ]
        assert conversation.messages[1].tool_calls == (CALL,)
        assert conversation.tools == (WEATHER,)
    assert reading.ledger.findings == []


def test_null_columns_of_a_mixed_table_do_not_hide_the_shape() -> None:
    (conversation,) = read({"messages": None, "text": None, "prompt": "Hi", "completion": " Yo\n"})
    assert turns(conversation) == HI_TURNS


def test_the_blocks_of_claude_are_reasoning_calls_and_results() -> None:
    text = {"type": "text", "text": "I look."}
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sun"}]}
    row = {
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, text, use]},
            {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
            {"role": "assistant", "content": "Sunny"},
        ],
    }
    (conversation,) = read(row)
    assert turns(conversation) == [
        ("user", "Weather?"), ("assistant", "I look."), ("tool", "sun"), ("user", "And?"), ("assistant", "Sunny"),
    ]  # fmt: skip
    _, called, answered, *_ = conversation.messages
    assert (called.reasoning, called.tool_calls[0]["function"]) == (
        "hm",
        {"name": "f", "arguments": {"a": 1}},
    )
    assert (called.tool_calls[0]["id"], answered.tool_call_id) == ("t1", "t1")
    assert codes(row) == []


@pytest.mark.parametrize(
    ("role", "kinds"),
    [
        ("assistant", ["text", "thinking"]),
        ("assistant", ["tool_use", "text"]),
        ("assistant", ["thinking", "thinking", "text"]),
        ("user", ["text", "tool_result"]),
        ("user", ["thinking"]),
        ("assistant", ["redacted_thinking"]),
    ],
)
def test_blocks_whose_order_would_be_lost_are_refused(role: str, kinds: list[str]) -> None:
    parts = [{"type": kind, "text": "t", "thinking": "t"} for kind in kinds]
    assert codes({"messages": [{"role": "user", "content": "q"}, {"role": role, "content": parts}, *HI]}) == [
        "D008"
    ]


def test_a_field_of_a_turn_that_is_not_read_is_named_once() -> None:
    spare = {"role": "assistant", "content": "a", "thoughts": "hm", "audio": None, "value": "b"}
    reading = Reading(rows=[{"messages": [{"role": "user", "content": str(n)}, spare]} for n in range(3)])
    list(reading)
    (finding,) = reading.ledger.findings
    assert (finding.code, finding.origin.line) == ("D042", 1)
    assert finding.message == "not used in the turns: 'thoughts', 'value'"


@pytest.mark.parametrize(
    ("row", "message", "fix"),
    [
        ({"dialog": HI}, "'dialog' seems to hold the turns", "--mapping messages=dialog"),
        ({"role": "user", "content": "x"}, "the row is a single turn", '{"messages": [...]}'),
        ({"data": [{"prompt": "a", "completion": "b"}]}, "if 'data' holds the rows", "--mapping"),
        (
            {"train": [{"text": "a"}], "test": [{"text": "b"}]},
            "if 'train' and 'test' hold the rows",
            "--mapping",
        ),
        (
            {"messages": None, "id": 3},
            "nearest shape: messages (OpenAI chat); 'messages' is null",
            "--mapping",
        ),
        ({"prompt": "a", "x": "b"}, "nearest shape: prompt/completion", "--mapping prompt=COLUMN"),
        ({"version": 1, "prompt": "a"}, "nearest shape: prompt/completion", "--mapping prompt=COLUMN"),
        ({"prompt": "a", "answer": "b"}, "prompt/completion", "--mapping prompt=prompt,completion=answer"),
        ({"Query ": "a", "Output": "b"}, "Query  → query", "--mapping 'prompt=Query ,completion=Output'"),
    ],
)
def test_a_row_of_no_shape_gets_the_step_that_fits_it(row: dict[str, Any], message: str, fix: str) -> None:
    reading = Reading(rows=[row])
    list(reading)
    (finding,) = reading.ledger.findings
    assert finding.code == "D001" and message in finding.message and fix in finding.fix


def test_a_role_in_capitals_names_the_command_that_mends_it() -> None:
    reading = Reading(rows=[{"messages": [{"role": "User", "content": "q"}, HI[1]]}])
    list(reading)
    assert "--fix mended.jsonl" in reading.ledger.findings[0].fix


def test_an_input_without_an_instruction_is_asked_as_it_is() -> None:
    (conversation,) = read({"instruction": "", "input": "2 + 2?", "output": "4"})
    assert conversation.messages[0].content == "2 + 2?"
