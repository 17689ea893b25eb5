"""The commands of the store: `tuition collect …` and `tuition compare`. Parse, call api, print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuition.cli.shared import Commands, Device, Json, Tokens, print_json
from tuition.counting import counted
from tuition.errors import UserError

if TYPE_CHECKING:
    from tuition.api import Imported
    from tuition.api import results as outcomes
    from tuition.collect.sources import Source

app = typer.Typer(
    name="collect",
    cls=Commands,
    help="The store behind the studio: take prompts in, give demonstrations out, back it up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

StoreFile = Annotated[str, typer.Option("--store", help="The file that people's work is kept in.")]
SourceName = Annotated[
    str | None, typer.Option(help="What to call where they come from. The first file's name unless given.")
]
Licence = Annotated[str, typer.Option(help="Under which its texts may be used.", show_default=False)]
Consent = Annotated[str, typer.Option(help="How its people agreed.", show_default=False)]
Draws = Annotated[int, typer.Option(help="Of the draws.")]


@app.command("import")
def import_(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders or hub names, in any shape that `check` reads.", show_default=False
        ),
    ] = None,
    store: StoreFile = "team.db",
    source: SourceName = None,
    licence: Licence = "",
    consent: Consent = "",
    tag: Annotated[list[str], typer.Option(help="For all of them.", show_default=False)] = [],  # noqa: B006  Typer copies it
    overlap: Annotated[int, typer.Option(min=1, max=100, help="How many people answer each.")] = 1,
    per_user: Annotated[
        int, typer.Option(min=0, help="Prompts that one user of the source may have; 0: any number.")
    ] = 200,
    as_json: Json = False,
) -> None:
    """Take prompts into the store; without files, only state a source's licence and consent."""
    from pathlib import Path

    from tuition import api

    if not data and not (source and (licence or consent)):
        raise UserError(
            "there is nothing to import",
            next_step="Name files of prompts, or --source with --licence and --consent to state them",
        )
    named = (source or Path((data or [""])[0]).name).strip()
    with api.Store(store) as opened:
        if data:
            done = api.import_prompts(
                opened, data, source=named, licence=licence, consent=consent, tags=tag, overlap=overlap,
                per_user=per_user,
            )  # fmt: skip
        else:
            api.sources.state_source(opened, named, licence=licence, consent=consent, by=None)
            done = api.Imported(0, 0, 0, ())
        stated = next(one for one in api.sources.sources(opened) if one.name == named)
    _show_imported(done, stated, as_json=as_json)
    if done.findings:
        raise typer.Exit(1)


def _show_imported(done: Imported, stated: Source, *, as_json: bool) -> None:
    """What came of each row, and what the source still has to state."""
    if as_json:
        print_json({
            "read": done.read, "new": done.new, "known": done.known, "source": stated.name, "cleared": stated.cleared,
            "left_out": dict(done.beyond), "findings": [finding.to_json() for finding in done.findings],
        })  # fmt: skip
    else:
        for finding in done.findings:
            print(finding)
        print(
            f"{done.read:,} read = {done.new:,} new + {done.known:,} known + {len(done.findings):,} refused"
            + (f" + {sum(done.beyond.values()):,} {done.left_out}" if done.beyond else "")
        )
        if not stated.cleared:
            print(
                f"source '{stated.name}' does not state licence and consent yet; nothing of it is exported until then"
            )


@app.command()
def fewshot(
    data: Annotated[
        list[str],
        typer.Argument(help="Files of pairs, a question and its answer on each row.", show_default=False),
    ],
    store: StoreFile = "team.db",
    instruction: Annotated[
        str, typer.Option(help="What stands before the examples.", show_default=False)
    ] = "",
    shots: Annotated[int, typer.Option(min=1, help="Examples before the question.")] = 3,
    count: Annotated[int, typer.Option(min=1, help="Prompts to make; all different.")] = 5,
    seed: Draws = 0,
    source: SourceName = None,
    licence: Licence = "",
    consent: Consent = "",
    as_json: Json = False,
) -> None:
    """Make few-shot prompts of pairs, and take them into the store; they share a group, so no split divides them."""
    from pathlib import Path

    from tuition import api

    with api.Store(store) as opened:
        added = api.add_few_shot(
            opened, data, source=source or Path(data[0]).name, instruction=instruction, shots=shots, count=count,
            seed=seed, licence=licence, consent=consent,
        )  # fmt: skip
    if as_json:
        print_json({"new": added.new, "known": added.known})
    else:
        print(f"{counted(added.new + added.known, 'prompt')} = {added.new:,} new + {added.known:,} known")


