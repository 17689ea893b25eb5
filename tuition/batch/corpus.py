"""The examples of a run: found prepared, or read, rendered and prepared now. Memory does not grow with them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuition import files
from tuition.batch.prepared import (
    JoinedSide,
    Prepared,
    PreparedKey,
    PreparedSide,
    code_sha256,
    find_prepared,
    hash_sources,
    remove_unused,
    tokenizer_sha256,
    write_prepared,
)
from tuition.conversation import Conversation, Rendered
from tuition.data import Ledger, Side, Sources, Totals, find_sources
from tuition.errors import UserError
from tuition.recipe import DataSettings, RenderSettings
from tuition.render import Renderer
from tuition.render.corpus import Rendering
from tuition.render.evidence import Evidence

if TYPE_CHECKING:
    from tuition.batch.stream.files import StreamedFiles

DAYS_KEPT = 30

Tell = Callable[[str], None]
Hashes = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All examples of a run, and the account of them.

    Attributes:
        prepared: where they lie.
        sources: each source with the SHA-256 of its content.
        totals: the figures of the ledger.
        evidence: what was seen of every example as it was made.
        shapes: source → the shape found in it.
        held_out: the first conversations behind the held-out examples, for answers to be compared with.
        learned_from: the first behind the others.
    """

    prepared: Prepared | StreamedFiles
    sources: tuple[tuple[str, str], ...]
    totals: Totals
    evidence: Evidence
    shapes: Mapping[str, str]
    held_out: tuple[Conversation, ...]
    learned_from: tuple[Conversation, ...]

    @property
    def train(self) -> PreparedSide | JoinedSide:
        """Examples that are learned from."""
        return self.prepared.train

    @property
    def validation(self) -> PreparedSide | JoinedSide:
        """Examples that are held out."""
        return self.prepared.validation

    @property
    def at_hand(self) -> PreparedSide | JoinedSide:
        """Examples to look at before step 1: all that are learned from, or some of each file where data streams."""
        return self.prepared.at_hand

    @property
    def stand_ins(self) -> Sequence[Rendered]:
        """As long as those that are learned from, place by place; where data streams, with other tokens."""
        return self.prepared.stand_ins

    @property
    def tokens(self) -> int:
        """Tokens of both sides, as they lie there."""
        return self.train.tokens + self.validation.tokens

    @property
    def learned_tokens(self) -> int:
        """Learned tokens of both sides, as they lie there."""
        return self.train.learned_tokens + self.validation.learned_tokens

    def facts(self) -> dict[str, Any]:
        """The `data` section of run.json."""
        totals, lengths = self.totals, self._lengths()
        shortest, longest = min(lengths), max(lengths)
        counts, edges = np.histogram(
            list(lengths), weights=list(lengths.values()), bins=_whole_bins(shortest, longest)
        )
        return {
            "shapes": dict(self.shapes),
            "rows_in": totals.rows_in,
            "kept": totals.kept,
            "rejected": totals.rejected,
            "left_out": totals.left_out,
            "truncated": totals.truncated,
            "examples": len(self.train) + len(self.validation),
            "train_examples": len(self.train),
            "validation_examples": len(self.validation),
            "tokens": self.tokens,
            "learned_tokens": self.learned_tokens,
            "longest_tokens": longest,
            "length_histogram": {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]},
        }

    def _lengths(self) -> dict[int, int]:
        """Length in tokens → examples of both sides of that length."""
        both = dict(self.train.lengths)
        for length, count in self.validation.lengths.items():
            both[length] = both.get(length, 0) + count
        return both


