"""The editor of one answer: what a form of it holds, how that is saved, and the page around it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Form, Request
from fastapi.responses import Response

from tuition import api
from tuition.studio.reading import unix_lines
from tuition.studio.web import Studio, render, talk_of

SERVICE = ":service"  # no run is called so: names of folders hold no colon here


@dataclass(frozen=True, slots=True)
class Typed:
    """What a form of the editor holds.

    Attributes:
        turns: the assistant's, and the user's between them.
        rev: of the draft that they were typed upon.
    """

    turns: list[dict[str, str]]
    rev: int


def _typed_of_form(
    turns: Annotated[list[str], Form(alias="turn", default_factory=list)],
    rev: Annotated[int, Form(ge=0, lt=2**31)] = 0,
) -> Typed:
    return Typed(turns_of(turns), rev)


TypedHere = Annotated[Typed, Depends(_typed_of_form)]


def turns_of(texts: list[str]) -> list[dict[str, str]]:
    """Texts of a form as turns."""
    return [
        {"role": "user" if number % 2 else "assistant", "content": unix_lines(text)}
        for number, text in enumerate(texts)
    ]


def saved(request: Request, studio: Studio, person_id: int, task: int, typed: Typed) -> Response | None:
    """Save the draft; the page that shows both texts where another tab was first."""
    try:
        api.drafts.save(studio.store, task, person_id, typed.turns, rev=typed.rev)
    except api.drafts.DraftConflictError as conflict:
        return editor(request, studio, person_id, task, status=409, typed=typed.turns, theirs=conflict.stored)
    return None


def editor(
    request: Request,
    studio: Studio,
    person_id: int,
    task: int,
    *,
    status: int = 200,
    typed: list[dict[str, str]] | None = None,
    theirs: api.drafts.Draft | None = None,
    fault: str = "",
    as_read: bool = False,
) -> Response:
    """The editor of one task.

    Args:
        typed: what this tab holds, where it is not what is stored.
        theirs: what another tab has saved.
        as_read: show each turn as it will read, under its box.
    """
    store = studio.store
    held = api.queue.own(store, task, person_id)
    own = api.demonstrations.find(store, prompt_id=held.prompt_id, person_id=person_id)
    before = next((d for d in own if d.assignment_id == task), None)
    draft = api.drafts.draft(store, task, person_id)
    turns = typed or draft.turns or (before.latest.turns if before else []) or turns_of([""])
    return render(
        request,
        "write_editor.html",
        status=status,
        task=held,
        prompt=api.prompts.prompt(store, held.prompt_id),
        turns=turns,
        rev=theirs.rev if theirs else draft.rev,
        theirs=theirs,
        before=before,
        earlier=[d for d in own if d.assignment_id < task],
        open=held.state != "skipped" and (before is None or before.status == "returned"),
        guideline=api.guidelines.current(store),
        remarks=api.questions.thread(store, held.prompt_id),
        suggestion=api.suggestions.latest(store, task),
        models=_models(request, studio),
        fault=fault,
        as_read=as_read,
        post_key=secrets.token_urlsafe(16),
        opened=store.now(),
    )


def _models(request: Request, studio: Studio) -> list[tuple[str, str]]:
    """Who can suggest an answer: the service, if an admin named one, and the runs; value and words of each."""
    service = api.suggestion_service(studio.store)
    runs = [(name, name) for name in talk_of(request).names()]
    return [*([(SERVICE, f"{service.model} (service)")] if service else []), *runs]
