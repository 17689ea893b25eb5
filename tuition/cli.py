"""The command line: one command per verb. Parse, call api, print; results to stdout, the rest to stderr.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from types import TracebackType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from tuition import cli_collect
from tuition.errors import Interrupted, UserError

app = typer.Typer(
    name="tuition",
    help="Supervised fine-tuning: from demonstrations to a better model, every token right and nothing lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with: tuition demo. Errors are shown in full with --debug.",
)

Data = Annotated[list[str], typer.Argument(help="Files, folders, globs or hub names.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ModelName = Annotated[
    str, typer.Argument(help="A run folder, an adapter, a model folder or a hub name.", show_default=False)
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


def main() -> None:
    """The `tuition` command: exit 0 done, 1 findings or a failed gate, 2 user error, 130 interrupted."""
    sys.excepthook = _show_traceback
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except UserError as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(2)
    except Interrupted as stop:
        if _among_ranks():  # all of them stop; any other exit would have torchrun start them again
            sys.exit(0)
        _complain(f"interrupted; nothing is lost. Go on with: {_me()} train {stop.folder} --resume")
        sys.exit(130)
    except KeyboardInterrupt as stop:
        _complain(str(stop) or "interrupted")
        sys.exit(130)
    except BrokenPipeError:  # `tuition preview … | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        _complain(
            f"{error.filename or 'a file'}: {error.strerror or error}. Mend that, or name another path."
        )
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        _complain(f"{type(error).__name__}: {error}. This is a defect of tuition; --debug shows where.")
        sys.exit(2)


def _complain(sentence: str) -> None:
    from tuition.redact import redact
    from tuition.screen import printable

    print(f"tuition: {printable(redact(sentence))}", file=sys.stderr)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What --debug shows: Python's own words, without secrets."""
    import traceback

    from tuition.redact import redact
    from tuition.screen import printable

    print(printable(redact("".join(traceback.format_exception(kind, error, trace)))), file=sys.stderr)


def _among_ranks() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _me() -> str:
    """How this command can be typed again: its name, or its path where the shell would not find it."""
    typed = Path(sys.argv[0])
    found = shutil.which("tuition")
    if typed.name != "tuition" or (found and Path(found).resolve() == typed.resolve()):
        return "tuition"
    return os.path.relpath(typed) if typed.is_absolute() else str(typed)


def _print_json(value: Any) -> None:
    from tuition.screen import print_json

    print_json(value)


# --- train ---


def _train(
    recipe: str | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    set_: list[str],
    gpus: str | None,
    processes: int | None,
    restarts: int,
    **flags: Any,
) -> None:
    from tuition import api
    from tuition.launch import count_of
    from tuition.screen import Terminal
    from tuition.signals import second_signal_leaves
    from tuition.training import command_line

    watcher = Terminal()
    settings = {**{k: v for k, v in flags.items() if v not in (None, [])}, **_assignments(set_)}
    if dry_run:
        opening = api.dry_run(recipe, watcher=watcher, **settings)
        if as_json:
            _print_json(opening.to_json())
        else:
            watcher.opening(opening)
        return
    ranks = 1 if _among_ranks() else count_of(gpus, processes)
    if ranks > 1:
        _start_ranks(recipe, ranks, settings, resume=resume, restarts=restarts, as_json=as_json)
        return
    with second_signal_leaves():
        run = api.train(recipe, resume=resume, watcher=watcher, command=command_line(), **settings)
    if os.environ.get("RANK", "0") != "0":
        return
    _print_end(run.path, as_json)
    if not run.passed:
        raise typer.Exit(1)


def _start_ranks(
    recipe: str | None, ranks: int, settings: dict[str, Any], *, resume: bool, restarts: int, as_json: bool
) -> None:
    """Hand the run to torchrun, after looking at the door once and not once a rank."""
    from tuition import api
    from tuition.launch import STOPPED, interrupted, run_ranks

    folder = api.run_folder(recipe, resume=resume, **settings)
    given = {**settings, **({} if resume else {"output_dir": str(folder)})}
    arguments = [f"--set={key}={json.dumps(value)}" for key, value in given.items()]
    arguments += [*([recipe] if recipe else []), *(["--resume"] * resume), *(["--json"] * as_json)]
    code = run_ranks(arguments, ranks, restarts=restarts)
    if code in (0, STOPPED) and interrupted(folder):
        raise _interrupted(folder)
    if code:
        raise UserError(
            f"the ranks ended with exit code {code}; the first complaint above is the cause",
            where=str(folder),
            next_step=f"Mend it, and go on with: {_me()} train {folder} --resume --processes {ranks}",
        )