def _whole_bins(shortest: int, longest: int) -> npt.NDArray[np.int64]:
    """At most 30 bins of whole tokens, so that none is empty only because it falls between two counts."""
    width = -(-(longest - shortest + 1) // 30)
    return np.arange(shortest, longest + width + 1, width)


def cache_folder() -> Path:
    """Where runs keep prepared data: $TUITION_CACHE, else the user's cache folder."""
    own = os.environ.get("TUITION_CACHE")
    general = os.environ.get("XDG_CACHE_HOME")
    folder = Path(own) if own else (Path(general) if general else Path.home() / ".cache") / "tuition"
    return folder / "prepared"


def sources_of(data: DataSettings) -> Sources:
    """What is learned from and what is held out, as the recipe names them.

    Raises:
        UserError: one of them is not there.
    """
    sources = find_sources(data.data)
    if data.val_data:
        held_out = find_sources(data.val_data)
        sources = sources.with_validation(held_out.validation or held_out.test or held_out.train)
    return sources


def data_sha256(sources: Iterable[tuple[str, str]]) -> str:
    """One hash over those of all sources, in their order."""
    return hashlib.sha256("".join(sha256 for _, sha256 in sources).encode()).hexdigest()


def data_sha256_now(data: DataSettings) -> str:
    """`data_sha256` of what the recipe names, as it is now.

    Raises:
        UserError: one of the sources is not there.
    """
    folder = cache_folder()
    files.make_folder(folder)
    sources = sources_of(data).with_replay(data.replay, data.replay_share)
    return data_sha256([pair for side in _hashes(folder, sources) for pair in side])


def prepare_corpus(
    sources: Sources,
    renderer: Renderer,
    *,
    data: DataSettings,
    render: RenderSettings,
    seed: int,
    root: Path | None = None,
    tell: Tell = lambda text: None,
) -> Corpus:
    """The examples of these sources under these settings, prepared before or now.

    Args:
        render: with every `auto` resolved; all of it goes into the name.
        root: the folder that holds prepared data; None: the cache of runs, where what was not used for
            30 days is removed.
        tell: told what takes a while.

    Raises:
        UserError: nothing is left to learn from, or the folder cannot be written.
    """
    folder = root or cache_folder()
    sources = sources.with_replay(data.replay, data.replay_share)
    try:
        files.make_folder(folder)
        key = key_of(folder, sources, renderer, data, render, seed)
        prepared = find_or_clear(folder, key, tell) if root is None else find_prepared(folder, key)
        if prepared is None:
            rendering = Rendering(sources, renderer, data.val_split, seed, data.mapping)
            unchanged = partial(refuse_changed, key, sources, folder)
            prepared = prepare(folder, key, rendering, tell, unchanged)
        if root is None:
            remove_unused(folder, prepared, days=DAYS_KEPT)
    except OSError as error:
        raise UserError(
            f"prepared data cannot be written ({error.strerror or error})",
            where=str(folder),
            next_step="Make room, or name another folder in the environment variable TUITION_CACHE",
        ) from error
    (summary,) = prepared.records("summary")
    renderer.recall(summary["renderer"])
    return Corpus(
        prepared,
        (*key.train, *key.validation),
        Totals.from_json(summary["totals"]),
        Evidence.from_json(summary["evidence"]),
        summary["shapes"],
        tuple(map(Conversation.from_json, summary["held_out"])),
        tuple(map(Conversation.from_json, summary["learned_from"])),
    )


def key_of(
    folder: Path,
    sources: Sources,
    renderer: Renderer,
    data: DataSettings,
    render: RenderSettings,
    seed: int,
) -> PreparedKey:
    """What decides the examples of these sources."""
    template = renderer.template
    train, validation = _hashes(folder, sources)
    day = str(template.date) if template and template.asks_date else None  # no other template is told it
    return PreparedKey(
        train=train,
        validation=validation,
        template=template.source if template else None,
        tokenizer=tokenizer_sha256(renderer.tokens.tokenizer),
        settings={
            **data.model_dump(mode="json"),
            **render.model_dump(mode="json"),
            "template_date": day,
            "way_to_longer": renderer.way_to_longer,  # stands in findings
            "seed": seed,
        },
        code=code_sha256(),
    )


def _hashes(folder: Path, sources: Sources) -> tuple[Hashes, Hashes]:
    """The hashes of what is learned from, and of what is held out."""
    memo = folder / "sources.json"
    return hash_sources((*sources.train, *sources.replay), memo), hash_sources(sources.validation, memo)


def refuse_changed(key: PreparedKey, sources: Sources, folder: Path) -> None:
    """Refuse what was written while it was read: its examples are not those of the hash they would be kept under."""
    before, now = (*key.train, *key.validation), [pair for side in _hashes(folder, sources) for pair in side]
    changed = [source for (source, old), (_, new) in zip(before, now, strict=True) if old != new]
    if changed:
        raise UserError(
            "the data changed while it was read",
            where=", ".join(changed),
            next_step="Start again when nothing writes to it any more",
        )


def find_or_clear(folder: Path, key: PreparedKey, tell: Tell) -> Prepared | None:
    """As `find_prepared`, but what is damaged in a cache is made again."""
    try:
        return find_prepared(folder, key)
    except UserError as fault:
        tell(f"{fault.where}: {fault.what}; it is made again")
        files.remove_tree(folder / key.name)
        return None


def prepare(
    folder: Path, key: PreparedKey, rendering: Rendering, tell: Tell, check_unchanged: Callable[[], None]
) -> Prepared:
    """Read, render and write all of it. Raises as `Rendering` and `write_prepared` do."""
    ledger = rendering.ledger
    return write_prepared(
        folder,
        key,
        _all_of(rendering, tell, check_unchanged),
        records={
            "ledger": ledger.to_rows(),
            "findings": _findings(ledger),
            "prompts": _prompts(rendering),
            "summary": _summary(rendering),
        },
    )


def _all_of(
    rendering: Rendering, tell: Tell, check_unchanged: Callable[[], None]
) -> Iterator[tuple[Side, Rendered]]:
    """The examples as they come, and a check when the last was read."""
    yield from rendering.ledger.telling(rendering, tell)
    check_unchanged()


def _findings(ledger: Ledger) -> Iterator[dict[str, object]]:
    """The findings of a ledger, asked for only when it is full."""
    for finding in ledger.findings:
        yield finding.to_json()


def _prompts(rendering: Rendering) -> Iterator[dict[str, list[str]]]:
    """The prompts that are learned from, asked for only when the last row was read."""
    yield from rendering.learned_prompts.to_rows()


def _summary(rendering: Rendering) -> Iterator[dict[str, Any]]:
    """One object with all that a later start needs, made when the last row was read."""
    yield {
        "totals": rendering.ledger.totals().to_json(),
        "evidence": rendering.witness.finish().to_json(),
        "shapes": rendering.shapes,
        "renderer": rendering.renderer.learned(),
        "held_out": [conversation.to_json() for conversation in rendering.held_out],
        "learned_from": [conversation.to_json() for conversation in rendering.learned_from],
    }
