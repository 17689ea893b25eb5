"""A run's examples are found prepared on a second start, and made again where anything changed or was damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_tokenizer, write_jsonl
from tuition import files
from tuition.batch import corpus as corpus_module
from tuition.batch.corpus import Corpus, cache_folder, prepare_corpus
from tuition.batch.prepared import tokenizer_sha256
from tuition.data import find_sources
from tuition.errors import UserError
from tuition.recipe import DataSettings, RenderSettings
from tuition.render import Renderer, choose_template

ROWS: list[Any] = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(40)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUITION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", [*ROWS, ["not a row"]])


def prepare(data: Path, *, seed: int = 0, **options: Any) -> Corpus:
    tokenizer = make_tokenizer()
    render = RenderSettings(max_length=99)
    renderer = Renderer(
        tokenizer, choose_template("auto", tokenizer), train_on="assistant", max_length=99, too_long="drop"
    )
    return prepare_corpus(
        find_sources([str(data)]),
        renderer,
        data=DataSettings(data=(str(data),), val_split=0.2),
        render=render,
        seed=seed,
        **options,
    )


def refuse_to_render(*_: Any) -> Any:
    raise AssertionError("the rows were rendered again")


def test_a_second_start_finds_what_the_first_prepared(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(data)
    monkeypatch.setattr(corpus_module, "Rendering", refuse_to_render)
    again = prepare(data)
    assert again.prepared.name == first.prepared.name
    assert [e.ids.tolist() for e in again.train] == [e.ids.tolist() for e in first.train]
    assert (again.totals, again.evidence, again.shapes) == (first.totals, first.evidence, first.shapes)
    assert (again.held_out, again.learned_from) == (first.held_out, first.learned_from)


def test_the_figures_are_those_of_the_rows(data: Path) -> None:
    corpus = prepare(data)
    facts = corpus.facts()
    assert (facts["rows_in"], facts["kept"], facts["rejected"]) == (41, 40, 1)
    assert facts["examples"] == facts["train_examples"] + facts["validation_examples"] == 40
    assert facts["tokens"] == sum(len(e) for side in (corpus.train, corpus.validation) for e in side)
    assert sum(facts["length_histogram"]["counts"]) == 40


@pytest.mark.parametrize("change", ["a byte of the data", "the seed"])
def test_what_changed_is_prepared_anew(change: str, data: Path) -> None:
    first = prepare(data)
    if change == "the seed":
        assert prepare(data, seed=1).prepared.name != first.prepared.name
    else:
        data.write_bytes(data.read_bytes().replace(b"answer 7", b"answer 8", 1))
        assert prepare(data).prepared.name != first.prepared.name


def test_a_damaged_cache_is_made_again_and_said(data: Path) -> None:
    first = prepare(data)
    (first.prepared.folder / "facts.json").write_text("{}")
    said: list[str] = []
    again = prepare(data, tell=said.append)
    assert again.prepared.name == first.prepared.name
    assert any("damaged" in sentence and "made again" in sentence for sentence in said)


def test_the_ledger_and_the_findings_lie_beside_the_examples(data: Path) -> None:
    corpus = prepare(data)
    rows = [json.loads(line) for line in corpus.prepared.record_file("ledger").read_text().splitlines()]
    assert [row["fate"] for row in rows].count("rejected") == 1
    assert len(rows) == corpus.totals.rows_in
    assert [found["line"] for found in corpus.prepared.records("findings")] == [41]


def test_a_renderer_that_rendered_nothing_knows_the_stop_tokens_that_the_rows_taught(tmp_path: Path) -> None:
    """A tool turn may end with a token of its own, which only the rows show."""
    template = (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}<|tool|>{% else %}<|end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    tools = [{"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    data = write_jsonl(tmp_path / "tools.jsonl", [{"messages": turns, "tools": tools}])

    def stops() -> tuple[int, ...]:
        tokenizer = make_tokenizer(template=template)
        renderer = Renderer(
            tokenizer,
            choose_template("auto", tokenizer),
            train_on="assistant",
            max_length=99,
            too_long="drop",
        )
        settings = DataSettings(data=(str(data),), val_split=0)
        prepare_corpus(find_sources([str(data)]), renderer, data=settings, render=RenderSettings(), seed=0)
        return renderer.stop_ids

    first = stops()
    assert make_tokenizer(template=template).convert_tokens_to_ids("<|tool|>") in first
    assert stops() == first


def test_what_nothing_opened_for_a_month_is_removed_from_the_cache(data: Path, cache: Path) -> None:
    old = prepare(data).prepared.folder
    os.utime(old, (0, 0))
    new = prepare(data, seed=1).prepared.folder
    assert not old.exists()
    assert new.exists()


def test_a_folder_of_the_users_own_is_never_cleaned(data: Path, tmp_path: Path) -> None:
    old = prepare(data, root=tmp_path / "mine").prepared.folder
    os.utime(old, (0, 0))
    prepare(data, seed=1, root=tmp_path / "mine")
    assert old.exists()


def test_a_cache_that_cannot_be_written_is_said_with_the_way_out(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Disk, "sync", full)
    with pytest.raises(UserError, match=r"No space left on device.*TUITION_CACHE"):
        prepare(data)


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUITION_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a" / "prepared"
    monkeypatch.delenv("TUITION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b" / "tuition" / "prepared"


@pytest.mark.parametrize("role", ["bos_token", "eos_token"])
def test_another_token_in_the_part_of_a_special_one_prepares_anew(role: str) -> None:
    before, after = make_tokenizer(), make_tokenizer()
    setattr(after, role, "<|pad|>")  # the same vocabulary, as after an edit of tokenizer_config.json
    assert tokenizer_sha256(before) == tokenizer_sha256(make_tokenizer()) != tokenizer_sha256(after)


def test_data_that_is_written_while_it_is_read_is_refused(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering = corpus_module.Rendering

    def overtaken(*given: Any) -> Any:  # somebody appends a row after the file was hashed
        write_jsonl(data, [*ROWS, {"prompt": "a late question", "completion": "answer"}])
        return rendering(*given)

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "Rendering", overtaken)
        with pytest.raises(UserError, match="changed while it was read") as refusal:
            prepare(data)
    assert str(data) in str(refusal.value)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []
