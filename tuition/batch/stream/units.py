"""One file of data that streams: how it is prepared, and what stays of it when its examples are taken off the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuition import files
from tuition.batch.corpus import find_or_clear, key_of, prepare, refuse_changed
from tuition.batch.prepared import (
    Prepared,
    PreparedKey,
    PreparedSide,
    find_prepared,
    hash_sources,
    write_prepared,
)
from tuition.conversation import Rendered
from tuition.data import Side, Sources
from tuition.errors import UserError
from tuition.recipe import DataSettings, ModelSettings, RenderSettings
from tuition.render import Renderer, adopt_template, choose_template, load_tokenizer, on_day
from tuition.render.corpus import Rendering

KEPT = "kept"  # the folder, beside prepared data, of what stays of files
_EXAMPLES_AT_HAND = 64  # of each file
_LENGTHS_A_LINE = 4096


@dataclass(frozen=True, slots=True)
class Unit:
    """What is prepared by itself: a file that is learned from, or all that is held out by name."""

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()

    @property
    def sources(self) -> Sources:
        """For `Rendering`."""
        return Sources(self.train, self.validation)

    def __str__(self) -> str:
        return ", ".join(self.train or self.validation)


@dataclass(frozen=True, slots=True)
class Job:
    """All that a process needs to prepare any unit of a run.

    Attributes:
        model: names the tokenizer.
        data: of the run.
        render: with every `auto` resolved.
        positions: the most tokens that the model holds; None: it does not say.
        root: the folder of prepared data.
    """

    model: ModelSettings
    data: DataSettings
    render: RenderSettings
    positions: int | None
    seed: int
    root: str

    def to_json(self) -> str:
        """One line, from which `from_json` makes the same job."""
        sections = {name: getattr(self, name).model_dump(mode="json") for name in ("model", "data", "render")}
        return json.dumps({**sections, "positions": self.positions, "seed": self.seed, "root": self.root})

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The job that was written."""
        value = json.loads(line)
        return cls(
            ModelSettings(**value["model"]),
            DataSettings(**value["data"]),
            RenderSettings(**value["render"]),
            value["positions"],
            value["seed"],
            value["root"],
        )

    def settings_of(self, unit: Unit) -> DataSettings:
        """The data settings that decide the examples of a unit: no other file is named in them."""
        alone = {"data": unit.train, "val_data": unit.validation, "stream": False}
        defaults = {name: DataSettings.model_fields[name].default for name in ("stream_files", "stream_gb")}
        share = 0.0 if self.data.val_data else self.data.val_split
        return self.data.model_copy(update={**alone, **defaults, "val_split": share})

    def renderers(self) -> Iterator[Renderer]:
        """A new renderer for each unit: what the rows of one teach about the template is no matter of another's."""
        model = self.model
        tokenizer = load_tokenizer(model.model, model.revision, trusted=model.trust_remote_code)
        chosen = choose_template(self.render.chat_template, tokenizer, self.render.chat_template_kwargs)
        template = on_day(chosen, self.render.template_date)
        adopt_template(tokenizer, template)
        while True:
            yield Renderer.from_settings(
                tokenizer,
                template,
                self.render,
                max_length=int(self.render.max_length),
                positions=self.positions,
            )


def keys_of(job: Job, units: Sequence[Unit], renderer: Renderer) -> list[PreparedKey]:
    """What decides the examples of each unit, its content included.

    Raises:
        UserError: a file is not there.
    """
    root = Path(job.root)
    one = key_of(root, Sources(()), renderer, job.data, job.render, job.seed)  # what all have in common
    names = [name for unit in units for name in (*unit.train, *unit.validation)]
    hashes = dict(zip(names, hash_sources(names, root / "sources.json"), strict=True))
    return [
        replace(
            one,
            train=tuple(hashes[name] for name in unit.train),
            validation=tuple(hashes[name] for name in unit.validation),
            settings={**one.settings, **job.settings_of(unit).model_dump(mode="json")},
        )
        for unit in units
    ]


