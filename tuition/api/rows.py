"""Verbs that look at data: check, fix, quarantine, preview, prepare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tuition import files, starter
from tuition.conversation import Conversation, Rendered
from tuition.data import (
    Ledger,
    Mend,
    Reading,
    find_sources,
    fixed_rows,
    near_duplicates,
    overlap,
    presidio_check,
    rejected_lines,
    split_share,
)
from tuition.door import as_names, names_or_rows
from tuition.errors import Finding, UserError
from tuition.recipe import RenderSettings, make_recipe

if TYPE_CHECKING:
    from tuition.batch.prepared import Prepared
    from tuition.render import Renderer
    from tuition.render.page import PageFacts
    from tuition.render.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found.

    Attributes:
        ledger: what became of each row, with the findings.
        shapes: source → the shape found in it.
    """

    ledger: Ledger
    shapes: dict[str, str]


def check(
    data: str | Sequence[Any],
    *,
    model: str | None = None,
    mapping: Mapping[str, str] | None = None,
    deep: bool = False,
    presidio: str | None = None,
    near: bool = False,
    against: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
    **render: Any,
) -> Checked:
    """Read every row of every source and say what is wrong with it.

    Args:
        data: files, folders or hub names; or rows themselves, as `train` takes them.
        model: also render with this model's tokenizer, which finds what only tokens show.
        mapping: which columns hold what, where the shape is not found by itself.
        deep: also look for personal data, keys and other languages; several times slower.
        presidio: also look for names, places and numbers of identity with presidio (an extra) and this spaCy
            model; `patterns` needs no model and finds numbers only.
        near: also look for near duplicates.
        against: evaluation files whose questions must not be in the data.
        tell: told which files are not read, and now and then how far it is.
        render: settings of how tokens are made, such as `max_length` or `chat_template`.
    """
    ledger = Ledger()
    shapes: dict[str, str] = {}
    kept: list[Conversation] = []
    look = presidio_check(presidio) if presidio is not None else None
    renderer = None if model is None else make_renderer(model, **render)
    if renderer is not None:
        from tuition.render.corpus import note_template

        note_template(ledger, renderer)
    before = None
    for part in _parts(data, tell):
        reading = Reading(**part, ledger=ledger, mapping=mapping, deep=deep, training=before)
        conversations = _remembered(reading, kept) if near or against else reading
        if look is not None:
            conversations = _looked_at(conversations, look, ledger)
        _settle_all(ledger.telling(conversations, tell), ledger, renderer)
        shapes |= reading.shapes
        before = before or reading
    ledger.check_balance()
    if near or against:
        tell(
            "comparing the rows with one another" if near else f"comparing the rows with {', '.join(against)}"
        )
    for finding in _found_across(kept, near=near, against=against):
        ledger.add(finding)
    return Checked(ledger, shapes)


