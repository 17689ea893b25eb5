"""Write, review, judge, prompts and overview, asked as plain forms: what a browser without scripts sends."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.studio.conftest import Running
from tuition.collect import Store, batches, people, prompts, queue, results
from tuition.collect import demonstrations as demos
from tuition.conversation import Message

MARKUP = (
    "<img src=x onerror=alert(1)> and **bold** and ![p](http://127.0.0.1:9/p.png) [go](javascript:alert(2))"
)


def add_prompt(studio: Running, text: str, *, source: str = "ours") -> int:
    """One more prompt, most urgent; its id."""
    with Store(studio.store) as store:
        message = Message("user", text)
        prompts.add(
            store, [prompts.NewPrompt((message,), "made:1")], source=source, licence="x", consent="y", by=None
        )
        found = prompts.prompt_of(store, [message])
        assert found is not None
        prompts.change(store, found, priority=float(found), by=None)
        return found


def hidden(page: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, name
    return found.group(1)


def begin(client: httpx.Client) -> tuple[str, str]:
    """Take the next prompt: the address of its editor and the page."""
    answer = client.post("/write/next", follow_redirects=True)
    assert answer.status_code == 200
    return str(answer.url.path), answer.text


def test_an_answer_is_written_reviewed_and_exported_byte_for_byte(
    studio: Running, admin: httpx.Client
) -> None:
    add_prompt(studio, "Whole way <b>?</b>")
    writer, reviewer = studio.signed_in("Walter", "writer"), studio.signed_in("Rita", "reviewer")
    address, page = begin(writer)
    assert "Whole way &lt;b&gt;?&lt;/b&gt;" in page
    assert (
        "A good answer" in page or "Be <em>brief</em>" in page
    )  # the guideline, of the start or of another test
    fields = {
        "turn": MARKUP,
        "post_key": hidden(page, "post_key"),
        "opened": hidden(page, "opened"),
        "guideline": hidden(page, "guideline"),
    }
    assert writer.post(f"{address}/submit", data=fields).status_code == 303
    assert writer.post(f"{address}/submit", data=fields).status_code == 303  # the same post once more

    assert re.search(r'href="/review/\d+">Read the next', reviewer.get("/review").text)
    with Store(studio.store) as store:
        sent = f"/review/{demos.find(store, limit=1)[0].id}"  # the newest
    shown = reviewer.get(sent).text
    assert "&lt;img src=x onerror=alert(1)&gt; and <strong>bold</strong>" in shown
    assert "<img" not in shown and 'href="javascript' not in shown
    decision = {"decision": "accepted", "rev": hidden(shown, "rev"), "post_key": hidden(shown, "post_key")}
    assert reviewer.post(sent, data=decision).status_code == 303

    drawn = admin.post(
        "/overview/export", data={"kind": "demonstrations", "validation": "0"}, follow_redirects=True
    )
    link = re.search(r'href="(/overview/export/[0-9a-f]{16}/train.jsonl)"', drawn.text)
    assert link is not None
    rows = [json.loads(line) for line in admin.get(link.group(1)).text.splitlines()]
    assert [
        r["messages"][-1]["content"] for r in rows if r["messages"][0]["content"].startswith("Whole way")
    ] == [MARKUP]


def test_a_draft_is_kept_and_another_tabs_is_never_overwritten(studio: Running) -> None:
    add_prompt(studio, "Drafts?")
    writer = studio.signed_in("Xenia", "writer")
    address, _ = begin(writer)
    script = {"Accept": "application/json"}
    assert writer.post(f"{address}/draft", data={"turn": "one\r\ntwo", "rev": 0}, headers=script).json() == {
        "rev": 1
    }
    late = writer.post(f"{address}/draft", data={"turn": "other", "rev": 0}, headers=script)
    assert late.status_code == 409 and late.json()["turns"] == ["one\ntwo"]
    plain = writer.post(f"{address}/draft", data={"turn": "other", "rev": 0})
    assert plain.status_code == 409 and "one\ntwo" in plain.text and "\nother</textarea>" in plain.text
    assert "one\ntwo</textarea>" in writer.get(address).text


def test_turns_are_added_and_shown_as_read_without_scripts(studio: Running) -> None:
    add_prompt(studio, "Turns?")
    writer = studio.signed_in("Yuki", "writer")
    address, _ = begin(writer)
    more = writer.post(
        f"{address}/turn", data={"turn": "**First.**", "rev": 0, "more": "true"}, follow_redirects=True
    )
    assert more.text.count('name="turn"') == 3 and "What the user says next" in more.text
    shown = writer.post(f"{address}/show", data={"turn": ["**First.**", "And?", "Then."], "rev": 1})
    assert "<strong>First.</strong>" in shown.text
    fewer = writer.post(
        f"{address}/turn", data={"turn": ["a", "b", "c"], "rev": 2, "more": "false"}, follow_redirects=True
    )
    assert fewer.text.count('name="turn"') == 1
    fragment = writer.post("/write/preview", data={"turn": "*so*"}, headers={"HX-Request": "true"})
    assert fragment.text.strip() == '<p dir="auto"><em>so</em></p>'


class Service(BaseHTTPRequestHandler):
    """An OpenAI-compatible API that always answers the same."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = f"**I** suggest, as {asked['model']}."
        body = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_service_suggests_and_an_untouched_suggestion_is_marked(
    studio: Running, admin: httpx.Client
) -> None:
    with HTTPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{service.server_port}/v1"
        assert admin.post("/prompts/service", data={"url": "ftp://x", "model": "m"}).status_code == 422
        assert admin.post("/prompts/service", data={"url": url, "model": "helper"}).status_code == 303
        add_prompt(studio, "Suggest?")
        writer = studio.signed_in("Sue", "writer")
        address, page = begin(writer)
        assert "helper (service)" in page
        wish = {"turn": "mine", "rev": 0, "model": ":service"}
        shown = writer.post(f"{address}/suggest", data=wish, follow_redirects=True).text
        service.shutdown()
    assert "<strong>I</strong> suggest, as helper." in shown and "mine</textarea>" in shown
    begun = writer.post(f"{address}/begin", data={"turn": "mine", "rev": 1}).text
    assert "**I** suggest, as helper.</textarea>" in begun
    fields = {"turn": "**I** suggest, as helper.", "post_key": "s", "suggestion": hidden(begun, "suggestion")}
    assert writer.post(f"{address}/submit", data=fields).status_code == 303
    with Store(studio.store) as store:
        (sent,) = demos.find(store, untouched=True)
    assert (sent.person, sent.latest.suggested_by) == ("Sue", "helper")
    assert "sent as it was" in admin.get(f"/review/{sent.id}").text
    add_prompt(studio, "Nobody answers?")
    address, _ = begin(writer)
    gone = writer.post(f"{address}/suggest", data={"turn": "mine", "rev": 0, "model": ":service"})
    assert gone.status_code == 422 and "gave no answer" in gone.text and "mine</textarea>" in gone.text


