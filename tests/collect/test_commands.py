"""The store from the command line, and the way from a written answer to a trained model and back."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.collect.conftest import add_prompts, answered
from tests.conftest import write_jsonl
from tuition import api
from tuition.cli import app
from tuition.collect import Store, batches, judging, losses, people, prompts, queue, reviewing
from tuition.collect import demonstrations as demos
from tuition.errors import Interrupted, UserError
from tuition.fewshot import expand
from tuition.screen import Watcher

SHAPES: list[Any] = [
    {"prompt": "What is a verb?"},
    {"instruction": "Name a colour.", "input": "", "output": "Red."},
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "2+2"},
                  {"role": "assistant", "content": "4"}], "category": "maths", "user": 7},
    {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}], "tags": ["short", "odd"]},
    {"text": "Write a poem about a door."},
]  # fmt: skip


def run(*words: Any) -> tuple[int, Any]:
    """The exit code, and what --json printed."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


def test_prompts_of_many_shapes_are_imported_once_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = [*SHAPES, {"prompt": "  "}, {"prompt": "half \ud800"}, {"unknown": 1}]
    data, store = write_jsonl(tmp_path / "mixed.jsonl", rows), tmp_path / "team.db"
    code, said = run(
        "collect", "import", data, "--store", store, "--consent", "asked", "--licence", "CC0-1.0"
    )
    assert (code, said["read"], said["new"], said["known"], len(said["findings"])) == (1, 9, 6, 0, 3)
    assert {(f["line"], f["code"]) for f in said["findings"]} == {(7, "D001"), (8, "D015"), (9, "D001")}
    code, said = run("collect", "import", data, "--store", store)
    assert (said["new"], said["known"], said["cleared"]) == (0, 6, True)
    write_jsonl(tmp_path / "long.jsonl", [{"prompt": "word " * 100}])
    run("collect", "import", tmp_path / "long.jsonl", "--store", store)
    with Store(store) as opened:
        assert "word word…" in {p.opening[-10:] for p in prompts.find(opened)}, "cut, and said to be"
        maths = next(p for p in prompts.find(opened) if p.opening == "2+2")
        assert (maths.expected, maths.tags, maths.source_user, maths.origin) == (
            "4",
            ("maths",),
            "7",
            f"{data}:4",
        )
        assert [p.tags for p in prompts.find(opened, words="Who?")] == [("odd", "short")]


def test_a_source_can_be_cleared_afterwards(tmp_path: Path) -> None:
    store = tmp_path / "team.db"
    run(
        "collect",
        "import",
        write_jsonl(tmp_path / "a.jsonl", SHAPES[:1]),
        "--store",
        store,
        "--source",
        " web ",
    )
    code, said = run(
        "collect", "import", "--store", store, "--source", "web", "--licence", "MIT", "--consent", "terms"
    )
    assert (code, said["cleared"], said["read"]) == (0, True, 0)
    with pytest.raises(UserError, match="nothing to import"):
        run("collect", "import", "--store", store)


def test_eight_pairs_give_five_different_few_shot_prompts_that_share_a_group(
    store: Store, tmp_path: Path
) -> None:
    data = write_jsonl(
        tmp_path / "pairs.jsonl", [{"prompt": f"{n}+{n}?", "completion": f"= {2 * n}."} for n in range(8)]
    )
    words = (
        "collect",
        "fewshot",
        data,
        "--store",
        store.path,
        "--shots",
        3,
        "--count",
        5,
        "--instruction",
        "Add.",
    )
    assert run(*words) == (0, {"new": 5, "known": 0}) and run(*words) == (0, {"new": 0, "known": 5})
    made = prompts.find(store, tag="few-shot")
    assert len({prompt.messages for prompt in made}) == 5 and len({prompt.group for prompt in made}) == 1
    for prompt in made:
        instruction, *examples, question = prompt.messages[0].content.split("\n\n")
        asked = int(question.removeprefix("Query: ").partition("+")[0])
        assert (instruction, len(examples), prompt.expected.strip()) == ("Add.", 3, f"= {2 * asked}.")
        assert not any(f"Query: {asked}+" in example for example in examples)
    with pytest.raises(UserError, match="no prompt with 8 examples"):
        run(*words[:5], "--shots", 8)
    with pytest.raises(UserError, match="fewer than 9"):
        run("collect", "fewshot", write_jsonl(tmp_path / "two.jsonl", [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]),
            "--store", store.path, "--shots", 1, "--count", 9)  # fmt: skip


