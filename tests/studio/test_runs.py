"""Runs are started, stopped, resumed, watched and talked to from the page, and each is its own process."""

from __future__ import annotations

import json
import re
import signal
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import make_model, write_jsonl
from tests.patience import wait_for
from tests.studio.conftest import Running
from tests.studio.runfolders import write_run
from tuition.errors import UserError
from tuition.studio.confine import refuse_paths_elsewhere
from tuition.studio.pages.start import _start
from tuition.studio.web import Studio


@pytest.fixture(scope="module")
def material(studio: Running, rows: list[dict[str, Any]]) -> Path:
    """A tiny model and rows, where the studio was started."""
    make_model(studio.folder / "base")
    return write_jsonl(studio.folder / "data.jsonl", rows)


def _form(name: str, **more: str) -> dict[str, str]:
    return {
        "name": name,
        "model": "base",
        "data": "data.jsonl",
        "batch_size": "4",
        "val_split": "0.2",
        **more,
    }


def _status(tab: httpx.Client, name: str) -> str:
    found = re.search(r'id="status"[^>]*>\s*<span class="badge \w+">([\w ]+)<', tab.get(f"/runs/{name}").text)
    assert found
    return found.group(1)


def _wait(tab: httpx.Client, name: str, status: str) -> None:
    wait_for(lambda: _status(tab, name) == status, lambda: tab.get(f"/runs/{name}").text[-3000:])


def _wait_for_button(tab: httpx.Client, name: str, words: str) -> None:
    wait_for(lambda: f">{words}</button>" in tab.get(f"/runs/{name}").text)


def _updates(folder: Path) -> int:
    journal = folder / "metrics.jsonl"
    return journal.read_text(encoding="utf-8").count('"loss"') if journal.exists() else 0


def test_a_run_outlives_the_studio_is_stopped_and_resumed(studio: Running, material: Path) -> None:
    tab, form = studio.signed_in("Ada", "admin"), _form("long", max_steps="100000", eval_every_steps="50000")
    shown = tab.post("/start/recipe", data=form, headers={"HX-Request": "true"}).text
    command = unescape(re.sub("<[^>]+>", "", shown.split("<code>")[1].split("</code>")[0]))
    assert tab.post("/start", data=form).status_code == 303
    assert tab.post("/start", data=form).status_code == 422, "the name is taken"
    _wait(tab, "long", "running")
    wait_for(lambda: _updates(studio.folder / "outputs" / "long"))

    studio.stop(signal.SIGKILL)
    studio.start()
    assert _status(tab, "long") == "running"
    assert tab.post("/runs/long/resume").status_code == 422, "it runs already"
    assert tab.post("/runs/long/stop").status_code == 303
    _wait_for_button(tab, "long", "Resume")
    facts = json.loads((studio.folder / "outputs/long/run.json").read_text())
    assert (facts["status"], facts["command"]) == ("interrupted", command)

    before = _updates(studio.folder / "outputs" / "long")
    assert tab.post("/runs/long/resume").status_code == 303
    _wait(tab, "long", "running")
    wait_for(lambda: _updates(studio.folder / "outputs" / "long") > before)
    assert tab.post("/runs/long/stop").status_code == 303
    _wait_for_button(tab, "long", "Resume")
    first, second = json.loads((studio.folder / "outputs/long/run.json").read_text())["sittings"]
    assert second["from_step"] == first["to_step"] > 0
    assert tab.post("/runs/long/stop").status_code == 422, "nothing is at work"


def test_a_run_that_never_began_says_why(studio: Running, material: Path) -> None:
    tab = studio.signed_in("Ada", "admin")
    assert tab.post("/start", data=_form("lost", data="no-such.jsonl")).status_code == 303
    _wait(tab, "lost", "never began")
    page = tab.get("/runs/lost").text
    assert "no-such.jsonl" in page


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": "many"}, {"lora_r": "4"}, {"model": ""}, {"name": "../up"}, {"name": ""}, {"data": "\0"}],
)
def test_a_wrong_recipe_is_refused_with_a_sentence_and_starts_nothing(
    studio: Running, admin: httpx.Client, wrong: dict[str, str]
) -> None:
    before = sorted((studio.folder / "outputs").glob("*")) if (studio.folder / "outputs").exists() else []
    answer = admin.post("/start", data=_form("wrong") | wrong)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    after = sorted((studio.folder / "outputs").glob("*")) if (studio.folder / "outputs").exists() else []
    assert after == before


