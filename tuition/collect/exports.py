"""Exports: what people wrote and judged as files for training, with where each row came from beside it.

An export is drawn once and kept line by line, so that its id gives the same bytes for ever, whatever is
written, edited or withdrawn afterwards. Rows without consent or licence are refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuition import files
from tuition.collect.accepted import iso, prompt_groups, read_accepted, refusal_of
from tuition.collect.refusals import NotFoundError
from tuition.collect.sources import Source
from tuition.collect.store import Store, as_json
from tuition.collect.winrate import WORTH
from tuition.errors import UserError

REFUSED = "refused.jsonl"
_LINES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of the groups that are held out, 0 to 1 in sum; the rest is training data."""

    validation: float = 0.05
    test: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Export:
    """An export that the store keeps.

    Attributes:
        id: the digest of its lines.
        files: name → number of lines.
    """

    id: str
    kind: str
    created_at: float
    files: dict[str, int]

    @property
    def refused(self) -> int:
        """Rows that lack consent or licence."""
        return self.files.get(REFUSED, 0)


Line = tuple[str, str]  # the file, and the line without its end


def make(store: Store, kind: str, split: Split, *, made_by: str, by: int | None) -> Export:
    """Draw an export from what is accepted or judged now; the same content is the same export.

    Args:
        kind: a key of `EXPORTS`.
        made_by: name and version of the program.

    Raises:
        UserError: the kind is unknown, or the shares leave nothing to train on.
    """
    if kind not in EXPORTS:
        raise UserError(f"unknown export '{kind}'", next_step=f"Choose one of: {', '.join(EXPORTS)}")
    if min(split.validation, split.test) < 0 or split.validation + split.test >= 1:
        raise UserError("the held-out shares must leave something to train on", next_step="Lower them")
    with store.writing() as db:
        export_id = _digest(kind, split, EXPORTS[kind](store, split))
        if db.execute("SELECT 1 FROM export WHERE id = ?", (export_id,)).fetchone() is None:
            row = (export_id, kind, as_json(asdict(split)), made_by, store.now())
            db.execute("INSERT INTO export VALUES (?,?,?,?,?)", row)
            numbers: Counter[str] = Counter()
            for file, text in EXPORTS[kind](store, split):
                numbers[file] += 1
                db.execute("INSERT INTO export_line VALUES (?,?,?,?)", (export_id, file, numbers[file], text))
            store.note("exported", f"export {export_id}", by=by, kind=kind)
        return export(store, export_id)


def unfilled(drawn: Export, split: Split) -> str:
    """A sentence about sides that were asked for and got no row; empty where there is none.

    Each group falls on a side by itself, so of few groups a small share may get none.
    """
    if "train.jsonl" not in drawn.files:
        return ""
    wanted = {"validation": split.validation, "test": split.test}
    empty = [
        f"{side} ({100 * share:.3g}%)"
        for side, share in wanted.items()
        if share and f"{side}.jsonl" not in drawn.files
    ]
    return f"No group fell into {' and '.join(empty)}: they are few. Ask for a larger share." if empty else ""


def _digest(kind: str, split: Split, lines: Iterator[Line]) -> str:
    digest = hashlib.sha256(as_json([kind, asdict(split)]).encode())
    for line in lines:
        digest.update(as_json(line).encode())
    return digest.hexdigest()[:16]


def export(store: Store, export_id: str) -> Export:
    """One export that was drawn before.

    Raises:
        NotFoundError: there is none of that id.
    """
    found = next((one for one in exports(store) if one.id == export_id), None)
    if found is None:
        raise NotFoundError(f"there is no export {export_id}", next_step="See: tuition collect status")
    return found


def exports(store: Store) -> list[Export]:
    """All exports, the newest first."""
    with store.reading() as db:
        rows = db.execute("SELECT id, kind, created_at FROM export ORDER BY created_at DESC, id").fetchall()
        counted = "SELECT file, count(*) FROM export_line WHERE export_id = ? GROUP BY file ORDER BY file"
        return [
            Export(
                row["id"], row["kind"], row["created_at"], dict(db.execute(counted, (row["id"],)).fetchall())
            )
            for row in rows
        ]


def write(store: Store, export_id: str, folder: str | Path) -> Path:
    """Write an export's files into a new folder, whole or not at all; the same id gives the same bytes.

    Raises:
        NotFoundError: there is no such export.
        UserError: the folder exists.
    """
    found, target = export(store, export_id), Path(folder)
    if target.exists():
        raise UserError("exists already", where=str(folder), next_step="Name another folder, or remove it")
    files.make_folder(target.absolute().parent)
    temporary = files.fresh_folder(target.with_name(f".{target.name}.tmp"))
    try:
        for name in found.files:
            files.write_new(temporary / name, lines_of(store, export_id, name))
        files.write_new(temporary / "export.json", [files.json_bytes(_card(store, found))])
        files.publish_folder(temporary, target)
    finally:
        files.remove_tree(temporary)
    return target


def lines_of(store: Store, export_id: str, file: str) -> Iterator[bytes]:
    """The lines of one file of an export, as they are written. No reading stays open between them."""
    query = """SELECT line, text FROM export_line WHERE export_id = ? AND file = ? AND line > ?
        ORDER BY line LIMIT ?"""
    last = 0
    while True:
        with store.reading() as db:
            some = db.execute(query, (export_id, file, last, _LINES_AT_ONCE)).fetchall()
        yield from (f"{text}\n".encode() for _, text in some)
        if len(some) < _LINES_AT_ONCE:
            return
        last = some[-1]["line"]