@pytest.fixture
def accepted(store: Store, writer: people.Person, reviewer: people.Person) -> list[int]:
    """Twelve accepted demonstrations."""
    add_prompts(store, 12)
    done = []
    while (got := queue.claim(store, writer.id)) is not None:
        sent = demos.submit(
            store, got.id, writer.id, answered(f"It is {got.prompt_id}."), post_key=str(got.id)
        )
        reviewing.review(store, sent.id, reviewer.id, "accepted", rev=1)
        done.append(sent.id)
    return done


def test_export_backup_and_status(store: Store, accepted: list[int], tmp_path: Path) -> None:
    code, drawn = run("collect", "export", "--store", store.path, "--to", tmp_path / "out", "--validation", 0)
    assert code == 0 and drawn["lines"] == {"train.jsonl": 12, "train.provenance.jsonl": 12}
    run("collect", "export", "--store", store.path, "--to", tmp_path / "again", "--id", drawn["id"])
    for name in ("train.jsonl", "train.provenance.jsonl", "export.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    code, _ = run("collect", "backup", "--store", store.path, "--to", tmp_path / "copy.db")
    code, said = run("collect", "status", "--store", tmp_path / "copy.db")
    assert (code, said["progress"]["accepted"]) == (0, 12)
    assert (tmp_path / "copy.db-wal").exists() is False or said["exports"][0]["id"] == drawn["id"]


def test_status_of_a_missing_store_is_an_error_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such store"):
        run("collect", "status", "--store", tmp_path / "team.db")
    assert not (tmp_path / "team.db").exists()


def test_check_reads_a_store_and_names_each_demonstration(
    store: Store, accepted: list[int], writer: people.Person, reviewer: people.Person
) -> None:
    add_prompts(store, 1, first=50, source="scraped", consent="", licence="")
    got = queue.claim(store, writer.id)
    assert got is not None
    sent = demos.submit(store, got.id, writer.id, answered("100."), post_key="x")
    reviewing.review(store, sent.id, reviewer.id, "accepted", rev=1)
    code, said = run("check", store.path)
    assert (code, said["rows_in"], said["kept"]) == (1, 13, 12)
    (entry,) = said["rejected"]
    assert (entry["file"], entry["line"], entry["code"]) == (str(store.path), sent.id, "D068")


def test_an_empty_store_and_a_text_named_like_one_are_refused(store: Store, tmp_path: Path) -> None:
    code, said = run("check", store.path)
    assert code == 1 and said["findings"][0]["code"] == "D050"
    (tmp_path / "notes.db").write_text("my notes")
    with pytest.raises(UserError, match="no SQLite file"):
        run("check", tmp_path / "notes.db")


def test_a_run_learns_what_was_accepted_when_it_began_and_resumes_although_people_go_on(
    store: Store, accepted: list[int], reviewer: people.Person, llama: Path, tmp_path: Path
) -> None:
    settings = {"model": str(llama), "data": str(store.path), "output_dir": str(tmp_path / "run"), "val_split": 0.0,
                "learning_rate": 1e-3, "batch_size": 4, "samples": 0}  # fmt: skip
    with pytest.raises(Interrupted):
        api.train(**settings, max_steps=4, watcher=Stopping())
    folder = tmp_path / "run"
    facts = json.loads((folder / "run.json").read_text())
    reviewing.review(store, accepted[0], reviewer.id, "returned", rev=1, comment="no")
    api.train(str(folder), resume=True)
    assert json.loads((folder / "run.json").read_text())["data"] == facts["data"]
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert {row["line"] for row in ledger} == set(accepted)
    assert api.check(str(store.path)).ledger.summary()["kept"] == 11


class Stopping(Watcher):
    """Sends this process the signal of Ctrl-C at the second step."""

    def step(self, report: Any) -> None:
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_compare_opens_a_batch_whose_answers_are_the_models_own(
    store: Store, llama: Path, evaluator: people.Person, tmp_path: Path
) -> None:
    add_prompts(store, 3)
    other = tmp_path / "other"
    other.symlink_to(llama)
    code, said = run("compare", llama, other, "--store", store.path, "--max-new-tokens", 4)
    assert (code, said["pairs"], said["identical"]) == (0, 3, 3)  # the same weights answer alike
    expected = api.answer(api.load(str(llama)), "What is 0 and 0?", max_new_tokens=4).text
    with store.reading() as db:
        assert db.execute("SELECT answer_a FROM pair ORDER BY id").fetchone()[0] == expected
    assert judging.claim(store, evaluator.id) is None  # nobody is asked about ties
    code, said = run("collect", "status", "--store", store.path)
    assert said["comparisons"][0]["score"]["value"] == 0.5


def test_compare_takes_new_prompts_into_the_store(store: Store, llama: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "ask.jsonl", [{"prompt": "What is a door?"}, {"prompt": "What is a door?"}])
    batch = api.compare(store, str(llama), str(llama), data=[str(data)], drawing=api.Drawing(2))
    assert batch.pairs == 1 and batches.batches(store)[0].id == batch.id
    with pytest.raises(UserError, match="no prompt"):
        api.compare(store, str(llama), str(llama), data=[str(data)], limit=0)


def test_sampled_answers_are_a_pair_each_and_the_same_seed_draws_the_same(
    store: Store, llama: Path, tmp_path: Path
) -> None:
    add_prompts(store, 2)
    base = ("compare", llama, llama, "--store", store.path, "--max-new-tokens", 4)
    for seed in (1, 1, 2):
        code, said = run(*base, "--temperature", 1, "--samples", 3, "--seed", seed)
        assert (code, said["pairs"]) == (0, 6)
    drawn = [[pair.answer_a for pair in batches.pairs(store, batch)] for batch in (1, 2, 3)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert dict(batches.batch(store, 1).sampling) | {"cut_a": 0, "cut_b": 0} == {
        "decoding": "sampled", "max_new_tokens": 4, "temperature": 1.0, "samples": 3, "seed": 1, "top_p": 1.0, "cut_a": 0, "cut_b": 0,
    }  # fmt: skip
    with pytest.raises(UserError, match="all be the same"):
        run(*base, "--samples", 3)


def test_the_losses_of_a_run_are_kept_with_each_demonstration(
    store: Store, accepted: list[int], llama: Path, tmp_path: Path
) -> None:
    trained = api.train(
        model=str(llama), data=str(store.path), output_dir=str(tmp_path / "run"), val_split=0.0, max_steps=6,
        learning_rate=1e-2, batch_size=12, samples=0,
    )  # fmt: skip
    api.evaluate(str(trained.path), rows=str(store.path))
    for demonstration_id in accepted:
        (loss,) = losses.of_demonstration(store, demonstration_id)
        assert loss.run == str(trained.path) and loss.after < loss.before


def test_no_example_of_a_few_shot_prompt_answers_its_question() -> None:
    pairs = [("a?", "A."), ("b?", "B."), ("a?", "A."), ("b?", "B!"), ("c?", "C.")]
    made = expand(pairs, "", shots=2, count=6, seed=0)
    for prompt in made:
        *examples, question = prompt.messages[0].content.split("\n\n")
        assert not any(example.startswith(question.removesuffix("Response:")) for example in examples)
    assert {prompt.expected for prompt in made} == {"A.", "B.", "C."}
    with pytest.raises(UserError, match="no prompt with 3 examples"):
        expand(pairs, "", shots=3, count=1, seed=0)
