"""The rows that a run held out, found again in the files that its recipe names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuition.batch.corpus import data_sha256_now, sources_of
from tuition.data import split_share
from tuition.errors import UserError
from tuition.foreign import lines_of
from tuition.recipe import DataSettings, load_recipe
from tuition.train.folder import RunFolder

_NAME_ROWS = "Name rows that it was not trained on: --data FILE"


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """What a run was validated on.

    Attributes:
        sources: the files, or names on the hub, that hold them, whole: a share chose among rows by the run's seed.
        places: file and line of each, as the ledger has them.
        mapping: which column is what, as the run read them.
    """

    sources: tuple[str, ...]
    places: frozenset[tuple[str, int]]
    mapping: Mapping[str, str] | None = None

    @property
    def sentence(self) -> str:
        """What is scored where nobody named anything."""
        files = ", ".join(sorted({Path(file).name for file, _ in self.places}))
        rows = "the one row" if len(self.places) == 1 else f"the {len(self.places):,} rows"
        return f"no --data was given: {rows} of {files} that training held out"


def held_out_rows(run: RunFolder) -> HeldOutRows | None:
    """The rows that a run kept apart, by its ledger; None where it kept none.

    Raises:
        UserError: the data is not there, or is no longer what the run read; or the ledger is damaged.
    """
    if not run.holds_a_run() or not run.ledger.exists():
        return None
    run.refuse_foreign()
    try:
        places, then = frozenset(_places(run)), run.read_facts()["hashes"]["data"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"nothing readable says which rows were held out ({error!r:.100})",
            where=str(run.path),
            next_step=_NAME_ROWS,
        ) from None
    if not places:
        return None
    data, facts = load_recipe(run.recipe).section(DataSettings), run.read_facts()
    if data.stream:  # what was read file by file was hashed file by file
        return None
    try:
        sources, now = sources_of(data), data_sha256_now(data)
    except UserError as fault:
        raise UserError(
            f"the rows that training held out cannot be found: {fault.what}",
            where=fault.where,
            next_step=f"Run this in {facts.get('working_folder')}, where training ran. {_NAME_ROWS}",
        ) from None
    if now != then:
        raise UserError(
            "the data is no longer what the run read, so nothing says which of its rows were held out",
            where=", ".join((*data.data, *data.val_data, *data.replay)),
            next_step=_NAME_ROWS,
        )
    whole = dict.fromkeys(split_share(source)[0] for source in (*sources.train, *sources.validation))
    return HeldOutRows(tuple(whole), places, data.mapping)


def _places(run: RunFolder) -> Iterator[tuple[str, int]]:
    for row in map(json.loads, lines_of(run.ledger)):
        if row["side"] == "validation":
            yield str(row["file"]), int(row["line"])
