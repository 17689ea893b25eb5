"""One's own name and password. For everybody."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from tuition import api
from tuition.errors import UserError
from tuition.studio.entrance import let_in
from tuition.studio.web import Here, Me, redirect, render, status_of

router = APIRouter(prefix="/account")


@router.get("")
def show(request: Request) -> Response:
    """The two forms."""
    return account_page(request)


@router.post("/name")
def rename(request: Request, studio: Here, me: Me, name: Annotated[str, Form(max_length=200)]) -> Response:
    """Be called otherwise from now on."""
    try:
        api.people.set_name(studio.store, me.id, name, by=me.id)
    except UserError as error:
        return account_page(request, status=status_of(error), fault=str(error))
    return redirect("/account", "Your name is changed.")


@router.post("/password")
def set_password(
    request: Request, studio: Here, me: Me, password: Annotated[str, Form(max_length=1_000)]
) -> Response:
    """A new password; every other session of this person ends."""
    try:
        api.people.set_password(studio.store, me.id, password, by=me.id)
    except UserError as error:
        return account_page(request, status=status_of(error), fault=str(error))
    return let_in(
        request,
        api.sessions.open_session(studio.store, me.id),
        to="/account",
        notice="Your password is set. You were signed out everywhere else.",
    )


def account_page(request: Request, *, status: int = 200, fault: str = "") -> Response:
    """The page, with what was wrong."""
    return render(request, "account.html", status=status, fault=fault, shortest=api.people.SHORTEST_PASSWORD)