def test_skipping_and_flagging_ask_for_a_reason(studio: Running, admin: httpx.Client) -> None:
    prompt_id = add_prompt(studio, "Skip?")
    writer = studio.signed_in("Zoe", "writer")
    address, _ = begin(writer)
    assert writer.post(f"{address}/skip", data={"reason": " "}).status_code == 422
    fields = {"turn": ["It", "<b>", "**so**"], "rev": 0}
    assert writer.post(f"{address}/flag", data={**fields, "flagged": " "}).status_code == 422
    assert (
        writer.post(f"{address}/flag", data={**fields, "flagged": "a real name", "rev": 1}).status_code == 303
    )
    assert "It</textarea>" in writer.get(address).text, "what was typed is kept without scripts too"
    shown = [writer.post(f"/write/preview?turn_number={n}", data=fields).text for n in range(3)]
    assert ["It" in shown[0], "&lt;b&gt;" in shown[1], "<strong>so</strong>" in shown[2]] == [True] * 3
    assert "a real name" in admin.get("/prompts").text
    assert writer.post(f"{address}/skip", data={"reason": "unclear"}).status_code == 303
    assert f"Prompt {prompt_id}" in admin.get("/prompts").text


def test_a_writers_question_is_answered_by_who_reviews(studio: Running, admin: httpx.Client) -> None:
    prompt_id = add_prompt(studio, "Which one?")
    writer, reviewer = studio.signed_in("Quinn", "writer"), studio.signed_in("Rita", "reviewer")
    address, _ = begin(writer)
    asked = {"turn": "half a text", "rev": 0, "question": "Do you mean <i>the old</i> one?"}
    assert writer.post(f"{address}/ask", data=asked).status_code == 303
    assert "half a text</textarea>" in writer.get(address).text
    assert "Do you mean &lt;i&gt;the old&lt;/i&gt; one?" in reviewer.get("/review").text
    where = f"/review/questions/{prompt_id}"
    assert writer.get(where).status_code == 403
    assert reviewer.post(where, data={"answer": "\n"}).status_code == 422
    assert reviewer.post(where, data={"answer": "The **new** one."}).status_code == 303
    assert "the old" not in reviewer.get("/review").text, "it waits no more"
    assert "The <strong>new</strong> one." in writer.get(address).text
    assert "answered</span>" in writer.get("/write").text
    assert "The <strong>new</strong> one." in admin.get(f"/prompts/{prompt_id}").text


