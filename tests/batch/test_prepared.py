"""Prepared data is the rendered examples to the bit, whole or refused by name, and opens in other trainers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_tokenizer
from tuition import files
from tuition.batch import make_packs, make_plan
from tuition.batch.prepared import (
    Prepared,
    PreparedKey,
    code_sha256,
    find_prepared,
    hash_sources,
    open_prepared,
    sides,
    write_prepared,
    writing,
)
from tuition.batch.prepared import key as key_module
from tuition.conversation import Conversation, Message, Rendered
from tuition.data import Side, content_sha256
from tuition.errors import Origin, UserError
from tuition.recipe import ModelSettings, OptimizerSettings
from tuition.render import Renderer, choose_template

KEY = PreparedKey(
    train=(("data.jsonl", "aa"),),
    validation=(("held.jsonl", "bb"),),
    template="{{ messages }}",
    tokenizer="cc",
    settings={"max_length": 64, "seed": 0, "val_split": 0.05},
    code="dd",
)
TRAIN_FILE = "train/data-00000-of-00001.arrow"


def example(number: int, length: int = 6, weights: float | list[float] = 1.0) -> Rendered:
    supervised = np.zeros(length, dtype=np.float32)
    supervised[length // 2 :] = weights
    return Rendered(
        np.arange(number, number + length, dtype=np.int32), supervised, Origin("data.jsonl", number)
    )


def examples(count: int) -> Iterator[tuple[Side, Rendered]]:
    for number in range(count):
        yield ("validation" if number % 10 == 9 else "train"), example(number, length=4 + number % 5)


def write(root: Path, given_examples: Any = None, **records: Any) -> Prepared:
    return write_prepared(
        root, KEY, examples(40) if given_examples is None else given_examples, records=records
    )


def facts_of(rendered: Rendered) -> tuple[Any, ...]:
    origin = rendered.origin
    return (
        rendered.ids.dtype, rendered.ids.tolist(), rendered.supervised.dtype, rendered.supervised.tolist(),
        origin.file, origin.line, origin.row_id, rendered.part, rendered.group, rendered.prompt_key,
    )  # fmt: skip


# --- the same examples ---

texts = st.text(st.characters(), max_size=5)  # lone surrogates included


@st.composite
def any_example(draw: st.DrawFn) -> Rendered:
    weight = st.sampled_from([0.0, 1.0]) | st.floats(0, 9, width=32)
    supervised = draw(st.lists(weight, min_size=1, max_size=9))
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=len(supervised), max_size=len(supervised)))
    return Rendered(
        np.array(ids, dtype=np.int32),
        np.array(supervised, dtype=np.float32),
        Origin(draw(texts), draw(st.integers(0, 2**40)), draw(st.none() | texts)),
        part=draw(st.integers(0, 99)),
        group=draw(st.none() | texts),
        prompt_key=draw(texts),
    )


@settings(max_examples=20)
@given(written=st.lists(st.tuples(st.sampled_from(["train", "validation"]), any_example()), max_size=12))
def test_what_is_read_equals_what_was_written_in_every_field(written: list[tuple[Side, Rendered]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as root:
        patch.setattr(writing, "BLOCK_EXAMPLES", 3)
        patch.setattr(
            files.os, "fsync", lambda descriptor: None
        )  # twenty small folders, and no crash among them
        read = write(Path(root), written)
        for side, shown in (("train", read.train), ("validation", read.validation)):
            expected = [rendered for name, rendered in written if name == side]
            assert [facts_of(rendered) for rendered in shown] == [facts_of(rendered) for rendered in expected]
            assert shown.tokens == sum(len(rendered) for rendered in expected)
            assert shown.learned_tokens == sum(rendered.learned_tokens for rendered in expected)


def test_a_side_is_a_sequence(tmp_path: Path) -> None:
    side = write(tmp_path).train
    assert len(side) == 36
    assert [e.origin.line for e in side[-2:]] == [37, 38]
    assert [e.origin.line for e in side[8:12:3]] == [8, 12]
    assert side[np.int64(9)].origin.line == side[-27].origin.line == 10
    assert len(list(side)) == 36
    with pytest.raises(IndexError):
        side[36]


def test_counts_are_there_without_reading_an_example(tmp_path: Path) -> None:
    side = write(tmp_path, [("train", example(n, length)) for n, length in enumerate((5, 3, 8, 3))]).train
    assert (side.tokens, side.learned_tokens, side.lengths) == (19, 11, {3: 2, 5: 1, 8: 1})
    assert side.shortest.origin.line == 1


def test_the_typical_example_has_the_usual_length_or_fits_a_screen(tmp_path: Path) -> None:
    usual = write(tmp_path / "a", [("train", example(n, length)) for n, length in enumerate((3, 9, 5, 5, 8))])
    assert len(usual.train.typical) == 5
    long = write(tmp_path / "b", [("train", example(n, length)) for n, length in enumerate((900, 130, 950))])
    assert len(long.train.typical) == 130


def test_lengths_are_there_without_reading_an_example_and_are_refused_when_changed(tmp_path: Path) -> None:
    read = write(tmp_path)
    assert read.train.example_lengths().tolist() == [len(example) for example in read.train]
    assert write(tmp_path / "none", []).train.example_lengths().tolist() == []
    path = read.folder / "train" / "lengths.u32"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(UserError, match=r"lengths\.u32 was changed"):
        open_prepared(read.folder).train.example_lengths()


def test_ids_are_a_view_of_the_file_and_cannot_be_written(tmp_path: Path) -> None:
    ids = write(tmp_path).train[3].ids
    assert not ids.flags.owndata and not ids.flags.writeable


def test_a_view_outlives_the_prepared_data_it_came_from(tmp_path: Path) -> None:
    ids = write(tmp_path).train[7].ids
    assert ids.tolist() == list(range(7, 7 + 4 + 2))


def test_nothing_held_out_is_an_empty_side(tmp_path: Path) -> None:
    read = write(tmp_path, [("train", example(0))])
    assert (len(read.validation), list(read.validation), read.validation.tokens) == (0, [], 0)
    with pytest.raises(IndexError):
        read.validation[0]


def test_the_hash_of_a_side_changes_with_one_id_and_with_one_weight(tmp_path: Path) -> None:
    def sha256(rows: list[Rendered]) -> str:
        return write(tmp_path / str(len(list(tmp_path.iterdir()))), [("train", r) for r in rows]).train.sha256

    rows = [example(number) for number in range(3)]
    other_id = replace(rows[1], ids=rows[1].ids + np.int32([0, 0, 0, 0, 0, 1]))
    other_weight = replace(rows[1], supervised=rows[1].supervised * np.float32([1, 1, 1, 1, 1, 2]))
    hashes = [sha256(r) for r in (rows, rows, [rows[0], other_id, rows[2]], [rows[0], other_weight, rows[2]])]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_records_are_asked_for_after_the_last_example(tmp_path: Path) -> None:
    ledger: list[dict[str, Any]] = []

    def rendering() -> Iterator[tuple[Side, Rendered]]:
        for number in range(3):
            ledger.append({"line": number, "row_id": "\ud800\u2028"})
            yield "train", example(number)

    read = write(tmp_path, rendering(), ledger=(row for row in ledger))
    assert list(read.records("ledger")) == [{"line": n, "row_id": "\ud800\u2028"} for n in range(3)]


# --- the name ---


@pytest.mark.parametrize(
    "changed",
    [
        replace(KEY, train=(("data.jsonl", "ab"),)),
        replace(KEY, train=(("data.jsonk", "aa"),)),
        replace(KEY, train=KEY.validation, validation=KEY.train),
        replace(KEY, validation=()),
        replace(KEY, template="{{ messages }} "),
        replace(KEY, template=None),
        replace(KEY, tokenizer="cd"),
        replace(KEY, settings={**KEY.settings, "max_length": 65}),
        replace(KEY, settings={**KEY.settings, "val_split": 0.06}),
        replace(KEY, code="de"),
    ],
)
def test_one_byte_of_any_part_makes_another_name(changed: PreparedKey, tmp_path: Path) -> None:
    write(tmp_path)
    assert changed.name != KEY.name
    assert find_prepared(tmp_path, changed) is None


def test_the_name_does_not_depend_on_the_order_of_settings(tmp_path: Path) -> None:
    again = replace(KEY, settings=dict(reversed(KEY.settings.items())))
    assert again.name == KEY.name == "c03cee8f15c4c8a204b39fa15db04d51"
    assert write(tmp_path).folder == tmp_path / KEY.name


def test_one_byte_of_the_code_that_makes_examples_makes_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tuition"
    here = Path(key_module.__file__).parents[2]
    shutil.copytree(here, package, ignore=shutil.ignore_patterns("starter", "__pycache__"))
    before = code_sha256()
    monkeypatch.setattr(key_module, "__file__", str(package / "batch" / "prepared" / "key.py"))
    assert code_sha256() == before
    for place in ("conversation.py", "batch/prepared/sides.py", "data/formats.py", "render/renderer.py"):
        with (package / place).open("a") as source:
            source.write("\n")
        assert code_sha256() != before
        before = code_sha256()


def test_data_prepared_under_another_name_is_refused(tmp_path: Path) -> None:
    other = replace(KEY, tokenizer="other")
    write(tmp_path).folder.rename(tmp_path / other.name)
    with pytest.raises(UserError, match=f"of another name, {KEY.name}"):
        find_prepared(tmp_path, other)


# --- sources are hashed once ---


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were read to be hashed."""
    seen: list[str] = []

    def noting(source: str) -> str:
        seen.append(source)
        return content_sha256(source)

    monkeypatch.setattr(key_module, "content_sha256", noting)
    return seen


