"""The runs of a folder: the list, one closely and live, several beside each other; stopping, resuming, exporting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import FileResponse, Response

from tuition import api
from tuition.counting import counted
from tuition.errors import UserError
from tuition.studio.confine import refuse_paths_elsewhere
from tuition.studio.outcomes import outcome_of
from tuition.studio.web import Here, Studio, redirect, render

router = APIRouter(prefix="/runs")
Name = str
FIRST_DEMONSTRATIONS, SHOWN_DEMONSTRATIONS = 8, 200
EXPORTS = {
    "hf": "plain transformers folder, a LoRA merged",
    "adapter": "the LoRA adapter, for peft",
    "gguf": "one file for llama.cpp",
    "ollama": "GGUF and Modelfile",
}
_REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)


@router.get("")
def show_list(request: Request, studio: Here) -> Response:
    """All runs, the newest first."""
    lines = api.board.list_runs(studio.runs, api.jobs.at_work)
    return render(
        request, "runs.html", lines=lines, runs=studio.runs, most=api.beside.MOST_BESIDE_EACH_OTHER,
        goes_on=any(line.goes_on for line in lines),
    )  # fmt: skip


@router.get("/beside")
def show_beside(request: Request, studio: Here, run: Annotated[list[str], Query(max_length=50)]) -> Response:
    """Several runs beside each other."""
    names = list(dict.fromkeys(run))
    if not 2 <= len(names) <= api.beside.MOST_BESIDE_EACH_OTHER:
        raise UserError(
            f"{counted(len(names), 'run is', 'runs are')} ticked",
            next_step=f"Go back and tick two to {api.beside.MOST_BESIDE_EACH_OTHER}",
        )
    folders = [api.board.find_run(studio.runs, name) for name in names]
    return render(request, "beside.html", beside=api.beside.beside(folders))


@router.get("/{name}")
def show_run(request: Request, studio: Here, name: Name) -> Response:
    """One run: what it does, what was proved, what became of its rows."""
    folder = api.board.find_run(studio.runs, name)
    view = api.board.view_run(folder, api.jobs.at_work)
    return render(
        request, "run.html", view=view, exports=EXPORTS, first=FIRST_DEMONSTRATIONS,
        shown=SHOWN_DEMONSTRATIONS, authors=_authors(studio, view.demonstrations[:SHOWN_DEMONSTRATIONS]),
        report=_own_file(folder, "report.html") is not None, exported=str(_free_folder(name)),
        alone=False, compare_command=api.jobs.shown(_compare_arguments(studio, folder, view.line.base)),
        **_live(studio, folder),
    )  # fmt: skip


@router.get("/{name}/live")
def show_live(request: Request, studio: Here, name: Name) -> Response:
    """The part of a run's page that changes while it runs; htmx asks for it again and again."""
    folder = api.board.find_run(studio.runs, name)
    values = _live(studio, folder)
    response = render(request, "live.html", chart=api.board.live_chart(folder), alone=True, **values)
    if not values["line"].goes_on and not any(job.runs for job in values["jobs"]):
        response.headers["HX-Refresh"] = "true"  # it ended: the whole page says more now
    return response


@router.get("/{name}/report")
def show_report(studio: Here, name: Name) -> Response:
    """The run's own page. It may be a stranger's, so no script in it runs and nothing in it reaches the studio."""
    report = _own_file(api.board.find_run(studio.runs, name), "report.html")
    if report is None:
        raise api.NotFoundError("this run has no report yet", next_step="It is written when the run ends")
    return FileResponse(report, media_type="text/html", headers={"Content-Security-Policy": _REPORT_POLICY})


@router.post("/{name}/stop")
def stop(
    studio: Here, name: Name, kind: Annotated[str, Form(pattern="^[a-z-]{1,40}$")] = "train"
) -> Response:
    """Ask a command to end; a run finishes its update and saves."""
    api.jobs.stop(api.board.find_run(studio.runs, name), kind)
    return redirect(f"/runs/{name}", "It was asked to stop: a run finishes its update, and saves.")


