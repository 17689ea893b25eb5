"""Overview: how far the project is, who won, what is still missing, and what leaves the store. For admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from tuition import __version__, api
from tuition.counting import counted
from tuition.errors import UserError
from tuition.studio.web import Here, Me, redirect, render

router = APIRouter(prefix="/overview")
Id = Annotated[int, Path(ge=1, lt=2**63)]
Share = Annotated[float, Form(ge=0, lt=1)]
_PAIRS_A_PAGE = 20


@router.get("")
def show(request: Request, studio: Here) -> Response:
    """Counts, people, sources, tags, comparisons and exports."""
    store = studio.store
    return render(
        request,
        "overview.html",
        progress=api.overview.progress(store),
        usable=api.usable(store),
        people=api.overview.by_person(store),
        sources=api.overview.by_source(store),
        tags=api.overview.by_tag(store),
        languages=api.overview.by_language(store),
        mixes={kind: api.overview.target_mix(store, kind) for kind in ("tag", "language")},
        comparisons=[(one, api.results.rate(store, one.id)) for one in api.batches.batches(store, limit=10)],
        exports=api.exports.exports(store)[:10],
        kinds=list(api.exports.EXPORTS),
        second_share=api.reviewing.second_share(store),
        agreement=api.reviewing.agreement_of_reviewers(store),
        store_file=store.path.name,
    )


@router.post("/mix")
def set_mix(
    studio: Here,
    me: Me,
    mix: Annotated[str, Form(max_length=10_000)] = "",
    kind: Annotated[str, Form(pattern="^(tag|language)$")] = "tag",
) -> Response:
    """The wanted share of each tag or language, a line each: `poems 20`."""
    wanted = dict(_share_of(line) for line in mix.splitlines() if line.strip())
    api.overview.set_target_mix(studio.store, wanted, kind, by=me.id)
    return redirect(f"/overview#{kind}s", "The target mix is set.")


def _share_of(line: str) -> tuple[str, float]:
    tag, _, percent = line.strip().rpartition(" ")
    try:
        return tag.strip()[:60], float(percent.rstrip("%")) / 100
    except ValueError:
        raise UserError(
            f"'{line.strip()[:80]}' is no tag and a number", next_step="Write: poems 20"
        ) from None


@router.post("/second")
def set_second_readings(
    studio: Here, me: Me, percent: Annotated[float, Form(ge=0, le=100, allow_inf_nan=False)] = 0.0
) -> Response:
    """How many of the reviewed texts somebody else reads too."""
    api.reviewing.set_second_share(studio.store, percent / 100, by=me.id)
    return redirect("/overview#reviewers", "Set." if percent else "Nothing is read twice any more.")


# --- comparisons


@router.get("/comparison/{batch}")
def comparison(request: Request, studio: Here, batch: Id) -> Response:
    """What people judged about two models."""
    return render(
        request, "comparison.html", results=api.results.results(studio.store, batch), flags=api.batches.FLAGS,
        words={"a_much": "much better", "a": "better", "tie": "equal", "b": "worse", "b_much": "much worse", "both_bad": "both bad"},
    )  # fmt: skip


@router.get("/comparison/{batch}/pairs")
def show_pairs(
    request: Request, studio: Here, batch: Id, after: Annotated[int, Query(ge=0, lt=2**63)] = 0
) -> Response:
    """The pairs themselves, for whoever manages: what was answered, and which of them test who judges."""
    return render(
        request, "pairs.html", batch=api.batches.batch(studio.store, batch), a_page=_PAIRS_A_PAGE,
        pairs=api.batches.pairs(studio.store, batch, after=after, limit=_PAIRS_A_PAGE),
    )  # fmt: skip


@router.post("/comparison/{batch}/close")
def close(studio: Here, me: Me, batch: Id) -> Response:
    """Ask nobody any more."""
    api.batches.close_batch(studio.store, batch, by=me.id)
    return redirect(f"/overview/comparison/{batch}", "Closed. What was judged stays.")


@router.post("/comparison/{batch}/send-back")
def send_back(
    studio: Here, me: Me, batch: Id, model: Annotated[str, Form(pattern="^[ab]$")] = "a"
) -> Response:
    """Let the queue begin with the prompts where a model was judged lost or bad."""
    back = set(api.results.send_back(studio.store, batch, model=model, by=me.id))
    others = len(back & api.queue.only_for_others(studio.store, me.id).keys())
    said = f"The queue begins with {len(back):,} of these prompts"
    if others:
        said += f", {others:,} of them only for others, because you answered or skipped {'it' if others == 1 else 'them'}"
    return redirect("/write" if len(back) > others else f"/overview/comparison/{batch}", f"{said}.")


# --- exports


@router.post("/export")
def make_export(
    studio: Here,
    me: Me,
    kind: Annotated[str, Form(max_length=40)],
    validation: Share = 0.05,
    test: Share = 0.0,
) -> Response:
    """Draw an export; it is kept, and its files are downloaded from the list."""
    split = api.exports.Split(validation, test)
    drawn = api.exports.make(studio.store, kind, split, made_by=f"tuition {__version__}", by=me.id)
    said = [f"Export {drawn.id} is drawn.", api.exports.unfilled(drawn, split)]
    if drawn.refused:
        said.append(f"{counted(drawn.refused, 'row is', 'rows are')} refused; refused.jsonl says why.")
    return redirect("/overview#exports", " ".join(filter(None, said)))


@router.get("/export/{export_id}/{name}")
def download(studio: Here, export_id: Annotated[str, Path(pattern="^[0-9a-f]{16}$")], name: str) -> Response:
    """One file of an export, the same bytes every time."""
    found = api.exports.export(studio.store, export_id)
    if name not in found.files:
        raise api.NotFoundError(f"export {export_id} has no file of that name", next_step="See the list")
    return StreamingResponse(
        api.exports.lines_of(studio.store, export_id, name),
        media_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{export_id}-{name}"'},
    )
