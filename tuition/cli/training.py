"""Commands that lead to a run: demo, init, train, plan, launch. `train` takes every setting of the recipe."""

from __future__ import annotations

import inspect
import json
import os
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from tuition.cli.ended import print_end
from tuition.cli.shared import Json, Stopped, among_ranks, app, assignments, me, print_json
from tuition.errors import Interrupted, UserError, typed
from tuition.leaving import INTERRUPTED

RecipeOrRun = Annotated[
    str | None, typer.Argument(help="A recipe file, or the folder of a run to resume.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run folder.")]
ResumeIfBegun = Annotated[
    bool,
    typer.Option(
        "--resume-if-begun",
        help="Resume where the run folder holds a run, else begin: for schedulers that start a job again.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the opening screen and stop; nothing is written.")
]
Gpus = Annotated[
    str | None,
    typer.Option(help="Train on so many GPUs of this machine, or all.", metavar="N|all", show_default=False),
]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Train in so many processes of this machine, on CPUs.", show_default=False),
]
Restarts = Annotated[
    int, typer.Option(min=0, help="With several ranks: how often all are started again when one dies.")
]
RecipeSet = Annotated[
    list[str],
    typer.Option("--set", help="Any recipe key: --set key=value.", metavar="KEY=VALUE", show_default=False),
]

_NOT_BEGUN = "stopped before the first update; there is no run to resume"


def _train(
    recipe: RecipeOrRun = None,
    *,
    resume: Resume = False,
    resume_if_begun: ResumeIfBegun = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    gpus: Gpus = None,
    processes: Processes = None,
    restarts: Restarts = 3,
    set_: RecipeSet = [],  # noqa: B006  Typer copies it
    **flags: Any,
) -> None:
    from tuition import api
    from tuition.launch import count_of
    from tuition.screen import Terminal
    from tuition.signals import second_signal_leaves
    from tuition.torchrun import stop_with_the_starter
    from tuition.training import command_line

    stop_with_the_starter()
    watcher = Terminal()
    settings = {**{k: v for k, v in flags.items() if v not in (None, [])}, **assignments(set_)}
    if dry_run:
        opening = api.dry_run(recipe, watcher=watcher, **settings)
        if as_json:
            print_json(opening.to_json())
        else:
            watcher.opening(opening)
        return
    ranks = 1 if among_ranks() else count_of(gpus, processes)
    if ranks > 1:
        again = {"resume": resume, "resume_if_begun": resume_if_begun}
        _start_ranks(recipe, ranks, settings, again, restarts=restarts, as_json=as_json)
        return
    try:
        with second_signal_leaves():
            run = api.train(
                recipe,
                resume=resume,
                resume_if_begun=resume_if_begun,
                watcher=watcher,
                command=command_line(),
                **settings,
            )
    except KeyboardInterrupt as stop:  # what the loop is told by a signal ends as Interrupted
        raise Stopped(str(stop) or _NOT_BEGUN) from None
    if os.environ.get("RANK", "0") != "0":
        return
    print_end(run.path, as_json, was_finished=run.was_finished)
    if not run.passed:
        raise typer.Exit(1)


def _start_ranks(
    recipe: str | None,
    ranks: int,
    settings: dict[str, Any],
    again: dict[str, bool],
    *,
    restarts: int,
    as_json: bool,
) -> None:
    """Hand the run to torchrun, after looking at the door once and not once a rank.

    Args:
        again: `resume` and `resume_if_begun`.
    """
    from tuition import api
    from tuition.launch import interrupted, run_ranks
    from tuition.train.folder import RunFolder
    from tuition.training.waiting import tidy

    folder = api.run_folder(recipe, **again, **settings)
    given = {**settings, **({} if again["resume"] else {"output_dir": str(folder)})}
    arguments = [f"--set={key}={json.dumps(value)}" for key, value in given.items()]
    arguments += [recipe] if recipe else []
    arguments += [f"--{name.replace('_', '-')}" for name, wanted in again.items() if wanted]
    arguments += ["--json"] * as_json
    code = run_ranks(arguments, ranks, restarts=restarts)
    if code in (0, INTERRUPTED) and interrupted(folder):
        raise Interrupted(str(folder))
    if code == INTERRUPTED:
        run = RunFolder(folder)
        tidy(run)
        raise Interrupted(str(folder)) if run.holds_a_run() else Stopped(_NOT_BEGUN)
    if code:
        raise UserError(
            f"the ranks ended with exit code {code}; the first complaint above is the cause",
            where=str(folder),
            next_step=f"Mend it, and go on with: {me()} train {typed(folder)} --resume --processes {ranks}",
        )


def _recipe_options() -> list[inspect.Parameter]:
    """A flag for every key of the recipe, its help the sentence under the field."""
    from tuition.recipe import Recipe

    return [_recipe_option(name, field) for name, field in Recipe.model_fields.items()]


def _recipe_option(name: str, field: Any) -> inspect.Parameter:
    several = field.annotation == tuple[str, ...]
    kind: Any = list[str] if several else str | None
    option = typer.Option(
        "--" + name.replace("_", "-"),
        help=_help_of(field),
        metavar=_metavar(field.annotation),
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=[] if several else None,
        annotation=Annotated[kind, option],
    )


