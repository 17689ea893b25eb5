"""What the commands share: the application, the options that several take, how results are printed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tuition.errors import UserError
from tuition.leaving import leave_again, raise_when_told


class Stopped(Exception):
    """Ctrl-C, as the end of a command sees it: Typer leaves without a word at Python's own."""


class Commands(TyperGroup):
    """Commands whose sentences are never cut short in the help, and that end at Ctrl-C with a word."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, _first_paragraph(command.help)) for name, command in found if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        raise_when_told()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped(str(stop)) from None
        finally:
            leave_again()


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


app = typer.Typer(
    name="tuition",
    cls=Commands,
    help="Supervised fine-tuning: from demonstrations to a better model, every token right and nothing lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with: tuition demo. Errors are shown in full with --debug.",
)


Data = Annotated[list[str], typer.Argument(help="Files, folders, globs or hub names.", show_default=False)]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def _say_that_it_is_no_folder(name: str) -> str:
    """A mistyped folder looks like a name on the hub, so that the hub is asked is said before it is."""
    may_be_hub_name = name.count("/") <= 1 and not name.startswith((".", "/", "~", "-"))
    if not name or name == "starter" or not may_be_hub_name or os.path.lexists(name):
        return name
    beside = Path(name).parent
    if beside != Path() and any(beside.glob("*/run.json")):
        return name  # api names the runs that lie there, and asks no hub
    run = Path("outputs") / name
    hint = f" (but {run} is)" if (run / "run.json").exists() else ""
    complain(f"{name} is no folder here{hint}; it is looked for on the hub, or in its cache")
    return name


ModelName = Annotated[
    str,
    typer.Argument(
        help="A run folder, an adapter, a model folder or a hub name.",
        show_default=False,
        callback=_say_that_it_is_no_folder,
    ),
]


Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="A run as it was at step-120, epoch-2, best or last, instead of the model that it kept.",
        show_default=False,
    ),
]


Tokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


Trust = Annotated[
    str | None,
    typer.Option(
        "--trust-remote-code",
        help="Run the model's own code: NAME@COMMIT or FOLDER@sha256:SUM, as the refusal prints it.",
        metavar="NAME@SUM",
        show_default=False,
    ),
]


Template = Annotated[str, typer.Option(help="auto, none, or a file that holds a Jinja template.")]


TrainOn = Annotated[str, typer.Option(help="assistant, last, all or spans.")]


RenderSet = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Any other setting of rendering: --set too_long=split.",
        metavar="KEY=VALUE",
        show_default=False,
    ),
]


def complain(sentence: str) -> None:
    """Say something on stderr, without secrets."""
    from tuition.redact import redact
    from tuition.screen import printable

    print(f"tuition: {printable(redact(sentence))}", file=sys.stderr)


def among_ranks() -> bool:
    """Whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def at(model: str, checkpoint: str | None) -> str:
    """The model that is meant: what was named, or that run at the checkpoint of `--checkpoint`."""
    if checkpoint is None:
        return model
    from tuition import api

    return api.at_checkpoint(model, checkpoint)


def me() -> str:
    """How this command can be typed again: its name, or its path where the shell would not find it."""
    typed = Path(sys.argv[0])
    found = shutil.which("tuition")
    if typed.name != "tuition" or (found and Path(found).resolve() == typed.resolve()):
        return "tuition"
    return os.path.relpath(typed) if typed.is_absolute() else str(typed)


def print_json(value: Any) -> None:
    """One JSON object, or one line of several, on stdout."""
    from tuition.screen import print_json

    print_json(value)


def assignments(pairs: list[str]) -> dict[str, Any]:
    """The settings of `--set`, each value as YAML reads it.

    Raises:
        UserError: one is not key=value, or no YAML.
    """
    import yaml

    from tuition.recipe import parse_yaml

    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(
                f"'{pair}' is not key=value", where="--set", next_step="Write --set learning_rate=2e-4"
            )
        try:
            settings[key.strip()] = parse_yaml(value)
        except yaml.YAMLError:
            raise UserError(f"'{value}' is not a YAML value", where="--set", next_step="Quote it") from None
    return settings


def render_settings(
    pairs: list[str], max_length: int | None, chat_template: str, train_on: str
) -> dict[str, Any]:
    """The settings that decide the tokens, those of --set over the flags; any other would do nothing here."""
    from tuition.recipe import RenderSettings

    assigned = assignments(pairs)
    idle = [key for key in assigned if key not in RenderSettings.model_fields]
    if idle:
        raise UserError(
            f"'{idle[0]}' does not decide the tokens",
            where="--set",
            next_step=f"Here it takes {', '.join(RenderSettings.model_fields)}",
        )
    flags = {"max_length": max_length or "auto", "chat_template": chat_template, "train_on": train_on}
    return flags | assigned
