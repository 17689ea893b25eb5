"""Review: read what was written beside what was asked, then accept it, edit it, or give it back with a word."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import Response

from tuition import api
from tuition.errors import UserError
from tuition.studio.editor import turns_of
from tuition.studio.reading import unix_lines
from tuition.studio.web import Here, Me, Studio, redirect, render, status_of

router = APIRouter(prefix="/review")
Id = Annotated[int, Path(ge=1, lt=2**63)]
Place = Annotated[int, Query(ge=0, lt=2**63)]
_A_PAGE = 30
_FILTERS = ("waiting", "accepted", "returned", "untouched", "hard", "differently")


@router.get("")
def show(request: Request, studio: Here, me: Me, filter: str = "waiting", before: Place = 0) -> Response:
    """What waits, and what was decided."""
    chosen = filter if filter in _FILTERS else "waiting"
    return render(
        request,
        "review.html",
        progress=api.overview.progress(studio.store),
        again=api.reviewing.next_second_reading(studio.store, me.id),
        again_waiting=api.reviewing.second_readings_wanted(studio.store, me.id),
        next=api.reviewing.next_to_review(studio.store, me.id),
        filters=_FILTERS,
        chosen=chosen,
        lines=_lines(studio, chosen, before or None),
        a_page=_A_PAGE,
        usable=api.usable(studio.store),
        agreement=api.reviewing.agreement_of_reviewers(studio.store),
        questions=api.questions.waiting(studio.store),
    )


def _lines(studio: Studio, chosen: str, before: int | None) -> list[dict[str, Any]]:
    store = studio.store
    if chosen == "hard":
        return [
            _line(studio, api.demonstrations.demonstration(store, loss.demonstration_id), loss)
            for loss in api.losses.highest(store)
        ]
    if chosen == "differently":
        return [_line(studio, found) for found in api.reviewing.read_differently(store)]
    status = {"waiting": "submitted", "untouched": ""}.get(chosen, chosen)
    found = api.demonstrations.find(
        store, status=status, untouched=chosen == "untouched", before=before, limit=_A_PAGE
    )
    return [_line(studio, demonstration) for demonstration in found]


def _line(
    studio: Studio, demonstration: api.demonstrations.Demonstration, loss: api.losses.Loss | None = None
) -> dict[str, Any]:
    opening = api.prompts.prompt(studio.store, demonstration.prompt_id).opening
    return {"demonstration": demonstration, "opening": opening, "loss": loss}


@router.get("/next")
def next_one(studio: Here, me: Me, after: Place = 0) -> Response:
    """The oldest that waits, or back to the list."""
    return _go_on(studio, me.id, after=after)


def _go_on(studio: Studio, person_id: int, notice: str = "", *, after: int = 0) -> Response:
    found = api.reviewing.next_to_review(studio.store, person_id, after=after)
    return redirect("/review" if found is None else f"/review/{found.id}", notice)


@router.get("/questions/{prompt}")
def show_questions(request: Request, studio: Here, prompt: Id) -> Response:
    """What writers asked about a prompt, and what they were told."""
    return questions_page(request, studio, prompt)


@router.post("/questions/{prompt}")
def answer_question(
    request: Request, studio: Here, me: Me, prompt: Id, answer: Annotated[str, Form(max_length=10_000)] = ""
) -> Response:
    """Tell everybody who writes on the prompt."""
    try:
        api.questions.answer(studio.store, prompt, me.id, unix_lines(answer))
    except UserError as error:
        if isinstance(error, api.NotFoundError):
            raise
        return questions_page(request, studio, prompt, status=status_of(error), fault=str(error))
    return redirect("/review", "Answered. Whoever writes on it reads this.")


def questions_page(
    request: Request, studio: Studio, prompt_id: int, *, status: int = 200, fault: str = ""
) -> Response:
    """The prompt, the thread about it, and a box for the answer."""
    return render(
        request,
        "questions.html",
        status=status,
        prompt=api.prompts.prompt(studio.store, prompt_id),
        remarks=api.questions.thread(studio.store, prompt_id),
        fault=fault,
    )


@router.get("/{demonstration}/again")
def show_second_reading(request: Request, studio: Here, me: Me, demonstration: Id) -> Response:
    """A text that somebody else has decided about, without a word about how."""
    return second_page(request, studio, me.id, demonstration)


@router.post("/{demonstration}/again")
def read_again(
    request: Request,
    studio: Here,
    me: Me,
    demonstration: Id,
    decision: Annotated[str, Form(max_length=20)],
    comment: Annotated[str, Form(max_length=10_000)] = "",
) -> Response:
    """Keep what the second reader would decide, and show the next."""
    try:
        api.reviewing.read_again(studio.store, demonstration, me.id, decision, comment=unix_lines(comment))
    except UserError as error:
        if isinstance(error, api.NotFoundError | api.NotAllowedError):
            raise
        return second_page(
            request, studio, me.id, demonstration, status=status_of(error), fault=str(error), comment=comment
        )
    following = api.reviewing.next_second_reading(studio.store, me.id)
    return redirect(
        "/review" if following is None else f"/review/{following}/again", "Thank you. It is counted."
    )


def second_page(
    request: Request,
    studio: Studio,
    person_id: int,
    demonstration_id: int,
    *,
    status: int = 200,
    fault: str = "",
    comment: str = "",
) -> Response:
    """The text as the first reader saw it, and the three decisions."""
    text = api.reviewing.text_to_read_again(studio.store, demonstration_id, person_id)
    found = api.demonstrations.demonstration(studio.store, demonstration_id)
    return render(
        request, "review_again.html", status=status, demonstration=demonstration_id, text=text, fault=fault, comment=comment,
        prompt=api.prompts.prompt(studio.store, found.prompt_id),
        guideline=api.guidelines.version(studio.store, text.guideline_version),
    )  # fmt: skip


@router.get("/{demonstration}")
def read(request: Request, studio: Here, demonstration: Id) -> Response:
    """One demonstration with its prompt, its history and its losses."""
    return page(request, studio, demonstration)


@router.post("/{demonstration}")
def decide(
    request: Request,
    studio: Here,
    me: Me,
    demonstration: Id,
    decision: Annotated[str, Form(max_length=20)],
    rev: Annotated[int, Form(ge=0, lt=2**31)],
    post_key: Annotated[str, Form(min_length=1, max_length=100)],
    turns: Annotated[list[str], Form(alias="turn", default_factory=list)],
    comment: Annotated[str, Form(max_length=10_000)] = "",
) -> Response:
    """Store the decision and show the next that waits."""
    typed = turns_of(turns)
    try:
        api.reviewing.review(
            studio.store, demonstration, me.id, decision, rev=rev, comment=unix_lines(comment),
            turns=typed if decision == "edited" else None, post_key=post_key,
        )  # fmt: skip
    except UserError as error:
        if isinstance(error, api.NotFoundError):
            raise
        return page(
            request,
            studio,
            demonstration,
            status=status_of(error),
            fault=str(error),
            typed=typed,
            comment=comment,
        )
    said = {"accepted": "Accepted.", "edited": "Accepted with your edit; both texts are kept."}
    return _go_on(studio, me.id, said.get(decision, "Returned with your comment."), after=demonstration)


def page(
    request: Request,
    studio: Studio,
    demonstration_id: int,
    *,
    status: int = 200,
    fault: str = "",
    typed: list[dict[str, str]] | None = None,
    comment: str = "",
) -> Response:
    """The page of one demonstration.

    Args:
        typed: the reviewer's edit, where it could not be stored.
    """
    store = studio.store
    found = api.demonstrations.demonstration(store, demonstration_id)
    others = api.demonstrations.find(store, prompt_id=found.prompt_id)
    return render(
        request,
        "review_one.html",
        status=status,
        found=found,
        prompt=api.prompts.prompt(store, found.prompt_id),
        others=[other for other in others if other.id != found.id],
        losses=api.losses.of_demonstration(store, found.id),
        remarks=api.questions.thread(store, found.prompt_id),
        guideline=api.guidelines.version(store, found.latest.guideline_version),
        turns=typed or found.latest.turns,
        comment=comment,
        fault=fault,
        post_key=secrets.token_urlsafe(16),
    )
