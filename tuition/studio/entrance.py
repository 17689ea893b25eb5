"""Who comes in: the one-time link, passwords, invitations; and the door that asks at every request.

Sessions and passwords lie in the store, so that they can be taken back and outlive the server.
"""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tuition import api
from tuition.errors import UserError
from tuition.studio.pages import PAGES
from tuition.studio.web import THEMES, Here, Person, Studio, here, redirect, refusal, render, status_of

# What strangers may ask for. Everything else asks for a session first, whether it exists or not.
_OPEN = ("/static/", "/enter/", "/login", "/invite/", "/theme", "/health")
router = APIRouter()
Word = Annotated[str, Form(max_length=200)]
Password = Annotated[str, Form(max_length=1_000)]


class Door:
    """Middleware that asks for a session, and for the role that a page wants, before a body is read."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        request.state.person = person = await to_thread.run_sync(person_of, request)
        refused = refuse_entry(request, person)
        await (refused or self.app)(scope, receive, send)


def refuse_entry(request: Request, person: Person | None) -> Response | None:
    """The answer to somebody who may not see this page; None: they may."""
    path = request.url.path
    if path.startswith(_OPEN):
        return None
    if person is None:
        if request.method == "GET" and "hx-request" not in request.headers:
            return login_page(request, status=401)
        return refusal(request, 401, "You are signed out. Sign in in another tab, and send this again.")
    page = next((p for p in PAGES if path == p.path or path.startswith(p.path + "/")), None)
    if page is not None and person.role not in page.roles:
        return refusal(
            request, 403, f"This page is not for the role {person.role}. Ask an admin of this studio."
        )
    return None


def person_of(request: Request) -> Person | None:
    """Whose session the cookie names; None where it names none that is still good."""
    token = request.cookies.get(cookie_name(request), "")
    return api.sessions.person_of_session(here(request).store, token) if token else None


def cookie_name(request: Request) -> str:
    """Ports of one host share their cookies, and several studios may run on it."""
    return f"tuition-{here(request).port}"


def let_in(request: Request, session: str, *, to: str = "/", notice: str = "") -> Response:
    """Go there with the session in a cookie that no script can read."""
    response = redirect(to, notice)
    response.set_cookie(
        cookie_name(request),
        session,
        max_age=int(api.sessions.SESSION_SECONDS),
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )
    return response


def is_secure(request: Request) -> bool:
    """Whether the browser came over TLS, here or at the proxy before us."""
    return here(request).secure or request.url.scheme == "https"


# --- ways in


@router.get("/enter/{token}")
def enter(request: Request, studio: Here, token: str) -> Response:
    """The link that `tuition studio` printed: it works once."""
    session = api.sessions.use_link(studio.store, token)
    if session is None:
        return login_page(request, status=403, fault="This link was used before, has expired, or is none.")
    return let_in(request, session)


@router.get("/login")
def show_login(request: Request) -> Response:
    """The page to sign in on."""
    return login_page(request)


@router.post("/login")
def login(request: Request, studio: Here, name: Word, password: Password) -> Response:
    """Sign in by name and password; after some wrong ones only waiting helps."""
    address = request.client.host if request.client else ""
    try:
        session = api.sessions.sign_in(studio.store, name, password, address=address)
    except UserError as error:
        return login_page(request, status=status_of(error), fault=str(error), name=name)
    return let_in(request, session)


@router.post("/logout")
def logout(request: Request, studio: Here) -> Response:
    """End this session."""
    api.sessions.sign_out(studio.store, request.cookies.get(cookie_name(request), ""))
    response = redirect("/login")
    response.delete_cookie(cookie_name(request))
    return response


@router.get("/invite/{token}")
def show_invitation(request: Request, studio: Here, token: str) -> Response:
    """Where an invited person chooses a name and a password."""
    return invitation_page(request, studio, token)


@router.post("/invite/{token}")
def accept_invitation(request: Request, studio: Here, token: str, name: Word, password: Password) -> Response:
    """The invited person becomes one of the studio; the invitation is used up."""
    try:
        person = api.people.accept_invite(studio.store, token, name, password)
    except UserError as error:
        return invitation_page(request, studio, token, status=status_of(error), fault=str(error), name=name)
    return let_in(request, api.sessions.open_session(studio.store, person.id))


def invitation_page(
    request: Request, studio: Studio, token: str, *, status: int = 200, fault: str = "", name: str = ""
) -> Response:
    """The form, or a word about an invitation that opens nothing."""
    role = api.people.invited_role(studio.store, token)
    if role is None:
        return refusal(request, 404, "This invitation was used, has expired, or is none. Ask for a new one.")
    return render(
        request, "invitation.html", status=status, token=token, role=role, fault=fault, name=name,
        shortest=api.people.SHORTEST_PASSWORD,
    )  # fmt: skip


def login_page(request: Request, *, status: int = 200, fault: str = "", name: str = "") -> Response:
    """By password where somebody has one; a word about the link where no admin has."""
    store = here(request).store
    return render(
        request,
        "login.html",
        status=status,
        fault=fault,
        name=name,
        by_password=api.people.somebody_has_a_password(store),
        by_link=not api.people.an_admin_has_a_password(store),
    )


@router.post("/theme")
def choose_theme(request: Request, theme: Annotated[str, Form(max_length=10)], back: Word = "/") -> Response:
    """Light, dark, or as the device is."""
    if theme not in THEMES:
        return refusal(request, 422, f"There is no theme of that name; choose one of: {', '.join(THEMES)}.")
    # an address of ours only: `//elsewhere` would lead away
    response = redirect(back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/")
    response.set_cookie("theme", theme, max_age=365 * 86_400, httponly=True, samesite="lax")
    return response


@router.get("/health")
def health() -> dict[str, str]:
    """For whoever watches the server."""
    return {"status": "ok"}
