"""Files that hide more than they show: bombs, recipes with tags, names that lead elsewhere."""

from __future__ import annotations

import gzip
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import tuition
from tests.conftest import make_tokenizer, write_jsonl
from tests.security import bounds
from tests.security.bounds import refused_in_bounds
from tuition import api
from tuition.batch.prepared import open_prepared
from tuition.cli.shared import assignments
from tuition.data import Reading
from tuition.door import gather
from tuition.errors import UserError
from tuition.recipe import load_recipe, make_recipe, parse_yaml
from tuition.render.choosing import choose_template
from tuition.screen import printable


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.jsonl.zst", "bomb.csv.gz", "bomb.json.gz"])
def test_a_decompression_bomb_is_refused_in_bounded_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow

    monkeypatch.setattr("tuition.data.datafiles._INFLATED_FREELY", 8 << 20)
    content = b'{"prompt": "a", "completion": "b"}\n' * 10 + b" " * (40 << 20)
    packed = (
        gzip.compress(content, 1) if name.endswith(".gz") else pyarrow.compress(content, "zstd", asbytes=True)
    )
    (tmp_path / name).write_bytes(packed)
    with refused_in_bounds(tmp_path):
        reading = Reading([str(tmp_path / name)])
        for conversation in reading:
            reading.ledger.keep(conversation.origin)
    assert any(f.code == "D062" and "grows to more than" in f.message for f in reading.ledger.findings)


def test_repetitive_rows_that_are_no_bomb_are_read(tmp_path: Path) -> None:
    row = b'{"prompt": "a", "completion": "b"}\n'
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(row * 20_000))
    assert sum(1 for _ in Reading([str(tmp_path / "d.jsonl.gz")])) == 20_000


LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
RECIPES = {
    "a tag that runs a command": "model: !!python/object/apply:os.system ['touch EXECUTED']\ndata: d\n",
    "a tag that makes an object": "model: !!python/object:os.stat_result {}\ndata: d\n",
    "a billion laughs": LAUGHS,
    "a key said twice": "model: m\ndata: d\nseed: 1\nseed: 2\n",
    "a key said twice within": "model: m\ndata: d\nmapping: {prompt: a, prompt: b}\n",
    "NUL": "model: m\0\ndata: d\n",
    "a date that is none": "model: m\ndata: d\nseed: 2026-13-45\n",
    "a number of 5,000 digits": f"model: m\ndata: d\nseed: {'9' * 5000}\n",
    "ten megabytes": "# " + "x" * (10 << 20),
    "nested deep": "model: " + "[" * 50_000,
    "a name with a line end": 'model: m\ndata: d\noutput_dir: "a\\nb"\n',
    "a name with NUL": 'model: m\ndata: "a\\0b"\n',
    "a name that moves the cursor": 'model: "a\\e[2Jb"\ndata: d\n',
    "a name of 5,000 characters": f"model: m\ndata: {'d' * 5000}\n",
}


@pytest.mark.parametrize("symptom", RECIPES)
def test_a_hostile_recipe_is_refused(symptom: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPES[symptom])
    with refused_in_bounds(tmp_path), pytest.raises(UserError, match=r"recipe\.yaml"):
        load_recipe(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["recipe.yaml"]


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"model: \xff\xfe\n")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "eval_metrics: ['python:evil.py:f']",
        "eval_metrics: 'chrf, python:evil.py:f'",
        "eval_metrics: [chrf, 'python:evil.py:f']",
        "best_by: python:evil.py:f",
    ],
)
def test_a_program_that_a_recipe_names_as_a_metric_is_run_only_where_it_was_typed(
    line: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(
        "open('EXECUTED', 'w')\ndef f(answer, expected, row):\n    return 1.0\n"
    )
    data = write_jsonl(tmp_path / "d.jsonl", [{"prompt": f"{n}?", "completion": f"{n}"} for n in range(8)])
    (tmp_path / "recipe.yaml").write_text(f"model: {llama}\ndata: {data}\noutput_dir: run\n{line}\n")
    with refused_in_bounds(tmp_path), pytest.raises(UserError, match="names a program to run") as refusal:
        tuition.train("recipe.yaml")
    advised = shlex.split(str(refusal.value).removesuffix("."))[-1]
    assert gather("recipe.yaml", None, assignments([advised])), "what is advised can be typed"
    typed = yaml.safe_load(line)
    assert gather("recipe.yaml", None, typed)[0].items() >= typed.items()


def test_a_template_that_is_a_device_a_pipe_or_a_book_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "book").write_bytes(b"x" * (2 << 20))
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path / "book"):
        with (
            refused_in_bounds(tmp_path),
            pytest.raises(UserError, match=r"is not a regular file|is larger than"),
        ):
            choose_template(str(path), make_tokenizer())