def _interrupted(folder: Path) -> Interrupted:
    stop = Interrupted()
    stop.folder = str(folder)
    return stop


def _print_end(folder: Path, as_json: bool) -> None:
    from tuition import api
    from tuition.evaluate.lines import run_lines

    facts = api.read_report_facts(folder)
    forgetting = facts.get("forgetting")
    if as_json:
        shown = {"run": str(folder), "result": facts["result"], "report": str(folder / "report.html")}
        _print_json(shown if forgetting is None else {**shown, "forgetting": forgetting})
        return
    for line in run_lines(facts):
        print(line)
    print(f"report: {folder / 'report.html'}")
    print("next:")
    print(f"  {_me()} chat {folder}")
    print(f"  {_me()} evaluate {folder} --data YOUR_TEST_FILE --baseline {facts['model']['name']}")
    print(f"  {_me()} export {folder} --format hf --to exported")


def _assignments(pairs: list[str]) -> dict[str, Any]:
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


def _render_settings(
    pairs: list[str], max_length: int | None, chat_template: str, train_on: str
) -> dict[str, Any]:
    """The settings that decide the tokens, those of --set over the flags; any other would do nothing here."""
    from tuition.recipe import RenderSettings

    assigned = _assignments(pairs)
    idle = [key for key in assigned if key not in RenderSettings.model_fields]
    if idle:
        raise UserError(
            f"'{idle[0]}' does not decide the tokens",
            where="--set",
            next_step=f"Here it takes {', '.join(RenderSettings.model_fields)}",
        )
    flags = {"max_length": max_length or "auto", "chat_template": chat_template, "train_on": train_on}
    return flags | assigned


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


def _add_train() -> None:
    """`train` takes every setting of the recipe: its signature is made from it."""
    own = [
        inspect.Parameter("recipe", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Annotated[
            str | None, typer.Argument(help="A recipe file, or the folder of a run to resume.", show_default=False)]),
        inspect.Parameter("resume", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[
            bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run folder.")]),
        inspect.Parameter("dry_run", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[
            bool, typer.Option("--dry-run", help="Print the opening screen and stop; nothing is written.")]),
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
        inspect.Parameter("gpus", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[
            str | None, typer.Option("--gpus", help="Train on so many GPUs of this machine, or all.", metavar="N|all", show_default=False)]),
        inspect.Parameter("processes", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[
            int | None, typer.Option("--processes", min=1, help="Train in so many processes of this machine, on CPUs.", show_default=False)]),
        inspect.Parameter("restarts", inspect.Parameter.KEYWORD_ONLY, default=3, annotation=Annotated[
            int, typer.Option("--restarts", min=0, help="With several ranks: how often all are started again when one dies.")]),
        inspect.Parameter("set_", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=Annotated[
            list[str], typer.Option("--set", help="Any recipe key: --set key=value.", metavar="KEY=VALUE", show_default=False)]),
    ]  # fmt: skip

    def train(**arguments: Any) -> None:
        _train(**arguments)

    train.__signature__ = inspect.Signature([*own, *_recipe_options()])  # type: ignore[attr-defined]
    train.__annotations__ = {p.name: p.annotation for p in [*own, *_recipe_options()]}
    app.command("train", help="Fine-tune a model; flags beat the recipe file.")(train)


# --- the rest of the journey ---


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe file.", show_default=False)],
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="How many, eight on a machine.")] = 1,
    gpu: Annotated[
        str, typer.Option("--gpu", help="Their kind: a100, h100, h200, b200, l40s or 4090.")
    ] = "h100",
    set_: Annotated[
        list[str],
        typer.Option(
            "--set", help="Any recipe key: --set key=value.", metavar="KEY=VALUE", show_default=False
        ),
    ] = [],  # noqa: B006  Typer copies it
    as_json: Json = False,
) -> None:
    """What a run will take on other hardware: memory by part, time, what to change. Calculated, not measured."""
    from tuition import api

    expected = api.plan(recipe, gpus=gpus, gpu=gpu, **_assignments(set_))
    if as_json:
        _print_json(expected.numbers)
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
        _print_json({"run": str(run.path), **result.to_json(), "forgetting": facts["forgetting"]})
        return
    show_evaluation(result)
    for line in run_lines(facts):
        print(line)
    print(f"report: {run.path / 'report.html'}")
    print("next:")
    print(f'  {_me()} generate {run.path} --prompt "Which currency does Japan use?"')
    print(f"  {_me()} chat {run.path}")
    print(f"  {_me()} export {run.path} --format hf --to exported")
    print(f"  {_me()} init mine && {_me()} train mine/recipe.yaml")


