"""The next step of learning from people: answers are drawn and judged, and TRL's preference training takes the pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import tuition
from tests.conftest import write_jsonl
from tests.evaluate.test_judge import Server
from tuition.cli import app
from tuition.errors import UserError


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A metric that nothing but the answer decides: the shorter the better."""
    file = tmp_path_factory.mktemp("metric") / "short.py"
    file.write_text("def grade(answer, expected, row):\n    return -len(answer)\n")
    return f"python:{file}:grade"


@pytest.fixture(scope="module")
def pairs(
    full_run: tuition.Run, short: str, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """Pairs drawn from the tuned model for three prompts, and their counts."""
    place = tmp_path_factory.mktemp("pairs")
    data = write_jsonl(place / "prompts.jsonl", rows[:3])
    file = place / "pairs.jsonl"
    counts = tuition.api.preferences(
        str(full_run.path), str(data), file, metric=short, samples=12, temperature=1.2, max_new_tokens=100
    )
    return file, counts


def test_pairs_of_one_prompt_share_a_group_and_the_better_answer_is_chosen(pairs: tuple[Path, Any]) -> None:
    file, counts = pairs
    written = [json.loads(line) for line in file.read_bytes().splitlines()]
    groups = [row["group"] for row in written]
    assert len(written) == counts.pairs > counts.groups > 1
    assert groups == sorted(groups), "pairs of a prompt stand together"
    for row in written:
        assert row["group"].endswith(f":{int(row['prompt'][0]['content'].split()[2]) + 1}")
        assert len(row["chosen"][0]["content"]) < len(row["rejected"][0]["content"])
        assert row["judged_by"].startswith("python:")
    answers = counts.answers - counts.unfinished - counts.repeated
    assert counts.prompts == 3 and counts.answers == 36
    assert counts.pairs + counts.ties <= answers * (answers - 1) / 2


def test_the_same_seed_draws_the_same_pairs(
    full_run: tuition.Run, short: str, pairs: tuple[Path, Any], tmp_path: Path
) -> None:
    again = tmp_path / "again.jsonl"
    tuition.api.preferences(
        str(full_run.path), str(pairs[0].parent / "prompts.jsonl"), again, metric=short, samples=12,
        temperature=1.2, max_new_tokens=100,
    )  # fmt: skip
    assert again.read_bytes() == pairs[0].read_bytes()


def test_the_command_counts_and_names_rows_without_a_prompt(
    full_run: tuition.Run, short: str, rows: list[dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from tuition import cli

    data = write_jsonl(tmp_path / "prompts.jsonl", [*rows[:2], {"no": "prompt"}])
    words = ["--data", data, "--to", tmp_path / "pairs.jsonl", "--metric", short, "--samples", 12]
    words += ["--temperature", 1.2, "--max-new-tokens", 100, "--json"]
    monkeypatch.setattr("sys.argv", ["tuition", "preferences", str(full_run.path), *map(str, words)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    said, complaint = capsys.readouterr()
    assert leaving.value.code == 1
    counts = json.loads(said)
    assert (counts["prompts"], counts["without_prompt"], counts["answers"]) == (2, 1, 24)
    assert counts["pairs"] == len((tmp_path / "pairs.jsonl").read_bytes().splitlines())
    assert "1 row has no prompt" in complaint


@pytest.fixture
def judging() -> Iterator[Server]:
    """A judge over HTTP: it prefers the shorter answer, but always the first, neither or nothing where it is told so."""

    def decide(text: str) -> str:
        asked = text.partition("[question]\n")[2].partition("\n[end of question]")[0]
        first, second = (
            text.partition(f"[answer {n}]\n")[2].partition(f"\n[end of answer {n}]")[0] for n in "AB"
        )
        shorter = "A" if len(first) < len(second) else "B" if len(first) > len(second) else "tie"
        said = {"What is 1 and 1?": "A", "What is 2 and 2?": "tie"}.get(asked, shorter)
        return "I would rather not say." if asked == "What is 3 and 3?" else f"So it seems. VERDICT: {said}"

    server = Server(decide)
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_judge_over_http_makes_pairs_of_the_answers_that_it_prefers_in_both_orders(
    full_run: tuition.Run, judging: Server, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "prompts.jsonl", rows[:4])
    words = [
        "--data",
        data,
        "--to",
        tmp_path / "pairs.jsonl",
        "--samples",
        12,
        "--temperature",
        1.2,
        "--json",
    ]
    words += ["--max-new-tokens", 100, "--judge", judging.judge.url, "--judge-model", "wise"]
    command = ["preferences", str(full_run.path), *map(str, words)]
    counts = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_bytes().splitlines()]
    assert len(pairs) == counts["pairs"] > 0 and counts["groups"] == 1
    assert {pair["prompt"][0]["content"] for pair in pairs} == {"What is 0 and 0?"}
    assert all(len(pair["chosen"][0]["content"]) < len(pair["rejected"][0]["content"]) for pair in pairs)
    assert {pair["judged_by"] for pair in pairs} == {"wise"}
    assert counts["ties"] > 0 and counts["unreadable"] > 0
    compared = counts["pairs"] + counts["ties"] + counts["unreadable"]
    texts = {body["messages"][0]["content"] for _, body in judging.asked}
    assert len(texts) == len(judging.asked) == 2 * compared, "each pair was shown both ways round"
    assert CliRunner().invoke(app, command).exit_code == 0
    assert len(judging.asked) == 2 * compared, "replies are kept, and no pair is asked about again"


def test_a_judge_that_speaks_another_language_writes_nothing(
    full_run: tuition.Run, judging: Server, data: Path, tmp_path: Path
) -> None:
    judging.decide = lambda text: b"<html>"
    to = tmp_path / "pairs.jsonl"
    with pytest.raises(UserError, match="not that of a chat completion"):
        tuition.api.preferences(
            str(full_run.path), str(data), to, judge=judging.judge, samples=12, temperature=1.2, limit=1,
            max_new_tokens=100,
        )  # fmt: skip
    assert not to.exists()


def test_pairs_without_a_winner_are_not_written(full_run: tuition.Run, data: Path, tmp_path: Path) -> None:
    to = tmp_path / "pairs.jsonl"
    with pytest.raises(UserError, match=r"no pair has a winner: 4 answers, \d unfinished"):
        tuition.api.preferences(str(full_run.path), str(data), to, limit=2, samples=2, max_new_tokens=1)
    with pytest.raises(UserError, match="nothing to compare"):
        tuition.api.preferences(str(full_run.path), str(data), to, samples=1)
    assert not to.exists()


def test_an_export_trains_two_steps_of_dpo_on_pairs_drawn_from_the_run(
    full_run: tuition.Run, pairs: tuple[Path, Any], tmp_path: Path
) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    folder = full_run.export(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = DPOConfig(
        output_dir=str(tmp_path / "dpo"), max_steps=2, per_device_train_batch_size=2, learning_rate=1e-3,
        lr_scheduler_type="constant", warmup_steps=0, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, bf16=False,
        gradient_checkpointing=False, logging_steps=1,
    )  # fmt: skip
    trainer = DPOTrainer(
        model, args=config, processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=load_dataset("json", data_files=str(pairs[0]), split="train", cache_dir=str(tmp_path)),
    )  # fmt: skip
    assert trainer.train().global_step == 2
    # the first step compares the model with itself: the loss of preference training is then log 2
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert trainer.state.log_history[1]["loss"] < 0.6931
    after = dict(trainer.model.named_parameters())
    assert any(not torch.equal(before[name], after[name].detach().cpu()) for name in before)