def _parts(data: Any, tell: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """What there is to read: the files to train, validate and test on, or rows from Python."""
    names, rows = names_or_rows(data)
    if rows is not None:
        return [{"rows": rows}]
    sources = find_sources(names)
    if sources.unread:
        tell(sources.unread)
    return [{"sources": group} for group in (sources.train, sources.validation, sources.test)]


def _remembered(reading: Iterable[Conversation], kept: list[Conversation]) -> Iterator[Conversation]:
    for conversation in reading:
        kept.append(conversation)
        yield conversation


def _looked_at(
    reading: Iterable[Conversation], look: Callable[[Conversation], Iterator[Finding]], ledger: Ledger
) -> Iterator[Conversation]:
    for conversation in reading:
        for finding in look(conversation):
            ledger.add(finding)
        yield conversation


def _settle_all(conversations: Iterable[Conversation], ledger: Ledger, renderer: Renderer | None) -> None:
    """Say in the ledger what became of each row: rendered, where there is a tokenizer, and read where there is none."""
    if renderer is None:
        for conversation in conversations:
            ledger.keep(conversation.origin)
        return
    from tuition.render.corpus import settle

    for outcome in renderer.render(conversations):
        settle(ledger, outcome, side="train")


def _found_across(kept: Sequence[Conversation], *, near: bool, against: Sequence[str]) -> Iterator[Finding]:
    """What is seen only when all rows are known."""
    if near:
        yield from near_duplicates(kept)
    if against:
        yield from overlap(kept, Reading(find_sources(as_names(against)).train))


def fix(data: str, to: str | Path) -> tuple[int, list[Mend], list[Finding]]:
    """Write a mended copy of a file: safe mends only, each named; what cannot be mended is left out and named.

    Returns:
        rows written, the mends, and the findings of the rows that are not in the copy.
    """
    refuse_overwriting(data, to)
    written = 0
    mends: list[Mend] = []
    faults: list[Finding] = []

    def lines() -> Iterator[bytes]:
        nonlocal written
        for row in fixed_rows(data):
            mends.extend(row.mends)
            if row.finding is not None:
                faults.append(row.finding)
            if row.line is not None:
                written += 1
                yield f"{row.line}\n".encode()

    files.write_bytes(Path(to), lines())
    return written, mends, faults


def refuse_overwriting(source: str, to: str | Path) -> None:
    """Data is never written over by what was made from it."""
    source, _ = split_share(source)
    if Path(source).exists() and Path(to).exists() and Path(source).samefile(to):
        raise UserError("is the data itself", where=str(to), next_step="Name another file to write")


def quarantine(checked: Checked, to: str | Path) -> int:
    """Write the rejected rows with their reasons as JSONL; how many there are."""
    for source in checked.shapes.keys() | {entry.origin.file for entry in checked.ledger.rejected}:
        refuse_overwriting(source, to)
    written = 0

    def rejected() -> Iterator[bytes]:
        nonlocal written
        for line in rejected_lines(checked.ledger):
            written += 1
            yield line

    files.write_bytes(Path(to), rejected())
    return written


def make_renderer(model: str, **render: Any) -> Renderer:
    """The renderer that a run with these settings would use."""
    from tuition.render import Renderer, adopt_template, choose_template, load_tokenizer, on_day, open_model
    from tuition.render.modelfiles import longest_example, positions_in

    settings, name = make_render_settings(render), starter.model_path(model)
    tokenizer = load_tokenizer(name)
    template = on_day(
        choose_template(settings.chat_template, tokenizer, settings.chat_template_kwargs),
        settings.template_date,
    )
    adopt_template(tokenizer, template)
    positions = positions_in(open_model(name).path)
    longest = longest_example(settings.max_length, positions)
    return Renderer.from_settings(tokenizer, template, settings, max_length=longest, positions=positions)


def make_render_settings(given: Mapping[str, Any]) -> RenderSettings:
    """The render section of a recipe, from settings given one by one."""
    return make_recipe({"model": "-", "data": "-", **given}).section(RenderSettings)


def preview(
    data: str | Sequence[Any],
    model: str,
    *,
    limit: int | None = None,
    mapping: Mapping[str, str] | None = None,
    on_rejected: Callable[[Finding], None] = lambda finding: None,
    **render: Any,
) -> Iterator[tuple[Rendered, Tokens]]:
    """The examples that training would learn from, in the order of the file, with the tokenizer to read them.

    Args:
        data: files, folders or hub names; or rows themselves, as `train` takes them.
        mapping: which columns hold what, where the shape is not found by itself.
        on_rejected: told of each row that gives none.
    """
    renderer = make_renderer(model, **render)
    reading = Reading(**_parts(data)[0], mapping=mapping)
    shown = 0
    for outcome in renderer.render(reading):
        if outcome.rejection is not None:
            on_rejected(outcome.rejection)
        for example in islice(outcome.examples, None if limit is None else limit - shown):
            yield example, renderer.tokens
            shown += 1
        if shown == limit:
            return
    for finding in reading.ledger.findings:
        if finding.severity == "error":
            on_rejected(finding)


def preview_html(
    data: str | Sequence[str],
    model: str,
    to: str | Path,
    *,
    limit: int = 10_000,
    mapping: Mapping[str, str] | None = None,
    **render: Any,
) -> PageFacts:
    """Write the whole data set as one page that opens offline: ledger, findings and examples.

    Args:
        limit: most examples in the page; it says how many it leaves out. All rows are read and counted.
        mapping: which columns hold what, where the shape is not found by itself.
        render: settings of how tokens are made, such as `max_length` or `chat_template`.

    Raises:
        UserError: the page would be written over the data, or the data cannot be read.
    """
    from tuition.render.page import write_page

    sources = find_sources(as_names(data))
    for source in (*sources.train, *sources.validation, *sources.test):
        refuse_overwriting(source, to)
    title = ", ".join(as_names(data))
    return write_page(
        Path(to), sources, make_renderer(model, **render), title=title, limit=limit, mapping=mapping
    )


def prepare(data: str | Sequence[str], *, model: str, to: str | Path, **settings: Any) -> Prepared:
    """Tokenise once, into a folder under `to` named by the hash of all that decided the tokens.

    `datasets.load_from_disk(folder)["train"]` has `input_ids` and `labels`, for any trainer.

    Args:
        settings: settings of how tokens are made and rows are split, such as `max_length` or `val_split`.

    Raises:
        UserError: `stream` is asked for, which keeps no folder, or the data cannot be read.
    """
    from tuition.batch.corpus import prepare_corpus
    from tuition.recipe import DataSettings

    recipe = make_recipe({"model": model, "data": list(as_names(data)), **settings})
    if recipe.stream:
        raise UserError(
            "prepared data is one folder that holds every example, and stream keeps none",
            where="stream",
            next_step="Leave stream out here, or train with it: a run that streams prepares each file as it comes",
        )
    render = recipe.section(RenderSettings)
    corpus = prepare_corpus(
        find_sources(recipe.data),
        make_renderer(model, **render.model_dump()),
        data=recipe.section(DataSettings),
        render=render,
        seed=recipe.seed,
        root=Path(to),
    )
    return cast("Prepared", corpus.prepared)  # nothing streams here
