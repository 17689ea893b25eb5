"""Several runs side by side: what differs between them first, then what came of it. Nothing is computed anew
but the paired differences, from answers that both runs gave to the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuition.errors import UserError
from tuition.evaluate.compare import verdict_of
from tuition.evaluate.metrics import METRICS
from tuition.evaluate.report.comparison import read_score
from tuition.evaluate.report.conditions import forgetting_of
from tuition.evaluate.report.facts import Row, Run, inside, lowest_point, number, read_run, series
from tuition.evaluate.report.verdict import badge, cautions, verdict
from tuition.interval import Score, interval

_PLACES = frozenset({"output_dir"})
_MADE_WITH = ("versions", "hardware", "hashes")
_HASH_SHOWN = 12
# what decides which rows are held out and which of their tokens are scored; the seed, where no val_data is given
_HELD_OUT_BY = (
    "val_data", "val_split", "mapping", "train_on", "span_markers", "learn_reasoning", "max_length", "too_long",
    "hashes: data", "hashes: template", "hashes: tokenizer",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of every run.

    Attributes:
        scores: of each run; None where it was not evaluated by this metric.
        differences: of each run to the first, in pairs; None for the first, and where the prompts are not the same.
        verdicts: what each difference decides.
        shared: prompts that the pair answered both.
    """

    metric: str
    scores: list[Score | None]
    differences: list[Score | None]
    verdicts: list[str]
    shared: list[int]


@dataclass(frozen=True, slots=True)
class Several:
    """What a comparison of runs says.

    Attributes:
        names: of the runs, each different.
        verdicts: the sentence and the badge of each.
        cautions: what speaks against shipping each.
        differing: setting or circumstance → its value in each run, where they are not all the same.
        held_out_by: what of it makes their held-out rows others, so that the losses on those do not compare.
        figures: metrics of answers.
        rows: label → the value of each run: losses, forgetting, ledger and cost.
    """

    names: list[str]
    folders: list[str]
    verdicts: list[tuple[str, str]]
    cautions: list[list[str]]
    differing: dict[str, list[Any]]
    held_out_by: list[str]
    figures: list[Figure]
    rows: dict[str, list[float | str | None]]

    def to_json(self) -> Row:
        """The object that `report --json` prints for several runs."""
        return asdict(self)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs, in the order given.

    Raises:
        UserError: a folder holds none, or is given twice.
    """
    places = [folder.resolve() for folder in folders]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise UserError("is named twice", where=str(twice), next_step="Name each run once")
    return [read_run(folder) for folder in folders]


def side_by_side(runs: Sequence[Run]) -> Several:
    """Put what the folders say next to each other."""
    return Several(
        names=names_of(runs),
        folders=[str(run.folder) for run in runs],
        verdicts=[(verdict(run), badge(run)[0]) for run in runs],
        cautions=[cautions(run) for run in runs],
        differing=(different := differing(runs)),
        held_out_by=held_out_by(runs, different),
        figures=[figure(runs, metric) for metric in metrics_of(runs)],
        rows=figures_of(runs),
    )


def names_of(runs: Sequence[Run]) -> list[str]:
    """The folders' names; with the folder above where two are called the same."""
    names = [run.folder.resolve().name for run in runs]
    paths = [str(Path(*run.folder.resolve().parts[-2:])) for run in runs]
    return [path if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]


