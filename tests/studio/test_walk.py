"""The whole way in a browser: prompts, demonstrations, a killed server, review, export, training, a blind comparison,
the win rate, and tomorrow's queue."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tests.studio.browsers import chromium, faults_of, tab_of
from tests.studio.conftest import Running, end_runs
from tuition import starter
from tuition.collect import Store, people, sessions
from tuition.collect import demonstrations as demos

__all__ = ["chromium"]

HOSTILE = "<img src=x onerror=\"document.title = 'forged'\"> & **bold**\n\n\tand a tab, a \\, é and 日本語"
COMPARED = 4


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path).start()
    yield running
    running.stop()
    end_runs(running.folder)


@pytest.mark.slow
def test_the_whole_way_from_prompts_to_tomorrows_queue(chromium: Any, fresh: Running) -> None:
    questions = _questions(fresh.folder)
    # the console complains while the server is dead
    with tab_of(chromium, fresh, _session(fresh), quiet=False) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        _import(page, fresh.folder / "questions.jsonl")
        answers = _write_five(page, fresh, questions)
        _review(page)
        assert _exported(fresh.folder) == answers
        _train(page)
        _talk(page, fresh)
        _begin_from_a_suggestion(page, fresh)
        _compare(page)
        lost = _judge(page)
        _see_the_win_rate(page)
        _find_the_lost_first(page, lost)


def _session(studio: Running) -> str:
    with Store(studio.store) as store:
        return sessions.open_session(store, people.local_admin(store).id)


def _questions(folder: Path) -> dict[str, str]:
    """Twenty of the starter's questions, with their answers."""
    rows = [json.loads(line) for line in starter.DEMONSTRATIONS.read_text(encoding="utf-8").splitlines()[:20]]
    pairs = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows}
    write_jsonl(folder / "questions.jsonl", [{"prompt": question} for question in pairs])
    return pairs


def _import(page: Any, file: Path) -> None:
    page.goto("/prompts")
    page.get_by_label("A file").set_input_files(file)
    page.get_by_label("Licence", exact=True).fill("CC0-1.0")
    page.get_by_label("Consent", exact=True).fill("our own")
    _leave(page, "Import")
    page.goto("/write")
    assert "20 answers are wanted" in page.locator("main").inner_text()


def _write_five(page: Any, studio: Running, questions: dict[str, str]) -> dict[str, str]:
    """Five answers; in the midst of the third the server is killed, and nothing typed is lost."""
    _leave(page, "Next prompt")
    sent = {}
    for number in range(5):
        question = _question_on(page)
        answer = HOSTILE if number == 1 else questions[question]
        if number == 0:
            assert faults_of(page) == []
        box = page.get_by_label("Your answer")
        if number == 2:
            _killed_in_the_midst_of(page, studio, box)
        box.fill(answer)
        with page.expect_navigation():
            box.press("Control+Enter")
        sent[question] = answer
    return sent


def _leave(page: Any, button: str) -> None:
    """Press a button that leads to another page, and wait until its scripts have run."""
    with page.expect_navigation():
        page.get_by_role("button", name=button, exact=True).click()


def _question_on(page: Any) -> str:
    return str(page.locator(".conversation .prose").last.inner_text()).strip()


def _killed_in_the_midst_of(page: Any, studio: Running, box: Any) -> None:
    box.fill("What was saved before the server died")
    page.wait_for_selector("#state:has-text('Saved.')")
    studio.stop(signal.SIGKILL)
    box.press_sequentially(", and what was typed after it")
    page.wait_for_selector("#state:has-text('kept in this browser')")
    studio.start()
    page.reload()
    assert box.input_value() == "What was saved before the server died, and what was typed after it"
    page.wait_for_selector("#state:has-text('Saved.')")


def _review(page: Any) -> None:
    page.goto("/review")
    with page.expect_navigation():
        page.get_by_role("link", name="Read the next").click()
    assert faults_of(page) == []
    for _ in range(5):
        if page.locator("img").count():
            raise AssertionError("a demonstration became an element")
        _leave(page, "Accept A")
    assert page.title() != "forged"
    page.goto("/review")
    assert "Nothing waits for you" in page.locator("main").inner_text()