def test_an_empty_answer_is_refused_and_the_text_stays(studio: Running) -> None:
    add_prompt(studio, "Empty?")
    writer = studio.signed_in("Ann", "writer")
    address, page = begin(writer)
    turns = {"turn": ["kept text", "", "more"], "post_key": hidden(page, "post_key")}
    refused = writer.post(f"{address}/submit", data=turns)
    assert (
        refused.status_code == 422
        and "kept text</textarea>" in refused.text
        and "turn 2 is empty" in refused.text
    )


def test_a_returned_answer_shows_its_comment_to_its_author_only(studio: Running) -> None:
    add_prompt(studio, "Return?")
    writer, other = studio.signed_in("Ben", "writer"), studio.signed_in("Cleo", "writer")
    reviewer = studio.signed_in("Rita", "reviewer")
    address, page = begin(writer)
    writer.post(f"{address}/submit", data={"turn": "too long", "post_key": hidden(page, "post_key")})
    with Store(studio.store) as store:
        sent = demos.find(store, limit=1)[0]
    back = {"decision": "returned", "rev": 1, "post_key": "k", "comment": "say it <i>shorter</i>"}
    assert reviewer.post(f"/review/{sent.id}", data={**back, "comment": ""}).status_code == 422
    assert reviewer.post(f"/review/{sent.id}", data=back).status_code == 303
    assert "say it &lt;i&gt;shorter&lt;/i&gt;" in writer.get("/write").text
    assert "too long</textarea>" in writer.get(address).text
    assert other.get(address).status_code == 404
    edited = {"decision": "edited", "rev": 1, "post_key": "e", "turn": "x"}
    assert reviewer.post(f"/review/{sent.id}", data=edited).status_code == 409


def test_nothing_on_the_judging_pages_names_a_model(studio: Running) -> None:
    ids = [add_prompt(studio, f"Judge {n}?") for n in range(3)]
    with Store(studio.store) as store:
        batch = batches.open_batch(
            store, name="secret batch", model_a="secret-tuned", model_b="secret-base", sampling={}, by=None,
            pairs=[batches.NewPair(p, f"good {p}", f"poor {p}") for p in ids],
        )  # fmt: skip
    evaluator = studio.signed_in("Eva", "evaluator")
    seen = ""
    for _ in ids:
        page = evaluator.get("/judge")
        seen += page.text + str(page.headers)
        task = re.search(r'action="(/judge/\d+)"', page.text)
        assert task is not None
        left = page.text.index("good ") < page.text.index("poor ")
        verdict = {
            "choice": "left" if left else "right",
            "rating_left": "6",
            "flags_left": ["opinion"],
            "seconds": "3",
        }
        answer = evaluator.post(task.group(1), data=verdict)
        assert answer.status_code == 303
        seen += answer.text + str(answer.headers)
    assert "secret" not in seen
    assert "There is nothing to judge" in evaluator.get("/judge").text
    assert evaluator.get(f"/overview/comparison/{batch.id}").status_code == 403
    with Store(studio.store) as store:
        assert results.results(store, batch.id).rate.counts["a"] == 3


def test_results_are_shown_and_failures_lead_tomorrows_queue(studio: Running, admin: httpx.Client) -> None:
    lost = add_prompt(studio, "Lost?")
    with Store(studio.store) as store:
        batch = batches.open_batch(
            store, name="night", model_a="tuned", model_b="base", sampling={}, by=None,
            pairs=[batches.NewPair(lost, "poor", "good")],
        )  # fmt: skip
    page = admin.get("/judge").text
    task = re.search(r'action="(/judge/\d+)"', page)
    assert task is not None
    better = "left_much" if page.index(">good") < page.index(">poor") else "right_much"
    admin.post(task.group(1), data={"choice": better})
    assert f'href="/overview/comparison/{batch.id}">What came out' in admin.get("/judge").text
    add_prompt(studio, "Newer and urgent?")
    shown = admin.get(f"/overview/comparison/{batch.id}").text
    assert "0.0%" in shown and "95 % interval" in shown
    assert admin.post(f"/overview/comparison/{batch.id}/send-back", data={"model": "a"}).status_code == 303
    with Store(studio.store) as store:
        dora = people.add_person(store, "Dora", "writer", by=None)
        got = queue.claim(store, dora.id)
        assert got is not None and got.prompt_id == lost
    assert admin.post(f"/overview/comparison/{batch.id}/close").status_code == 303


