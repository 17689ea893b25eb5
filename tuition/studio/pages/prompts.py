"""Prompts: taking them in, where they come from, how they are asked, and the guidelines. For admins."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path as FilePath
from pathlib import PurePath
from typing import Annotated, BinaryIO

from fastapi import APIRouter, File, Form, Path, Query, Request, UploadFile
from fastapi.responses import Response

from tuition import api, files
from tuition.errors import Finding, UserError
from tuition.studio.reading import unix_lines
from tuition.studio.web import Here, Me, Studio, redirect, render, status_of

router = APIRouter(prefix="/prompts")
Id = Annotated[int, Path(ge=1, lt=2**63)]
Text = Annotated[str, Form(max_length=2_000)]
_A_PAGE = 50
_PIECE_BYTES = 1 << 20


@router.get("")
def show(
    request: Request,
    studio: Here,
    words: Annotated[str, Query(max_length=200)] = "",
    tag: Annotated[str, Query(max_length=100)] = "",
    source: Annotated[str, Query(max_length=300)] = "",
    before: Annotated[int, Query(ge=0, lt=2**63)] = 0,
) -> Response:
    """The prompts, the newest first, and the form that takes in more."""
    found = api.prompts.find(
        studio.store, words=words, tag=tag, source=source, before=before or None, limit=_A_PAGE
    )
    return prompts_page(request, studio, found=found, words=words, tag=tag, source=source)


def prompts_page(
    request: Request,
    studio: Studio,
    *,
    found: Sequence[api.prompts.Prompt],
    words: str = "",
    tag: str = "",
    source: str = "",
    status: int = 200,
    fault: str = "",
    findings: Sequence[Finding] = (),
    said: str = "",
) -> Response:
    """The page.

    Args:
        findings: rows of an import that are no prompts.
        said: what an import did.
    """
    return render(
        request,
        "prompts.html",
        status=status,
        found=found,
        more=len(found) == _A_PAGE,
        words=words,
        tag=tag,
        source=source,
        tags=api.prompts.tags(studio.store),
        sources=api.sources.sources(studio.store),
        flags=api.queue.open_flags(studio.store),
        service=api.suggestion_service(studio.store),
        per_user=api.PROMPTS_PER_USER,
        fault=fault,
        findings=findings,
        said=said,
        store_file=studio.store.path.name,
    )


@router.post("/import")
def import_file(
    request: Request,
    studio: Here,
    me: Me,
    file: Annotated[UploadFile, File()],
    source: Text = "",
    licence: Text = "",
    consent: Text = "",
    tags: Text = "",
    overlap: Annotated[int, Form(ge=1, le=100)] = 1,
    per_user: Annotated[int, Form(ge=0, lt=2**31)] = api.PROMPTS_PER_USER,
) -> Response:
    """Take in the prompts of a file; each row that is none is named with its reason."""
    name = PurePath((file.filename or "").replace("\\", "/")).name[:100] or "upload"
    try:
        with tempfile.TemporaryDirectory(prefix="tuition-upload-") as folder:
            copy = FilePath(folder) / f"upload{''.join(PurePath(name).suffixes[-2:])}"
            _receive(file.file, copy)
            done = api.import_prompts(
                studio.store, [str(copy)], source=source.strip() or name, licence=licence, consent=consent,
                tags=_words(tags), overlap=overlap, per_user=per_user, by=me.id, called=name,
            )  # fmt: skip
    except UserError as error:
        refusal = UserError(error.what, where=name, next_step=error.next_step)
        return prompts_page(
            request,
            studio,
            found=api.prompts.find(studio.store, limit=_A_PAGE),
            status=status_of(error),
            fault=str(refusal),
        )
    said = (
        f"{done.read:,} read: {done.new:,} new, {done.known:,} known already, {len(done.findings):,} refused."
        + (f" {sum(done.beyond.values()):,} {done.left_out}." if done.beyond else "")
    )
    if not done.findings:
        return redirect("/prompts", said)
    return prompts_page(
        request,
        studio,
        found=api.prompts.find(studio.store, limit=_A_PAGE),
        findings=done.findings[:200],
        said=said,
    )


def _receive(upload: BinaryIO, to: FilePath) -> None:
    """The upload as a file that the readers of data can open; it goes away with its folder."""
    files.write_new(to, iter(lambda: upload.read(_PIECE_BYTES), b""))


def _words(text: str) -> list[str]:
    """Words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