@app.command()
def export(
    to: Annotated[str, typer.Option(help="The folder to write; it must not exist.", show_default=False)],
    store: StoreFile = "team.db",
    kind: Annotated[
        str,
        typer.Option(
            help="demonstrations: messages; preferences: prompt, chosen, rejected; preferences-openai: OpenAI's shape."
        ),
    ] = "demonstrations",
    validation: Annotated[float, typer.Option(help="Share of the groups held out to choose by.")] = 0.05,
    test: Annotated[float, typer.Option(help="Share of the groups held out to judge by.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    export_id: Annotated[
        str | None,
        typer.Option("--id", help="Write an earlier export again, byte for byte.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write accepted demonstrations, or decided comparisons, with where each row came from; exit 1 when some are refused."""
    from tuition import api

    with api.Store(store, must_exist=True) as opened:
        if export_id is None:
            split = api.exports.Split(validation, test, seed)
            drawn = api.exports.make(opened, kind, split, made_by=f"tuition {_version()}", by=None)
            note = api.exports.unfilled(drawn, split)
        else:
            drawn, note = api.exports.export(opened, export_id), ""
        folder = api.exports.write(opened, drawn.id, to)
    if as_json:
        print_json({"id": drawn.id, "kind": drawn.kind, "folder": str(folder), "lines": drawn.files})
    else:
        for name, count in drawn.files.items():
            print(f"{counted(count, 'line ', 'lines'):>15}  {folder / name}")
        print(f"export {drawn.id}; the same bytes again: tuition collect export --id {drawn.id} --to FOLDER")
    if note:
        print(note, file=sys.stderr)
    if drawn.refused:
        refused = counted(drawn.refused, "row is refused", "rows are refused")
        print(f"{refused}; refused.jsonl says why", file=sys.stderr)
        raise typer.Exit(1)


def _version() -> str:
    from tuition import __version__

    return __version__


@app.command()
def backup(
    to: Annotated[str, typer.Option(help="The file to write.", show_default=False)],
    store: StoreFile = "team.db",
    as_json: Json = False,
) -> None:
    """Copy the store while people go on working; the copy is one consistent state."""
    from tuition import api

    with api.Store(store, must_exist=True) as opened:
        opened.backup(to)
        event = api.latest_event(opened)
    if as_json:
        print_json({"store": store, "backup": to, "event": event})
    else:
        print(f"{store} copied to {to}, up to event {event:,}")


@app.command()
def status(store: StoreFile = "team.db", as_json: Json = False) -> None:
    """How far the project is: counts, people, sources, and what was judged."""
    from dataclasses import asdict

    from tuition import api

    with api.Store(store, must_exist=True) as opened:
        progress = api.overview.progress(opened)
        people = api.overview.by_person(opened)
        sources = [(share, source.cleared) for share, source in _with_sources(opened)]
        results = [api.results.results(opened, batch.id) for batch in api.batches.batches(opened)]
        drawn = api.exports.exports(opened)
    if as_json:
        print_json({
            "progress": asdict(progress), "people": [asdict(person) for person in people],
            "sources": [{**asdict(share), "cleared": cleared} for share, cleared in sources],
            "comparisons": [_results_json(one) for one in results], "exports": [asdict(one) for one in drawn],
        })  # fmt: skip
        return
    wanted = counted(progress.open_places, "answer")
    print(
        f"{counted(progress.prompts, 'prompt')}, {wanted} wanted, {progress.claimed:,} being written\n"
        f"{counted(progress.submitted, 'waits', 'wait')} for review, {progress.accepted:,} accepted, {progress.returned:,} returned, "
        f"{progress.skipped:,} skipped, {counted(progress.flags, 'flag')} open"
    )
    for share, cleared in sources:
        unstated = "" if cleared else "   states no licence or consent: not exported"
        print(
            f"source {share.name}: {counted(share.prompts, 'prompt')}, {share.accepted:,} accepted{unstated}"
        )
    for person in people:
        print(
            f"{person.name} ({person.role}): {person.submitted:,} written, {person.accepted:,} accepted, "
            f"{person.reviewed:,} reviewed, {person.judged:,} judged"
        )
    for one in results:
        print(f"{one.batch.name}: {_sentence(one)}")


def _with_sources(store: Any) -> list[tuple[Any, Any]]:
    from tuition import api

    stated = {source.name: source for source in api.sources.sources(store)}
    return [(share, stated[share.name]) for share in api.overview.by_source(store)]


def _results_json(results: outcomes.Results) -> dict[str, Any]:
    from dataclasses import asdict

    rate = asdict(results.rate)
    return {
        "batch": results.batch.id, "name": results.batch.name, "a": results.batch.model_a, "b": results.batch.model_b,
        "judged": results.batch.judged, "wanted": results.batch.wanted, "closed": results.batch.closed, **rate,
    }  # fmt: skip


def _sentence(results: outcomes.Results) -> str:
    """What people found, in one sentence."""
    batch, rate = results.batch, results.rate
    if rate.score is None:
        return f"{batch.model_a} against {batch.model_b}, nothing judged of {batch.wanted:,}"
    winner = {"a": f"{batch.model_a} is better", "b": f"{batch.model_b} is better"}.get(
        rate.winner, "not decided"
    )
    missing = (
        f"; about {counted(rate.needed, 'more decided judgement')} would tell"
        if rate.winner == "not decided" and rate.needed
        else ""
    )
    return (
        f"{batch.model_a} wins {rate.score.value:.1%} against {batch.model_b} "
        f"(95 % interval {rate.score.low:.1%} to {rate.score.high:.1%}, {batch.judged:,} of {batch.wanted:,} judged): "
        f"{winner}{missing}"
    )


def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="The new model: a run folder, an adapter, a model folder or a hub name.", show_default=False
        ),
    ],
    b: Annotated[str, typer.Argument(help="The model to compare it with.", show_default=False)],
    prompts: Annotated[
        list[str],
        typer.Option(help="Files of prompts; the store's own queue unless given.", show_default=False),
    ] = [],  # noqa: B006  Typer copies it
    store: StoreFile = "team.db",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many prompts.")] = None,
    overlap: Annotated[int, typer.Option(min=1, max=100, help="How many people judge each pair.")] = 1,
    name: Annotated[str, typer.Option(help="What to call the comparison.", show_default=False)] = "",
    max_new_tokens: Tokens = 256,
    temperature: Annotated[
        float,
        typer.Option(min=0, max=5, help="0 always takes the most likely token; above it answers are drawn."),
    ] = 0.0,
    samples: Annotated[
        int,
        typer.Option(min=1, help="Answers of each model to a prompt, with a temperature; each is one pair."),
    ] = 1,
    seed: Draws = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Let two models answer the same prompts, and put the pairs blind before the people who judge."""
    from tuition import api
    from tuition.screen import Counter

    with api.Store(store) as opened, Counter() as counter:
        batch = api.compare(
            opened, a, b, data=prompts, name=name, limit=limit, overlap=overlap, device=device,
            drawing=api.Drawing(max_new_tokens, temperature, samples, seed), on_answer=counter.show,
        )  # fmt: skip
    if as_json:
        print_json(
            {"batch": batch.id, "name": batch.name, "pairs": batch.pairs, "identical": batch.identical}
        )
        return
    waiting = counted(batch.pairs - batch.identical, "pair waits", "pairs wait")
    print(
        f"{waiting} to be judged; {counted(batch.identical, 'is identical, and a tie', 'are identical, and ties')}"
    )
    if batch.leaks:
        naming = counted(batch.leaks, "answer names", "answers name")
        print(f"{naming} a model, so that who judges may know it", file=sys.stderr)
    print(f"judge: tuition studio --store {store}\nresult: tuition collect status --store {store}")
