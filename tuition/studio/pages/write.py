"""Write: one prompt at a time, the guidelines beside it, and nothing that is typed is lost.

Every button works as a plain form; each of them saves what is typed before it does anything else.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from tuition import api
from tuition.errors import UserError
from tuition.studio.editor import SERVICE, Typed, TypedHere, editor, saved, turns_of
from tuition.studio.reading import unix_lines
from tuition.studio.web import Here, Me, Studio, is_fragment, redirect, render, status_of, talk_of

router = APIRouter(prefix="/write")
Id = Annotated[int, Path(ge=1, lt=2**63)]
Words = Annotated[str, Form(max_length=2_000)]
Question = Annotated[str, Form(max_length=10_000)]
_SUGGESTED_TOKENS = 512


@router.get("")
def show(request: Request, studio: Here, me: Me) -> Response:
    """What waits for this person: the next prompt, what came back, what was begun."""
    store = studio.store
    progress = api.overview.progress(store)
    others = sum(api.queue.only_for_others(store, me.id).values())
    return render(
        request,
        "write.html",
        progress=progress,
        mine=api.overview.by_person(store, only=me.id)[0],
        wanted=max(0, progress.open_places - others),
        others=others,
        standing=api.gold.writing_standing(store, me.id),
        returned=[_line(studio, d) for d in api.demonstrations.returned_to(store, me.id)],
        unfinished=[
            (held, api.prompts.prompt(store, held.prompt_id).opening, api.drafts.draft(store, held.id, me.id))
            for held in api.queue.unfinished(store, me.id)
        ],
        questions=api.questions.asked_by(store, me.id),
        sent=[_line(studio, d) for d in api.demonstrations.find(store, person_id=me.id, limit=10)],
    )


def _line(studio: Studio, demonstration: api.demonstrations.Demonstration) -> dict[str, Any]:
    opening = api.prompts.prompt(studio.store, demonstration.prompt_id).opening
    return {"demonstration": demonstration, "opening": opening}


@router.post("/next")
def next_prompt(studio: Here, me: Me) -> Response:
    """The prompt that this person holds, or the next one."""
    return _go_on(studio, me.id)


def _go_on(studio: Studio, person_id: int, notice: str = "") -> Response:
    held = api.queue.claim(studio.store, person_id)
    return redirect("/write" if held is None else f"/write/{held.id}", notice)


@router.get("/{task}")
def edit(request: Request, studio: Here, me: Me, task: Id) -> Response:
    """The editor, with the draft as it was saved last."""
    return editor(request, studio, me.id, task)


@router.post("/preview")
def preview(
    request: Request,
    turns: Annotated[list[str], Form(alias="turn", default_factory=list)],
    turn_number: Annotated[int, Query(ge=0, lt=1_000)] = 0,
) -> Response:
    """One turn as it will read, for the pane under its box; htmx sends all boxes of the form."""
    return render(
        request, "write_preview.html", text=unix_lines("".join(turns[turn_number : turn_number + 1]))
    )


@router.post("/{task}/draft")
def save(
    request: Request,
    studio: Here,
    me: Me,
    task: Id,
    typed: TypedHere,
) -> Response:
    """Save what is typed so far. A script is answered in JSON; 409 gives the text of the other tab."""
    try:
        draft = api.drafts.save(studio.store, task, me.id, typed.turns, rev=typed.rev)
    except api.drafts.DraftConflictError as conflict:
        stored = conflict.stored
        if is_script(request):
            said = {"rev": stored.rev, "turns": [t["content"] for t in stored.turns], "said": str(conflict)}
            return JSONResponse(said, 409)
        return editor(request, studio, me.id, task, status=409, typed=typed.turns, theirs=stored)
    if is_script(request):
        return JSONResponse({"rev": draft.rev})
    return redirect(f"/write/{task}", "Saved.")


@router.post("/{task}/turn")
def change_turns(
    request: Request,
    studio: Here,
    me: Me,
    task: Id,
    typed: TypedHere,
    more: Annotated[bool, Form()] = True,
) -> Response:
    """Let the conversation go on by a question and an answer, or take the last two away."""
    texts = [turn["content"] for turn in typed.turns]
    texts = [*texts, "", ""] if more else texts[: max(1, len(texts) - 2)]
    refused = saved(request, studio, me.id, task, Typed(turns_of(texts), typed.rev))
    return refused or redirect(f"/write/{task}#turn-{len(texts) - 1}")


@router.post("/{task}/show")
def show_as_read(
    request: Request,
    studio: Here,
    me: Me,
    task: Id,
    typed: TypedHere,
) -> Response:
    """The whole page with each turn as it will read, for browsers without scripts."""
    refused = saved(request, studio, me.id, task, typed)
    return refused or editor(request, studio, me.id, task, as_read=True)


@router.post("/{task}/submit")
def submit(
    request: Request,
    studio: Here,
    me: Me,
    task: Id,
    post_key: Annotated[str, Form(min_length=1, max_length=100)],
    typed: TypedHere,
    opened: Annotated[float, Form(ge=0, allow_inf_nan=False)] = 0.0,
    seconds: Annotated[float, Form(ge=0, allow_inf_nan=False)] = 0.0,
    guideline: Annotated[int | None, Form(ge=0, lt=2**31)] = None,
    suggestion: Annotated[int | None, Form(ge=0, lt=2**63)] = None,
) -> Response:
    """Send the answer and take the next prompt."""
    try:
        sent = api.demonstrations.submit(
            studio.store, task, me.id, typed.turns, post_key=post_key, guideline_version=guideline,
            seconds=seconds or max(0.0, studio.store.now() - opened if opened else 0.0), suggestion_id=suggestion or None,
        )  # fmt: skip
    except UserError as error:
        if isinstance(error, api.NotFoundError | api.NotAllowedError):
            raise
        return editor(
            request, studio, me.id, task, status=status_of(error), typed=typed.turns, fault=str(error)
        )
    late = " It came after your time for it was over, and is kept beside the others." if sent.extra else ""
    return _go_on(studio, me.id, f"Sent. Thank you.{late}")


@router.post("/{task}/suggest")
def suggest(
    request: Request,
    studio: Here,
    me: Me,
    task: Id,
    typed: TypedHere,
    model: Annotated[str, Form(max_length=300)] = "",
) -> Response:
    """Let a model answer the prompt too; what it wrote is shown beside, and kept with the answer."""
    refused = saved(request, studio, me.id, task, typed)
    if refused is not None:
        return refused
    prompt = api.prompts.prompt(studio.store, api.queue.own(studio.store, task, me.id).prompt_id)
    try:
        name, text = _answer_of(request, studio, model, prompt)
        api.suggestions.suggest(studio.store, task, me.id, made_by=name, text=text)
    except UserError as error:
        return editor(request, studio, me.id, task, status=status_of(error), fault=str(error))
    return redirect(f"/write/{task}#suggestion")


def _answer_of(request: Request, studio: Studio, model: str, prompt: api.prompts.Prompt) -> tuple[str, str]:
    """Who answered, and what: the service where it is meant, else a run of this studio."""
    service = api.suggestion_service(studio.store)
    if service is not None and model == SERVICE:
        return service.model, api.ask_service(service, prompt.messages, max_new_tokens=_SUGGESTED_TOKENS)
    asked = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return model, "".join(talk_of(request).answer(model, asked, api.Drawing(_SUGGESTED_TOKENS)))


@router.post("/{task}/begin")
def begin_from_suggestion(request: Request, studio: Here, me: Me, task: Id, typed: TypedHere) -> Response:
    """Put the suggestion into the first box, in place of what stood there; the draft before is saved first."""
    refused = saved(request, studio, me.id, task, typed)
    suggestion = api.suggestions.latest(studio.store, task)
    if refused is not None or suggestion is None:
        return refused or redirect(f"/write/{task}")
    first = {"role": "assistant", "content": suggestion.text}
    return editor(request, studio, me.id, task, typed=[first, *typed.turns[1:]])


@router.post("/{task}/skip")
def skip(request: Request, studio: Here, me: Me, task: Id, reason: Words = "") -> Response:
    """Leave the prompt to others, and say why."""
    try:
        api.queue.skip(studio.store, task, me.id, unix_lines(reason))
    except UserError as error:
        if isinstance(error, api.NotFoundError):
            raise
        return editor(request, studio, me.id, task, status=status_of(error), fault=str(error))
    return _go_on(studio, me.id, "Skipped; the reason is read.")


@router.post("/{task}/flag")
def flag(request: Request, studio: Here, me: Me, task: Id, typed: TypedHere, flagged: Words = "") -> Response:
    """Show the prompt to the admins; the work on it goes on."""
    held = api.queue.own(studio.store, task, me.id)
    refused = saved(request, studio, me.id, task, typed)
    if refused is not None:
        return refused
    try:
        api.queue.flag(studio.store, held.prompt_id, me.id, unix_lines(flagged))
    except UserError as error:
        return editor(request, studio, me.id, task, status=status_of(error), fault=str(error))
    return redirect(f"/write/{task}", "Flagged. Go on with it, or skip it.")


@router.post("/{task}/ask")
def ask(
    request: Request, studio: Here, me: Me, task: Id, typed: TypedHere, question: Question = ""
) -> Response:
    """Ask those who review about the prompt; the work on it goes on."""
    refused = saved(request, studio, me.id, task, typed)
    if refused is not None:
        return refused
    try:
        api.questions.ask(studio.store, task, me.id, unix_lines(question))
    except UserError as error:
        return editor(request, studio, me.id, task, status=status_of(error), fault=str(error))
    return redirect(f"/write/{task}#questions", "Asked. The answer will stand here and on the page Write.")


def is_script(request: Request) -> bool:
    """Whether a script of ours asks, which reads JSON."""
    return "application/json" in request.headers.get("accept", "") or is_fragment(request)