def saved(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_an_unchanged_file_is_not_hashed_twice(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, memo = saved(tmp_path / "a.jsonl", "{}\n"), tmp_path / "memo.json"
    now = time.time()
    monkeypatch.setattr(key_module.time, "time", lambda: now + 3600)  # the file was written an hour ago
    first = hash_sources([source], memo)
    assert hash_sources([source], memo) == first == ((source, content_sha256(source)),)
    assert reads == [source]
    saved(tmp_path / "a.jsonl", "[]\n")  # of the same size
    os.utime(source, ns=(0, 0))
    assert hash_sources([source], memo) == ((source, content_sha256(source)),) != first
    assert reads == [source, source]


def test_a_share_is_part_of_the_source_and_not_of_its_content(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.jsonl", "{}\n")
    whole, part = hash_sources([source, f"{source}#0.3"], tmp_path / "memo.json")
    assert part == (f"{source}#0.3", whole[1])
    assert replace(KEY, train=(whole,)).name != replace(KEY, train=(part,)).name


def test_a_file_written_a_moment_ago_is_not_remembered(tmp_path: Path, reads: list[str]) -> None:
    source, memo = saved(tmp_path / "a.jsonl", "{}\n"), tmp_path / "memo.json"
    hash_sources([source], memo)
    hash_sources([source], memo)
    assert reads == [source, source]
    assert not memo.exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}', '{"/a": {"stamp": 1}}'])
def test_a_damaged_memo_only_costs_the_reading(tmp_path: Path, damage: str) -> None:
    source, memo = saved(tmp_path / "a.jsonl", "{}\n"), tmp_path / "memo.json"
    memo.write_text(damage)
    assert hash_sources([source], memo) == ((source, content_sha256(source)),)


@pytest.mark.parametrize("fault", [FileExistsError, FileNotFoundError])
def test_a_memo_that_another_process_is_writing_only_costs_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[OSError]
) -> None:
    source, memo = saved(tmp_path / "a.jsonl", "{}\n"), tmp_path / "memo.json"
    now = time.time()
    monkeypatch.setattr(key_module.time, "time", lambda: now + 3600)

    def beside_another(path: Path, value: Any) -> None:
        raise fault(str(path))

    monkeypatch.setattr(files, "write_json", beside_another)
    assert hash_sources([source], memo) == ((source, content_sha256(source)),)


# --- whole, or refused by name ---


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


NAMES = [TRAIN_FILE, "validation/state.json", "ledger.jsonl", "facts.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_file_that_is_cut_or_missing_is_named_on_opening(name: str, damage: Any, tmp_path: Path) -> None:
    folder = write(tmp_path, ledger=[{"line": 1}]).folder
    damage(folder / name)
    with pytest.raises(UserError, match=name) as refusal:
        find_prepared(tmp_path, KEY)
    assert refusal.value.where == str(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_named_by_full_verification(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, ledger=[{"line": 1}]).folder
    assert open_prepared(folder, verify="full").name == KEY.name
    flip(folder / name)
    with pytest.raises(UserError, match=f"{name} does not have the SHA-256"):
        open_prepared(folder, verify="full")


def test_no_example_of_a_changed_block_is_ever_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BLOCK_EXAMPLES", 12)
    folder = write(tmp_path).folder
    flip(folder / TRAIN_FILE)  # 36 examples: the middle of the file lies in the second of three blocks
    side = open_prepared(folder).train
    assert [e.origin.line for e in (side[0], side[11], side[24], side[35])] == [0, 12, 26, 38]
    for _ in range(2):
        with pytest.raises(UserError, match=f"{TRAIN_FILE} was changed in the block of examples 12 to 23"):
            side[12]


def test_changed_records_are_refused_before_the_first_is_given(tmp_path: Path) -> None:
    folder = write(tmp_path, ledger=[{"line": 1}, {"line": 2}]).folder
    flip(folder / "ledger.jsonl")
    with pytest.raises(UserError, match=r"ledger\.jsonl does not have"):
        next(open_prepared(folder).records("ledger"))


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": {"facts.json": {"bytes": 1}}}'])
def test_a_damaged_manifest_is_named(manifest: str, tmp_path: Path) -> None:
    folder = write(tmp_path).folder
    (folder / files.MANIFEST).write_text(manifest)
    with pytest.raises(UserError, match=r"manifest\.json cannot be read"):
        open_prepared(folder)


def reseal(folder: Path, change: Any) -> None:
    """Change the facts and make the manifest fit, as a hostile folder would."""
    facts = json.loads((folder / "facts.json").read_text())
    change(facts)
    (folder / "facts.json").write_text(json.dumps(facts))
    manifest = json.loads((folder / files.MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        entry.update(sha256=files.sha256(folder / name), bytes=(folder / name).stat().st_size)
    (folder / files.MANIFEST).write_text(json.dumps(manifest))


def test_data_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path).folder
    reseal(folder, lambda facts: facts.update(format=1))
    with pytest.raises(UserError, match=r"another version of tuition \(format 1, here it is 2\)"):
        open_prepared(folder)


def test_facts_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path).folder
    reseal(folder, lambda facts: facts["sides"]["train"].pop("blocks"))
    with pytest.raises(UserError, match=r"facts\.json cannot be read"):
        open_prepared(folder)


def test_a_block_with_a_fitting_hash_and_offsets_beyond_its_end_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path).folder
    arrow = folder / TRAIN_FILE
    content = arrow.read_bytes()
    offsets = np.cumsum([0, *(4 + n % 5 for n in range(40) if n % 10 != 9)], dtype=np.int32)
    hostile = offsets.copy()
    hostile[7] = 2**30
    assert content.count(offsets.tobytes()) == 2  # of ids and of labels
    arrow.write_bytes(content.replace(offsets.tobytes(), hostile.tobytes()))

    def fit(facts: Any) -> None:
        (block,) = facts["sides"]["train"]["blocks"]
        message = arrow.read_bytes()[block["start"] : block["start"] + block["bytes"]]
        block["sha256"] = hashlib.sha256(message).hexdigest()

    reseal(folder, fit)
    with pytest.raises(UserError, match=f"{TRAIN_FILE} cannot be read"):
        open_prepared(folder).train[0]


def test_what_is_no_prepared_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no prepared data"):
        open_prepared(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        open_prepared(tmp_path)
    (tmp_path / files.MANIFEST).write_text('{"files": {}}')
    with pytest.raises(UserError, match="is not prepared data"):
        open_prepared(tmp_path)


def failing() -> Iterator[tuple[Side, Rendered]]:
    yield from examples(5)
    raise KeyboardInterrupt


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, failing())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Disk, "sync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_write_leaves_does_not_open_and_is_removed_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:  # as if the process had ended before it could clean up
        killed.setattr(files, "remove_tree", lambda _: None)
        killed.setattr(writing.os, "getpid", lambda: 1)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, failing())
    (left,) = tmp_path.iterdir()
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        open_prepared(left)
    assert find_prepared(tmp_path, KEY) is None

    write(tmp_path)
    assert left.exists()  # its writer may still be at work
    for path in (*left.rglob("*"), left):
        os.utime(path, (0, 0))
    write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [KEY.name]


def test_two_processes_that_prepare_the_same_end_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken() -> Iterator[tuple[Side, Rendered]]:
        yield from examples(40)
        with monkeypatch.context() as other:
            other.setattr(writing.os, "getpid", lambda: 1)
            write(tmp_path)

    assert write(tmp_path, overtaken()).train.tokens == open_prepared(tmp_path / KEY.name).train.tokens
    assert [path.name for path in tmp_path.iterdir()] == [KEY.name]


# --- size does not matter ---


def test_examples_are_let_go_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BLOCK_EXAMPLES", 8)
    alive: list[weakref.ref[Any]] = []
    most = 0

    def watched() -> Iterator[tuple[Side, Rendered]]:
        nonlocal most
        for number in range(200):
            made = example(number)
            alive.append(weakref.ref(made.ids))
            yield "train", made
            del made
            most = max(most, sum(ref() is not None for ref in alive))

    write(tmp_path, watched())
    assert most <= 8 + 1


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BLOCK_EXAMPLES", 512)

    def peak(rows: int) -> int:
        tracemalloc.start()
        write(tmp_path / str(rows), (("train", example(n)) for n in range(rows)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(1_000), peak(10_000)
    assert many - few < 200_000  # bytes; the examples alone would be several MB


def test_opening_hashes_the_facts_and_reads_no_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, (("train", example(n)) for n in range(20_000)), ledger=[{"line": 1}])
    hashed: list[str] = []
    blocks: list[int] = []
    whole, parse = files.sha256, sides.pa.ipc.read_record_batch
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path.name) or whole(path))
    monkeypatch.setattr(sides.pa.ipc, "read_record_batch", lambda *given: blocks.append(1) or parse(*given))
    found = find_prepared(tmp_path, KEY)
    assert found is not None and len(found.train) == 20_000
    assert (hashed, len(blocks)) == (["facts.json"], 0)
    assert found.train[19_999].origin.line == 19_999
    assert len(blocks) == 1