def test_a_file_is_uploaded_and_each_row_that_is_no_prompt_is_named(
    studio: Running, admin: httpx.Client
) -> None:
    rows = b'{"prompt": "Uploaded one?"}\n{"instruction": "Uploaded two", "input": "", "output": "x"}\n{"nothing": 1}\n'
    answer = admin.post(
        "/prompts/import", data={"licence": "MIT", "consent": "terms", "tags": "up, load", "overlap": 2},
        files={"file": ("../../etc/asked.jsonl", rows)},
    )  # fmt: skip
    assert answer.status_code == 200 and "asked.jsonl:3 (D001)" in answer.text and "2 new" in answer.text
    with Store(studio.store) as store:
        (one,) = prompts.find(store, words="Uploaded one?")
        assert (one.origin, one.tags, one.overlap, one.source.name) == (
            "asked.jsonl:1",
            ("load", "up"),
            2,
            "asked.jsonl",
        )
    assert "Uploaded one?" in admin.get("/prompts?tag=up&words=uploaded").text
    for name, content in (
        ("a.exe", b"MZ"),
        ("a.db", b"SQLite format 3\0" + b"x" * 100),
        ("a.jsonl", b"\xff\xfe{"),
    ):
        refused = admin.post("/prompts/import", files={"file": (name, content)})
        assert (
            refused.status_code in (200, 422) and "upload." not in refused.text and "/tmp" not in refused.text
        )


def test_prompts_sources_and_guidelines_are_changed_by_admins_only(
    studio: Running, admin: httpx.Client
) -> None:
    prompt_id = add_prompt(studio, "Change?", source="unclear")
    changed = {"tags": "a, b", "priority": "3.5", "overlap": "4", "paused": "true"}
    assert admin.post(f"/prompts/{prompt_id}", data=changed).status_code == 303
    with Store(studio.store) as store:
        found = prompts.prompt(store, prompt_id)
        assert (found.tags, found.priority, found.overlap, found.paused, found.gold) == (
            ("a", "b"),
            3.5,
            4,
            True,
            False,
        )
    assert admin.post("/prompts/source", data={"name": "unclear", "licence": "CC0"}).status_code == 303
    assert (
        admin.post("/prompts/add", data={"text": "Typed?\r\nHere", "system": "Be kind."}).status_code == 303
    )
    page = admin.get("/prompts/guidelines").text
    version = hidden(page, "after")
    assert (
        admin.post("/prompts/guidelines", data={"text": "Be *brief*.", "after": version}).status_code == 303
    )
    stale = admin.post("/prompts/guidelines", data={"text": "Be long.", "after": version})
    assert stale.status_code == 409 and "Be long.</textarea>" in stale.text
    for role in ("writer", "reviewer", "evaluator"):
        client = studio.signed_in(f"No {role}", role)
        assert (
            client.get("/prompts").status_code
            == client.post("/prompts/add", data={"text": "x"}).status_code
            == 403
        )


def test_an_evaluator_may_not_write_and_a_writer_may_not_judge_or_review(studio: Running) -> None:
    evaluator, writer = studio.signed_in("Eva", "evaluator"), studio.signed_in("Wim", "writer")
    before = studio.events()
    assert evaluator.post("/write/next").status_code == evaluator.get("/review").status_code == 403
    assert (
        writer.get("/judge").status_code
        == writer.post("/review/1", data={"decision": "accepted", "rev": 1, "post_key": "k"}).status_code
        == 403
    )
    assert studio.events() == before


@pytest.mark.parametrize(
    "path",
    [
        "/write/9999",
        "/review/9999",
        "/prompts/9999",
        "/overview/comparison/9999",
        "/overview/export/0123456789abcdef/train.jsonl",
    ],
)
def test_what_is_not_there_is_404(admin: httpx.Client, path: str) -> None:
    assert admin.get(path).status_code == 404


def test_the_mix_and_the_rules_are_set_and_wrong_ones_refused(admin: httpx.Client) -> None:
    assert admin.post("/overview/mix", data={"mix": "poems 20\nopen questions 12.5%"}).status_code == 303
    assert "open questions 12.5" in admin.get("/overview").text
    assert admin.post("/overview/mix", data={"mix": "poems many"}).status_code == 422
    assert (
        admin.post("/tests/rule", data={"kind": "judging", "items": "0", "percent": "75"}).status_code == 303
    )
    assert admin.post("/tests/rule", data={"kind": "other"}).status_code == 422


