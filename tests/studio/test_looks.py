"""Every page in both themes, and on a phone and a desktop: axe finds nothing, nothing sticks out, the console is quiet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.studio.browsers import DESKTOP, PHONE, chromium, faults_of, tab_of
from tests.studio.conftest import Running
from tests.studio.runfolders import write_run
from tuition.collect import Store, people, sessions
from tuition.studio.pages import PAGES

__all__ = ["chromium"]

FULL = ["/runs/first", "/runs/beside?run=first&run=second", "/start?like=first", "/chat?tuned=first"]


def _session(studio: Running) -> str:
    with Store(studio.store) as store:
        return sessions.open_session(store, people.local_admin(store).id)


def _faults(page: Any, paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        assert page.goto(path).ok, path
        found += [f"{path} {fault}" for fault in faults_of(page)]
    return found


def test_pages_that_have_nothing_yet_say_what_to_do_first(chromium: Any, studio: Running) -> None:
    with tab_of(chromium, studio, _session(studio), width=PHONE, theme="dark") as page:
        assert _faults(page, [place.path for place in PAGES]) == []
        page.goto("/runs")
        assert page.get_by_role("link", name="Start the first run").is_visible()


# contrast is a matter of the theme and overflow one of the width: two of the four pairs see both
@pytest.mark.parametrize(("width", "theme"), [(PHONE, "light"), (DESKTOP, "dark")])
def test_every_page_is_open_to_everybody(chromium: Any, full: Running, width: int, theme: str) -> None:
    with tab_of(chromium, full, _session(full), width=width, theme=theme) as page:
        assert _faults(page, [*(place.path for place in PAGES), *FULL]) == []


def test_the_door_is_open_to_everybody(chromium: Any, studio: Running) -> None:
    with Store(studio.store) as store:
        invitation = people.invite(store, "writer", by=None)
    with tab_of(chromium, studio, "nobody", width=PHONE) as page:
        assert _faults(page, ["/login", f"/invite/{invitation}"]) == []


def test_the_menu_opens_on_a_phone_and_the_theme_is_kept(chromium: Any, studio: Running) -> None:
    with tab_of(chromium, studio, _session(studio), width=PHONE) as page:
        page.goto("/account")
        page.get_by_role("button", name="Menu").click()
        assert faults_of(page) == []
        with page.expect_navigation():
            page.get_by_role("button", name="dark").click()
        page.goto("/runs")
        assert page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"


def test_the_form_shows_its_command_as_one_types_and_works_without_scripts(
    chromium: Any, full: Running
) -> None:
    with tab_of(chromium, full, _session(full)) as page:
        page.goto("/start")
        page.get_by_label("data", exact=True).fill("mine.jsonl")
        page.get_by_label("epochs").fill("7")
        page.wait_for_selector("#command:has-text('--data mine.jsonl --epochs 7')")
        with page.expect_navigation():
            page.get_by_role("button", name="Fill the form from it").click()
        assert page.get_by_label("epochs").input_value() == "7"


def test_why_a_run_did_not_start_is_read_before_the_form_on_a_phone(chromium: Any, full: Running) -> None:
    with tab_of(chromium, full, _session(full), width=PHONE, quiet=False) as page:
        page.goto("/start")
        page.get_by_label("data", exact=True).fill("mine.jsonl")
        page.get_by_label("epochs").fill("many")
        with page.expect_navigation():
            page.get_by_role("button", name="Start", exact=True).click()
        fault, form = page.locator(".fault").bounding_box(), page.locator("#recipe").bounding_box()
        assert fault["y"] < form["y"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A studio in which something happened."""
    folder: Path = tmp_path_factory.mktemp("full")
    write_run(folder / "outputs" / "first")
    write_run(folder / "outputs" / "second", steps=24, status="interrupted", learning_rate=1e-3)
    running = Running(folder).start()
    yield running
    running.stop()