def _exported(folder: Path) -> dict[str, str]:
    """What the command line gives out: question → answer."""
    command = ["collect", "export", "--to", "exported", "--validation", "0"]
    subprocess.run([sys.executable, "-m", "tuition", *command], cwd=folder, check=True, capture_output=True)
    rows = [
        json.loads(line)
        for line in (folder / "exported" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return {row["messages"][-2]["content"]: row["messages"][-1]["content"] for row in rows}


def _train(page: Any) -> None:
    page.goto("/start")
    assert page.get_by_label("data", exact=True).input_value() == "team.db"
    page.get_by_label("Name of the run").fill("first")
    page.get_by_label("epochs").fill("15")
    page.get_by_label("val_split").fill("0")
    _leave(page, "Start")
    page.wait_for_selector("#status:has-text('finished')")
    page.wait_for_selector("text=stop token that is exported")
    assert page.locator(".canvas path.smooth").count() == 1
    assert "tuition train --model starter --data team.db" in page.locator("#run-command").inner_text()


def _talk(page: Any, studio: Running) -> None:
    """Both answer as one reads, and the same without scripts."""
    page.goto("/chat?tuned=first")
    page.get_by_label("Your message").fill("<b>Hi</b>")
    page.get_by_label("Your message").press("Control+Enter")
    page.wait_for_selector("#cease", state="hidden")
    answers = page.locator(".turn.assistant .literal").all_inner_texts()
    assert len(answers) == 2
    assert page.locator(".turn.user .literal").first.inner_text() == "<b>Hi</b>"

    tab = studio.signed_in("Ada", "admin")
    plain = tab.post("/chat", data={"tuned": "first", "base": "base of first", "text": "<b>Hi</b>"}).text
    shown = re.findall(r'<div class="turn assistant">.*?<div class="literal">(.*?)</div>', plain, re.DOTALL)
    assert [unescape(text).split() for text in shown] == [text.split() for text in answers]
    history = json.dumps([{"role": "user", "content": "Hi"}])
    for model, said in (
        ("first", "nonsense"),
        ("first", "[]"),
        ("first", '[{"role":"user"}]'),
        ("../first", history),
    ):
        assert tab.post("/chat/answer", data={"model": model, "history": said}).status_code in (404, 422)


def _begin_from_a_suggestion(page: Any, studio: Running) -> None:
    """The run that was just trained answers the next prompt; what is sent names it, and how much was changed."""
    page.goto("/write")
    _leave(page, "Go on")
    page.get_by_text("See what a model would answer").click()
    _leave(page, "Ask it")
    assert page.get_by_text("What first would answer").is_visible()
    _leave(page, "Begin from it")
    box = page.get_by_label("Your answer")
    suggested = box.input_value()
    assert suggested
    with page.expect_navigation():
        box.press("Control+Enter")
    with Store(studio.store) as store:
        sent = demos.find(store, limit=1)[0]
    assert (sent.latest.suggested_by, sent.latest.edit_ratio) == ("first", 0.0)
    assert sent.latest.turns == [{"role": "assistant", "content": suggested}]


def _compare(page: Any) -> None:
    page.goto("/runs/first")
    page.get_by_label("Prompts", exact=True).fill(str(COMPARED))
    _leave(page, "Compare blind")
    page.get_by_text("Blind comparison: done").wait_for()


def _judge(page: Any) -> str:
    """The first pair is bad on both sides, the others are equal; the prompt of the first."""
    page.goto("/judge")
    assert faults_of(page) == []
    lost = ""
    for _ in range(COMPARED):
        if not page.locator(".pair").count():
            break
        assert not re.search(
            r"outputs|first|starter|base", page.locator("main").inner_html().lower().replace("autofirst", "")
        )
        lost, key = (lost, "3") if lost else (_question_on(page), "6")
        with page.expect_navigation():
            page.keyboard.press(key)
    assert lost, "there was nothing to judge"
    return lost


def _see_the_win_rate(page: Any) -> None:
    page.goto("/overview")
    with page.expect_navigation():
        page.locator("a[href^='/overview/comparison/']").first.click()
    said = page.locator("main").inner_text()
    assert "95 % interval" in said
    assert "Not decided" in said
    assert "The most likely answers were taken, of at most 256 tokens" in said
    assert faults_of(page) == []
    _leave(page, "Where A failed")


def _find_the_lost_first(page: Any, lost: str) -> None:
    """It comes first, also to the one who answered it before, whose answer stands beside."""
    page.goto("/write")
    _leave(page, "Go on")
    page.get_by_text("Skip this prompt").click()
    page.get_by_label("Why?").fill("I was at another one")
    _leave(page, "Skip it")
    assert _question_on(page) == lost
    assert "This prompt comes back" in page.locator("main").inner_text()
    page.get_by_text("What you wrote before", exact=True).click()
    assert faults_of(page) == []