# --- What differs


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings first, then versions, hardware and the hashes of what went in."""
    found = _unequal([{k: v for k, v in run.recipe.items() if k not in _PLACES} for run in runs], "")
    for section in _MADE_WITH:
        parts = [inside(run.facts, section) for run in runs]
        found |= _unequal([part if isinstance(part, dict) else {} for part in parts], f"{section}: ")
    found.pop("hashes: recipe", None)  # the settings themselves say more
    if "hashes: data" not in found and all(inside(run.facts, "hashes", "data") for run in runs):
        found.pop("data", None)  # the same rows in files of other names
    return {key: [_short(key, value) for value in row] for key, row in found.items()}


def _short(key: str, value: Any) -> Any:
    """A hash by its beginning, which is enough to tell two apart; anything else as it is."""
    return value[:_HASH_SHOWN] if key.startswith("hashes: ") and isinstance(value, str) else value


def held_out_by(runs: Sequence[Run], differing: dict[str, list[Any]]) -> list[str]:
    """Of what differs, what makes the runs hold out other rows, or score other tokens of them.

    Runs say by a hash what they held out; those of earlier versions do not, and settings and data are looked at.
    """
    if all(number(run.facts, "data", "validation_examples") == 0 for run in runs):
        return []
    # a stream's hash is of its files one by one, so it is compared with another stream's alone
    sides = {(bool(run.recipe.get("stream")), inside(run.facts, "data", "validation_sha256")) for run in runs}
    known = len({stream for stream, _ in sides}) == 1 and all(found for _, found in sides)
    if known and len(sides) == 1:
        return []
    drawn = any(not run.recipe.get("val_data") for run in runs)
    decisive = {*_HELD_OUT_BY, *(("seed",) if drawn else ())}
    if "hashes: data" not in differing and all(inside(run.facts, "hashes", "data") for run in runs):
        decisive.discard("val_data")  # the same rows in files of other names
    if not drawn and "val_data" not in differing:
        decisive.discard("hashes: data")  # of the rows that are learned
    causes = [key for key in differing if key in decisive]
    return causes if causes or not known else ["what was held out"]


def _unequal(mappings: Sequence[Row], prefix: str) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    values = {str(key): [mapping.get(key) for mapping in mappings] for key in keys}
    return {prefix + key: row for key, row in values.items() if any(value != row[0] for value in row)}


# --- What came of it


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """Every metric that any run was evaluated by, in the order met."""
    found = [str(row.get("metric")) for run in runs for row in run.comparisons]
    found += [str(name) for run in runs for name in (inside(run.evaluation, "scores") or {})]
    return list(dict.fromkeys(found))


def figure(runs: Sequence[Run], metric: str) -> Figure:
    """One metric of every run, each against the first."""
    pairs = [None, *(_paired(runs[0], run, metric) for run in runs[1:])]
    return Figure(
        metric,
        scores=[score_of(run, metric) for run in runs],
        differences=pairs,
        verdicts=["" if pair is None else verdict_of(pair) for pair in pairs],
        shared=[0 if pair is None else pair.count for pair in pairs],
    )


def score_of(run: Run, metric: str) -> Score | None:
    """The tuned model's score by a metric."""
    compared = next((row.get("tuned") for row in run.comparisons if row.get("metric") == metric), None)
    return read_score(compared or inside(run.evaluation, "scores", metric))


def _paired(first: Run, other: Run, metric: str) -> Score | None:
    """The other's score minus the first's, over the prompts that both answered; None where they share none.

    Only metrics that need no file or function of the user are computed: a run folder may be a stranger's.
    """
    ours, theirs = (_answers(run, metric) for run in (first, other))
    shared = [key for key in ours if key in theirs]
    if metric not in METRICS or len(shared) < 2:
        return None
    measure = METRICS[metric]
    gains = [measure(theirs[key], key[1]) - measure(ours[key], key[1]) for key in shared]
    return interval(gains, lowest=-1.0, highest=1.0, groups=[prompt for prompt, _ in shared], seed=0)


def _answers(run: Run, metric: str) -> dict[tuple[str, str], str]:
    """(prompt, expected) → what the tuned model answered, where the evaluation kept all of it beside the scores."""
    if not any(row.get("metric") == metric for row in run.comparisons):
        return {}
    found = {}
    for row in run.samples:
        prompt, expected, tuned = (row.get(key) for key in ("prompt", "expected", "tuned"))
        if isinstance(prompt, str) and isinstance(expected, str) and isinstance(tuned, str):
            found[prompt, expected] = tuned
    return found


def figures_of(runs: Sequence[Run]) -> dict[str, list[float | str | None]]:
    """Losses, forgetting, ledger and cost: a row a figure, a value a run; rows that nobody has are left out."""
    rows: dict[str, list[float | str | None]] = {
        "best held-out loss": [_best(run) for run in runs],
        "at step": [number(run.facts, "result", "best_step") for run in runs],
        "loss in the evaluation": [number(run.evaluation, "held_out", "loss") for run in runs],
        "bits a byte in the evaluation": [
            number(run.evaluation, "held_out", "bits_per_byte") for run in runs
        ],
        "forgotten, bits a byte": [number(forgetting_of(run), "difference", "value") for run in runs],
        "rows read": [number(run.facts, "data", "rows_in") for run in runs],
        "rows rejected": [number(run.facts, "data", "rejected") for run in runs],
        "rows cut": [number(run.facts, "data", "truncated") for run in runs],
        "examples learned from": [number(run.facts, "data", "train_examples") for run in runs],
        "updates": [number(run.facts, "result", "step") for run in runs],
        "tokens trained on": [number(run.facts, "result", "tokens") for run in runs],
        "of them learned": [number(run.facts, "result", "learned_tokens") for run in runs],
        "weights that learn": [number(run.facts, "model", "trainable_parameters") for run in runs],
        "seconds of training": [number(run.facts, "result", "seconds") for run in runs],
        "seconds of the whole run": [number(run.facts, "seconds") for run in runs],
        "tokens a second": [number(run.facts, "result", "tokens_per_second") for run in runs],
        "peak memory, bytes": [number(run.facts, "result", "peak_memory_bytes") for run in runs],
        "device": [inside(run.facts, "hardware", "device") for run in runs],
        "status": [inside(run.facts, "status") for run in runs],
    }
    return {name: values for name, values in rows.items() if any(value is not None for value in values)}


def _best(run: Run) -> float | None:
    points = series(run.held_out, "eval_loss")
    return lowest_point(points)[1] if points else None
