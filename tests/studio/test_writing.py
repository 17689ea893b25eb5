"""Writing and judging in a real browser: nothing typed is lost, keys work, and the pages are open to everybody."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.studio.browsers import DESKTOP, PHONE, chromium, faults_of, hold_back, tab_of
from tests.studio.conftest import Running
from tuition import collecting
from tuition.collect import (
    Store,
    batches,
    judging,
    losses,
    people,
    prompts,
    queue,
    results,
    reviewing,
    sessions,
)
from tuition.collect import demonstrations as demos
from tuition.conversation import Message

__all__ = ["chromium"]


def session_of(studio: Running, name: str, role: str) -> str:
    with Store(studio.store) as store:
        found = next((p for p in people.people(store) if p.name == name), None)
        return sessions.open_session(store, (found or people.add_person(store, name, role, by=None)).id)


def add_prompts(studio: Running, *texts: str) -> list[int]:
    """Prompts, the first the most urgent; their ids."""
    with Store(studio.store) as store:
        prompts.add(
            store, [prompts.NewPrompt((Message("user", text),), "made:1", tags=("made",)) for text in texts],
            source="made", licence="x", consent="y", by=None,
        )  # fmt: skip
        found = [prompts.prompt_of(store, [Message("user", text)]) for text in texts]
        for place, prompt_id in enumerate(found):
            assert prompt_id is not None
            prompts.change(store, prompt_id, priority=float(1_000 - place), by=None)
        return [prompt_id for prompt_id in found if prompt_id is not None]


def sent_texts(studio: Running) -> list[str]:
    with Store(studio.store) as store:
        return [d.latest.turns[0]["content"] for d in demos.find(store)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    """A studio that the test may kill."""
    running = Running(tmp_path).start()
    yield running
    running.stop()


def test_what_was_typed_survives_a_killed_server_and_a_closed_page(chromium: Any, own: Running) -> None:
    add_prompts(own, "What is a door?", "And a wall?")
    session = session_of(own, "Wim", "writer")
    context = chromium.new_context(base_url=own.address)
    context.add_cookies([{"name": f"tuition-{own.port}", "value": session, "url": own.address}])
    page = context.new_page()
    page.goto("/write")
    with page.expect_navigation():
        page.get_by_role("button", name="Next prompt").click()
    page.get_by_label("Your answer").fill("A door **opens**.")
    page.get_by_text("Saved.").wait_for()
    page.locator(".read strong").get_by_text("opens").wait_for()  # as it will read

    own.stop(signal.SIGKILL)
    page.get_by_label("Your answer").fill("A door **opens** and closes.")
    page.get_by_text("saving goes on by itself").wait_for()
    page.close()  # and with it everything but what the browser has kept
    own.start()
    page = context.new_page()
    page.goto("/write")
    with page.expect_navigation():
        page.get_by_role("button", name="Go on").click()
    assert page.get_by_label("Your answer").input_value() == "A door **opens** and closes."
    page.get_by_text("Saved.").wait_for()

    page.get_by_label("Your answer").press("Enter")
    page.get_by_label("Your answer").type("Twice.")
    with page.expect_navigation():
        page.get_by_label("Your answer").press("Control+Enter")
    assert page.get_by_text("And a wall?").is_visible()
    assert sent_texts(own) == ["A door **opens** and closes.\nTwice."]
    assert page.evaluate("Object.keys(localStorage).length") == 0
    context.close()


def test_what_is_typed_before_the_pages_script_has_come_is_saved_too(chromium: Any, studio: Running) -> None:
    add_prompts(studio, "Early?")
    with tab_of(chromium, studio, session_of(studio, "Ada", "writer")) as page:
        page.goto("/write")
        with page.expect_navigation():
            page.get_by_role("button", name="Next prompt").click()
        let_go = hold_back(page, "**/write.js*")
        page.reload(wait_until="commit")
        page.get_by_label("Your answer").fill("In **haste**")
        with page.expect_response("**/draft"):
            let_go()
        page.locator(".read strong").get_by_text("haste").wait_for()


def test_two_tabs_show_both_texts_and_overwrite_neither(chromium: Any, studio: Running) -> None:
    add_prompts(studio, "Two tabs?")
    session = session_of(studio, "Xenia", "writer")
    context = chromium.new_context(base_url=studio.address)
    context.add_cookies([{"name": f"tuition-{studio.port}", "value": session, "url": studio.address}])
    one = context.new_page()
    one.goto("/write")
    with one.expect_navigation():
        one.get_by_role("button", name="Next prompt").click()
    one.get_by_label("Your answer").fill("typed a moment ago")
    with one.expect_navigation():
        one.get_by_role("button", name="Add a turn").click()
    one.get_by_label("What the user says next").fill("And **then**?")
    one.locator("#read-1 strong").get_by_text("then").wait_for()  # each box is shown under itself
    assert one.locator("#read-0").inner_text().strip() == "typed a moment ago"
    assert one.locator("#conflict").is_hidden(), "the button carried the text, and no other is there"
    one.on("dialog", lambda dialog: dialog.accept())
    with one.expect_navigation():
        one.get_by_role("button", name="Take the last turn away").click()
    assert one.get_by_label("Your answer").input_value() == "typed a moment ago"
    assert one.locator("#conflict").is_hidden()
    other = context.new_page()
    other.goto(one.url)
    with one.expect_response("**/draft"):  # the page says that it is saved, but that was an earlier text
        one.get_by_label("Your answer").fill("from the first")
    other.get_by_label("Your answer").fill("from the second")
    other.get_by_text("Another tab has saved this draft meanwhile").wait_for()
    assert other.locator("#theirs").inner_text() == "from the first"
    assert other.get_by_label("Your answer").input_value() == "from the second"
    other.get_by_role("button", name="Take the other text").click()
    assert other.get_by_label("Your answer").input_value() == "from the first"
    context.close()


def test_pairs_are_judged_by_single_keys_and_reviews_too(chromium: Any, studio: Running) -> None:
    first, second = add_prompts(studio, "Judge one?", "Judge two?")
    with Store(studio.store) as store:
        batch = batches.open_batch(
            store, name="x", model_a="alpha-run", model_b="omega-base", sampling={}, by=None,
            pairs=[batches.NewPair(p, f"good {p}", f"poor {p}") for p in (first, second)],
        )  # fmt: skip
        writer = people.add_person(store, "Yuki", "writer", by=None)
        held = queue.claim(store, writer.id)
        assert held is not None
        sent = demos.submit(
            store, held.id, writer.id, [{"role": "assistant", "content": "fine"}], post_key="1"
        )
    with tab_of(chromium, studio, session_of(studio, "Rita", "reviewer")) as page:
        page.goto("/judge")
        for _ in range(2):
            left = page.locator(".pair .card").first.inner_text()
            with page.expect_navigation():
                page.keyboard.press("2" if "good" in left else "4")
        page.get_by_text("There is nothing to judge").wait_for()
        page.goto(f"/review/{sent.id}")
        page.keyboard.press("e")
        assert page.get_by_label("Answer").is_visible()  # typing there presses no keys
        page.keyboard.type("a")
        page.get_by_role("heading", name="Demonstration").click()
        page.keyboard.press("r")
        page.keyboard.type("Say where.")
        page.keyboard.press("Control+Enter")
        page.get_by_text("Returned with your comment.").wait_for()
    with Store(studio.store) as store:
        assert results.results(store, batch.id).rate.counts["a"] == 2
        assert demos.demonstration(store, sent.id).status == "returned"


@pytest.mark.parametrize(("width", "theme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_the_pages_of_collecting_are_open_to_everybody(
    chromium: Any, full: Running, width: int, theme: str
) -> None:
    with tab_of(chromium, full, session_of(full, "Ada", "admin"), width=width, theme=theme) as page:
        page.goto("/write")
        with page.expect_navigation():
            page.get_by_role("button", name="Next prompt").or_(
                page.get_by_role("button", name="Go on")
            ).click()
        paths = [
            page.url.removeprefix(full.address), "/write", "/review", "/review?filter=hard", "/review/1", "/review/2",
            "/review/1/again", "/review/questions/1", "/judge", "/prompts", "/prompts/1", "/prompts/guidelines", "/tests", "/overview",
            "/overview/comparison/1", "/overview/comparison/1/pairs",
        ]  # fmt: skip
        found = []
        for path in paths:
            assert page.goto(path).ok, path
            for summary in page.locator("summary").all():
                summary.click()
            found += [f"{path} {fault}" for fault in faults_of(page)]
        assert found == []


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A studio with something on every page."""
    running = Running(tmp_path_factory.mktemp("full"))
    with Store(running.store) as store:
        admin = people.add_person(store, "Ada", "admin", by=None)
        writer = people.add_person(store, "Wim", "writer", by=None)
        asked = [prompts.NewPrompt((Message("system", "Be kind."), Message("user", f"Q{n}?")), f"m:{n}", expected="A",
                                   tags=("one", "two")) for n in range(6)]  # fmt: skip
        prompts.add(store, asked, source="made", licence="x", consent="y", by=None)
        prompts.add(store, [prompts.NewPrompt((Message("user", "Z?"),), "z:1")], source="unstated", by=None)
        for n in range(2):
            held = queue.claim(store, writer.id)
            assert held is not None
            demos.submit(
                store,
                held.id,
                writer.id,
                [{"role": "assistant", "content": "# A\n\n`code`"}],
                post_key=str(n),
            )
            queue.flag(store, held.prompt_id, writer.id, "odd")
        reviewing.set_second_share(store, 1.0, by=None)
        rita = people.add_person(store, "Rita", "reviewer", by=None)
        reviewing.review(store, 1, rita.id, "accepted", rev=1)
        collecting.add_test_prompt(store, "Is it safe?", expected="Yes.", by=admin.id)
        collecting.add_test_pair(store, "Is it?", better="It is.", worse="No.", by=admin.id)
        losses.note(store, [losses.Loss(1, 1, "outputs/run", 2.0, 1.0)])
        pairs = [batches.NewPair(n, "good", "poor") for n in range(1, 5)]
        batches.open_batch(store, name="x", model_a="aaaa", model_b="bbbb", pairs=pairs, sampling={}, by=None)
        task = judging.claim(store, admin.id)
        assert task is not None
        verdict = judging.Verdict("left", rating_left=5, rating_right=3, flags_left=("opinion",))
        judging.judge(store, task.id, admin.id, verdict)
    running.start()
    yield running
    running.stop()
