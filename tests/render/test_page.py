"""The preview page: what it holds, what it says it leaves out, and that nothing in the data can act in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tests.studio.browsers import chromium
from tuition import api
from tuition.errors import UserError
from tuition.render.preview import TokenText
from tuition.screen import highlighted

__all__ = ["chromium"]

HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\" onload='window.hacked=1' "
)
ROWS: list[Any] = [
    {"prompt": f"Hi {HOSTILE}", "completion": "Hello\n\tyou  there \u2028\u202e<!-- "},
    {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "weight": 0.5},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "日本 🦊"},
        ]
    },
    {"prompt": "nothing", "completion": ""},
    {"prompt": "half \ud83d", "completion": "b"},
    {"prompt": "x", "completion": "As an AI language model, I cannot."},
]


def blocks(page: Path, name: str) -> list[Any]:
    """The data of that name, as the page's script reads it."""
    text = page.read_text(encoding="utf-8")
    return [json.loads(b) for b in re.findall(rf'data-block="{name}">(.*?)</script>', text)]


def texts_of(page: Path) -> list[str]:
    """The text of each example, put together as the page's script does."""
    words: dict[int, str] = {}
    texts = []
    for block in blocks(page, "examples"):
        words |= dict(block["words"])
        for *_, ids, _runs, odd in block["examples"]:
            own = [words[i] for i in ids]
            for position, text in odd:
                own[position] = text
            texts.append("".join(own))
    return texts


@pytest.fixture
def hostile(tmp_path: Path, llama: Path) -> Path:
    data = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    api.preview_html(str(data), str(llama), tmp_path / "page.html")
    return tmp_path / "page.html"


def test_the_page_holds_each_example_to_the_character(hostile: Path, llama: Path, tmp_path: Path) -> None:
    shown = [
        tokens.decode(example.ids)
        for example, tokens in api.preview(str(tmp_path / "rows.jsonl"), str(llama))
    ]
    assert texts_of(hostile) == shown
    assert "日本 🦊" in shown[1]


def test_the_page_accounts_for_every_row(hostile: Path) -> None:
    (facts,) = blocks(hostile, "facts")
    assert {key: facts["total"][key] for key in ("rows", "kept", "rejected", "leftOut")} == {
        "rows": 5, "kept": 3, "rejected": 2, "leftOut": 0,
    }  # fmt: skip
    assert [code["code"] for code in facts["codes"]] == ["D005", "D015", "D035", "D073"]
    assert [(line, code) for _, line, code, *_ in blocks(hostile, "rejected")[0]] == [
        (3, "D005"),
        (4, "D015"),
    ]
    assert sum(facts["histogram"]["counts"]) == facts["total"]["examples"] == 3


def test_the_counts_are_those_of_check(hostile: Path, llama: Path, tmp_path: Path) -> None:
    summary = api.check(str(tmp_path / "rows.jsonl"), model=str(llama)).ledger.summary()
    (facts,) = blocks(hostile, "facts")
    assert facts["total"]["tokens"] == summary["tokens"]
    assert facts["total"]["learned"] == summary["supervised_tokens"]
    assert len(blocks(hostile, "findings")[0]) == len(summary["findings"])


def test_weights_other_than_one_stand_in_the_page(hostile: Path) -> None:
    runs = blocks(hostile, "examples")[0]["examples"][1][4]
    assert [weight for _, weight in runs] == [0, 0.5, 0, 1]


def test_what_is_beyond_the_limit_is_counted_and_said(tmp_path: Path, llama: Path, data: Path) -> None:
    facts = api.preview_html(str(data), str(llama), tmp_path / "page.html", limit=7)
    (written,) = blocks(tmp_path / "page.html", "facts")
    assert (facts.examples, facts.shown, len(texts_of(tmp_path / "page.html"))) == (60, 7, 7)
    assert (written["shown"], written["notShown"], written["total"]["examples"]) == (7, 53, 60)


