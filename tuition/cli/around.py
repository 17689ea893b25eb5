"""Commands around the work: studio, doctor, schema, explain."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from tuition.cli.shared import Json, app, print_json
from tuition.errors import UserError
from tuition.streams import holds_all_characters


@app.command()
def studio(
    store: Annotated[str, typer.Option(help="The file that people's work is kept in.")] = "team.db",
    runs: Annotated[str, typer.Option(help="The folder of the runs to show and start.")] = "outputs",
    host: Annotated[
        str, typer.Option(help="Another than this machine needs an admin with a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8080,
    allow_host: Annotated[
        list[str],
        typer.Option(help="A further name that people reach it by, such as a proxy's.", show_default=False),
    ] = [],  # noqa: B006  Typer copies it
    certificate: Annotated[str | None, typer.Option(help="TLS: the certificate's file.")] = None,
    key: Annotated[str | None, typer.Option(help="TLS: the file of its key.")] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """The page: people write, review and judge; runs are watched, started and talked to. Ctrl-C ends it."""
    try:
        from tuition.studio.server import serve as serve_studio
    except ModuleNotFoundError as error:
        raise UserError(
            f"the studio needs {error.name}, which is not installed",
            next_step='pip install "tuition[studio]"',
        ) from None

    def ready(address: str, link: str) -> None:
        print(f"studio: {address}   store: {store}   runs: {runs}", file=sys.stderr)
        print("Ctrl-C ends it; runs that it started go on", file=sys.stderr)
        print(f"come in once, within ten minutes, by: {link}", flush=True)

    serve_studio(
        store, runs=runs, host=host, port=port, allowed_hosts=allow_host, certificate=certificate, key=key,
        open_browser=not no_open and sys.stdout.isatty(), on_ready=ready,
    )  # fmt: skip
    print("stopped", file=sys.stderr)


@app.command()
def doctor(as_json: Json = False) -> None:
    """The machine, the versions, and what is missing."""
    from tuition import api
    from tuition.screen import show_doctor

    examined = api.doctor()
    if as_json:
        print_json(examined)
    else:
        show_doctor(examined)
    if not examined["ok"]:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """The JSON schema of the recipe: every setting with its sentence."""
    from tuition import api

    print(json.dumps(api.schema(), indent=2, ensure_ascii=not holds_all_characters(sys.stdout)))


@app.command()
def explain(
    code: Annotated[
        str,
        typer.Argument(help="A finding's code, such as D004, or a setting, by our name or another tool's."),
    ],
    as_json: Json = False,
) -> None:
    """What a finding means, why it matters and how to mend it; what a setting does."""
    from tuition import api

    entry = api.explain(code)
    if as_json:
        print_json(entry)
        return
    severity = f" ({entry['severity']})" if "severity" in entry else ""
    print(f"{entry['code']}: {entry['title']}{severity}\n\n{entry['explanation']}\n\n{entry['mend']}")