def test_items_that_test_people_are_written_in_the_page_and_show_who_passed(
    studio: Running, admin: httpx.Client
) -> None:
    asked = {"question": "2+2?", "expected": "4"}
    assert admin.post("/tests/prompt", data=asked).status_code == 303
    assert admin.post("/tests/prompt", data={**asked, "expected": " "}).status_code == 422
    pair = {"question": "Help?", "better": "Gladly.", "worse": "No."}
    assert admin.post("/tests/pair", data=pair).status_code == 303
    assert admin.post("/tests/pair", data={**pair, "worse": "Gladly."}).status_code == 422
    for kind in ("writing", "judging"):
        assert (
            admin.post("/tests/rule", data={"kind": kind, "items": "1", "percent": "100"}).status_code == 303
        )
    writer, evaluator = studio.signed_in("Tess", "writer"), studio.signed_in("Eve", "evaluator")
    address, page = begin(writer)
    assert "2+2?" in page
    writer.post(f"{address}/submit", data={"turn": "4", "post_key": "t"})
    assert "You begin with test prompts" in writer.get("/write").text
    task = re.search(r'action="(/judge/\d+)"', page := evaluator.get("/judge").text)
    assert task is not None and "Gladly." in page
    left = page.index("Gladly.") < page.index("No.")
    evaluator.post(task[1], data={"choice": "left" if left else "right"})
    shown = admin.get("/tests").text
    assert re.search(r"Eve</th>.*?1 of 1 right\s*<span class=\"badge good\">passed", shown, re.DOTALL)
    assert re.search(r"Tess</th>.*?none yet</span>\s*<span class=\"badge busy\">at it", shown, re.DOTALL)
    for kind in ("writing", "judging"):
        admin.post("/tests/rule", data={"kind": kind, "items": "0"})
    number = re.search(r"/tests/pair/(\d+)", shown)
    assert number is not None and admin.post(number[0], data={"better": ""}).status_code == 303
    assert "Gladly." not in admin.get("/tests").text
    assert studio.signed_in("Tess", "writer").get("/tests").status_code == 403


def test_a_second_reader_is_not_told_the_first_decision(studio: Running, admin: httpx.Client) -> None:
    assert admin.post("/overview/second", data={"percent": "100"}).status_code == 303
    assert admin.post("/overview/second", data={"percent": "101"}).status_code == 422
    add_prompt(studio, "Read twice?")
    writer, second = studio.signed_in("Wilma", "writer"), studio.signed_in("Simon", "reviewer")
    address, _ = begin(writer)
    writer.post(f"{address}/submit", data={"turn": "Twice.", "post_key": "w"})
    with Store(studio.store) as store:
        sent = demos.find(store, limit=1)[0]
    fields = {"decision": "returned", "rev": "1", "post_key": "r", "comment": "SECRET"}
    assert admin.post(f"/review/{sent.id}", data=fields).status_code == 303
    admin.post("/overview/second", data={"percent": "0"})
    assert re.search(
        r"\b(1(</strong>)? text waits|([02-9]|\d\d+)(</strong>)? texts wait) for a second reader",
        second.get("/review").text,
    )
    page = second.get(f"/review/{sent.id}/again").text
    assert (
        "Twice." in page and "SECRET" not in page and "returned" not in page.replace('value="returned"', "")
    )
    assert second.post(f"/review/{sent.id}/again", data={"decision": "returned"}).status_code == 422
    assert second.post(f"/review/{sent.id}/again", data={"decision": "accepted"}).status_code == 303
    assert second.get(f"/review/{sent.id}/again").status_code == 404
    assert "Read twice?" in admin.get("/review?filter=differently").text
    assert "would accept text 1" in admin.get(f"/review/{sent.id}").text
    assert writer.get(f"/write/{sent.assignment_id}").text.count("SECRET") == 1


def test_every_page_has_an_empty_state_that_says_what_to_do(tmp_path: Path) -> None:
    empty = Running(tmp_path).start()
    try:
        client = empty.signed_in("Ada", "admin")
        words = {"/write": "Import prompts", "/review": "Nothing was sent yet", "/judge": "tuition compare",
                 "/prompts": "No prompts yet", "/overview": "Nothing is collected yet"}  # fmt: skip
        for path, said in words.items():
            assert said in client.get(path).text
    finally:
        empty.stop()
