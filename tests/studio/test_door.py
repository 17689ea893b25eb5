"""Who comes in and who does not: nothing that a stranger sends is stored."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.studio.conftest import PASSWORD, Running
from tuition.collect import Store, people, sessions


def test_the_printed_link_lets_in_once(studio: Running) -> None:
    first, second = studio.stranger(), studio.stranger()
    assert first.get(studio.link).status_code == 303
    assert first.get("/people").status_code == 200
    assert second.get(studio.link).status_code == 403
    assert second.get("/people").status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/people", "/account", "/no/such/page", "/static", "/openapi.json", "/docs"]
)
def test_a_stranger_sees_no_page_and_learns_not_which_exist(studio: Running, path: str) -> None:
    assert studio.stranger().get(path).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {},
    ],
)
def test_a_form_that_another_site_sends_is_refused_and_stores_nothing(
    studio: Running, admin: httpx.Client, headers: dict[str, str]
) -> None:
    del admin.headers["Origin"]
    before = studio.events()
    answer = admin.post("/people/invite", data={"role": "admin"}, headers=headers)
    assert answer.status_code == 403
    assert studio.events() == before


def test_our_own_form_is_stored(studio: Running, admin: httpx.Client) -> None:
    before = studio.events()
    assert admin.post("/people/invite", data={"role": "writer"}).status_code == 200
    assert studio.events() == before + 1


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1:80@evil.example"]
)
def test_a_name_that_is_not_ours_is_refused(studio: Running, admin: httpx.Client, host: str) -> None:
    assert admin.get("/people", headers={"Host": host}).status_code in (400, 403)


def test_two_host_headers_are_refused(studio: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", studio.port)
    connection.putrequest("GET", "/login", skip_host=True)
    connection.putheader("Host", "evil.example")
    connection.putheader("Host", f"127.0.0.1:{studio.port}")
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize("session", ["", "x", "ä", "0" * 43, "' OR 1=1 --"])
def test_a_session_that_is_not_ours_opens_nothing(studio: Running, session: str) -> None:
    before = studio.events()
    cookie = {"Cookie": f"tuition-{studio.port}={session}".encode()}
    answer = studio.stranger().post("/people/invite", data={"role": "admin"}, headers=cookie)
    assert answer.status_code == 401
    assert studio.events() == before


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fweb.py", "/static/%5c..%5cweb.py",
             "/static//etc/passwd", "/people/%00", "/%0d%0aSet-Cookie:x", "/people/9999999999999999999/disable"],
)  # fmt: skip
def test_a_trick_in_a_path_reaches_no_file(studio: Running, admin: httpx.Client, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", studio.port)
    connection.putrequest("GET", path)
    connection.putheader("Cookie", f"tuition-{studio.port}={admin.cookies[f'tuition-{studio.port}']}")
    connection.endheaders()
    answer = connection.getresponse()
    assert 400 <= answer.status < 500
    assert b"import" not in answer.read()
    connection.close()


def test_a_body_without_end_or_of_huge_length_is_refused_unread(studio: Running, admin: httpx.Client) -> None:
    def pieces():  # type: ignore[no-untyped-def]
        yield b"role=admin"

    before = studio.events()
    assert admin.post("/people/invite", content=pieces()).status_code == 411
    assert admin.post("/people/invite", content=b"role=" + b"a" * (3 << 20)).status_code == 413
    assert studio.events() == before


def test_only_get_and_post_are_answered(admin: httpx.Client) -> None:
    assert {
        admin.request(method, "/people").status_code for method in ("PUT", "DELETE", "PATCH", "OPTIONS")
    } == {405}


def test_a_disabled_persons_next_request_is_refused(studio: Running, admin: httpx.Client) -> None:
    writer = studio.signed_in("Wendy", "writer")
    assert writer.get("/account").status_code == 200
    with Store(studio.store) as store:
        wendy = next(p for p in people.people(store) if p.name == "Wendy")
    assert admin.post(f"/people/{wendy.id}/disable").status_code == 303
    assert writer.get("/account").status_code == 401
    assert writer.post("/account/name", data={"name": "Wanda"}).status_code == 401


@pytest.mark.parametrize("role", ["writer", "reviewer", "evaluator"])
def test_a_role_is_kept_from_pages_that_are_not_its_own(studio: Running, role: str) -> None:
    tab, before = studio.signed_in(f"some {role}", role), studio.events()
    assert tab.get("/people").status_code == 403
    assert tab.post("/people/invite", data={"role": "admin"}).status_code == 403
    assert studio.events() == before


def test_an_invited_person_chooses_a_name_and_comes_back_by_password(
    studio: Running, admin: httpx.Client
) -> None:
    page = admin.post("/people/invite", data={"role": "reviewer"}).text
    address = page.split("/invite/")[1].split("<")[0]
    comer = studio.stranger()
    assert "join this studio as reviewer" in comer.get(f"/invite/{address}").text
    short = comer.post(f"/invite/{address}", data={"name": "Rita", "password": "short"})
    assert (short.status_code, "fewer than" in short.text) == (422, True)
    assert comer.post(f"/invite/{address}", data={"name": "Rita", "password": PASSWORD}).status_code == 303
    assert "Rita" in comer.get("/account").text
    assert studio.stranger().get(f"/invite/{address}").status_code == 404

    comer.post("/logout")
    assert comer.get("/account").status_code == 401
    again = studio.stranger()
    assert 'name="password"' in again.get("/").text, "the admin of the machine may have none"
    assert again.post("/login", data={"name": "Rita", "password": PASSWORD}).status_code == 303
    assert again.get("/account").status_code == 200


def test_after_some_wrong_passwords_only_waiting_helps(studio: Running) -> None:
    studio.signed_in("Theo", "writer")
    tab = studio.stranger()
    answers: list[httpx.Response] = []
    while (
        not answers or answers[-1].status_code == 403
    ):  # a slow machine may wait long enough by itself at first
        answers.append(tab.post("/login", data={"name": "Theo", "password": "wrong"}))
    assert len(answers) > 5
    assert answers[-1].status_code == 429
    assert "seconds" in answers[-1].text
    with Store(studio.store) as store, store.writing() as db:  # other tests sign in from this address too
        db.execute("DELETE FROM failed_login")


def test_a_name_is_shown_literally(studio: Running, admin: httpx.Client) -> None:
    name = '<img src=x onerror="alert(1)">'
    studio.signed_in(name, "writer")
    page = admin.get("/people").text
    assert name not in page
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;" in page


def test_every_answer_carries_the_headers_that_keep_scripts_out(studio: Running, admin: httpx.Client) -> None:
    for answer in (admin.get("/people"), studio.stranger().get("/people"), admin.get("/nothing"),
                   admin.get("/people", headers={"Host": "evil"})):  # fmt: skip
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_cookies_are_out_of_reach_of_scripts_and_other_sites(studio: Running) -> None:
    studio.signed_in("Cora", "writer")
    with Store(studio.store) as store:
        cora = next(p for p in people.people(store) if p.name == "Cora")
        link = sessions.make_link(store, cora.id)
    cookie = studio.stranger().get(f"/enter/{link}").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()


@pytest.mark.parametrize("flags", [["--host", "0.0.0.0"], ["--allow-host", "studio.example.org"]])
def test_other_machines_are_not_let_near_before_an_admin_has_a_password(
    tmp_path: Path, flags: list[str]
) -> None:
    command = [sys.executable, "-m", "tuition", "studio", "--no-open", "--port", "0", *flags]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "no admin has a password yet" in ended.stderr
