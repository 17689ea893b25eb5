"""Start a run: the recipe as a form and as text, the command that does the same, and the process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from tuition import api
from tuition.errors import UserError
from tuition.studio import recipeform
from tuition.studio.confine import refuse_paths_elsewhere
from tuition.studio.web import Here, Studio, is_fragment, redirect, render

router = APIRouter(prefix="/start")
Text = Annotated[str, Form(max_length=100_000)]
Name = Annotated[str, Form(max_length=100)]


async def texts_of_form(request: Request) -> dict[str, str]:
    """The form's texts: its controls come from the schema, not from a signature."""
    form = await request.form(max_files=0)
    return {name: value for name, value in form.items() if isinstance(value, str)}


Filled = Annotated[dict[str, str], Depends(texts_of_form)]
_SCHEMA = "json_schema:"  # a metric that reads a file
_PATHS = ("model", "data", "val_data", "replay", "general", "chat_template")


@router.get("")
def show(request: Request, studio: Here, like: Annotated[str, Query(max_length=200)] = "") -> Response:
    """The form, empty or as another run was started."""
    filled = {"model": "starter"}
    if like:
        given = api.board.recipe_of(api.board.find_run(studio.runs, like))
        filled = recipeform.filled_of(given)
    elif accepted(studio):
        filled["data"] = str(studio.store.path)
    return _page(request, studio, filled, api.board.free_name(studio.runs, like or "run"))


@router.post("/recipe")
def show_recipe(request: Request, studio: Here, form: Filled) -> Response:
    """The recipe that the form means, as text, and its command; nothing is started."""
    filled = recipeform.read_form(api.schema(), form)
    return _page(request, studio, filled, form.get("name", "")[:100])


@router.post("/form")
def fill_form(request: Request, studio: Here, text: Text) -> Response:
    """The form that means the recipe as it was edited."""
    settings = recipeform.read_yaml(text)
    name = Path(str(settings.pop("output_dir", ""))).name
    return _page(request, studio, recipeform.filled_of(settings), name)


@router.post("")
def start(request: Request, studio: Here, form: Filled) -> Response:
    """Start what the form says."""
    schema, name = api.schema(), form.get("name", "")[:100]
    filled = recipeform.read_form(schema, form)
    try:
        return _start(studio, recipeform.settings_of(schema, filled), name)
    except UserError as error:
        return _page(request, studio, filled, name, status=422, fault=str(error))


@router.post("/text")
def start_text(request: Request, studio: Here, text: Text) -> Response:
    """Start the recipe as it was edited."""
    name = ""
    try:
        settings = recipeform.read_yaml(text)
        name = _name_in(studio, str(settings.pop("output_dir", "")))
        return _start(studio, settings, name)
    except UserError as error:
        return _page(request, studio, {}, name, status=422, fault=str(error), text=text)


def accepted(studio: Studio) -> bool:
    """Whether there are accepted demonstrations in the store."""
    return bool(api.demonstrations.find(studio.store, status="accepted", limit=1))


def _start(studio: Studio, settings: Mapping[str, Any], name: str) -> Response:
    folder = api.board.new_run_folder(studio.runs, name)
    recipe = recipeform.checked({**settings, "output_dir": str(folder)})
    api.refuse_programs(recipe, "recipe")
    _refuse_reaching_out(studio, recipe)
    api.jobs.start(folder, "train", recipeform.arguments(recipe))
    return redirect(
        f"/runs/{name}", "The run is its own process: it goes on when this page or the studio is closed."
    )


def _refuse_reaching_out(studio: Studio, recipe: Mapping[str, Any]) -> None:
    """Over the network, a recipe names no files of the rest of this machine and runs no stranger's code."""
    if studio.open_to_others and recipe.get("trust_remote_code"):
        raise UserError(
            "a model's own code is not run for somebody who comes over the network",
            where="trust_remote_code",
            next_step="Start this run from the command line of the machine",
        )
    values = [recipe.get(key) for key in _PATHS]
    schemas = [
        name.removeprefix(_SCHEMA)
        for _, names in api.metrics_named(recipe)
        for name in names
        if name.startswith(_SCHEMA)
    ]
    named = [str(n) for v in values if v for n in (v if isinstance(v, list) else [v])]
    refuse_paths_elsewhere(studio, [*named, *schemas])


def _name_in(studio: Studio, folder: str) -> str:
    """The name of a run from its folder, which must lie in the folder of runs."""
    path = Path(folder)
    if not folder or path.parent != studio.runs:
        raise UserError(
            f"output_dir must be {studio.runs}/ and a name",
            where="output_dir",
            next_step="Name a folder there",
        )
    return path.name


def _page(
    request: Request,
    studio: Studio,
    filled: Mapping[str, str],
    name: str,
    *,
    status: int = 200,
    fault: str = "",
    text: str = "",
) -> Response:
    schema = api.schema()
    command, wrong = "", ""
    try:
        folder = api.board.new_run_folder(studio.runs, name)
        recipe = recipeform.checked({**recipeform.settings_of(schema, filled), "output_dir": str(folder)})
        text, command = text or recipeform.as_yaml(recipe), api.jobs.shown(recipeform.arguments(recipe))
    except UserError as error:
        wrong = "" if not filled.get("data") and not fault else str(error)
    values: dict[str, Any] = {"text": text, "command": command, "wrong": fault or wrong, "name": name}
    if is_fragment(request):
        return render(request, "plan.html", **values)
    return render(
        request, "start.html", status=status, groups_of_settings=recipeform.groups(schema, filled),
        accepted=accepted(studio), usable=api.usable(studio.store), store=studio.store.path,
        models=["starter"], runs=studio.runs, **values,
    )  # fmt: skip