@router.post("/{name}/resume")
def resume(studio: Here, name: Name) -> Response:
    """Go on from the newest checkpoint."""
    folder = api.board.find_run(studio.runs, name)
    api.jobs.start(folder, "train", ["train", str(folder), "--resume"])
    return redirect(f"/runs/{name}", "It goes on from its newest checkpoint.")


@router.post("/{name}/measure")
def measure(studio: Here, name: Name) -> Response:
    """Score each demonstration that the run learned from, before and after."""
    folder = api.board.find_run(studio.runs, name)
    api.jobs.start(folder, "measure", _measure_arguments(folder))
    return redirect(f"/runs/{name}", "Each demonstration is being scored by the base and by the tuned model.")


@router.post("/{name}/compare")
def compare(
    studio: Here,
    name: Name,
    other: Annotated[str, Form(min_length=1, max_length=200)],
    limit: Annotated[int, Form(ge=1, le=100_000)] = 50,
    temperature: Annotated[float, Form(ge=0, le=5, allow_inf_nan=False)] = 0.0,
    samples: Annotated[int, Form(ge=1, le=64)] = 1,
) -> Response:
    """Let the run and another model answer the store's prompts, and put the pairs blind before people."""
    folder = api.board.find_run(studio.runs, name)
    refuse_paths_elsewhere(studio, [other])
    arguments = _compare_arguments(studio, folder, other, limit)
    if samples > 1 and not temperature:
        raise UserError(
            "several answers to one prompt would all be the same",
            next_step="Go back and give a temperature above 0, such as 1",
        )
    if temperature:
        arguments += ["--temperature", f"{temperature:g}", "--samples", str(samples)]
    api.jobs.start(folder, "compare", arguments)
    return redirect(f"/runs/{name}", "Both models are answering; then the pairs stand under Judge.")


@router.post("/{name}/export")
def export(
    studio: Here,
    name: Name,
    format: Annotated[str, Form(max_length=20)],
    to: Annotated[str, Form(min_length=1, max_length=200)],
    dtype: Annotated[str, Form(max_length=20)] = "float32",
) -> Response:
    """Write the model for others; a fresh process reads it back before it is called exported."""
    folder = api.board.find_run(studio.runs, name)
    if format not in EXPORTS or dtype not in ("float32", "bfloat16"):
        raise UserError(
            "there is no such format", where="format", next_step=f"Choose one of: {', '.join(EXPORTS)}"
        )
    refuse_paths_elsewhere(studio, [to])
    api.jobs.start(
        folder, f"export-{format}", ["export", str(folder), "--format", format, "--dtype", dtype, "--to", to]
    )
    return redirect(f"/runs/{name}", "The export is being written and read back.")


def _live(studio: Studio, folder: Path) -> dict[str, Any]:
    """What changes while a run runs."""
    line, jobs = api.board.run_line(folder, api.jobs.at_work), api.jobs.find_all(folder)
    return {
        "line": line,
        "jobs": jobs,
        "outcomes": {job.kind: outcome_of(studio.store, folder, job) for job in jobs if job.done},
        "resume_command": api.jobs.shown(["train", str(folder), "--resume"]),
        "measure_command": api.jobs.shown(_measure_arguments(folder)) if line.has_model else "",
    }


def _compare_arguments(studio: Studio, folder: Path, other: str, limit: int = 50) -> list[str]:
    return ["compare", str(folder), other, "--store", str(studio.store.path), "--limit", str(limit)]


def _authors(studio: Studio, rows: Sequence[api.board.Scored]) -> dict[tuple[str, int], str]:
    return api.authors(studio.store, ((row.file, row.line) for row in rows))


def _measure_arguments(folder: Path) -> list[str]:
    rows = [part for name in api.board.data_of(folder) for part in ("--rows", name)]
    return ["evaluate", str(folder), *rows, "--metric", "loss"]


def _free_folder(name: str) -> Path:
    """Where an export of the run can go."""
    return Path("exported") / api.board.free_name(Path("exported"), name)


def _own_file(folder: Path, name: str) -> Path | None:
    """A file of the run itself: a link could lead anywhere."""
    path = folder / name
    return path if path.is_file() and not path.is_symlink() else None