# --- in the loop, and in other trainers ---


def rendered_conversations() -> list[tuple[Side, Rendered]]:
    """Two-turn conversations as the renderer makes them, one in five held out."""
    tokenizer = make_tokenizer()
    renderer = Renderer(
        tokenizer, choose_template("auto", tokenizer), train_on="assistant", max_length=512, too_long="refuse"
    )
    conversations = [
        Conversation(
            (
                Message("user", f"What is {n} and {n}?"),
                Message("assistant", "it is " * (1 + n % 7) + str(2 * n)),
                Message("user", "Sure?"),
                Message("assistant", "Yes."),
            ),
            Origin("data.jsonl", n + 1),
        )
        for n in range(20)
    ]
    rendered = [e for outcome in renderer.render(conversations) for e in outcome.examples]
    return [("validation" if n % 5 == 4 else "train", e) for n, e in enumerate(rendered)]


def test_packs_are_the_same_from_disk_and_from_memory(tmp_path: Path) -> None:
    written = rendered_conversations()
    side = write(tmp_path, written).train
    in_memory = [rendered for name, rendered in written if name == "train"]
    ways: dict[str, Any] = {"max_examples": 4, "token_budget": 256}
    for ours, theirs in zip(
        make_packs(side, lambda s: s, **ways), make_packs(in_memory, lambda s: s, **ways), strict=True
    ):
        for name in ("ids", "positions", "keep", "targets", "weights"):
            assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()


