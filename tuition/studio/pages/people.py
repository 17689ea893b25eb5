"""Who works here: roles, invitations that work once, and shutting somebody out. For admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import Response

from tuition import api
from tuition.studio.web import Here, Me, Studio, redirect, render

router = APIRouter(prefix="/people")
Id = Annotated[int, Path(ge=1, lt=2**63)]
Word = Annotated[str, Form(max_length=200)]


@router.get("")
def show(request: Request, studio: Here) -> Response:
    """Everybody, and the invitations that nobody took yet."""
    return people_page(request, studio)


@router.post("/invite")
def invite(request: Request, studio: Here, me: Me, role: Word) -> Response:
    """A link for one person. It is shown now and never again: the store keeps only its sum."""
    token = api.people.invite(studio.store, role, by=me.id)
    return people_page(
        request, studio, link=f"{address_of(request)}/invite/{token}", link_is=f"Invitation as {role}"
    )


@router.post("/revoke")
def revoke(studio: Here, me: Me, key: Word) -> Response:
    """End an invitation."""
    api.people.revoke_invite(studio.store, key, by=me.id)
    return redirect("/people", "The invitation opens nothing any more.")


@router.post("/{person}/role")
def set_role(studio: Here, me: Me, person: Id, role: Word) -> Response:
    """Give somebody another role."""
    found = api.people.person(studio.store, person)
    api.people.set_role(studio.store, person, role, by=me.id)
    return redirect("/people", f"{found.name} is {role} now.")


@router.post("/{person}/disable")
def disable(studio: Here, me: Me, person: Id) -> Response:
    """Shut somebody out; their next request is refused."""
    found = api.people.person(studio.store, person)
    api.people.set_disabled(studio.store, person, True, by=me.id)
    return redirect("/people", f"{found.name} is shut out. What they wrote stays.")


@router.post("/{person}/enable")
def enable(studio: Here, me: Me, person: Id) -> Response:
    """Let somebody in again."""
    found = api.people.person(studio.store, person)
    api.people.set_disabled(studio.store, person, False, by=me.id)
    return redirect("/people", f"{found.name} may come in again.")


@router.post("/{person}/link")
def link(request: Request, studio: Here, person: Id) -> Response:
    """A way in for somebody who forgot the password; it works once, within ten minutes."""
    found = api.people.person(studio.store, person)
    token = api.sessions.make_link(studio.store, person)
    return people_page(
        request, studio, link=f"{address_of(request)}/enter/{token}", link_is=f"Lets {found.name} in"
    )


def people_page(request: Request, studio: Studio, *, link: str = "", link_is: str = "") -> Response:
    """The page, with a link that was just made."""
    now = studio.store.now()
    invites = api.people.invites(studio.store)
    return render(
        request,
        "people.html",
        people=api.people.people(studio.store),
        invites=[i for i in invites if i.used_by is None and i.expires_at > now],
        roles=list(api.people.RIGHTS),
        link=link,
        link_is=link_is,
        open_to_others=studio.open_to_others,
    )


def address_of(request: Request) -> str:
    """How this person reached the studio; the Host header is one of ours."""
    return f"{request.url.scheme}://{request.headers['host']}"
