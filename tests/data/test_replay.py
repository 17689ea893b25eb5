"""Replay: the share is met to the row, the same rows for a seed, nothing held out, nothing unaccounted for."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tuition import api
from tuition.data import Ledger, Replay, Sources, side_of
from tuition.errors import UserError

ROWS = [{"prompt": f"question {n}", "completion": "c"} for n in range(400)]


def chosen(path: Path, ledger: Ledger | None = None, **options: Any) -> list[str]:
    """The questions that are replayed, each kept in the ledger."""
    ledger = Ledger() if ledger is None else ledger
    settings = {"share": 0.1, "beside": 90, "val_split": 0.0, "seed": 0, **options}
    replay = Replay([str(path)], ledger=ledger, **settings)
    questions = []
    for conversation in replay.conversations():
        ledger.keep(conversation.origin)
        questions.append(conversation.messages[0].content)
    replay.report(len(questions))
    return questions


def test_a_run_learns_the_share_and_its_ledger_says_so(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUITION_CACHE", str(tmp_path / "cache"))
    data = [{"prompt": f"p{n}", "completion": "c"} for n in range(60)]
    settings: dict[str, Any] = {
        "model": str(llama),
        "data": str(write_jsonl(tmp_path / "data.jsonl", data)),
        "replay": str(write_jsonl(tmp_path / "general.jsonl", ROWS)),
        "replay_share": 0.25,
        "val_split": 0.2,
        "max_steps": 1,
        "samples": 0,
    }
    run = api.train(**settings, output_dir=str(tmp_path / "run"))
    ledger = [json.loads(line) for line in (run.path / "ledger.jsonl").read_text().splitlines()]
    general = [row for row in ledger if row["file"] == settings["replay"]]
    train = sum(row["side"] == "train" for row in ledger)
    learned = [row["line"] for row in general if row["fate"] == "kept"]
    assert len(general) == 400 and {row["fate"] for row in general} == {"kept", "left out"}
    assert {row["side"] for row in general} == {"train", None}
    assert abs(len(learned) / train - 0.25) < 0.01
    facts = json.loads((run.path / "run.json").read_text())["data"]
    assert facts["rows_in"] == 460 == facts["kept"] + facts["rejected"] + facts["left_out"]
    assert settings["replay"] in facts["shapes"]


def test_another_replay_file_is_other_data(tmp_path: Path, llama: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", ROWS[:20])
    general = write_jsonl(tmp_path / "general.jsonl", ROWS[20:])
    settings: dict[str, Any] = {"model": str(llama), "to": tmp_path / "store", "replay_share": 0.5}
    without = api.prepare(str(data), **settings)
    one = api.prepare(str(data), **settings, replay=[str(general)])
    again = api.prepare(str(data), **settings, replay=[str(general)])
    write_jsonl(general, ROWS[30:])
    other = api.prepare(str(data), **settings, replay=[str(general)])
    assert len({without.folder, one.folder, other.folder}) == 3 and one.folder == again.folder


@pytest.mark.parametrize(
    ("share", "beside", "rows"), [(0.1, 90, 10), (0.05, 1900, 100), (0.5, 7, 7), (0.1, 1, 0)]
)
def test_the_share_is_of_all_training_examples(tmp_path: Path, share: float, beside: int, rows: int) -> None:
    file = write_jsonl(tmp_path / "general.jsonl", ROWS)
    assert len(chosen(file, share=share, beside=beside)) == rows


def test_rows_that_are_not_chosen_are_left_out(tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": "broken"}]
    ledger = Ledger()
    chosen(write_jsonl(tmp_path / "general.jsonl", rows), ledger)
    ledger.check_balance()
    assert (ledger.rows_in, ledger.kept, ledger.left_out, len(ledger.rejected)) == (401, 10, 391, 0)
    assert ledger.counts_by_code() == {}  # nothing is said about rows that nobody learns


def test_the_choice_depends_on_content_and_seed_and_not_on_order(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    one = write_jsonl(tmp_path / "one.jsonl", ROWS)
    other = write_jsonl(tmp_path / "other.jsonl", shuffled)
    assert sorted(chosen(one)) == sorted(chosen(other))
    assert set(chosen(one)) != set(chosen(one, seed=1))
    assert set(chosen(one)) < set(chosen(one, share=0.3))


def test_no_prompt_of_the_validation_split_is_replayed(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "general.jsonl", ROWS)
    replay = Replay([str(file)], share=0.9, beside=90, val_split=0.5, seed=3, ledger=Ledger())
    given = list(replay.conversations())
    assert 150 < len(given) < 250
    assert all(side_of(conversation, val_split=0.5, seed=3) == "train" for conversation in given)


def test_too_few_rows_are_all_taken_and_said(tmp_path: Path) -> None:
    ledger = Ledger()
    file = write_jsonl(tmp_path / "general.jsonl", [*ROWS[:5], {"prompt": "p", "completion": ""}])
    assert len(chosen(file, ledger)) == 5
    (finding,) = ledger.findings
    assert (finding.code, finding.origin.file, finding.origin.line) == ("D071", str(file), 0)
    assert finding.message == "5 of 10 examples came of it: 5.3% of the training examples, not 10.0%"
    assert (ledger.kept, ledger.left_out) == (5, 1)


def test_equal_rows_do_not_exceed_the_share(tmp_path: Path) -> None:
    assert len(chosen(write_jsonl(tmp_path / "general.jsonl", [ROWS[0]] * 50))) == 10


def test_a_share_of_a_replay_source_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "general.jsonl", ROWS)
    with pytest.raises(UserError, match="takes no share of its own"):
        chosen(Path(f"{file}#0.5"))


def test_sources_carry_what_is_replayed(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "general.jsonl", ROWS)
    sources = Sources(("a.jsonl",))
    assert sources.with_replay((), 0.1) == sources
    assert sources.with_replay([str(file)], 0.1) == Sources(
        ("a.jsonl",), replay=(str(file),), replay_share=0.1
    )


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a b\n\n\nc\nd\n", [(1, "a b"), (4, "c\nd")]),
        ("one\ntwo\nthree", [(1, "one"), (2, "two"), (3, "three")]),
        ("alone\n\n", [(1, "alone")]),
    ],
)
def test_plain_text_is_replayed_by_paragraphs_or_by_lines(
    tmp_path: Path, text: str, pieces: list[tuple[int, str]]
) -> None:
    file = tmp_path / "general.txt"
    file.write_text(text)
    sources = Sources(("data.jsonl",)).with_replay([str(file)], 0.5)
    assert sources.replay == (str(file),)
    replay = Replay(sources.replay, share=0.5, beside=9, val_split=0.0, seed=0, ledger=Ledger())
    read = [(c.origin.line, c.messages[0].content, c.plain) for c in replay.conversations()]
    assert read == [(line, piece, True) for line, piece in pieces]