def test_the_loop_trains_on_a_side_as_on_a_list_to_the_last_bit(tmp_path: Path, llama: Path) -> None:
    import torch

    from tuition.train import loop
    from tuition.train.checkpoint import Progress
    from tuition.train.learner import make_learner
    from tuition.train.model import load_config, load_model
    from tuition.train.selfcheck import choose_path

    def trained(train: Any) -> list[torch.Tensor]:
        cpu, steps = torch.device("cpu"), OptimizerSettings(learning_rate=1e-3)
        model = load_model(
            ModelSettings(model=str(llama)), load_config(str(llama)), device=cpu, dtype=torch.float32
        )
        learner = make_learner(model, cpu, torch.float32, steps)
        choose_path(learner, train)
        plan = make_plan(examples=len(train), batch_size=4, epochs=1, max_steps=2, seed=0)
        hooks = loop.Hooks(
            on_step=lambda report: None, on_eval=lambda report: None,
            save=lambda progress: None, should_stop=lambda: False,
        )  # fmt: skip
        loop.train(learner, train, plan, steps, (None, 4096), loop.Pacing(9, 1), Progress(), hooks)
        return [p.detach().clone() for p in model.parameters()]

    written = rendered_conversations()
    from_disk = trained(write(tmp_path, written).train)
    from_memory = trained([rendered for name, rendered in written if name == "train"])
    assert all(torch.equal(a, b) for a, b in zip(from_disk, from_memory, strict=True))


