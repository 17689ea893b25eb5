"""Commands that ask a model, and show what was found: evaluate, generate, chat, report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from tuition.errors import UserError

if TYPE_CHECKING:
    from tuition.evaluate.score import Evaluation


@app.command()
def evaluate(
    model: ModelName,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows with the answers expected; without it, those that a run held out.", show_default=False
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="A model to compare with, on the same prompts.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="How answers are scored, several by commas; loss scores no answers. exact_match unless named: "
            "contains, number, f1, squad_f1, rouge_l, choice, json, chrf, bleu, regex:PATTERN, json_schema:FILE, "
            "python:FILE.py:FUNCTION.",
            show_default=False,
        ),
    ] = None,
    general: Annotated[
        list[str] | None,
        typer.Option(
            help="General text, to see what training took away; starter: a small one.", show_default=False
        ),
    ] = None,
    max_forgetting: Annotated[float, typer.Option(min=0, help="Bits a byte that may be lost there.")] = 0.05,
    rows: Annotated[
        list[str] | None,
        typer.Option(help="Demonstrations: the loss of each before and after training.", show_default=False),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="A condition; exit code 0 where all hold, 1 where one does not: exact_match>=baseline+0.05, "
            "loss<=1.2. Without one, exit code 1 where rows could not be scored.",
            show_default=False,
        ),
    ] = None,
    require_certain: Annotated[
        bool, typer.Option("--require-certain", help="The whole interval must meet the conditions.")
    ] = False,
    judge: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible API whose model compares the answers.")
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Its name; the key is read from TUITION_JUDGE_KEY.")
    ] = None,
    harness: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-evaluation-harness: print its command, and do nothing else."),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="With --harness: run that command.")] = False,
    python: Annotated[
        str | None, typer.Option(help="With --harness: the Python that has lm_eval.", show_default=False)
    ] = None,
    max_new_tokens: Tokens = 256,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Answer only the first so many prompts; the loss is of all rows."),
    ] = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Score a model on held-out rows: loss, and metrics with intervals; --baseline compares."""
    from tuition.evaluate.judge import make_judge
    from tuition.screen import Counter

    model = at(model, checkpoint)
    if harness is not None:
        raise typer.Exit(_harness(model, harness, python, run=run))
    with Counter() as counter:
        result = _evaluated(
            model,
            data or (),
            baseline=baseline,
            metric=metric or ["exact_match"],
            general=general or (),
            rows=rows or (),
            require=require or (),
            require_certain=require_certain,
            most_forgotten=max_forgetting,
            judge=make_judge(judge, judge_model),
            max_new_tokens=max_new_tokens,
            limit=limit,
            device=device,
            trust_remote_code=trust,
            on_progress=counter.show,
        )
    _show_evaluation(result, as_json=as_json)
    left_unscored = bool(result.rejected) and not result.gate
    if left_unscored or not result.passed:
        raise typer.Exit(1)


def _evaluated(model: str, data: Sequence[str], **wishes: Any) -> Evaluation:
    """What `api.evaluate` finds, or a word on how to go on where it is stopped."""
    from tuition import api

    try:
        return api.evaluate(model, data, **wishes)
    except KeyboardInterrupt:
        complain("interrupted; the answers so far are kept. The same command goes on from there")
        raise typer.Exit(130) from None


def _show_evaluation(result: Evaluation, *, as_json: bool) -> None:
    from tuition.screen import show_evaluation

    if as_json:
        print_json(result.to_json())
    else:
        show_evaluation(result)
    if result.rejected:
        complain(
            f"{len(result.rejected):,} of {result.rows_in:,} rows could not be scored; see `tuition check`"
        )


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


def _harness(model: str, tasks: str, python: str | None, *, run: bool) -> int:
    from tuition import api

    command = api.harness_command(model, tasks, python=python)
    if not run:
        print(" ".join(map(shlex.quote, command)))
        return 0
    from tuition.evaluate.harness import run_harness

    return run_harness(command)


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
            complain(f"{faulty:,} rows have no prompt; their lines say why")
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
    """Talk to a model; an empty line or Ctrl-D ends it."""
    from tuition import api

    answerer = api.load(at(model, checkpoint), device=device, trust_remote_code=trust)
    history: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    interactive = sys.stdin.isatty()
    if interactive:
        print("an empty line, /exit or Ctrl-D ends it", file=sys.stderr)
    while line := _read_line("you: " if interactive else ""):
        question = [*history, {"role": "user", "content": line}]
        given = api.answer(
            answerer, question if answerer.renderer.template else line, max_new_tokens=max_new_tokens
        )
        _print_text(f"{'model: ' if interactive else ''}{given.text}")
        history = [*question, {"role": "assistant", "content": given.text}]


def _read_line(prompt: str) -> str:
    try:
        line = input(prompt).strip()
    except EOFError:
        return ""
    return "" if line in ("/exit", "/quit") else line