@app.command()
def init(folder: Annotated[str, typer.Argument(help="Where to write.")] = ".") -> None:
    """Write a commented recipe.yaml and 20 sample rows to start from."""
    from tuition import api

    for path in api.init(folder):
        print(f"wrote {path}")
    print(f"next: {_me()} train {Path(folder) / 'recipe.yaml'}")


@app.command()
def check(
    data: Data,
    model: Annotated[str | None, typer.Option(help="Also check what only its tokenizer shows.")] = None,
    max_length: Annotated[int | None, typer.Option(help="With --model: longest example, in tokens.")] = None,
    chat_template: Template = "auto",
    train_on: TrainOn = "assistant",
    set_: RenderSet = [],  # noqa: B006  Typer copies it
    deep: Annotated[
        bool, typer.Option("--deep", help="Also look for personal data, keys and other languages.")
    ] = False,
    presidio: Annotated[
        str | None,
        typer.Option(
            help="Also look for names and places with presidio and this spaCy model (tuition[presidio]); "
            "patterns: numbers of identity only, without a model.",
            metavar="MODEL",
        ),
    ] = None,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Also look for rows that are almost the same.")
    ] = False,
    against: Annotated[
        list[str],
        typer.Option(help="Evaluation files whose questions must not be in the data.", show_default=False),
    ] = [],  # noqa: B006  Typer copies it
    mapping: Annotated[
        str | None, typer.Option(help="Which columns hold what: prompt=question,completion=reply.")
    ] = None,
    quarantine: Annotated[str | None, typer.Option(help="Write rejected rows with reasons here.")] = None,
    fix: Annotated[
        str | None, typer.Option(help="Write a mended copy here: safe mends only, each named.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
    as_json: Json = False,
) -> None:
    """Read every row and say what is wrong, where, and how to mend it; exit 1 when rows are rejected and not set aside."""
    from tuition import api
    from tuition.screen import show_check

    if fix is not None and (quarantine or model or deep or presidio or near_duplicates or against or mapping):
        raise UserError(
            "--fix mends and does nothing else",
            where="--fix",
            next_step="Mend the file first, then check the mended copy with the other flags",
        )
    if fix is not None:
        _fix(data, fix, as_json)
        return
    checked = api.check(
        data,
        model=model,
        **_render_settings(set_, max_length, chat_template, train_on),
        deep=deep,
        presidio=presidio,
        near=near_duplicates,
        against=against,
        mapping=_columns(mapping),
    )
    set_aside = api.quarantine(checked, quarantine) if quarantine else None
    if as_json:
        uncounted = {} if model else {"tokens": None, "supervised_tokens": None}  # only a tokenizer can count
        _print_json(checked.ledger.summary() | uncounted)
    else:
        show_check(checked)
        if set_aside is not None:
            print(f"{set_aside:,} rejected rows written to {quarantine}")
    severities = {finding.severity for finding in checked.ledger.findings}
    failing = {"error", "warning"} if strict else {"error"}
    if severities & failing and (set_aside is None or strict):
        raise typer.Exit(1)


def _columns(words: str | None) -> dict[str, str] | None:
    """prompt=question,completion=reply as a dictionary."""
    if words is None:
        return None
    pairs = [pair.partition("=") for pair in words.split(",")]
    if not all(name and equals and column for name, equals, column in pairs):
        raise UserError(
            f"'{words}' is not name=column", where="--mapping", next_step="prompt=question,completion=reply"
        )
    return {name.strip(): column.strip() for name, _, column in pairs}


def _fix(data: list[str], to: str, as_json: bool) -> None:
    """Write the mended copy of one file, and name every mend and every row that is not in it."""
    from tuition import api

    if len(data) != 1:
        raise UserError(
            "one file is mended at a time", where="--fix", next_step="tuition check FILE --fix MENDED"
        )
    written, mends, faults = api.fix(data[0], to)
    if as_json:
        _print_json({
            "rows": written, "mends": [mend.to_json() for mend in mends], "left_out": [f.to_json() for f in faults],
        })  # fmt: skip
    else:
        for mend in mends:
            print(f"{mend.origin} ({mend.code}): {mend.done}")
        for fault in faults:
            print(fault)
        print(f"{written:,} rows written to {to}, {len(mends):,} mends, {len(faults):,} rows not in it")
    if faults:
        raise typer.Exit(1)


@app.command()
def preview(
    data: Data,
    model: Annotated[
        str, typer.Option(help="The model whose tokenizer and template to use.", show_default=False)
    ],
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Show this many examples: in the terminal 3, in the page 10,000 and no more, unless given.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        str | None, typer.Option(help="Write ledger, findings and examples as one page that opens offline.")
    ] = None,
    chat_template: Template = "auto",
    train_on: TrainOn = "assistant",
    set_: RenderSet = [],  # noqa: B006  Typer copies it
    mapping: Annotated[
        str | None, typer.Option(help="Which columns hold what: prompt=question,completion=reply.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the tokens of each example with the learned ones coloured; --json prints every example."""
    from tuition import api

    settings = {
        "mapping": _columns(mapping),
        **_render_settings(set_, None, chat_template, train_on),
    }
    if html is None:
        _preview_here(data, model, limit if limit or as_json else 3, as_json, settings)
        return
    page = api.preview_html(data, model, html, limit=limit or 10_000, **settings)
    rejected = len(page.ledger.rejected)
    if as_json:
        _print_json({"page": html, "examples": page.examples, "shown": page.shown, "rejected": rejected})
    else:
        beyond = (
            f"; {page.examples - page.shown:,} more are counted in it" if page.examples > page.shown else ""
        )
        print(f"{page.shown:,} examples written to {html}{beyond}")
    if rejected:
        _complain(f"{rejected:,} rows give no example; the page shows each with its reason")
        raise typer.Exit(1)


def _preview_here(
    data: list[str], model: str, limit: int | None, as_json: bool, settings: dict[str, Any]
) -> None:
    """Examples on stdout, as people read them or as JSON."""
    from tuition import api
    from tuition.render.preview import preview_json
    from tuition.screen import show_example

    rejected: list[str] = []
    shown = api.preview(data, model, limit=limit, on_rejected=lambda f: rejected.append(str(f)), **settings)
    for example, tokens in shown:
        if as_json:
            _print_json(preview_json(example, tokens))
        else:
            show_example(example, tokens)
    if rejected:
        _complain(f"{len(rejected):,} rows give no example; the first: {rejected[0]}")
        raise typer.Exit(1)


@app.command()
def prepare(
    data: Data,
    model: Annotated[
        str, typer.Option(help="The model whose tokenizer and template to use.", show_default=False)
    ],
    to: Annotated[str, typer.Option(help="The folder that prepared data is kept in.", show_default=False)],
    max_length: Annotated[int | None, typer.Option(help="Longest example, in tokens.")] = None,
    chat_template: Template = "auto",
    train_on: TrainOn = "assistant",
    set_: RenderSet = [],  # noqa: B006  Typer copies it
    val_split: Annotated[float, typer.Option(help="Share of the rows held out.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Tokenise once, for any trainer: datasets.load_from_disk(FOLDER) has input_ids and labels."""
    from tuition import api

    prepared = api.prepare(
        data,
        model=model,
        to=to,
        **_render_settings(set_, max_length, chat_template, train_on),
        val_split=val_split,
        seed=seed,
    )
    counts = {
        "folder": str(prepared.folder),
        "train_examples": len(prepared.train),
        "validation_examples": len(prepared.validation),
        "tokens": prepared.train.tokens + prepared.validation.tokens,
        "learned_tokens": prepared.train.learned_tokens + prepared.validation.learned_tokens,
    }
    if as_json:
        _print_json(counts)
        return
    print(f"{prepared.folder}")
    print(
        f"{counts['train_examples']:,} examples to learn from, {counts['validation_examples']:,} held out, "
        f"{counts['tokens']:,} tokens, {counts['learned_tokens']:,} learned"
    )


@app.command()
def evaluate(
    model: ModelName,
    data: Annotated[
        list[str] | None, typer.Option(help="Rows with the answers expected.", show_default=False)
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
            help="A condition; exit code 1 where it does not hold: exact_match>=baseline+0.05, loss<=1.2.",
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
    limit: Annotated[int | None, typer.Option(min=1, help="Answer only the first so many prompts.")] = None,
    device: Device = "auto",
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Score a model on held-out rows: loss, and metrics with intervals; --baseline compares."""
    from tuition import api
    from tuition.evaluate.judge import make_judge
    from tuition.screen import Counter, show_evaluation

    if harness is not None:
        raise typer.Exit(_harness(model, harness, python, run=run))
    try:
        with Counter() as counter:
            result = api.evaluate(
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
    except KeyboardInterrupt:
        _complain("interrupted; the answers so far are kept. The same command goes on from there")
        raise typer.Exit(130) from None
    if as_json:
        _print_json(result.to_json())
    else:
        show_evaluation(result)
    if result.rejected:
        _complain(
            f"{len(result.rejected):,} of {result.rows_in:,} rows could not be scored; see `tuition check`"
        )
    if result.rejected or not result.passed:
        raise typer.Exit(1)


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
        _print_json({"report": str(page)}) if as_json else print(f"report: {page}")
    else:
        page = Path(to)
        found = api.report_several(runs, page)
        if as_json:
            _print_json({"report": str(page), **found.to_json()})
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
    device: Device = "auto",
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt, or every row of a file as JSONL."""
    from tuition import api

    if (prompt is None) == (data is None):
        raise UserError("give --prompt or --data, one of them", next_step='tuition generate RUN --prompt "…"')
    if data is not None:
        faulty = 0
        for row in api.generate_file(
            model, data, max_new_tokens=max_new_tokens, device=device, trust_remote_code=trust
        ):
            _print_json(row)
            faulty += "error" in row
        if faulty:
            _complain(f"{faulty:,} rows have no prompt; their lines say why")
            raise typer.Exit(1)
        return
    given = api.answer(
        api.load(model, device=device, trust_remote_code=trust), str(prompt), max_new_tokens=max_new_tokens
    )
    if as_json:
        _print_json(
            {"prompt": prompt, "answer": given.text, "tokens": given.tokens, "stopped": given.stopped}
        )
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
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Talk to a model; an empty line or Ctrl-D ends it."""
    from tuition import api

    answerer = api.load(model, device=device, trust_remote_code=trust)
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


@app.command()
def export(
    model: ModelName,
    to: Annotated[str, typer.Option(help="The folder to write; it must not exist.", show_default=False)],
    format: Annotated[
        str,
        typer.Option(
            help="hf: a plain transformers folder, LoRA merged; adapter: peft's; gguf; ollama: GGUF and Modelfile."
        ),
    ] = "hf",
    dtype: Annotated[str, typer.Option(help="float32 (as trained) or bfloat16.")] = "float32",
    llama_cpp: Annotated[
        str | None,
        typer.Option(help="For gguf and ollama: the folder of llama.cpp; else $LLAMA_CPP or PATH."),
    ] = None,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Write a model for others to use; a fresh process reads it and answers alike before it is called exported."""
    from tuition import api

    checked: list[str] = []
    path = api.export(
        model, to, format=format, dtype=dtype, llama_cpp=llama_cpp,
        trust_remote_code=trust, on_checked=checked.append,
    )  # fmt: skip
    if as_json:
        _print_json({"path": str(path), "format": format, "dtype": dtype, "checked": checked[0]})
    else:
        print(f"exported to {path}; {checked[0]}")


@app.command()
def push(
    model: ModelName,
    to: Annotated[str, typer.Option(help="owner/name on the Hugging Face hub.", show_default=False)],
    format: Annotated[str, typer.Option(help="hf or adapter.")] = "hf",
    dtype: Annotated[str, typer.Option(help="float32 (as trained) or bfloat16.")] = "float32",
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it; else only you.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Export and list the files; upload nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export and upload to the Hugging Face hub, after the same check as export."""
    from tuition import api

    pushed = api.push(
        model, to, format=format, dtype=dtype, private=not public, dry_run=dry_run,
        on_checked=lambda sentence: print(sentence, file=sys.stderr),
    )  # fmt: skip
    if as_json:
        _print_json(pushed.to_json())
        return
    for name, size in pushed.files:
        print(f"{size:>15,} bytes  {name}")
    total = f"{len(pushed.files)} files, {sum(size for _, size in pushed.files):,} bytes"
    print(f"{total}: uploaded to {pushed.address}" if pushed.address else f"{total} would go to {to}")


@app.command()
def preferences(
    model: ModelName,
    data: Annotated[
        str,
        typer.Option(help="Rows with prompts, and answers where a metric needs them.", show_default=False),
    ],
    to: Annotated[str, typer.Option(help="The JSONL file to write.", show_default=False)],
    metric: Annotated[
        str, typer.Option(help="The answer that scores higher is chosen; see evaluate.")
    ] = "exact_match",
    judge: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible API whose model compares instead.")
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Its name; the key is read from TUITION_JUDGE_KEY.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Answers drawn to each prompt.")] = 4,
    temperature: Annotated[float, typer.Option(help="Above 0; higher draws more differently.")] = 1.0,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens of this share.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many prompts.")] = None,
    max_new_tokens: Tokens = 256,
    device: Device = "auto",
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Draw answers to each prompt, judge them in pairs, and write the pairs as TRL's preference trainers read them."""
    from tuition import api
    from tuition.evaluate.judge import make_judge
    from tuition.screen import Counter

    with Counter() as counter:
        counts = api.preferences(
            model, data, to, metric=metric, judge=make_judge(judge, judge_model), samples=samples,
            temperature=temperature, top_p=top_p, seed=seed, limit=limit, max_new_tokens=max_new_tokens,
            device=device, trust_remote_code=trust, on_progress=counter.show,
        )  # fmt: skip
    if as_json:
        _print_json({"path": to, **counts.to_json()})
    else:
        print(
            f"{counts.pairs:,} pairs of {counts.groups:,} prompts written to {to} (of {counts.prompts:,} prompts and "
            f"{counts.answers:,} answers; {counts.repeated:,} repeated, {counts.unfinished:,} unfinished, {counts.ties:,} ties)"
        )
    if counts.without_prompt:
        _complain(f"{counts.without_prompt:,} rows have no prompt; see `tuition check`")
        raise typer.Exit(1)


@app.command()
def serve(
    model: ModelName,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    baseline: Annotated[
        str | None, typer.Option(help="A second model, beside the first on the page.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Another than this machine needs a key in $TUITION_API_KEY.")
    ] = "127.0.0.1",
    device: Device = "auto",
) -> None:
    """Answer OpenAI's chat requests on this machine, with a page to chat on; Ctrl-C ends it."""
    from tuition import api

    def ready(address: str, models: list[str], others: list[str]) -> None:
        print("for many users, other servers on the same folder:", file=sys.stderr)
        for command in others:
            print(f"  {command}", file=sys.stderr)
        print("Ctrl-C ends it", file=sys.stderr)
        print(f"chat: {address}/   OpenAI's API: {address}/v1   models: {', '.join(models)}", flush=True)

    key = os.environ.get("TUITION_API_KEY") or None
    api.serve(model, baseline=baseline, host=host, port=port, device=device, api_key=key, on_ready=ready)
    print("stopped", file=sys.stderr)


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
        _print_json(examined)
    else:
        show_doctor(examined)
    if not examined["ok"]:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """The JSON schema of the recipe: every setting with its sentence."""
    from tuition import api

    print(json.dumps(api.schema(), indent=2, ensure_ascii=False))


@app.command()
def explain(
    code: Annotated[str, typer.Argument(help="A finding's code, such as D004.")], as_json: Json = False
) -> None:
    """What a finding means, why it matters and how to mend it."""
    from tuition import api

    entry = api.explain(code)
    if as_json:
        _print_json(entry)
        return
    print(
        f"{entry['code']}: {entry['title']} ({entry['severity']})\n\n{entry['explanation']}\n\n{entry['mend']}"
    )


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    if version:
        from tuition import __version__

        print(__version__)
        raise typer.Exit


_add_train()
app.add_typer(cli_collect.app)
app.command()(cli_collect.compare)
