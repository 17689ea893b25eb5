"""The application: pages, door and guard put together."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from tuition import api
from tuition.studio import entrance
from tuition.studio.guard import HEADERS, Guard, allowed_hosts
from tuition.studio.pages import PAGES
from tuition.studio.web import HERE, Studio, add_error_pages, pages_for, redirect


def make_app(studio: Studio) -> FastAPI:
    """The pages over one store and one folder of runs."""
    # FastAPI's own documentation pages fetch their scripts from elsewhere
    app = FastAPI(title="tuition studio", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.studio = studio
    app.state.talk = api.talk.Talk(studio.runs)
    app.include_router(entrance.router)
    app.include_router(home)
    for page in PAGES:
        app.include_router(import_module(f"tuition.studio.pages.{page.module}").router)
    app.mount("/static", Kept(directory=HERE / "static"))
    add_error_pages(app)
    app.add_exception_handler(Exception, _defect)
    app.add_middleware(entrance.Door)
    app.add_middleware(
        Guard,
        hosts=allowed_hosts(studio.host, studio.port, studio.allowed_hosts),
        uploads=frozenset(path for page in PAGES for path in page.uploads),
    )
    return app


def _defect(request: Request, error: Exception) -> Response:
    """Nobody is shown more than that; the terminal has the traceback. It comes from outside of the guard."""
    return PlainTextResponse("This is a defect of tuition. The studio's terminal says where.", 500, HEADERS)


class Kept(StaticFiles):
    """Static files, whose addresses hold a sum of their content, so that browsers need not ask again."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        response = super().file_response(*arguments, **named)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


home = APIRouter()


@home.get("/")
def first_page(request: Request) -> Response:
    """The first page of the navigation that this person may enter."""
    return redirect(pages_for(request.state.person)[0].path)
