"""Commands that look at data: check, preview, prepare; what may be asked, option by option, stands first."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tuition.cli.shared import (
    Data,
    Json,
    RenderSet,
    Template,
    TrainOn,
    app,
    complain,
    print_json,
    render_settings,
)
from tuition.counting import counted
from tuition.errors import UserError, typed

CheckedModel = Annotated[str | None, typer.Option(help="Also check what only its tokenizer shows.")]
CheckedLength = Annotated[int | None, typer.Option(help="With --model: longest example, in tokens.")]
Deep = Annotated[bool, typer.Option("--deep", help="Also look for personal data, keys and other languages.")]
Presidio = Annotated[
    str | None,
    typer.Option(
        help="Also look for names and places with presidio and this spaCy model (tuition[presidio]); "
        "patterns: numbers of identity only, without a model.",
        metavar="MODEL",
    ),
]
NearDuplicates = Annotated[
    bool, typer.Option("--near-duplicates", help="Also look for rows that are almost the same.")
]
Against = Annotated[
    list[str],
    typer.Option(help="Evaluation files whose questions must not be in the data.", show_default=False),
]
Columns = Annotated[
    str | None, typer.Option(help="Which columns hold what: prompt=question,completion=reply.")
]
Quarantine = Annotated[str | None, typer.Option(help="Write rejected rows with reasons here.")]
Fix = Annotated[str | None, typer.Option(help="Write a mended copy here: safe mends only, each named.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")]
Tokenizers = Annotated[
    str, typer.Option(help="The model whose tokenizer and template to use.", show_default=False)
]
Shown = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Show this many examples: in the terminal 3, in the page 10,000 and no more, unless given.",
        show_default=False,
    ),
]
Page = Annotated[
    str | None, typer.Option(help="Write ledger, findings and examples as one page that opens offline.")
]


@app.command()
def check(
    data: Data,
    model: CheckedModel = None,
    max_length: CheckedLength = None,
    chat_template: Template = "auto",
    train_on: TrainOn = "assistant",
    set_: RenderSet = [],  # noqa: B006  Typer copies it
    deep: Deep = False,
    presidio: Presidio = None,
    near_duplicates: NearDuplicates = False,
    against: Against = [],  # noqa: B006  Typer copies it
    mapping: Columns = None,
    quarantine: Quarantine = None,
    fix: Fix = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Read every row and say what is wrong, where, and how to mend it; exit 1 when rows are rejected and not set aside."""
    from tuition import api
    from tuition.screen import Terminal, show_check

    if fix is not None:
        if quarantine or model or deep or presidio or near_duplicates or against or mapping:
            raise UserError(
                "--fix mends and does nothing else",
                where="--fix",
                next_step="Mend the file first, then check the mended copy with the other flags",
            )
        _fix(data, fix, as_json)
        return
    checked = api.check(
        data,
        model=model,
        **render_settings(set_, max_length, chat_template, train_on),
        deep=deep,
        presidio=presidio,
        near=near_duplicates,
        against=against,
        mapping=_columns(mapping),
        tell=Terminal().stage,
    )
    set_aside = api.quarantine(checked, quarantine) if quarantine else None
    if as_json:
        uncounted = {} if model else {"tokens": None, "supervised_tokens": None}  # only a tokenizer can count
        print_json(checked.ledger.summary() | uncounted)
    else:
        show_check(checked.ledger, checked.shapes)
        if set_aside is not None:
            print(f"{counted(set_aside, 'rejected row')} written to {quarantine}")
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
    return {name.strip(): column for name, _, column in pairs}  # a header may end with a blank


def _fix(data: list[str], to: str, as_json: bool) -> None:
    """Write the mended copy of one file, and name every mend and every row that is not in it."""
    from tuition import api

    if len(data) != 1:
        raise UserError(
            "one file is mended at a time", where="--fix", next_step="tuition check FILE --fix MENDED"
        )
    written, mends, faults = api.fix(data[0], to)
    if as_json:
        print_json({
            "rows": written, "mends": [mend.to_json() for mend in mends], "left_out": [f.to_json() for f in faults],
        })  # fmt: skip
    else:
        for mend in mends:
            print(f"{mend.origin} ({mend.code}): {mend.done}")
        for fault in faults:
            print(fault)
        print(
            f"{counted(written, 'row')} written to {to}, {counted(len(mends), 'mend')}, {counted(len(faults), 'row')} not in it"
        )
    if faults:
        raise typer.Exit(1)


@app.command()
def preview(
    data: Data,
    model: Tokenizers,
    limit: Shown = None,
    html: Page = None,
    chat_template: Template = "auto",
    train_on: TrainOn = "assistant",
    set_: RenderSet = [],  # noqa: B006  Typer copies it
    mapping: Columns = None,
    as_json: Json = False,
) -> None:
    """Show the tokens of each example with the learned ones coloured; --json prints every example."""
    from tuition import api

    settings = {
        "mapping": _columns(mapping),
        **render_settings(set_, None, chat_template, train_on),
    }
    if html is None:
        _preview_here(data, model, limit if limit or as_json else 3, as_json, settings)
        return
    page = api.preview_html(data, model, html, limit=limit or 10_000, **settings)
    rejected = len(page.ledger.rejected)
    if as_json:
        print_json({"page": html, "examples": page.examples, "shown": page.shown, "rejected": rejected})
    else:
        beyond = (
            f"; {page.examples - page.shown:,} more are counted in it" if page.examples > page.shown else ""
        )
        print(f"{counted(page.shown, 'example')} written to {html}{beyond}")
    if rejected:
        complain(f"without an example: {counted(rejected, 'row')}; the page shows each with its reason")
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
            print_json(preview_json(example, tokens))
        else:
            show_example(example, tokens)
    if rejected:
        complain(f"without an example: {counted(len(rejected), 'row')}; the first: {rejected[0]}")
        raise typer.Exit(1)


@app.command()
def prepare(
    data: Data,
    model: Tokenizers,
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
        **render_settings(set_, max_length, chat_template, train_on),
        val_split=val_split,
        seed=seed,
    )
    (summary,) = prepared.records("summary")
    totals = summary["totals"]
    counts: dict[str, Any] = {
        "folder": str(prepared.folder),
        "train_examples": len(prepared.train),
        "validation_examples": len(prepared.validation),
        "tokens": prepared.train.tokens + prepared.validation.tokens,
        "learned_tokens": prepared.train.learned_tokens + prepared.validation.learned_tokens,
        "rows_in": totals["rows_in"],
        "rejected": totals["rejected"],
    }
    if totals["rejected"]:
        aside = f"{totals['rejected']:,} of {counted(totals['rows_in'], 'row')}"
        complain(f"without an example: {aside}; `tuition check DATA --model {typed(model)}` says why")
    if as_json:
        print_json(counts)
        return
    print(f"{prepared.folder}")
    print(
        f"{counted(counts['train_examples'], 'example')} to learn from, {counts['validation_examples']:,} held out, "
        f"{counted(counts['tokens'], 'token')}, {counts['learned_tokens']:,} learned"
    )
