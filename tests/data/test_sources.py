"""What the user names becomes files and splits, or an error that says what is there instead."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuition.data import Reading, content_sha256, find_sources, read_rows, split_share
from tuition.errors import UserError

LINE = '{"prompt": "a", "completion": "b"}\n'


def folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(LINE)
    return tmp_path


def names(sources: tuple[str, ...]) -> list[str]:
    return [Path(source).name for source in sources]


def test_files_are_training_data_whatever_their_names(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl", "test.jsonl")
    given = [str(tmp_path / "test.jsonl"), str(tmp_path / "a.jsonl"), str(tmp_path / "a.jsonl")]
    assert find_sources(given).train == tuple(given[:2])


def test_a_pattern_names_its_files_in_order(tmp_path: Path) -> None:
    folder(tmp_path, "b.jsonl", "a.jsonl", "c.json", "deep/d.jsonl")
    assert names(find_sources([str(tmp_path / "*.jsonl")]).train) == ["a.jsonl", "b.jsonl"]
    assert names(find_sources([str(tmp_path / "**/*.jsonl")]).train) == ["a.jsonl", "b.jsonl", "d.jsonl"]


def test_the_files_of_a_folder_are_sorted_by_the_splits_they_name(tmp_path: Path) -> None:
    folder(
        tmp_path,
        "gsm_train.jsonl",
        "train-00000-of-2.json",
        "dev.csv",
        "val.tsv",
        "x/test/0.jsonl",
        "info.json",
    )
    (tmp_path / ".train.jsonl.tmp").write_text("")
    (tmp_path / "README.md").write_text("")
    sources = find_sources([str(tmp_path)])
    assert names(sources.train) == ["gsm_train.jsonl", "train-00000-of-2.json"]
    assert names(sources.validation) == ["dev.csv", "val.tsv"]
    assert names(sources.test) == ["0.jsonl"]
    assert names(sources.left_out) == ["info.json"]


def test_the_provenance_that_an_export_writes_beside_its_rows_is_not_read_as_rows(tmp_path: Path) -> None:
    exported = ("train.jsonl", "train.provenance.jsonl", "validation.jsonl", "validation.provenance.jsonl")
    sources = find_sources([str(folder(tmp_path, *exported, "alone.provenance.jsonl"))])
    assert [*names(sources.train), *names(sources.validation)] == ["train.jsonl", "validation.jsonl"]
    assert names(sources.left_out) == ["alone.provenance.jsonl"]


def test_a_folder_that_names_no_training_split_is_training_data(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl", "latest.jsonl", "test.jsonl")
    sources = find_sources([str(tmp_path)])
    assert (names(sources.train), names(sources.test)) == (["a.jsonl", "latest.jsonl"], ["test.jsonl"])
    assert sources.left_out == ()


def test_a_folder_that_datasets_saved_is_read_without_what_stands_beside(tmp_path: Path) -> None:
    import datasets

    rows = [{"prompt": f"p{n}", "completion": "c"} for n in range(3)]
    saved = datasets.Dataset.from_list(rows)
    saved.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": saved, "test": saved.select([0])}).save_to_disk(str(tmp_path / "two"))
    (tmp_path / "one" / "cache-1234.arrow").write_bytes(b"what map() left behind")
    one, two = find_sources([str(tmp_path / "one")]), find_sources([str(tmp_path / "two")])
    assert names(one.train) == ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    assert [row.value for source in one.train for row in read_rows(source)] == rows
    assert (len(two.train), len(two.test), two.left_out) == (1, 1, ())
    assert [row.value for row in read_rows(two.test[0])] == rows[:1]


def test_descriptions_of_a_data_set_are_no_data(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl", "dataset_info.json", "state.json")
    (tmp_path / "state.json").write_text('{"not": "of datasets"}')
    assert names(find_sources([str(tmp_path)]).train) == ["a.jsonl", "state.json"]


# --- shares ---


def test_a_share_travels_with_each_training_file(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl", "x/train-1.jsonl", "x/train-2.jsonl", "x/test.jsonl")
    sources = find_sources([str(tmp_path / "a.jsonl"), f"{tmp_path / 'x'}#0.30"])
    assert names(sources.train) == ["a.jsonl", "train-1.jsonl#0.3", "train-2.jsonl#0.3"]
    assert names(sources.test) == ["test.jsonl"]


def test_a_file_whose_name_looks_like_a_share_is_a_file(tmp_path: Path) -> None:
    assert split_share("a.jsonl#0.3") == ("a.jsonl", 0.3)
    assert split_share("owner/name:train#2") == ("owner/name:train", 2.0)
    assert split_share("notes #3.jsonl") == ("notes #3.jsonl", 1.0)
    folder(tmp_path, "a.jsonl#0.3")
    assert split_share(str(tmp_path / "a.jsonl#0.3")) == (str(tmp_path / "a.jsonl#0.3"), 1.0)


@pytest.mark.parametrize("share", ["0", "0.0", "101"])
def test_a_share_that_cannot_be_is_refused(share: str) -> None:
    with pytest.raises(UserError, match=f"a share of {share} is not possible"):
        find_sources([f"a.jsonl#{share}"])


def test_two_shares_of_one_file_are_refused(tmp_path: Path) -> None:
    file = str(folder(tmp_path, "a.jsonl") / "a.jsonl")
    with pytest.raises(UserError, match="named with two shares"):
        find_sources([file, f"{file}#0.3"])
    assert find_sources([f"{file}#0.3", f"{file}#0.3"]).train == (f"{file}#0.3",)


def test_the_content_hash_knows_the_share(tmp_path: Path) -> None:
    file = str(folder(tmp_path, "a.jsonl") / "a.jsonl")
    hashes = {content_sha256(name) for name in (file, f"{file}#0.3", f"{file}#0.4")}
    assert len(hashes) == 3
    assert content_sha256(f"{file}#0.3") == content_sha256(f"{file}#0.30")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian.jsonl", r"Did you mean .*train\.jsonl\?"),
        ("dta/train.jsonl", r"Did you mean .*data\?"),
        ("*.csv", "no file matches the pattern"),
        ("empty", "holds no data files"),
        ("notes.txt", r"\.txt is not read"),
        ("rows.parquet.gz", r"\.gz is not read"),
    ],
)
def test_what_is_not_there_is_refused_with_a_next_step(tmp_path: Path, name: str, message: str) -> None:
    folder(tmp_path, "train.jsonl", "data/x.jsonl", "notes.txt", "rows.parquet.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        find_sources([str(tmp_path / name)])
    assert caught.value.next_step


def test_a_misspelt_folder_here_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path, "demonstrations/a.jsonl"))
    with pytest.raises(UserError, match=r"Did you mean demonstrations\?"):
        find_sources(["demonstration"])


def test_the_content_hash_is_of_the_bytes(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl")
    assert content_sha256(str(tmp_path / "a.jsonl")) == hashlib.sha256(LINE.encode()).hexdigest()


# --- the hub ---


class Hub:
    """Stands in for `datasets`: two splits, and rows that name what was asked for."""

    def get_dataset_split_names(self, name: str) -> list[str]:
        return ["train_sft", "test_sft"]

    def load_dataset(
        self, name: str, config: str | None, *, split: str, streaming: bool
    ) -> list[dict[str, Any]]:
        if name == "no/such":
            raise ConnectionError("Couldn't reach the hub\nand much more")
        return [{"prompt": f"{name} {config} {split}", "completion": str(n)} for n in range(2)]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "datasets", Hub())
    info = SimpleNamespace(dataset_info=lambda name: SimpleNamespace(sha="abc"))
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", info)


@pytest.mark.usefixtures("hub")
def test_a_hub_name_is_resolved_to_its_splits() -> None:
    sources = find_sources(["owner/name"])
    assert (sources.train, sources.test) == (("owner/name:train_sft",), ("owner/name:test_sft",))
    assert find_sources(["name:main:train"]).train == ("name:main:train",)


@pytest.mark.usefixtures("hub")
def test_the_rows_of_the_hub_are_streamed_by_position() -> None:
    first, second = Reading(["owner/name:main:train"])
    assert first.messages[0].content == "owner/name main train"
    assert str(second.origin) == "owner/name:main:train:2"


@pytest.mark.usefixtures("hub")
def test_the_hash_of_a_hub_data_set_is_of_its_revision() -> None:
    assert content_sha256("owner/name:train") == hashlib.sha256(b"owner/name:train@abc").hexdigest()


@pytest.mark.usefixtures("hub")
def test_a_hub_that_does_not_answer_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"no such data set \(Couldn't reach the hub\)"):
        list(read_rows("no/such:train"))
