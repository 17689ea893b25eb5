"""What a command left stays on the page of its run, and runs stand in the order of their dates."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.patience import wait_for
from tests.studio.conftest import Running
from tests.studio.runfolders import write_run
from tuition import __version__, board, jobs, talk
from tuition.collect import Store, batches, judging, people, prompts, queue, reviewing
from tuition.collect import demonstrations as demos
from tuition.conversation import Message
from tuition.errors import UserError
from tuition.evaluate.drawing import Drawing
from tuition.studio.outcomes import outcome_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "team.db") as opened:
        yield opened


def _job(kind: str, log: str = "") -> jobs.Job:
    return jobs.Job(kind, "tuition …", "2026-11-26T03:00:00+00:00", False, 0, log, False)


def _compare(store: Store, folder: Path) -> batches.Batch:
    """The run against its base: one pair to judge and one with equal answers."""
    asked = [prompts.NewPrompt((Message("user", text),), text) for text in ("One?", "Two?")]
    prompts.add(store, asked, source="ours", by=None)
    first, second = (prompts.prompt_of(store, prompt.messages) or 0 for prompt in asked)
    pairs = [batches.NewPair(first, "good", "poor"), batches.NewPair(second, "same", "same")]
    return batches.open_batch(
        store, name="n", model_a=str(folder), model_b="starter", pairs=pairs, sampling={}, by=None
    )


def test_a_command_that_ended_is_done_and_the_last_it_printed_is_kept(tmp_path: Path) -> None:
    jobs.start(tmp_path, "measure", ["--version"])
    seen: list[jobs.Job | None] = []

    def ended() -> bool:
        seen.append(jobs.find(tmp_path, "measure"))
        return seen[-1] is not None and not seen[-1].runs

    wait_for(ended)
    (*_, job) = seen
    assert job is not None
    assert job.done and job.code == 0, "its end is noted before it is said to be over"
    assert job.last_line == __version__


def test_of_two_that_start_the_same_at_once_one_is_refused(tmp_path: Path) -> None:
    together, refused = threading.Barrier(2), []

    def start() -> None:
        together.wait()
        try:
            jobs.start(tmp_path, "export", ["--version"])
        except UserError as refusal:
            refused.append(str(refusal))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: not jobs.find_all(tmp_path)[0].runs)
    assert len(refused) == 1 and "a command is at work there: tuition --version" in refused[0]
    assert (tmp_path / "jobs" / "export.log").read_text().count("$ tuition") == 1


def test_a_comparison_says_how_many_pairs_wait_and_then_who_won(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "first"
    assert "store" in outcome_of(store, folder, _job("compare")).sentence
    batch = _compare(store, folder)
    result = ("the comparison", f"/overview/comparison/{batch.id}")
    waits = outcome_of(store, folder, _job("compare"))
    assert (waits.sentence, waits.links) == ("1 pair waits", (("judge them", "/judge"), result))
    eva = people.add_person(store, "Eva", "evaluator", by=None)
    task = judging.claim(store, eva.id)
    assert task is not None
    judging.judge(store, task.id, eva.id, judging.Verdict("left" if task.left == "good" else "right"))
    judged = outcome_of(store, folder, _job("compare"))
    assert judged.sentence.startswith("wins 75% of 1 judgement and 1 equal pair (95 % interval ")
    assert judged.links == (result,)


def test_measuring_and_exporting_say_what_there_is_now(store: Store, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "first")
    measured = outcome_of(store, folder, _job("measure"))
    assert (measured.sentence, measured.links[0][1]) == ("measured 12 demonstrations", "#demonstrations")
    log = "$ tuition export\nexported to exported/first; answers alike\n\n"
    assert outcome_of(store, folder, _job("export-hf", log)).sentence.startswith(
        "exported to exported/first;"
    )


def test_a_run_that_never_began_stands_where_its_folder_was_made(tmp_path: Path) -> None:
    write_run(tmp_path / "trained")  # on 2026-11-26
    for name, day in (("older", 1_700_000_000), ("newer", 1_900_000_000)):
        (tmp_path / name / "jobs").mkdir(parents=True)
        os.utime(tmp_path / name, (day, day))
    assert [line.name for line in board.list_runs(tmp_path)] == ["newer", "trained", "older"]


def test_a_run_that_never_began_is_not_talked_to(tmp_path: Path) -> None:
    (tmp_path / "lost" / "jobs").mkdir(parents=True)
    with pytest.raises(UserError, match="lost: has no model yet"):
        next(talk.Talk(tmp_path).answer("lost", [{"role": "user", "content": "Hi"}], Drawing(4)))


def test_an_export_stays_on_the_page_and_a_free_folder_is_proposed(
    studio: Running, admin: httpx.Client
) -> None:
    folder = write_run(studio.folder / "outputs" / "kept")
    (folder / "jobs").mkdir()
    note = {"command": "tuition export …", "pid": 0, "started": "2026-11-26T03:00:00+00:00", "code": 0}
    (folder / "jobs" / "export-hf.json").write_text(json.dumps(note))
    (folder / "jobs" / "export-hf.log").write_text("exported to exported/kept; it answers alike\n")
    (studio.folder / "exported" / "kept").mkdir(parents=True)
    page = admin.get("/runs/kept").text
    assert "Export (hf): done" in page and "<p>exported to exported/kept; it answers alike</p>" in page
    assert 'value="exported/kept-2"' in page


def test_what_cannot_be_trained_on_is_said_on_the_pages_before_a_run(
    studio: Running, admin: httpx.Client
) -> None:
    with Store(studio.store) as store:
        ada = people.people(store)[0]
        new = prompts.NewPrompt((Message("user", "May I?"),), "asked.jsonl:1")
        prompts.add(store, [new], source="asked.jsonl", by=None)
        held = queue.claim(store, ada.id)
        assert held is not None
        sent = demos.submit(store, held.id, ada.id, [{"role": "assistant", "content": "No."}], post_key="may")
        reviewing.review(store, sent.id, ada.id, "accepted", rev=1)
    said = "0 of 1 accepted can be trained on: state consent and licence for asked.jsonl"
    for path in ("/start", "/review?filter=accepted", "/overview"):
        assert said in admin.get(path).text, path
    assert "neither trained on nor exported" in admin.get("/prompts").text