@pytest.mark.parametrize(
    "name", ["../elsewhere/run", "/tmp/run", "-run", "%2e%2e%2frun", "C:\\run", "a b", "日本"]
)
def test_a_user_may_write_to_any_folder_they_name(name: str) -> None:
    assert make_recipe({"model": "m", "data": "d", "output_dir": name}).output_dir == name


def test_names_in_the_data_decide_no_path(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["../../evil", "/tmp/evil", "%2e%2e%2fevil", "-rf", "a\nb", "C:\\evil", "\x1b[2Jevil", "CON"]
    rows = [
        {"id": name, "group": name, "prompt": f"{n} {name}", "completion": f"{n}", "file": name}
        for n, name in enumerate(names * 2)
    ]
    data = write_jsonl(tmp_path / "d.jsonl", rows)
    run = tuition.train(
        model=str(llama), data=str(data), output_dir="run", max_steps=1, val_split=0.3, samples=2
    )
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert not any("evil" in name or "-rf" in name or "\n" in name for name in written)
    assert {name.split("/")[0] for name in written} == {"d.jsonl", "run"}
    page = (run.path / "report.html").read_text()
    assert "\x1b" not in page


def test_an_export_runs_no_shell_and_stays_in_the_folder_that_was_named(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "-o x; touch EXECUTED; $(touch EXECUTED)`touch EXECUTED`%2e%2e%2fx"
    api.export(str(llama), name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_what_data_says_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tuition.screen import show_check

    folder = tmp_path / "a\x1b]0;title\x07\x9b2J"
    folder.mkdir()
    write_jsonl(folder / "d.jsonl", [{"prompt": "\x1b[2J", "completion": ""}, {"\x1b[31mx": 1}])
    checked = api.check(str(folder))
    show_check(checked.ledger, checked.shapes)
    shown = capsys.readouterr()
    assert not {"\x1b", "\x07", "\x9b"} & set(shown.out + shown.err)
    assert printable("a\x1bb\x9bc") == "a\\x1bb\\x9bc"


def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    listed: dict[str, Any] = {
        "../../etc/passwd": {"sha256": "0", "bytes": 1},
        "facts.json": {"sha256": "0", "bytes": 1},
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"files": listed}))
    with pytest.raises(UserError, match="names a file outside of it"):
        open_prepared(tmp_path)


def test_what_fuzzing_found_is_a_finding_now() -> None:
    """Names of tools and kinds of parts that are no text once ended the reading."""
    turn = {"role": "assistant", "content": "b"}
    rows = [
        {"messages": [{"role": "user", "content": "a"}, turn], "tools": [{"function": {"name": ["f"]}}]},
        {"messages": [{"role": "user", "content": [{"type": {"a": 1}, "text": "a"}]}, turn]},
        {"prompt": "a", "completion": "b"},
    ]
    reading = Reading(rows=rows)
    kept = list(reading)
    assert len(kept) + len(reading.ledger.rejected) == 3


def test_yaml_of_any_kind_gives_a_value_or_a_yaml_error() -> None:
    for text in (
        "!!int ''",
        "!!bool x",
        "? [a]\n: b",
        "!!binary x",
        "!!timestamp x",
        "<<: 1",
        "a: b: c",
        "\t",
        "é" * 9,
    ):
        try:
            parse_yaml(text)
        except yaml.YAMLError:
            continue


def test_the_measure_sees_memory_that_is_given_back(tmp_path: Path) -> None:
    bounds._reset_peak()
    large = bytearray(b"x") * 100_000_000
    with_it = bounds._status("VmRSS")
    del large
    assert bounds._peak() > with_it - 10_000_000  # what the system counts late, processor by processor
