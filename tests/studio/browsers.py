"""Debian's Chromium under playwright, and what is asked of every page: axe finds nothing, nothing overflows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_SECONDS
from tests.studio.conftest import Running

AXE = Path(__file__).parent / "vendored" / "axe.min.js"
PHONE, DESKTOP = 390, 1280
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",  # which containers keep too small for it
)  # fmt: skip


_PATIENCE_MILLISECONDS = 1000 * PATIENCE_SECONDS


class Browser:
    """Playwright's, whose pages wait for as long as all tests do."""

    def __init__(self, launched: Any) -> None:
        self._launched = launched

    def new_context(self, **settings: Any) -> Any:
        """As playwright's."""
        context = self._launched.new_context(**settings)
        context.set_default_timeout(_PATIENCE_MILLISECONDS)
        return context

    def new_page(self, **settings: Any) -> Any:
        """As playwright's."""
        page = self._launched.new_page(**settings)
        page.set_default_timeout(_PATIENCE_MILLISECONDS)
        return page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; where the machine has none, the tests that need it are skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=executable, args=list(_FLAGS), timeout=_PATIENCE_MILLISECONDS
        )
        yield Browser(launched)
        launched.close()


@contextmanager
def tab_of(
    chromium: Any,
    studio: Running,
    session: str,
    *,
    width: int = DESKTOP,
    theme: str = "light",
    quiet: bool = True,
) -> Iterator[Any]:
    """A tab of somebody who is signed in. Where it is to be quiet, whatever its console complains of fails the test."""
    context = chromium.new_context(
        viewport={"width": width, "height": 844 if width == PHONE else 900},
        color_scheme=theme,
        base_url=studio.address,
    )
    context.add_cookies([{"name": f"tuition-{studio.port}", "value": session, "url": studio.address}])
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page
        assert not quiet or complaints == []
    finally:
        context.close()


def hold_back(page: Any, address: str) -> Callable[[], None]:
    """Whatever the page asks for at this address from now on waits; the function lets go what was asked for first."""
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    def let_go() -> None:
        while not held:
            page.wait_for_timeout(20)
        held.pop(0).continue_()

    page.route(address, hold)
    return let_go


def faults_of(page: Any) -> list[str]:
    """What axe finds on the page as it stands, and what sticks out of it sideways."""
    page.wait_for_load_state()  # a click ends when the next page begins
    page.wait_for_function(
        "() => !document.querySelector('.htmx-request')"
    )  # one that is left in the midst complains
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    faults = [f"{v['id']}: {v['help']}: {n['html'][:150]}" for v in found for n in v["nodes"][:2]]
    if (over := page.evaluate("document.documentElement.scrollWidth - innerWidth")) > 0:
        faults.append(f"the page is {over} pixels wider than the screen")
    return faults
