"""What the user names becomes files and splits, or an error that says what is there instead."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuition.data import Reading, content_sha256, find_sources, read_rows
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


def test_a_folder_that_names_no_training_split_is_training_data(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl", "latest.jsonl", "test.jsonl")
    sources = find_sources([str(tmp_path)])
    assert (names(sources.train), names(sources.test)) == (["a.jsonl", "latest.jsonl"], ["test.jsonl"])
    assert sources.left_out == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian.jsonl", r"Did you mean .*train\.jsonl\?"),
        ("dta/train.jsonl", r"Did you mean .*data\?"),
        ("*.csv", "no file matches the pattern"),
        ("empty", "holds no data files"),
        ("notes.txt", r"\.txt is not read"),
        ("rows.jsonl.zst", r"\.zst is not read"),
    ],
)
def test_what_is_not_there_is_refused_with_a_next_step(tmp_path: Path, name: str, message: str) -> None:
    folder(tmp_path, "train.jsonl", "data/x.jsonl", "notes.txt", "rows.jsonl.zst")
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
