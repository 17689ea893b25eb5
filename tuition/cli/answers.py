"""Commands that ask a model, and show what a run found: report, generate, chat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tuition.cli.shared import (
    Checkpoint,
    Device,
    Json,
    ModelName,
    Tokens,
    Trust,
    app,
    at,
    complain,
    print_json,
)
from tuition.counting import counted
from tuition.errors import UserError


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Run folders; several are compared.", show_default=False)],
    to: Annotated[str, typer.Option(help="With several runs: the page to write.")] = "runs.html",
    png: Annotated[
        bool, typer.Option("--png", help="With one run: each picture as PNG too, in its folder pictures.")
    ] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write the report of a run anew; or one page that compares several: settings, curves, figures in pairs, cost."""
    from tuition import api
    from tuition.screen import show_several

    if len(runs) == 1:
        page = api.report(runs[0], png=png)
        print_json({"report": str(page)}) if as_json else print(f"report: {page}")
    else:
        page = Path(to)
        found = api.report_several(runs, page)
        if as_json:
            print_json({"report": str(page), **found.to_json()})
        else:
            show_several(found)
            print(f"report: {page}")
    if show:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


@app.command()
def generate(
    model: ModelName,
    prompt: Annotated[str | None, typer.Option(help="One prompt.")] = None,
    data: Annotated[str | None, typer.Option(help="A file: answer the prompt of every row.")] = None,
    max_new_tokens: Tokens = 256,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt, or every row of a file as JSONL."""
    from tuition import api

    if (prompt is None) == (data is None):
        raise UserError("give --prompt or --data, one of them", next_step='tuition generate RUN --prompt "…"')
    model = at(model, checkpoint)
    if data is not None:
        faulty = 0
        for row in api.generate_file(
            model, data, max_new_tokens=max_new_tokens, device=device, trust_remote_code=trust
        ):
            print_json(row)
            faulty += "error" in row
        if faulty:
            complain(f"{counted(faulty, 'row')} could not be answered; their lines say why")
            raise typer.Exit(1)
        return
    given = api.answer(
        api.load(model, device=device, trust_remote_code=trust), str(prompt), max_new_tokens=max_new_tokens
    )
    if as_json:
        print_json({"prompt": prompt, "answer": given.text, "tokens": given.tokens, "stopped": given.stopped})
    else:
        _print_text(given.text)


def _print_text(text: str) -> None:
    """A model's words: as they are into a file or pipe, control characters made visible on a terminal."""
    from tuition.screen import printable

    print(printable(text) if sys.stdout.isatty() else text)


@app.command()
def chat(
    model: ModelName,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    max_new_tokens: Tokens = 256,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Talk to a model; an empty line or Ctrl-D ends it. What fills the model's context begins a new conversation."""
    from tuition import api

    answerer = api.load(at(model, checkpoint), device=device, trust_remote_code=trust)
    beginning: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    history = beginning
    interactive = sys.stdin.isatty()
    if interactive:
        print("an empty line, /exit or Ctrl-D ends it", file=sys.stderr)
    while line := _read_line("you: " if interactive else ""):
        question = [*history, {"role": "user", "content": line}]
        try:
            given = api.answer(
                answerer, question if answerer.renderer.template else line, max_new_tokens=max_new_tokens
            )
        except UserError as refusal:
            complain(f"{refusal} What was said before is forgotten now.")
            history = beginning
            continue
        _print_text(f"{'model: ' if interactive else ''}{given.text}")
        history = [*question, {"role": "assistant", "content": given.text}]


def _read_line(prompt: str) -> str:
    try:
        line = input(prompt).strip()
    except EOFError:
        return ""
    return "" if line in ("/exit", "/quit") else line