def test_validation_files_and_left_out_rows_have_their_own_lines(tmp_path: Path, llama: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": "c"} for n in range(40)]
    (tmp_path / "set").mkdir()
    write_jsonl(tmp_path / "set" / "train.jsonl", rows)
    write_jsonl(tmp_path / "set" / "valid.jsonl", [{"prompt": "v", "completion": "c"}])
    api.preview_html(f"{tmp_path / 'set'}#0.5", str(llama), tmp_path / "page.html")
    (facts,) = blocks(tmp_path / "page.html", "facts")
    train, valid = facts["files"]
    assert (train["use"], valid["use"], valid["rows"]) == ("train", "validation", 1)
    assert train["rows"] == 40 == train["kept"] + train["leftOut"] and train["leftOut"] > 0


def test_the_page_is_never_written_over_the_data(tmp_path: Path, llama: Path, data: Path) -> None:
    before = data.read_bytes()
    for name in (str(data), f"{data}#0.5"):
        with pytest.raises(UserError, match="is the data itself"):
            api.preview_html(name, str(llama), data)
    assert data.read_bytes() == before


def test_a_page_that_cannot_be_finished_leaves_nothing_behind(
    tmp_path: Path, llama: Path, data: Path
) -> None:
    with pytest.raises(UserError, match="more than max_length"):
        api.preview_html(str(data), str(llama), tmp_path / "page.html", max_length=8, too_long="refuse")
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_the_terminal_shows_learned_blanks_and_weights() -> None:
    pieces = [
        (" q", 0.0),
        (" Yes", 1.0),
        (" or", 1.0),
        ("  ", 1.0),
        ("no\n\t", 1.0),
        ("half ", 0.5),
        ("more", 0.5),
    ]
    shown = highlighted([TokenText(text, weight, False) for text, weight in pieces])
    assert shown.plain == " q·Yes or··no↵\n→×0.5 half·more"
    green = [shown.plain[span.start : span.end] for span in shown.spans if span.style == "green"]
    assert green == ["·Yes", " or", "··", "no↵\n→", "half·", "more"]


def test_where_no_colour_is_shown_brackets_stand_around_what_is_learned() -> None:
    pieces = [("q ", 0.0), ("a", 1.0), ("b", 1.0), (" r ", 0.0), ("c", 1.0)]
    shown = highlighted([TokenText(text, weight, False) for text, weight in pieces], brackets=True)
    assert shown.plain == "q ⟦ab⟧ r ⟦c⟧"


# --- in a browser ---


@pytest.fixture
def opened(chromium: Any, hostile: Path) -> Iterator[Any]:
    """The hostile page in a browser; afterwards: it asked for nothing and complained of nothing."""
    page = chromium.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(hostile.as_uri())
    yield page
    assert complaints == [hostile.as_uri()]
    page.close()


def test_hostile_rows_are_shown_and_do_nothing(opened: Any) -> None:
    assert opened.evaluate("window.hacked") is None
    assert opened.locator("img").count() == 0
    assert "<script>window.hacked=1</script>" in opened.inner_text("#list")
    assert "U+202E" in opened.inner_text("#list") and "U+2028" in opened.inner_text("#list")


def test_no_script_but_the_pages_own_may_run(opened: Any) -> None:
    policy = opened.get_attribute("meta[http-equiv]", "content")
    assert "unsafe" not in policy and "default-src 'none'" in policy


def test_learned_tokens_weights_and_stops_are_visible(opened: Any) -> None:
    second = opened.locator("article").nth(1)
    assert second.locator(".w").get_attribute("data-weight") == "×0.5"
    assert second.locator(".e.l").all_inner_texts() == ["<|end|>", "<|end|>"]
    assert "日本 🦊" in "".join(second.locator(".l").all_inner_texts())
    assert opened.locator("article").nth(0).locator(".l .n").count() == 1  # the line break of the answer


def test_token_borders_put_each_token_on_its_own(opened: Any) -> None:
    before = opened.locator("article").nth(1).locator("pre > span").count()
    opened.keyboard.press("t")
    tokens = opened.locator("article").nth(1).locator(".k").count()
    length = int(opened.locator("article").nth(1).locator("h3 span").first.inner_text().split()[0])
    assert tokens == length > before


@pytest.mark.parametrize(
    ("query", "lines"),
    [("D005", ["3"]), ("rows.jsonl:2", ["2"]), ("HELLO", ["1"]), ("language model", ["5"]), ("absent", [])],
)
def test_search_finds_codes_places_and_text(opened: Any, query: str, lines: list[str]) -> None:
    opened.keyboard.press("/")
    opened.keyboard.insert_text(query)  # at once: what half of it finds is nothing to wait for
    opened.wait_for_function("n => document.querySelectorAll('article').length === n", arg=len(lines))
    places = [
        text.split("\n")[0].rsplit(":", 1)[1] for text in opened.locator("article h3").all_inner_texts()
    ]
    assert [place.split()[0].removesuffix("rejected") for place in places] == lines
    opened.keyboard.press("Escape")
    assert opened.locator("article").count() == len(ROWS)


def test_a_finding_leads_to_its_row(opened: Any) -> None:
    opened.locator(".codes summary", has_text="D035").click()
    opened.locator(".codes li button", has_text="rows.jsonl:5").click()
    assert opened.locator("article").count() == 1
    assert "As an AI language model" in opened.locator("article").inner_text()


def test_rejected_rows_stand_with_reason_and_next_step(opened: Any) -> None:
    opened.select_option("#kind", "rejected")
    shown = opened.locator("article").all_inner_texts()
    assert len(shown) == 2
    assert "D005 the answer in turn 2 is empty. Write the answer" in shown[0]
    assert '"completion": ""' in shown[0]
    assert "U+D83D" in shown[1]


def test_the_page_fits_a_narrow_screen(opened: Any) -> None:
    opened.set_viewport_size({"width": 400, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 400
