"""Data that streams: the same rows, the same account, a bound on the disk, and an order that no iterator remembers."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.patience import wait_for
from tuition import starter
from tuition.api import make_renderer, prepare
from tuition.batch import make_plan
from tuition.batch.balance import Work
from tuition.batch.corpus import Corpus, prepare_corpus
from tuition.batch.stream import batch_of, stream_corpus
from tuition.batch.stream.worker import _end
from tuition.data import find_sources
from tuition.errors import UserError
from tuition.recipe import DataSettings, ModelSettings, RenderSettings, make_recipe
from tuition.train.distributed import Ranks

FILES, ROWS = 5, 40
SIZES = (9, 1, 0, 14, 6, 6, 3)


def test_every_example_comes_once_an_epoch_and_files_by_the_window() -> None:
    plan = make_plan(
        examples=sum(SIZES), batch_size=4, epochs=3, max_steps=None, seed=5, files=SIZES, together=2
    )
    file_of = [number for number, size in enumerate(SIZES) for _ in range(size)]
    orders = []
    for epoch in range(3):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        order = [int(i) for step in steps for i in plan.examples_of(step)]
        assert sorted(order) == list(range(sum(SIZES)))
        for step in steps:
            now, after = plan.files_of(step)
            assert {file_of[i] for i in plan.examples_of(step)} <= set(now)
            assert not set(now) & set(after) or step == steps[-1] or epoch == 2
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]
    assert plan.files_of(plan.steps)[1] == []


def test_an_update_does_not_depend_on_those_before() -> None:
    again = make_plan(examples=39, batch_size=4, epochs=3, max_steps=None, seed=5, files=SIZES, together=2)
    in_turn = [again.examples_of(step).tolist() for step in range(1, 25)]
    backwards = [again.examples_of(step).tolist() for step in range(24, 0, -1)]
    assert in_turn == backwards[::-1]
    assert again.examples_of(17).tolist() == in_turn[16]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    for number in range(FILES):
        rows = [
            {"prompt": f"what is {number} {n}?", "completion": f"it is {n} of {number}"} for n in range(ROWS)
        ]
        lines = [json.dumps(row) for row in rows]
        lines[number] = '{"prompt": "no answer"}' if number else lines[number]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def recipe_of(folder: Path, stream_gb: float) -> Any:
    return make_recipe(
        {"model": starter.model_path("starter"), "data": [str(folder / "*.jsonl")], "val_split": 0.1,
         "max_length": 256, "stream": True, "stream_files": 1, "stream_gb": stream_gb, "seed": 3}
    )  # fmt: skip


def streamed(folder: Path, stream_gb: float, **given: Any) -> Corpus:
    recipe = recipe_of(folder, stream_gb)
    return stream_corpus(
        find_sources(recipe.data),
        make_renderer(recipe.model, max_length=256),
        model=recipe.section(ModelSettings),
        data=recipe.section(DataSettings),
        render=recipe.section(RenderSettings),
        seed=recipe.seed,
        root=folder / "prepared",
        **given,
    )


def plan_of(corpus: Corpus) -> Any:
    files = corpus.train.files  # type: ignore[union-attr]
    return make_plan(
        examples=len(corpus.train), batch_size=16, epochs=2, max_steps=None, seed=3, files=files, together=1
    )


def there(folder: Path) -> int:
    return len(list((folder / "prepared").glob("[0-9a-f]" * 32)))


def as_texts(examples: Any) -> Counter[tuple[bytes, bytes, str]]:
    return Counter((e.ids.tobytes(), e.supervised.tobytes(), str(e.origin)) for e in examples)


@pytest.fixture(scope="module")
def corpus(written: Path) -> Corpus:
    """Prepared once, and from here on with room for two files of five."""
    told: list[str] = []
    corpus = streamed(written, 1.0, tell=told.append)
    assert told[0].startswith("5 files are not known in ") and "every row is read now" in told[0]
    assert told[-1] == "5 of 5 files read, checked and rendered"
    shelf = corpus.train.shelf  # type: ignore[union-attr]
    shelf._most_bytes = 2.3 * max(file.kept.side.bytes for file in shelf._streamed)
    return corpus


def test_streamed_rows_are_those_of_a_run_that_keeps_all(written: Path, corpus: Corpus) -> None:
    stream = corpus
    recipe = recipe_of(written, 1)
    whole = prepare_corpus(
        find_sources(recipe.data), make_renderer(recipe.model, max_length=256), data=recipe.section(DataSettings),
        render=recipe.section(RenderSettings), seed=3, root=written / "whole",
    )  # fmt: skip
    assert stream.totals == whole.totals
    assert stream.evidence.to_json() == whole.evidence.to_json()
    assert stream.facts() == whole.facts()
    assert as_texts(stream.validation) == as_texts(whole.validation)
    assert list(stream.prepared.records("ledger")) == list(whole.prepared.records("ledger"))
    plan, most = plan_of(stream), 0
    epochs: list[list[Any]] = [[], []]
    for step in range(1, plan.steps + 1):
        epochs[(step - 1) // plan.steps_per_epoch] += batch_of(stream.train, plan, step)
        most = max(most, there(written))
    assert as_texts(epochs[0]) == as_texts(epochs[1]) == as_texts(whole.train)
    assert most == 2


def test_a_file_that_was_prepared_ahead_is_prepared_again_in_the_next_epoch(
    written: Path, corpus: Corpus
) -> None:
    """Updates that take longer than preparing find every file there, and ask nobody."""
    plan, shelf = plan_of(corpus), corpus.train.shelf  # type: ignore[union-attr]
    seen: list[Any] = []
    for step in range(1, plan.steps + 1):
        seen += batch_of(corpus.train, plan, step)
        folders = [shelf._folder(number) for side in plan.files_of(step) for number in side]
        wait_for(lambda folders=folders: all(folder.exists() for folder in folders))
    assert as_texts(seen) == as_texts([*corpus.train, *corpus.train])


def test_room_that_another_run_made_meanwhile_is_room(
    written: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, exists = corpus.train.shelf, Path.exists  # type: ignore[union-attr]
    names = {file.key.name for file in shelf._streamed}
    monkeypatch.setattr(Path, "exists", lambda path: path.name in names or exists(path))  # a moment ago
    shelf._make_room([0])
    monkeypatch.undo()
    assert there(written) == 2


def test_a_resume_begins_at_the_files_of_its_update_and_prepares_nothing(
    written: Path, corpus: Corpus
) -> None:
    plan = plan_of(corpus)
    step = int(0.6 * plan.steps)
    expected = as_texts(batch_of(corpus.train, plan, step))
    resumed = streamed(written, 1.0, leads=False)  # one that cannot prepare
    assert as_texts(batch_of(resumed.train, plan_of(resumed), step)) == expected
    assert (resumed.train.sha256, resumed.at_hand.sha256) == (corpus.train.sha256, corpus.at_hand.sha256)


def test_two_ranks_over_files_that_come_and_go_take_each_example_once_and_as_one_rank_would(
    written: Path, corpus: Corpus
) -> None:
    waits = streamed(written, 1.0, leads=False)  # as the second rank: it finds what the first has prepared
    plan, ranks = plan_of(corpus), [Ranks(rank=rank, world=2) for rank in range(2)]
    taken: list[Any] = []
    for step in range(1, plan.steps_per_epoch + 1):
        both = [batch_of(one.train, plan, step) for one in (corpus, waits)]
        assert as_texts(both[0]) == as_texts(both[1])
        mine = [
            example for rank, batch in zip(ranks, both, strict=True) for example in rank.share(batch, Work())
        ]
        assert as_texts(mine) == as_texts(both[0])
        taken += mine
    assert as_texts(taken) == as_texts(corpus.train)


def test_stand_ins_are_as_long_as_what_they_stand_for(corpus: Corpus) -> None:
    lengths = corpus.train.example_lengths().tolist()
    assert [len(example) for example in corpus.stand_ins] == lengths
    assert all(e.supervised[0] == 0 and e.learned_tokens for e in corpus.stand_ins)


def test_a_file_that_changed_under_the_run_is_refused_by_name(written: Path, corpus: Corpus) -> None:
    plan = plan_of(corpus)
    gone = plan.files_of(plan.steps_per_epoch)[0][0]
    for step in range(1, plan.steps_per_epoch // 2):
        batch_of(corpus.train, plan, step)
    file = written / f"{gone}.jsonl"
    before = file.read_text()
    file.write_text(before.replace("it is", "it was"))
    try:
        with pytest.raises(UserError, match="not what it was when the run began") as caught:
            for step in range(plan.steps_per_epoch // 2, plan.steps + 1):
                batch_of(corpus.train, plan, step)
    finally:
        file.write_text(before)
    assert caught.value.where == str(file)


def test_a_killed_process_that_prepares_files_ends_the_run_by_name(written: Path, corpus: Corpus) -> None:
    plan, workers = plan_of(corpus), corpus.train.shelf._workers  # type: ignore[union-attr]
    for process in workers._processes:
        process._process.kill()
    try:
        with pytest.raises(UserError, match=r"\.jsonl.*ended by itself \(exit code -9\)"):
            for step in range(1, plan.steps + 1):
                batch_of(corpus.train, plan, step)
    finally:
        workers._processes.clear()  # others are started when they are needed


def test_a_process_that_went_away_with_a_question_unsent_is_ended_without_a_word() -> None:
    process = subprocess.Popen(["true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.wait()
    process.stdin.write("a unit")
    _end(process)
    assert process.stdin.closed and process.stdout.closed


def test_too_little_room_is_refused_with_what_is_needed(written: Path, corpus: Corpus) -> None:
    with pytest.raises(UserError, match="those of now and next") as caught:
        streamed(written, 0.7e-9 * corpus.train.shelf._most_bytes)  # type: ignore[union-attr]
    assert caught.value.where == "stream_gb"


def test_preparing_into_one_folder_refuses_to_stream(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stream keeps none"):
        prepare(str(tmp_path / "rows.jsonl"), model="anything", to=tmp_path / "out", stream=True)
    assert not (tmp_path / "out").exists()