@router.post("/add")
def add_one(
    studio: Here,
    me: Me,
    text: Annotated[str, Form(max_length=400_000)],
    system: Annotated[str, Form(max_length=400_000)] = "",
    tags: Text = "",
) -> Response:
    """One prompt, typed here by somebody who agrees to its use."""
    api.add_typed_prompt(
        studio.store, unix_lines(text), system=unix_lines(system), tags=_words(tags), by=me.id
    )
    return redirect("/prompts", "Added.")


@router.post("/source")
def state_source(studio: Here, me: Me, name: Text, licence: Text = "", consent: Text = "") -> Response:
    """State how a source's people agreed, and under which licence its texts are."""
    api.sources.state_source(studio.store, name, licence=licence, consent=consent, by=me.id)
    return redirect("/prompts#sources", f"Stated for {name}.")


@router.post("/service")
def set_service(studio: Here, me: Me, url: Text = "", model: Text = "") -> Response:
    """Name an OpenAI-compatible API that writers may ask for a suggestion."""
    api.set_suggestion_service(studio.store, url, model, by=me.id)
    return redirect("/prompts", "Set." if url.strip() else "No service is asked any more.")


@router.post("/flags/{flag}")
def resolve_flag(studio: Here, me: Me, flag: Id) -> Response:
    """Close a flag."""
    api.queue.resolve_flag(studio.store, flag, by=me.id)
    return redirect("/prompts", "Resolved.")


# --- guidelines


@router.get("/guidelines")
def show_guidelines(request: Request, studio: Here) -> Response:
    """The newest guidelines, to be read and edited, and the older ones."""
    return guidelines_page(request, studio)


@router.post("/guidelines")
def save_guidelines(
    request: Request,
    studio: Here,
    me: Me,
    text: Annotated[str, Form(max_length=200_000)],
    after: Annotated[int, Form(ge=0, lt=2**31)],
) -> Response:
    """A new version; what was written before keeps the one that its author saw."""
    try:
        saved = api.guidelines.save(studio.store, unix_lines(text), after=after, by=me.id)
    except UserError as error:
        return guidelines_page(request, studio, status=status_of(error), fault=str(error), text=text)
    return redirect("/prompts/guidelines", f"Version {saved.version} is what people see from now on.")


def guidelines_page(
    request: Request, studio: Studio, *, status: int = 200, fault: str = "", text: str | None = None
) -> Response:
    """The page, with what was typed where it could not be saved."""
    history = api.guidelines.history(studio.store)
    return render(
        request,
        "guidelines.html",
        status=status,
        history=history,
        text=history[0].text if text is None else text,
        fault=fault,
    )


# --- one prompt


@router.get("/{prompt}")
def show_one(request: Request, studio: Here, prompt: Id) -> Response:
    """One prompt: what it asks, how it is asked, and its answers."""
    return render(
        request,
        "prompt.html",
        prompt=api.prompts.prompt(studio.store, prompt),
        demonstrations=api.demonstrations.find(studio.store, prompt_id=prompt),
        remarks=api.questions.thread(studio.store, prompt),
    )


@router.post("/{prompt}")
def change(
    studio: Here,
    me: Me,
    prompt: Id,
    tags: Text = "",
    priority: Annotated[float, Form(ge=-1e9, le=1e9, allow_inf_nan=False)] = 0.0,
    overlap: Annotated[int, Form(ge=1, le=100)] = 1,
    paused: Annotated[bool, Form()] = False,
    gold: Annotated[bool, Form()] = False,
    expected: Annotated[str | None, Form(max_length=400_000)] = None,
) -> Response:
    """Change how a prompt is asked."""
    with studio.store.writing():  # all of it, or what is refused changes nothing
        api.prompts.set_tags(studio.store, prompt, _words(tags), by=me.id)
        api.prompts.change(
            studio.store, prompt, priority=priority, overlap=overlap, paused=paused, gold=gold, by=me.id,
            expected=None if expected is None else unix_lines(expected),
        )  # fmt: skip
    return redirect(f"/prompts/{prompt}", "Changed.")


@router.post("/{prompt}/anew")
def ask_anew(studio: Here, me: Me, prompt: Id) -> Response:
    """Ask it once more, also of those who have answered it; every answer is kept."""
    api.queue.ask_anew(studio.store, prompt, by=me.id)
    return redirect(f"/prompts/{prompt}", "It is asked once more, also of who answered it before.")
