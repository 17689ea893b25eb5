"""Several runs on one page: what differs first, and differences in pairs where they answered the same prompts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.test_report import Page, comparison, training, words_of, write_run
from tuition import api
from tuition.errors import UserError
from tuition.evaluate.report.pictures import write_pictures
from tuition.evaluate.report.several import read_runs, side_by_side


def make_run(folder: Path, *, right: int, of: int = 40, learning_rate: float = 1e-4) -> Path:
    """A run evaluated against its base on `of` prompts, the first `right` of them answered well."""
    folder.mkdir()
    samples = [
        {"prompt": f"{i}?", "expected": "yes", "base": "no", "tuned": "yes" if i < right else "no"}
        for i in range(of)
    ]
    return write_run(
        folder,
        metrics=[*training(50), {"step": 0, "eval_loss": 3.0}, {"step": 50, "eval_loss": 1.0}],
        recipe={"model": "./tiny", "learning_rate": learning_rate, "output_dir": str(folder)},
        run={
            "status": "finished",
            "result": {"tokens": 5000},
            "hashes": {"data": "ab"},
            "data": {"rows_in": 60},
        },
        evaluation=comparison(wins=right, losses=0, both_wrong=of - right),
        samples=samples,
    )


def test_only_what_differs_is_listed_and_places_are_no_difference(tmp_path: Path) -> None:
    runs = read_runs(
        [make_run(tmp_path / "a", right=30), make_run(tmp_path / "b", right=30, learning_rate=2e-4)]
    )
    assert side_by_side(runs).differing == {"learning_rate": [1e-4, 2e-4]}


def test_losses_on_rows_that_are_not_the_same_are_said_not_to_compare(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, right=10) for name in ("a", "b")]
    for seed, folder in enumerate(folders):
        path = folder / "recipe.yaml"
        path.write_text(f"{path.read_text()}\nseed: {seed}\n")
    assert side_by_side(read_runs(folders)).held_out_by == ["seed"]
    api.report_several(folders, tmp_path / "runs.html")
    page = (tmp_path / "runs.html").read_text()
    assert "other rows (seed differs), so their held-out losses do not compare" in page
    for folder in folders:
        path = folder / "recipe.yaml"
        path.write_text(f"{path.read_text()}\nval_data: [held-out.jsonl]\n")
    assert side_by_side(read_runs(folders)).held_out_by == []
    api.report_several(folders, tmp_path / "runs.html")
    assert "held-out losses compare" in (tmp_path / "runs.html").read_text()


@pytest.mark.parametrize(
    ("facts", "settings", "causes"),
    [
        ([{"validation_sha256": "a"}] * 2, ["seed: 0", "seed: 1"], []),
        ([{"validation_sha256": "a"}, {"validation_sha256": "b"}], ["seed: 0", "seed: 1"], ["seed"]),
        ([{"validation_sha256": "a"}, {"validation_sha256": "b"}], ["", ""], ["what was held out"]),
        ([{"validation_sha256": "a"}, {"validation_sha256": "b"}], ["", "stream: true"], []),
        ([{"validation_examples": 0}] * 2, ["seed: 0", "seed: 1"], []),
        (
            [{}, {}],
            ["val_data: [x.jsonl]", "val_data: [y.jsonl]"],
            [],
        ),  # renamed: the hash of all data is the same
    ],
    ids=["the same", "drawn anew", "unknown why", "streamed", "nothing", "renamed"],
)
def test_what_was_held_out_is_told_by_its_hash(
    tmp_path: Path, facts: list[dict[str, Any]], settings: list[str], causes: list[str]
) -> None:
    folders = [make_run(tmp_path / name, right=10) for name in ("a", "b")]
    for folder, data, setting in zip(folders, facts, settings, strict=True):
        (folder / "recipe.yaml").write_text(f"{(folder / 'recipe.yaml').read_text()}\n{setting}\n")
        known = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(known | {"data": known["data"] | data}))
    assert side_by_side(read_runs(folders)).held_out_by == causes


def test_runs_that_answered_the_same_prompts_are_compared_in_pairs(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, right=right) for name, right in (("a", 10), ("b", 35), ("c", 10))]
    (figure,) = side_by_side(read_runs(folders)).figures
    assert figure.metric == "exact_match"
    assert [score.value for score in figure.scores if score] == [0.25, 0.875, 0.25]
    better, same = figure.differences[1:]
    assert better is not None and same is not None
    assert better.value == 0.625 and 0 < better.low < 0.625 < better.high
    assert (same.value, figure.verdicts) == (0.0, ["", "better", "not decided"])
    assert figure.shared == [0, 40, 40]


def test_runs_without_shared_prompts_are_not_paired(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a", right=10), make_run(tmp_path / "b", right=10)]
    (folders[1] / "samples.jsonl").unlink()
    (figure,) = side_by_side(read_runs(folders)).figures
    assert figure.differences == [None, None]


def test_a_function_named_by_a_run_folder_is_never_run(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("raise SystemExit('it ran')\n")
    folders = [make_run(tmp_path / "a", right=10), make_run(tmp_path / "b", right=10)]
    for folder in folders:
        said = json.loads((folder / "evaluation.json").read_text())
        said["comparisons"][0]["metric"] = f"python:{own}:grade"
        (folder / "evaluation.json").write_text(json.dumps(said))
    assert side_by_side(read_runs(folders)).figures[0].differences == [None, None]


def test_the_page_holds_a_line_a_run_and_requests_nothing(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, right=right) for name, right in (("a", 10), ("<b>", 35))]
    api.report_several(folders, tmp_path / "runs.html")
    page = Page((tmp_path / "runs.html").read_text())
    assert page.all("script") == page.all("link") == page.all("img") == page.all("b") == []
    kinds = [path["class"] for path in page.all("path") if path.get("class", "").startswith("run ")]
    assert {"run run-0 dash-0", "run run-1 dash-0"} == set(kinds)
    words = words_of(page)
    assert "exact match" in words
    assert "+62.5 points, +47.5 to +77.5, on 40 shared prompts better" in words
    assert "tokens trained on5,0005,000" in words
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_run_named_twice_and_a_folder_without_one_are_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", right=10)
    with pytest.raises(UserError, match="is named twice"):
        read_runs([folder, tmp_path / "." / "a"])
    with pytest.raises(UserError, match="there is no run here"):
        read_runs([folder, tmp_path])


def test_the_command_writes_one_report_or_one_page_for_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tuition import cli

    folders = [make_run(tmp_path / name, right=right) for name, right in (("a", 10), ("b", 35))]

    def call(*words: Any) -> str:
        monkeypatch.setattr("sys.argv", ["tuition", "report", *map(str, words)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        assert leaving.value.code == 0
        return capsys.readouterr().out

    assert call(folders[0]) == f"report: {folders[0]}/report.html\n"
    assert (folders[0] / "report.html").exists()
    table = call(*folders, "--to", tmp_path / "runs.html")
    assert "exact match, b − a: +62.5 points" in table
    assert re.search(r"exact match +│ 25.0 %", table)
    said = json.loads(call(*folders, "--to", tmp_path / "runs.html", "--json"))
    assert said["names"] == ["a", "b"]
    assert said["figures"][0]["differences"][1]["value"] == 0.625


def test_every_picture_is_written_as_a_png(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", right=10)
    (folder / "ledger.jsonl").write_text(json.dumps({"fate": "kept"}) + "\n")
    written = {file.name: file.read_bytes() for file in write_pictures(folder)}
    assert set(written) == {"loss.png", "rate.png", "norm.png", "result.png", "ledger.png"}
    assert all(data.startswith(b"\x89PNG") for data in written.values())
    assert {file.name for file in (folder / "pictures").iterdir()} == set(written)
