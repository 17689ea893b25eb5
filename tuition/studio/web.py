"""What every page uses: who asks, where the store and the runs lie, templates, redirects, and errors as pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from tuition import api
from tuition.counting import counted
from tuition.errors import UserError
from tuition.studio.pages import PAGES, Page
from tuition.studio.reading import as_read, how_long

Person = api.people.Person

HERE = Path(__file__).parent
THEMES = ("auto", "light", "dark")
_NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Studio:
    """What one running studio serves.

    Attributes:
        store: the file that people's work is kept in.
        runs: the folder that holds the runs.
        host: the address it is bound to.
        port: likewise.
        allowed_hosts: further names by which people reach it.
        secure: cookies go over TLS only.
        open_to_others: other machines reach it.
    """

    store: api.Store
    runs: Path
    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] = ()
    secure: bool = False
    open_to_others: bool = False


def here(request: Request) -> Studio:
    """The studio that answers this request."""
    studio: Studio = request.app.state.studio
    return studio


def talk_of(request: Request) -> api.talk.Talk:
    """The models of this studio that can be asked."""
    talk: api.talk.Talk = request.app.state.talk
    return talk


def me(request: Request) -> Person:
    """Who asks. The door has let them in already: see `entrance.Door`."""
    person: Person = request.state.person
    return person


Here = Annotated[Studio, Depends(here)]
Me = Annotated[Person, Depends(me)]


# --- answers


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or the fragment that htmx asked for, with every value escaped.

    Templates extend `page.html` and know `me`, `pages`, `theme`, `notice` and `path` beside `values`.
    """
    person = getattr(request.state, "person", None)
    notice = request.cookies.get(_NOTICE)
    text = (
        environment()
        .get_template(template)
        .render(
            me=person,
            groups=groupby(pages_for(person), key=lambda page: page.group),
            path=request.url.path,
            theme=theme_of(request),
            notice=unquote(notice)[:500] if notice else "",
            **values,
        )
    )
    # half a character, which a prompt may hold, cannot be sent as UTF-8: the browser shows that it is none
    response = HTMLResponse(text.encode("utf-8", "xmlcharrefreplace"), status)
    if notice and not is_fragment(request):
        response.delete_cookie(_NOTICE)
    return response


def redirect(to: str, notice: str = "") -> RedirectResponse:
    """Go there after a form was sent; the notice is shown once on the page that comes."""
    response = RedirectResponse(to, 303)
    if notice:
        response.set_cookie(_NOTICE, quote(notice[:500]), max_age=60, httponly=True, samesite="lax")
    return response


def is_fragment(request: Request) -> bool:
    """Whether htmx asks, for a part of a page."""
    return request.headers.get("hx-request") == "true"


def pages_for(person: Person | None) -> Sequence[Page]:
    """The pages that this person may enter."""
    return [page for page in PAGES if person is not None and person.role in page.roles]


def theme_of(request: Request) -> str:
    """The colours this person chose: auto follows the device."""
    theme = request.cookies.get("theme", "auto")
    return theme if theme in THEMES else "auto"


@cache
def environment() -> Environment:
    """Jinja with everything escaped; a name that the template knows and the page does not give is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["themes"] = THEMES
    environment.globals["static"] = static_address
    environment.globals["counted"] = counted
    environment.filters.update(as_read=as_read, how_long=how_long)
    return environment


@cache
def static_address(name: str) -> str:
    """Where a static file lies; its content is in the address, so that browsers may keep it for ever."""
    from hashlib import sha256

    content = (HERE / "static" / name).read_bytes()
    return f"/static/{name}?{sha256(content).hexdigest()[:12]}"


# --- errors


def add_error_pages(app: FastAPI) -> None:
    """Every refusal becomes a page with a sentence, or the bare sentence where a script asked."""

    @app.exception_handler(UserError)
    def user_error(request: Request, error: UserError) -> Response:
        return refusal(request, status_of(error), str(error))

    @app.exception_handler(RequestValidationError)
    def wrong_form(request: Request, error: RequestValidationError) -> Response:
        faults = {str(fault["loc"][-1]): str(fault["msg"]) for fault in error.errors()}
        said = "; ".join(f"{name}: {message}" for name, message in faults.items())
        return refusal(request, 422, f"The form could not be read. {said}")

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        sentences = {404: "There is nothing at this address.", 405: "This address is not asked in that way."}
        response = refusal(request, error.status_code, sentences.get(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response


def status_of(error: UserError) -> int:
    """The HTTP status of a refusal."""
    statuses = {
        api.NotAllowedError: 403,
        api.NotFoundError: 404,
        api.ConflictError: 409,
        api.TooManyError: 429,
    }
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), 422)


def refusal(request: Request, status: int, sentence: str) -> Response:
    """A sentence that says what was refused and what to do."""
    sentence = "".join(c if c.isprintable() else "�" for c in sentence)
    if is_fragment(request) or "text/html" not in request.headers.get("accept", "text/html"):
        return PlainTextResponse(sentence, status)
    return render(request, "refusal.html", status=status, sentence=sentence, status_code=status)