def _card(store: Store, found: Export) -> dict[str, Any]:
    """What an export says about itself: its id, how it was drawn, and rows by source and file."""
    with store.reading() as db:
        row = db.execute("SELECT * FROM export WHERE id = ?", (found.id,)).fetchone()
        lines = db.execute(
            "SELECT file, text FROM export_line WHERE export_id = ? AND file LIKE '%.provenance.jsonl'",
            (found.id,),
        )
        by_source: dict[str, Counter[str]] = {}
        for file, text in lines:
            data_file = file.replace(".provenance.jsonl", ".jsonl")
            by_source.setdefault(json.loads(text)["source"], Counter())[data_file] += 1
    return {
        "id": found.id,
        "kind": found.kind,
        "drawn_at": iso(found.created_at),
        "made_by": row["made_by"],
        "split": json.loads(row["filter"]),
        "lines": found.files,
        "by_source": {source: dict(sorted(counts.items())) for source, counts in sorted(by_source.items())},
    }


# --- the kinds ---


def _demonstrations(store: Store, split: Split) -> Iterator[Line]:
    """Messages JSONL, and beside each file its provenance, line by line."""
    for one in read_accepted(store):
        if one.refusal is not None:
            yield REFUSED, as_json({"demonstration": one.demonstration_id, "reason": one.refusal})
            continue
        side = side_of(one.group, split)
        yield f"{side}.jsonl", as_json(one.row)
        yield f"{side}.provenance.jsonl", as_json(one.provenance)


def _preferences(
    shape: Callable[[list[Any], str, str], dict[str, Any]],
) -> Callable[[Store, Split], Iterator[Line]]:
    """One row for each pair of answers that judges decided; ties go to a file of their own.

    All comparisons of a prompt carry its group, because a reward model overfits when they are spread over
    batches (InstructGPT, section 3.5).
    """

    def lines(store: Store, split: Split) -> Iterator[Line]:
        for pair in _judged_pairs(store):
            refusal = refusal_of(Source(0, pair["source"], pair["licence"], pair["consent"]))
            if refusal is not None:
                yield REFUSED, as_json({"pair": pair["id"], "reason": refusal})
                continue
            provenance = {
                key: pair[key] for key in ("group", "source", "licence", "consent", "verdicts", "judges")
            }
            provenance |= {"pair": pair["id"], "batch": pair["batch_id"], "prompt": pair["prompt_id"]}
            worth = sum(WORTH[verdict] for verdict in pair["verdicts"]) / len(pair["verdicts"])
            if worth == 0.5:
                yield "ties.provenance.jsonl", as_json(provenance)
                continue
            better, worse = ("a", "b") if worth > 0.5 else ("b", "a")
            row = shape(json.loads(pair["messages"]), pair[f"answer_{better}"], pair[f"answer_{worse}"])
            side = side_of(pair["group"], split)
            models = {"chosen": pair[f"model_{better}"], "rejected": pair[f"model_{worse}"]}
            yield f"{side}.jsonl", as_json({**row, "group_id": pair["group"]})
            yield f"{side}.provenance.jsonl", as_json({**provenance, **models})

    return lines


def _judged_pairs(store: Store) -> Iterator[dict[str, Any]]:
    query = """SELECT p.*, b.model_a, b.model_b, q.messages, so.name AS source, so.licence, so.consent
        FROM pair p JOIN batch b ON b.id = p.batch_id JOIN prompt q ON q.id = p.prompt_id
        JOIN source so ON so.id = q.source_id WHERE p.expected IS NULL AND b.tests = 0
        AND EXISTS (SELECT 1 FROM judgement WHERE pair_id = p.id AND state = 'judged') ORDER BY p.id"""
    said = """SELECT j.verdict, person.name FROM judgement j JOIN person ON person.id = j.person_id
        WHERE j.pair_id = ? AND j.state = 'judged' ORDER BY j.id"""
    with store.reading() as db:
        groups = prompt_groups(db)
        for row in db.execute(query):
            verdicts = db.execute(said, (row["id"],)).fetchall()
            yield {
                **dict(row),
                "group": groups[row["prompt_id"]],
                "verdicts": [verdict for verdict, _ in verdicts],
                "judges": [name for _, name in verdicts],
            }


def _trl(messages: list[Any], chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": messages, "chosen": _answer(chosen), "rejected": _answer(rejected)}


def _openai(messages: list[Any], chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "input": {"messages": messages},
        "preferred_output": _answer(chosen),
        "non_preferred_output": _answer(rejected),
    }


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def side_of(group: str, split: Split) -> str:
    """train, validation or test: a pure function of group and seed, so a group never moves or divides."""
    digest = hashlib.sha256(f"{split.seed} {group}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2.0**64
    if place < split.validation:
        return "validation"
    return "test" if place < split.validation + split.test else "train"


EXPORTS: dict[str, Callable[[Store, Split], Iterator[Line]]] = {
    "demonstrations": _demonstrations,
    "preferences": _preferences(_trl),
    "preferences-openai": _preferences(_openai),
}
