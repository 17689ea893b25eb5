"""The command that scores a model: what may be asked, option by option, and what it answers with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
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
from tuition.counting import counted

if TYPE_CHECKING:
    from tuition.evaluate.score import Evaluation

HeldOut = Annotated[
    list[str] | None,
    typer.Option(
        help="Rows with the answers expected; without it, those that a run held out.", show_default=False
    ),
]
Baseline = Annotated[str | None, typer.Option(help="A model to compare with, on the same prompts.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        help="How answers are scored, several by commas; loss scores no answers. exact_match unless named: "
        "contains, number, f1, squad_f1, rouge_l, choice, json, chrf, bleu, regex:PATTERN, json_schema:FILE, "
        "python:FILE.py:FUNCTION.",
        show_default=False,
    ),
]
General = Annotated[
    list[str] | None,
    typer.Option(
        help="General text, to see what training took away; starter: a small one.", show_default=False
    ),
]
MostForgotten = Annotated[float, typer.Option(min=0, help="Bits a byte that may be lost there.")]
Rows = Annotated[
    list[str] | None,
    typer.Option(help="Demonstrations: the loss of each before and after training.", show_default=False),
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        help="A condition; exit code 0 where all hold, 1 where one does not: exact_match>=baseline+0.05, "
        "loss<=1.2. Without one, exit code 1 where rows could not be scored.",
        show_default=False,
    ),
]
Certain = Annotated[
    bool, typer.Option("--require-certain", help="The whole interval must meet the conditions.")
]
JudgeUrl = Annotated[
    str | None, typer.Option(help="URL of an OpenAI-compatible API whose model compares the answers.")
]
JudgeName = Annotated[str | None, typer.Option(help="Its name; the key is read from TUITION_JUDGE_KEY.")]
Harness = Annotated[
    str | None, typer.Option(help="Tasks of lm-evaluation-harness: print its command, and do nothing else.")
]
RunHarness = Annotated[bool, typer.Option("--run", help="With --harness: run that command.")]
HarnessPython = Annotated[
    str | None, typer.Option(help="With --harness: the Python that has lm_eval.", show_default=False)
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Answer only the first so many prompts; the loss is of all rows.")
]


@app.command()
def evaluate(
    model: ModelName,
    data: HeldOut = None,
    baseline: Baseline = None,
    metric: Metrics = None,
    general: General = None,
    max_forgetting: MostForgotten = 0.05,
    rows: Rows = None,
    require: Conditions = None,
    require_certain: Certain = False,
    judge: JudgeUrl = None,
    judge_model: JudgeName = None,
    harness: Harness = None,
    run: RunHarness = False,
    python: HarnessPython = None,
    max_new_tokens: Tokens = 256,
    limit: Limit = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Score a model on held-out rows: loss, and metrics with intervals; --baseline compares."""
    from tuition.evaluate.judge import make_judge

    model = at(model, checkpoint)
    if harness is not None:
        raise typer.Exit(_harness(model, harness, python, run=run))
    result = _evaluated(
        model, data or (), baseline=baseline, metric=metric or ["exact_match"], general=general or (), rows=rows or (),
        require=require or (), require_certain=require_certain, most_forgotten=max_forgetting,
        judge=make_judge(judge, judge_model), max_new_tokens=max_new_tokens, limit=limit, device=device,
        trust_remote_code=trust,
    )  # fmt: skip
    _show_evaluation(result, as_json=as_json)
    left_unscored = bool(result.rejected) and not result.gate
    if left_unscored or not result.passed:
        raise typer.Exit(1)


def _evaluated(model: str, data: Sequence[str], **wishes: Any) -> Evaluation:
    """What `api.evaluate` finds, or a word on how to go on where it is stopped."""
    from tuition import api
    from tuition.screen import Counter

    try:
        with Counter() as counter:
            return api.evaluate(model, data, on_progress=counter.show, **wishes)
    except KeyboardInterrupt:
        complain("interrupted; what was found so far is kept. The same command goes on from there")
        raise typer.Exit(130) from None


def _show_evaluation(result: Evaluation, *, as_json: bool) -> None:
    from tuition.screen import show_evaluation

    if as_json:
        print_json(result.to_json())
    else:
        show_evaluation(result)
    if result.rejected:
        first = result.rejected[0]
        complain(
            f"{len(result.rejected):,} of {counted(result.rows_in, 'row')} could not be scored; the first: "
            f"{first['file']}:{first['line']} ({first['code']}): {first['reason']}. `tuition check` shows every finding"
        )


def _harness(model: str, tasks: str, python: str | None, *, run: bool) -> int:
    from tuition import api

    command = api.harness_command(model, tasks, python=python)
    if not run:
        print(" ".join(map(shlex.quote, command)))
        return 0
    from tuition.evaluate.harness import run_harness

    return run_harness(command)