def prepare_unit(job: Job, unit: Unit, renderer: Renderer, *, expected: str) -> None:
    """Prepare a unit into the job's folder, with what stays of it.

    Args:
        expected: the name that its key has.

    Raises:
        UserError: the file is not what it was when the run began, or cannot be read.
    """
    root = Path(job.root)
    (key,) = keys_of(job, [unit], renderer)
    if key.name != expected:
        raise unit_changed(unit)
    prepared = find_or_clear(root, key, lambda text: None)
    if prepared is None:
        settings = job.settings_of(unit)
        rendering = Rendering(
            unit.sources, renderer, settings.val_split, job.seed, settings.mapping, whole=False
        )
        unchanged = partial(refuse_changed, key, unit.sources, root)
        prepared = prepare(root, key, rendering, lambda text: None, unchanged)
    kept = Kept.find(root, key)
    if kept is None:
        _keep(root / KEPT, key, prepared)
    elif kept.side.sha256 != prepared.train.sha256:
        files.remove_folder(prepared.folder)
        raise unit_changed(unit)


def unit_changed(unit: Unit) -> UserError:
    """What is said of a file that is not what it was."""
    return UserError(
        "the file is not what it was when the run began",
        where=str(unit),
        next_step="Put it back as it was, or start a new run with another output_dir",
    )


def _keep(root: Path, key: PreparedKey, prepared: Prepared) -> None:
    """Write what stays of a unit: its held-out examples, the first of the others, its records, and figures."""
    train = prepared.train
    (summary,) = prepared.records("summary")
    shown = {side: summary.pop(side) for side in ("held_out", "learned_from")}
    facts = {
        "examples": len(train),
        "tokens": train.tokens,
        "learned_tokens": train.learned_tokens,
        "lengths": sorted(train.lengths.items()),
        "sha256": train.sha256,
        "bytes": files.folder_bytes(prepared.folder),
    }
    write_prepared(
        root,
        key,
        _examples_to_keep(prepared),
        records={
            **{name: prepared.records(name) for name in ("ledger", "findings", "prompts")},
            "summary": [summary],
            "shown": [shown],
            "facts": [facts],
            "lengths": _length_rows(train.example_lengths()),
        },
    )


def _examples_to_keep(prepared: Prepared) -> Iterator[tuple[Side, Rendered]]:
    yield from (("train", example) for example in prepared.train[:_EXAMPLES_AT_HAND])
    for place in range(len(prepared.validation)):
        yield "validation", prepared.validation[place]


def _length_rows(lengths: npt.NDArray[np.int64]) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(lengths), _LENGTHS_A_LINE):
        yield {"lengths": lengths[start : start + _LENGTHS_A_LINE].tolist()}


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a file's training examples while they are not on the disk; see `PreparedSide`."""

    examples: int
    tokens: int
    learned_tokens: int
    lengths: dict[int, int]
    sha256: str
    bytes: int


class Kept:
    """What stays of a unit.

    Attributes:
        side: figures of its training examples.
        at_hand: the first of them.
        validation: all that is held out of it.
    """

    def __init__(self, prepared: Prepared) -> None:
        (facts,) = prepared.records("facts")
        self.prepared = prepared
        self.side = Figures(**{**facts, "lengths": dict(facts["lengths"])})

    @classmethod
    def find(cls, root: Path, key: PreparedKey) -> Kept | None:
        """What stays of the unit of that key; None where it was never prepared.

        Raises:
            UserError: it is there and damaged.
        """
        prepared = find_prepared(root / KEPT, key)
        return None if prepared is None else cls(prepared)

    @property
    def at_hand(self) -> PreparedSide:
        return self.prepared.train

    @property
    def validation(self) -> PreparedSide:
        return self.prepared.validation

    def example_lengths(self) -> npt.NDArray[np.int64]:
        """The length of each training example in order: (examples,) int64, in tokens."""
        rows = [row["lengths"] for row in self.prepared.records("lengths")]
        return np.concatenate([np.zeros(0, np.int64), *(np.array(row, np.int64) for row in rows)])