def test_a_recipe_edited_as_text_must_stay_in_the_folder_of_runs(admin: httpx.Client) -> None:
    for text in (
        "model: base\ndata: d\noutput_dir: /tmp/elsewhere",
        "model: base\ndata: d\noutput_dir: outputs/../x",
        "- a",
        "a: *b",
        "x",
    ):
        assert admin.post("/start/text", data={"text": text}).status_code == 422
    filled = admin.post(
        "/start/form", data={"text": "model: base\ndata: d\nepochs: 7\noutput_dir: outputs/seven"}
    ).text
    assert 'value="7"' in filled
    assert 'value="seven"' in filled


@pytest.mark.parametrize("name", ["%2e%2e", "..%2foutputs", "link", "no", ".hidden", "a%00b", "<img>"])
def test_a_name_that_is_no_run_is_not_found(studio: Running, admin: httpx.Client, name: str) -> None:
    outputs = studio.folder / "outputs"
    outputs.mkdir(exist_ok=True)
    if not (outputs / "link").is_symlink():
        (outputs / "link").symlink_to(studio.folder)
    for rest in ("", "/live", "/report"):
        assert 400 <= admin.get(f"/runs/{name}{rest}").status_code < 500


def test_a_strangers_run_folder_shows_as_text_whatever_is_in_it(studio: Running, admin: httpx.Client) -> None:
    script = "<script>alert(1)</script>"
    folder = studio.folder / "outputs" / "strange"
    folder.mkdir(parents=True)
    odd: dict[str, Any] = {"status": script, "model": [script], "plan": {"steps": "many"}, "proof": [{"detail": script}, 3, {}],
                           "data": {"rows_in": -1}, "started": script, "result": {"best_step": 1e999}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(odd))
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "loss": NaN}\n{"step": "x"}\ntorn\n{"step": 2, "loss": 1}\n'
    )
    (folder / "ledger.jsonl").write_text(json.dumps({"fate": script, "code": script}) + "\n")
    (folder / "demonstrations.jsonl").write_text(
        json.dumps({"prompt": script, "suspicions": 3, "after": "x"}) + "\n{}\n"
    )
    (folder / "recipe.yaml").write_text("data: 3\nmodel: [1]\n")
    (folder / "report.html").symlink_to("/etc/hostname")
    (folder / "model").mkdir()
    for path in ("/runs", "/runs/strange", "/runs/strange/live", "/chat", "/start?like=strange"):
        answer = admin.get(path)
        assert answer.status_code == 200, path
        assert script not in answer.text
    assert admin.get("/runs/strange/report").status_code == 404
    assert admin.get("/runs/beside?run=strange&run=strange").status_code == 422


def test_over_the_network_only_files_of_the_working_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = Studio(store=None, runs=Path("outputs"))  # type: ignore[arg-type]
    far = Studio(store=None, runs=Path("outputs"), open_to_others=True)  # type: ignore[arg-type]
    refuse_paths_elsewhere(near, ["/etc/passwd"])
    refuse_paths_elsewhere(far, ["data.jsonl", "Qwen/Qwen3-0.6B", "deep/er/*.jsonl"])
    (tmp_path / "link").symlink_to("/etc")
    for name in ("/etc/passwd", "../x", "link/passwd", "a/../../b"):
        with pytest.raises(UserError, match="outside"):
            refuse_paths_elsewhere(far, [name])


@pytest.mark.parametrize("open_to_others", [True, False])
@pytest.mark.parametrize("setting", ["eval_metrics", "best_by"])
def test_no_page_starts_a_run_that_names_a_program(
    setting: str, open_to_others: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    studio = Studio(store=None, runs=Path("outputs"), open_to_others=open_to_others)  # type: ignore[arg-type]
    settings = {"model": "base", "data": "rows.jsonl", "eval_metrics": ["exact_match"]}
    named = "python:own.py:score" if setting == "best_by" else ["exact_match", "python:own.py:score"]
    with pytest.raises(UserError, match=f"{setting} names a program to run .python:own.py:score"):
        _start(studio, settings | {setting: named}, "program")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "setting",
    ["model", "data", "val_data", "replay", "general", "chat_template", "eval_metrics"],
)
def test_over_the_network_no_setting_of_a_recipe_names_files_elsewhere(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    far = Studio(store=None, runs=Path("outputs"), open_to_others=True)  # type: ignore[arg-type]
    named = "json_schema:/etc/passwd" if setting == "eval_metrics" else "/etc/passwd"
    settings = {"model": "base", "data": "rows.jsonl", setting: named}
    with pytest.raises(UserError, match="/etc/passwd is outside"):
        _start(far, settings, "reaching-out")
    assert not (tmp_path / "outputs").exists()


def test_several_greedy_answers_are_refused_by_the_page_as_by_the_command(
    studio: Running, admin: httpx.Client
) -> None:
    write_run(studio.folder / "outputs" / "greedy")
    refused = admin.post("/runs/greedy/compare", data={"other": "base", "samples": "3", "temperature": "0"})
    assert refused.status_code == 422 and "would all be the same" in refused.text