def _help_of(field: Any) -> str:
    default = field.get_default()
    shown = "" if field.is_required() or default in (None, ()) else f" [{_shown(default)}]"
    return f"{field.description}{shown}"


def _shown(default: Any) -> str:
    """A default as it would be typed."""
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default).lower() if isinstance(default, bool) else str(default)


def _metavar(annotation: Any) -> str:
    """What a flag takes, in the words of its type: full|lora, INT|auto."""
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return "|".join(_metavar(part) for part in get_args(annotation) if part is not type(None))
    return {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT"}.get(annotation, "TEXT")


class _BySection(TyperCommand):
    """Help in which every setting of the recipe stands under the heading of its section; knows other tools' flags."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _refuse_flags_of_others(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from tuition.recipe import section_titles

        titles = {name: title for title, names in section_titles().items() for name in names}
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            own = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record := parameter.get_help_record(ctx):
                groups.setdefault(titles.get(parameter.name or "", own), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _refuse_flags_of_others(arguments: list[str]) -> None:
    """Whoever types another tool's flag is told what it is here."""
    from tuition.recipe import Recipe, said_here

    for flag in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        name = flag.removeprefix("--").replace("-", "_")
        said = None if name in Recipe.model_fields else said_here(name)
        if said is not None:
            raise UserError(f"there is no {flag}: {said}", next_step="`tuition train --help` shows all flags")


def _add_train() -> None:
    """`train` takes every setting of the recipe: its signature is made from it."""
    declared = inspect.signature(_train, eval_str=True).parameters.values()
    own = [parameter for parameter in declared if parameter.kind is not parameter.VAR_KEYWORD]

    def train(**arguments: Any) -> None:
        _train(**arguments)

    train.__signature__ = inspect.Signature([*own, *_recipe_options()])  # type: ignore[attr-defined]
    train.__annotations__ = {p.name: p.annotation for p in [*own, *_recipe_options()]}
    app.command("train", cls=_BySection, help="Fine-tune a model; flags beat the recipe file.")(train)


@app.command()
def demo(
    output_dir: Annotated[
        str, typer.Option(help="The run folder; auto: the first free outputs/demo.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """The whole journey on the embedded starter: check, train, before and after, report."""
    from tuition import api
    from tuition.evaluate.lines import run_lines
    from tuition.screen import Terminal, show_evaluation

    watcher = Terminal()
    run, result = api.demo(watcher=watcher, output_dir=output_dir)
    facts = api.read_report_facts(run.path)
    if as_json:
        print_json({"run": str(run.path), **result.to_json(), "forgetting": facts["forgetting"]})
        return
    show_evaluation(result)
    for line in run_lines(facts, api.figure_before(run.path, facts)):
        print(line)
    print(f"report: {run.path / 'report.html'}")
    print("next:")
    folder = typed(run.path)
    print(f'  {me()} generate {folder} --prompt "Which currency does Japan use?"')
    print(f"  {me()} chat {folder}")
    print(f"  {me()} export {folder} --format hf --to exported")
    print(f"  {me()} init mine && {me()} train mine/recipe.yaml")


@app.command()
def init(folder: Annotated[str, typer.Argument(help="Where to write.")] = ".") -> None:
    """Write a commented recipe.yaml and 20 sample rows to start from."""
    from tuition import api

    for path in api.init(folder):
        print(f"wrote {path}")
    print(f"next: {me()} train {typed(Path(folder) / 'recipe.yaml')}")


_add_train()


@app.command()
def plan(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the folder of a run.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="As in train, over the recipe's.", show_default=False)
    ] = None,
    data: Annotated[
        list[str], typer.Option("--data", help="As in train, over the recipe's.", show_default=False)
    ] = [],  # noqa: B006  Typer copies it
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="How many, eight on a machine.")] = 1,
    gpu: Annotated[
        str, typer.Option("--gpu", help="Their kind: a100, h100, h200, b200, l40s or 4090.")
    ] = "h100",
    set_: RecipeSet = [],  # noqa: B006  Typer copies it
    as_json: Json = False,
) -> None:
    """What a run will take on other hardware: memory by part, time, what to change.

    Calculated, not measured: from the model's configuration, and from rows and tokens that the first rows and the
    sizes of the files suggest. Nothing is rendered. For this machine, measured: tuition train … --dry-run.
    """
    from tuition import api

    named = {"model": model, "data": data or None}
    settings = {key: value for key, value in named.items() if value} | assignments(set_)
    expected = api.plan(recipe, gpus=gpus, gpu=gpu, **settings)
    if as_json:
        print_json(expected.numbers)
    else:
        for name, value in expected.facts:
            print(f"{name:<22}{value}")
    sys.exit(0 if expected.fits else 1)


@app.command()
def launch(
    scheduler: Annotated[str, typer.Argument(help="slurm, kubernetes or skypilot.", show_default=False)],
    recipe: Annotated[
        str, typer.Argument(help="A recipe file that names its output_dir.", show_default=False)
    ],
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="How many machines.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs on each.")] = 8,
) -> None:
    """Print the file that starts a run on many machines."""
    from tuition.launch import launch_file

    print(launch_file(scheduler, recipe, nodes=nodes, gpus=gpus), end="")