def ids_and_labels(rendered: Rendered) -> tuple[list[int], list[int]]:
    """An example as other trainers know it, made the slow way."""
    ids = rendered.ids.tolist()
    return ids, [
        i if weight > 0 else -100 for i, weight in zip(ids, rendered.supervised.tolist(), strict=True)
    ]


def test_datasets_opens_the_folder_with_input_ids_and_labels(tmp_path: Path) -> None:
    from datasets import load_dataset, load_from_disk

    written = rendered_conversations()
    folder = write(tmp_path, written).folder
    opened = load_from_disk(str(folder))
    assert sorted(opened) == ["train", "validation"]
    for name, dataset in opened.items():
        expected = [ids_and_labels(rendered) for side, rendered in written if side == name]
        assert [(row["input_ids"], row["labels"]) for row in dataset] == expected
        assert dataset[0].keys() == {"input_ids", "labels"}  # the other columns stay out of a trainer's way
    copied = load_dataset(
        "arrow",
        data_files={"train": str(folder / "train" / "*.arrow")},
        cache_dir=str(tmp_path / "cache"),
        split="train",
    )
    assert copied["labels"][0] == opened["train"][0]["labels"]
    assert copied["line"][0] == 1


def test_trl_trains_on_the_folder_unchanged_and_its_collator_sees_our_labels(
    tmp_path: Path, llama: Path
) -> None:
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    written = rendered_conversations()
    folder = write(tmp_path, written).folder
    data = load_from_disk(str(folder))
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(llama),
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"), max_steps=2, per_device_train_batch_size=4, use_cpu=True,
            bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=AutoTokenizer.from_pretrained(llama),
    )  # fmt: skip
    seen = [
        (ids[:length].tolist(), labels[:length].tolist())
        for batch in trainer.get_train_dataloader()
        for ids, labels, length in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"].sum(1).tolist(), strict=True
        )
    ]
    assert sorted(seen) == sorted(ids_and_labels(rendered) for side, rendered in written if side == "train")
    trainer.train()
    assert trainer.state.global_step == 2
    open_prepared(folder, verify="full")  # caches that `datasets` keeps in the folder do no harm


def test_facts_say_what_the_name_was_made_of(tmp_path: Path) -> None:
    facts = json.loads((write(tmp_path).folder / "facts.json").read_text())
    assert facts["key"]["settings"] == {"max_length": 64, "seed": 0, "val_split": 0.05}
    assert facts["key"]["template"] == "{{ messages }}"
