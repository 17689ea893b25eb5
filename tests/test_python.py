"""tuition from Python: what a notebook shows, and what may be given."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import tuition
from tuition.errors import UserError
from tuition.recipe import make_recipe


def test_a_verb_that_is_a_room_too_shows_its_own_arguments_and_sentences() -> None:
    code = (
        "import inspect, tuition, tuition.evaluate.metrics; verb = tuition.evaluate; "
        "print(list(inspect.signature(verb).parameters)[:2], verb.__doc__[:13])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['model', 'data'] Score a model\n"


def test_type_checkers_of_others_see_the_types() -> None:
    assert files("tuition").joinpath("py.typed").is_file()
    assert "data" in inspect.signature(tuition.train).parameters


@pytest.mark.parametrize("given", ["stop, parity", ["stop", "parity"], ("stop,parity",)])
def test_names_may_be_joined_by_commas_with_spaces(given: Any) -> None:
    assert make_recipe({"model": "m", "data": "d", "allow_unproved": given}).allow_unproved == (
        "stop",
        "parity",
    )


def test_paths_are_names(tmp_path: Path) -> None:
    recipe = make_recipe({"model": tmp_path, "data": [tmp_path / "a.jsonl"], "output_dir": tmp_path / "run"})
    assert recipe.output_dir == str(tmp_path / "run")
    assert (recipe.model, recipe.data) == (str(tmp_path), (str(tmp_path / "a.jsonl"),))


class Frame:
    """Iterates over the names of its columns, as pandas does."""

    columns = ("prompt", "completion")

    def __iter__(self) -> Any:
        return iter(self.columns)


@pytest.mark.parametrize("data", [{"prompt": ["a"], "completion": ["b"]}, Frame()])
def test_columns_are_not_taken_for_the_names_of_files(data: Any) -> None:
    with pytest.raises(UserError, match="columns, and rows are needed"):
        tuition.train(model="m", data=data)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tuition.train(model="m", data=5), "is a name or a list of names, not 5"),  # type: ignore[arg-type]
        (lambda: tuition.train({"model": "m"}), "settings by name"),  # type: ignore[arg-type]
        (lambda: tuition.api.prepare([("a", "b")], model="starter", to="p"), "this is a row"),  # type: ignore[list-item]
        (lambda: tuition.train(model="m", data="d.jsonl", watcher=print), "Derive a class from"),  # type: ignore[arg-type]
        (lambda: tuition.api.answer(None, 5), "a prompt is no int. Give one text, or a list"),  # type: ignore[arg-type]
    ],
)
def test_what_is_given_wrongly_is_said_with_the_right_way(call: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        call()


def test_what_check_found_is_readable_in_a_notebook(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n[1]\n')
    assert "Ledger(2 rows in, 1 kept, 1 rejected)" in repr(tuition.check(str(tmp_path / "rows.jsonl")))


def test_the_page_about_python_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    for block in blocks:
        exec(block, known)
    first, again = (
        tmp_path / "outputs" / name / "model" / "model.safetensors" for name in ("first", "again")
    )
    assert first.read_bytes() == again.read_bytes()
    assert [step for step, _ in known["losses"]] == [1, 2]
    assert known["result"].scores["f1"].count == 5
