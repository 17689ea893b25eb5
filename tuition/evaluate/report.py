"""The report of a run: one HTML file that opens offline and says whether to ship.

It reads what the run folder holds and computes nothing that is not there: no model is loaded, no answer
is generated. A file that is missing or torn costs its own section, never the report.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tuition.errors import UserError
from tuition.evaluate.metrics import METRICS, Score
from tuition.files import write_text

REPORT = "report.html"
TEMPLATE = "report.html.jinja"

SHOWN_REJECTED = 20
SHOWN_PAIRS = 3  # of wins, of losses and of the rest; more unfold
UNFOLDED_PAIRS = 20
SHOWN_CHARACTERS = 900
SHOWN_TOKENS = 800
SHOWN_EVALUATIONS = 40
SHOWN_DOTS = 60  # more run into each other; the line says it all then
FEW_PROMPTS = 30  # below it the bootstrap interval is too narrow to lean on

NO_BREAK = "\u00a0"  # a number and its unit stay on one line

METRIC_NAMES = {
    "exact_match": "exact match",
    "contains": "expected text contained",
    "number": "right number",
    "f1": "word F1",
    "rouge_l": "ROUGE-L",
}
BADGES = {
    "better": ("better than the base model", "good"),
    "worse": ("worse than the base model", "bad"),
    "not decided": ("not decided", "open"),
}
FATES = ("kept", "split", "truncated", "rejected")
SEVERITIES = ("error", "warning", "info")

Row = dict[str, Any]
Point = tuple[float, float]


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Raises:
        UserError: the folder does not exist or holds neither a recipe nor a run.
        OSError: the report could not be written.
    """
    run = read_run(run_folder)
    page = environment().get_template(TEMPLATE).render(view(run))
    path = run_folder / REPORT
    write_text(path, page)
    return path


def environment() -> Environment:
    """Jinja with everything escaped, and a name that the template knows and we do not is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


# --- Reading the run folder


@dataclass
class Ledger:
    """What became of the rows, in numbers: the file itself may have a million lines.

    Attributes:
        fates: rows by fate.
        reasons: rows by fate and code.
        sentences: the first reason given for a fate and code.
        rejected: the first rejected rows.
    """

    fates: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    sentences: dict[tuple[str, str], str] = field(default_factory=dict)
    rejected: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count one row."""
        fate = str(row.get("fate"))
        self.fates[fate] += 1
        if row.get("code") or row.get("reason"):
            why = (fate, str(row.get("code") or "–"))
            self.reasons[why] += 1
            self.sentences.setdefault(why, str(row.get("reason") or ""))
        if fate == "rejected" and len(self.rejected) < SHOWN_REJECTED:
            self.rejected.append(row)


@dataclass(frozen=True)
class Run:
    """What a run folder holds; empty where a file is missing.

    Attributes:
        training: one row a step, in order, the last one where a resumed run wrote a step twice.
        held_out: one row an evaluation, likewise.
        unreadable: a sentence for each file that is there and could not be read whole.
    """

    folder: Path
    facts: Row
    recipe: Row
    training: list[Row]
    held_out: list[Row]
    ledger: Ledger
    findings: list[Row]
    samples: list[Row]
    comparisons: list[Row]
    example: Row
    unreadable: list[str]


def read_run(folder: Path) -> Run:
    """Read the files of a run folder.

    Raises:
        UserError: the folder does not exist or holds neither a recipe nor a run.
    """
    if not any((folder / name).is_file() for name in ("recipe.yaml", "run.json", "metrics.jsonl")):
        raise UserError(
            "there is no run here", where=str(folder), next_step="Give the folder that train made."
        )
    unreadable: list[str] = []
    training, held_out = read_metrics(read_rows(folder / "metrics.jsonl", unreadable))
    ledger = Ledger()
    for row in read_rows(folder / "ledger.jsonl", unreadable):
        ledger.add(row)
    comparisons = read_object(folder / "evaluation.json", json.loads, unreadable).get("comparisons")
    return Run(
        folder=folder,
        facts=read_object(folder / "run.json", json.loads, unreadable),
        recipe=read_object(folder / "recipe.yaml", yaml.safe_load, unreadable),
        training=training,
        held_out=held_out,
        ledger=ledger,
        findings=list(read_rows(folder / "findings.jsonl", unreadable)),
        samples=list(read_rows(folder / "samples.jsonl", unreadable)),
        comparisons=[row for row in listed(comparisons) if isinstance(row, dict)],
        example=read_object(folder / "example.json", json.loads, unreadable),
        unreadable=unreadable,
    )


def read_object(path: Path, parse: Callable[[str], Any], unreadable: list[str]) -> Row:
    """The mapping in a file; empty if the file is missing, or broken, which is noted."""
    try:
        # surrogates carry bytes that are not UTF-8 as far as `visible`, which shows them
        value = parse(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, yaml.YAMLError):
        value = None
    if isinstance(value, dict):
        return value
    unreadable.append(f"{path.name} could not be read.")
    return {}


def read_rows(path: Path, unreadable: list[str]) -> Iterator[Row]:
    """The objects of a JSON Lines file, one at a time; lines that are none are counted and noted."""
    torn = 0
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                row = parse_row(line)
                if row is not None:
                    yield row
                elif line.strip():
                    torn += 1
    except FileNotFoundError:
        return
    if torn:
        unreadable.append(f"{counted(torn, 'line')} of {path.name} could not be read.")


def parse_row(line: str) -> Row | None:
    """The object on one line, or None if there is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_metrics(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows, each by ascending step."""
    training: dict[float, Row] = {}
    held_out: dict[float, Row] = {}
    for row in rows:
        step = finite(row.get("step"))
        if step is not None and "loss" in row:
            training[step] = row
        if step is not None and "eval_loss" in row:
            held_out[step] = row
    return [training[step] for step in sorted(training)], [held_out[step] for step in sorted(held_out)]


def finite(value: object) -> float | None:
    """A number to draw and compute with, or None for anything else: NaN, null, text, absurdly large."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e100:
        return None
    return float(value)


def inside(value: object, *keys: str) -> Any:
    """The value under nested keys, or None as soon as one is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def listed(value: object) -> list[Any]:
    """A list from data, or an empty one if something else stands there."""
    return value if isinstance(value, list) else []


def series(rows: Sequence[Row], key: str) -> list[Point]:
    """(step, value) where the value is a number."""
    pairs = ((float(row["step"]), finite(row.get(key))) for row in rows)
    return [(step, value) for step, value in pairs if value is not None]


# --- The page, section by section


def view(run: Run) -> Row:
    """Everything that the template shows, already in words."""
    return {
        "name": str(run.facts.get("name") or run.folder.resolve().name),
        "verdict": verdict(run),
        "badge": badge(run),
        "detail": detail(run),
        "about": about(run),
        "cautions": cautions(run),
        "tiles": tiles(run),
        "comparisons": [row for row in map(comparison_row, run.comparisons) if row],
        "answers": answer_groups(run),
        "loss": loss_chart(run),
        "multiples": small_multiples(run),
        "evaluations": evaluation_rows(run.held_out),
        "data": data_view(run),
        "lengths": length_chart(run),
        "example": example_view(run.example),
        "proofs": [row for row in listed(run.facts.get("proof")) if isinstance(row, dict)],
        "machine": machine_facts(run.facts),
        "settings": settings(run.recipe),
        "versions": settings(inside(run.facts, "versions")),
        "hashes": settings(inside(run.facts, "hashes")),
        "command": str(
            run.facts.get("command") or f"tuition train {shlex.quote(str(run.folder / 'recipe.yaml'))}"
        ),
        "install": install_command(run.facts),
    }


def verdict(run: Run) -> str:
    """The one sentence that whoever decides reads: the strongest statement that the folder allows."""
    judged = comparison_row(run.comparisons[0]) if run.comparisons else None
    held_out = series(run.held_out, "eval_loss")
    training = series(run.training, "loss")
    if judged:
        return sentence_case(
            f"{judged['name']} {judged['base']} → {judged['tuned']} on {judged['questions']}"
        )
    if len(held_out) > 1:
        (first_step, first_loss), (step, lowest) = held_out[0], lowest_point(held_out)
        if step == first_step:
            return f"Held-out loss did not fall: {short(first_loss)} → {short(held_out[-1][1])}"
        return f"Held-out loss {short(first_loss)} → {short(lowest)} at step {short(step)}"
    if training:
        first_loss, last_loss = training[0][1], training[-1][1]
        return f"Training loss {short(first_loss)} → {short(last_loss)} in {counted(len(training), 'step')}"
    return "No training step is recorded yet"


def badge(run: Run) -> tuple[str, str]:
    """Words and tone beside the verdict."""
    if run.facts.get("status") in ("failed", "interrupted", "running"):
        status = str(run.facts["status"])
        return status, "bad" if status == "failed" else "open"
    if run.comparisons:
        return BADGES.get(str(run.comparisons[0].get("verdict")), BADGES["not decided"])
    return "not compared with the base model", "open"


def detail(run: Run) -> str:
    """The sentence under the verdict: how sure it is, and what lies behind it."""
    first = comparison_row(run.comparisons[0]) if run.comparisons else None
    if not first:
        return ""
    return (
        f"Paired difference {first['difference']} (95 % interval {first['difference_interval']}): "
        f"{first['wins']:,} better than before, {first['losses']:,} worse, "
        f"{first['both_right']:,} right both times, {first['both_wrong']:,} equal and not right."
    )


def about(run: Run) -> list[str]:
    """What was trained, how and when, in a few words."""
    parameters = finite(inside(run.facts, "model", "parameters"))
    seconds = finite(run.facts.get("seconds"))
    words = [
        inside(run.facts, "model", "name") or run.recipe.get("model"),
        f"{large(parameters)} parameters" if parameters else None,
        inside(run.facts, "model", "method") or run.recipe.get("method"),
        moment(run.facts.get("finished") or run.facts.get("started")),
        f"{duration(seconds)} on {inside(run.facts, 'hardware', 'device') or 'one machine'}"
        if seconds
        else None,
    ]
    return [str(word) for word in words if word]


def cautions(run: Run) -> list[str]:
    """What speaks against shipping, as far as the folder knows; each a whole sentence."""
    return [
        *status_cautions(run),
        *proof_cautions(run),
        *comparison_cautions(run),
        *learning_cautions(run),
        *data_cautions(run),
        *run.unreadable,
    ]


def status_cautions(run: Run) -> Iterator[str]:
    """A run that did not come to its end."""
    status = run.facts.get("status")
    if status in ("failed", "interrupted", "running"):
        words = (
            "is still running"
            if status == "running"
            else "failed"
            if status == "failed"
            else "was interrupted"
        )
        done, planned = len(run.training), finite(inside(run.facts, "plan", "steps"))
        of = f" of {short(planned)}" if planned else ""
        yield f"The run {words}: {counted(done, 'step')}{of} recorded."


def proof_cautions(run: Run) -> Iterator[str]:
    """Checks of the run upon itself that did not hold."""
    for proof in listed(run.facts.get("proof")):
        if isinstance(proof, dict) and proof.get("ok") is not True:
            yield f"Proof failed: {proof.get('name')}" + (
                f" ({proof['detail']})." if proof.get("detail") else "."
            )


def comparison_cautions(run: Run) -> Iterator[str]:
    """Comparisons that decide nothing, or decide against the tuned model."""
    if not run.comparisons and len(run.held_out) < 2:
        yield "Nothing held out was measured before and after: whether the model is better is not known."
    rows = list(filter(None, map(comparison_row, run.comparisons)))
    for row in rows:
        name = sentence_case(row["name"])
        if row["verdict"] == "worse":
            yield f"{name}: the tuned model is worse, {row['difference']}."
        elif row["verdict"] != "better":
            yield f"{name}: the difference may be chance, {row['difference_interval']} points."
        if row["count"] < FEW_PROMPTS:
            yield f"{name}: {row['questions']} are few, the true interval is wider than the one shown."
    if rows and rows[0]["losses"]:
        name = sentence_case(rows[0]["name"])
        yield f"{name}: {counted(rows[0]['losses'], 'answer')} became worse; see them under Answers."


def learning_cautions(run: Run) -> Iterator[str]:
    """Loss that is not a number, or that rose again."""
    lost = len(run.training) - len(series(run.training, "loss"))
    if lost:
        yield f"{counted(lost, 'step')} had no finite loss."
    held_out = series(run.held_out, "eval_loss")
    if len(held_out) > 1:
        (step, lowest), (last_step, last) = lowest_point(held_out), held_out[-1]
        if last > lowest * 1.01:
            yield (
                f"Held-out loss was lowest at step {short(step)} ({short(lowest)}) and rose to {short(last)} "
                f"by step {short(last_step)}: fewer epochs may do better."
            )


def data_cautions(run: Run) -> Iterator[str]:
    """Rows that are missing from the books, or too many that were refused."""
    rows_in = finite(inside(run.facts, "data", "rows_in"))
    booked, rejected = run.ledger.fates.total(), run.ledger.fates["rejected"]
    if booked and rows_in is not None and booked != rows_in:
        yield f"The ledger accounts for {booked:,} of {rows_in:,.0f} rows."
    if rejected > 0.01 * booked:
        yield f"{rejected:,} of {booked:,} rows were rejected; the reasons are below."
    errors = sum(finding.get("severity") == "error" for finding in run.findings)
    if errors and not rejected:
        yield f"The data has {counted(errors, 'error')}; see the findings."


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The few numbers worth a large type: label, number, remark."""
    return [
        *held_out_tiles(run),
        *([rows] if (rows := rows_tile(run)) else []),
        *([proofs] if (proofs := proofs_tile(run)) else []),
        *([speed] if (speed := speed_tile(run)) else []),
    ]


def held_out_tiles(run: Run) -> Iterator[tuple[str, str, str]]:
    """Loss and bits per byte on held-out data, before and at their best."""
    for key, label in (("eval_loss", "Held-out loss"), ("eval_bits_per_byte", "Bits per byte")):
        points = series(run.held_out, key)
        if points:
            step, lowest = lowest_point(points)
            yield label, short(lowest), f"from {short(points[0][1])}, best at step {short(step)}"


def rows_tile(run: Run) -> tuple[str, str, str] | None:
    """Rows that were learned from."""
    fates = run.ledger.fates
    rejected = fates["rejected"] if fates else finite(inside(run.facts, "data", "rejected"))
    rows_in = fates.total() if fates else finite(inside(run.facts, "data", "rows_in"))
    if rows_in is None or rejected is None:
        return None
    return "Rows used", f"{rows_in - rejected:,.0f}", f"of {rows_in:,.0f} read, {rejected:,.0f} rejected"


def proofs_tile(run: Run) -> tuple[str, str, str] | None:
    """Checks that held."""
    proofs = [proof for proof in listed(run.facts.get("proof")) if isinstance(proof, dict)]
    held = sum(proof.get("ok") is True for proof in proofs)
    return ("Proofs", f"{held} of {len(proofs)}", "hold for this run") if proofs else None


def speed_tile(run: Run) -> tuple[str, str, str] | None:
    """Tokens a second."""
    speed = finite(inside(run.facts, "result", "tokens_per_second"))
    seconds = finite(run.facts.get("seconds"))
    remark = f"for {duration(seconds)}" if seconds else ""
    return ("Tokens a second", short(speed), remark) if speed else None


# --- Base against tuned


def comparison_row(row: Row) -> Row | None:
    """One comparison in words and in places on the interval bars; None if its scores are not there."""
    base, tuned, difference = (read_score(row.get(key)) for key in ("base", "tuned", "difference"))
    if not (base and tuned and difference):
        return None
    metric = str(row.get("metric"))
    return {
        "name": metric_name(metric),
        "count": tuned.count,
        "questions": counted(tuned.count, "held-out question"),
        "base": share(base.value),
        "base_interval": share_interval(base),
        "base_bar": interval_places(base, 0.0, 1.0),
        "tuned": share(tuned.value),
        "tuned_interval": share_interval(tuned),
        "tuned_bar": interval_places(tuned, 0.0, 1.0),
        "difference": f"{points(difference.value)} points",
        "difference_interval": f"{points(difference.low)} to {points(difference.high)}",
        "difference_bar": interval_places(difference, -1.0, 1.0),
        "verdict": str(row.get("verdict")),
        "tone": BADGES.get(str(row.get("verdict")), BADGES["not decided"])[1],
        "wins": len(listed(row.get("wins"))),
        "losses": len(listed(row.get("losses"))),
        "both_right": tally(row.get("both_right")),
        "both_wrong": tally(row.get("both_wrong")),
    }


def read_score(value: object) -> Score | None:
    """A score from `evaluation.json`, or None if a number is missing."""
    numbers = [finite(inside(value, key)) for key in ("value", "low", "high", "count")]
    mean, low, high, count = numbers
    if mean is None or low is None or high is None or count is None:
        return None
    return Score(mean, low, high, int(count))


def tally(value: object) -> int:
    """How many: a number, or a list of as many."""
    return len(value) if isinstance(value, list) else int(finite(value) or 0)


def interval_places(score: Score, lowest: float, highest: float) -> tuple[float, float, float]:
    """Low, value and high of a score in percent of the bar's width."""
    axis = Axis(lowest, highest)
    low, value, high = (
        round(min(100.0, max(0.0, axis.place(v))), 2) for v in (score.low, score.value, score.high)
    )
    return low, value, high


@dataclass(frozen=True)
class Pair:
    """One prompt answered before and after; marks say how well, and are empty where nothing is known."""

    prompt: str
    expected: str | None
    base: str | None
    tuned: str | None
    base_mark: str
    tuned_mark: str
    origin: str


def answer_groups(run: Run) -> list[tuple[str, list[Pair], list[Pair]]]:
    """Answers side by side: title, those shown, those that unfold. Wins, then losses, then the rest."""
    first = run.comparisons[0] if run.comparisons else {}
    metric = str(first.get("metric") or "exact_match")
    wins, losses = (
        [row for row in listed(first.get(key)) if isinstance(row, dict)] for key in ("wins", "losses")
    )
    shown = {(str(row.get("prompt")), str(row.get("expected"))) for row in [*wins, *losses]}
    others = [row for row in run.samples if (str(row.get("prompt")), str(row.get("expected"))) not in shown]
    groups = [
        (f"Became better: {len(wins):,}", wins),
        (f"Became worse: {len(losses):,}", losses),
        ("Others" if shown else "Held-out prompts, before and after", others),
    ]
    pairs = [(title, [pair(row, metric) for row in rows[:UNFOLDED_PAIRS]]) for title, rows in groups if rows]
    return [(title, rows[:SHOWN_PAIRS], rows[SHOWN_PAIRS:]) for title, rows in pairs]


def pair(row: Row, metric: str) -> Pair:
    """A row of `samples.jsonl`, or of the wins and losses in `evaluation.json`."""
    base, tuned, expected = (text_or_none(row.get(key)) for key in ("base", "tuned", "expected"))
    return Pair(
        prompt=shorten(text_or_none(row.get("prompt")) or ""),
        expected=None if expected is None else shorten(expected),
        base=None if base is None else shorten(base),
        tuned=None if tuned is None else shorten(tuned),
        base_mark=mark(base, expected, metric),
        tuned_mark=mark(tuned, expected, metric),
        origin=str(row.get("origin") or place(row)),
    )


def mark(answer: str | None, expected: str | None, metric: str) -> str:
    """`right`, `wrong` or the score of one answer; nothing if there is nothing to measure."""
    if answer is None or not expected or metric not in METRICS:
        return ""
    value = METRICS[metric](answer, expected)
    return "right" if value == 1 else "wrong" if value == 0 else f"{value:.2f}"


def text_or_none(value: object) -> str | None:
    """Text as it is; anything else that is there, as JSON."""
    return value if isinstance(value, str) or value is None else plain(value)


# --- Curves


@dataclass(frozen=True)
class Axis:
    """Places values from `low` to `high` on 0 to 100, evenly or by their logarithm."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, in percent of the axis."""
        if self.log:
            return 100 * math.log(value / self.low) / math.log(self.high / self.low)
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values on the axis, some `about` of them."""
        if self.log:
            return log_ticks(self.low, self.high, about)
        step = round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 × a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def log_ticks(low: float, high: float, about: int) -> list[float]:
    """Powers of ten within the range, with their 2- and 5-fold where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = len(powers) > about + 1
    kept = powers[:: math.ceil(len(powers) / about)] if wide else powers
    factors = (1,) if len(powers) > 4 else (1, 2, 5)
    return [
        factor * 10.0**power for power in kept for factor in factors if low <= factor * 10.0**power <= high
    ]


def axis_over(values: Sequence[float], *, log: bool = False) -> Axis:
    """The axis that holds all values, with a little air or a round end, and never empty."""
    low, high = min(values), max(values)
    if log:
        return Axis(low * 0.9, high * 1.1, log=True)
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        air = abs(high) * 0.5 or 1.0
        return Axis(low - air, high + air)
    low = 0.0 if 0 < low < 0.5 * high else low
    step = round_step((high - low) / 5)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


@dataclass(frozen=True)
class Tick:
    """A label at a place, in percent of the axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One picture, in a square of 100 × 100 that the page stretches.

    Attributes:
        key: unique on the page, for the ids of title and description.
        lines: (kind, SVG path) from back to front.
        dots: (x, y, what it says).
        bars: (x, y, width, height, what it says).
        legend: (kind, words).
        marker: an upright line with a label.
    """

    key: str
    title: str
    description: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[tuple[str, str]] = field(default_factory=list)
    dots: list[tuple[float, float, str]] = field(default_factory=list)
    bars: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    marker: Tick | None = None


def loss_chart(run: Run) -> Chart | None:
    """Training loss, raw and smoothed, with the held-out points."""
    training, held_out = series(run.training, "loss"), series(run.held_out, "eval_loss")
    if len(training) < 2 and len(held_out) < 2:
        return None
    values = [value for _, value in [*training, *held_out]]
    across = Axis(0.0, max(step for step, _ in [*training, *held_out]) or 1.0)
    upright = axis_over(values, log=spans_much(values))
    lines, legend = smoothed_lines(training, across, upright)
    if held_out:
        lines.append(("held", path(held_out, across, upright)))
        legend.append(("held", "held out"))
    return Chart(
        key="loss",
        title="Loss by step" + (" (logarithmic scale)" if upright.log else ""),
        description=loss_description(training, held_out),
        x_ticks=placed(across),
        y_ticks=placed(upright),
        lines=lines,
        dots=[dot(point, across, upright) for point in held_out] if len(held_out) <= SHOWN_DOTS else [],
        legend=legend,
        marker=best_step_marker(run, across),
    )


def smoothed_lines(
    line: Sequence[Point], across: Axis, upright: Axis
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Paths and legend of what was measured each step; smoothed only where there is something to smooth."""
    window = len(line) // 40
    mean = "geometric mean" if upright.log else "mean"
    if not line:
        return [], []
    if window < 2:
        return [("smooth", path(line, across, upright))], [("smooth", "training")]
    return (
        [
            ("raw", path(line, across, upright)),
            ("smooth", path(smoothed(line, window, upright), across, upright)),
        ],
        [("raw", "training, each step"), ("smooth", f"training, {mean} over {window} steps")],
    )


def loss_description(training: Sequence[Point], held_out: Sequence[Point]) -> str:
    """The curve in words, for those who do not see it."""
    parts = []
    for name, line in (("Training", training), ("Held-out", held_out)):
        if line:
            first, last = (f"{short(value)} at step {short(step)}" for step, value in (line[0], line[-1]))
            parts.append(f"{name} loss {first}, {last}.")
    if held_out:
        step, lowest = lowest_point(held_out)
        parts.append(f"Lowest held-out loss {short(lowest)} at step {short(step)}.")
    return " ".join(parts)


def best_step_marker(run: Run, across: Axis) -> Tick | None:
    """The step whose weights were kept, if the run says so."""
    step = finite(inside(run.facts, "result", "best_step"))
    if step is None or not across.low <= step <= across.high:
        return None
    return Tick(round(across.place(step), 2), f"best: step {short(step)}")


def small_multiples(run: Run) -> list[Chart]:
    """Learning rate, gradient norm and held-out accuracy by step."""
    charts = [
        small_chart("rate", "Learning rate", series(run.training, "learning_rate")),
        small_chart("norm", "Gradient norm", series(run.training, "grad_norm"), noisy=True),
        small_chart("accuracy", "Held-out token accuracy", series(run.held_out, "eval_token_accuracy")),
    ]
    return [chart for chart in charts if chart]


def small_chart(key: str, title: str, line: Sequence[Point], *, noisy: bool = False) -> Chart | None:
    """One line by step, smoothed and by its logarithm only where it is noisy; None for under two points."""
    if len(line) < 2:
        return None
    values = [value for _, value in line]
    across = Axis(0.0, line[-1][0] or 1.0)
    upright = axis_over(values, log=noisy and spans_much(values))
    shapes = smoothed_lines(line, across, upright)[0] if noisy else [("smooth", path(line, across, upright))]
    return Chart(
        key=key,
        title=title,
        description=f"{title} from {short(values[0])} to {short(values[-1])}, at most {short(max(values))}.",
        x_ticks=placed(across, about=3),
        y_ticks=placed(upright, about=3),
        lines=shapes,
    )


def spans_much(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis suits: all positive, and the bulk spans more than a factor of 6."""
    if min(values) <= 0:
        return False
    low, high = np.percentile(values, [2, 98])
    return bool(high > 6 * low)


def smoothed(line: Sequence[Point], window: int, upright: Axis) -> list[Point]:
    """Mean over a centred window of steps, narrower at the two ends, so that it lags nowhere.

    On a logarithmic axis it is the geometric mean, which one spike does not lift for a whole window.
    """
    values = np.array([value for _, value in line])
    sums = np.concatenate([[0.0], np.cumsum(np.log(values) if upright.log else values)])
    places = np.arange(len(line))
    first = np.maximum(places - window // 2, 0)
    last = np.minimum(places + window // 2 + 1, len(line))
    means = (sums[last] - sums[first]) / (last - first)
    drawn = np.exp(means) if upright.log else means
    return [(step, float(mean)) for (step, _), mean in zip(line, drawn, strict=True)]


def path(line: Sequence[Point], across: Axis, upright: Axis) -> str:
    """The SVG path of a line."""
    corners = [f"{across.place(x):.2f} {100 - upright.place(y):.2f}" for x, y in thinned(line)]
    return "M" + " L".join(corners)


def thinned(line: Sequence[Point], buckets: int = 400) -> Sequence[Point]:
    """At most two points a bucket, its lowest and highest, so that no spike is lost."""
    if len(line) <= 2 * buckets:
        return line
    kept: list[Point] = []
    for part in np.array_split(np.arange(len(line)), buckets):
        points = [line[index] for index in part]
        kept += sorted({min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])})
    return kept


def dot(point: Point, across: Axis, upright: Axis) -> tuple[float, float, str]:
    """A held-out point and what it says when pointed at."""
    step, value = point
    return (
        round(across.place(step), 2),
        round(100 - upright.place(value), 2),
        f"step {short(step)}: {short(value)}",
    )


def placed(axis: Axis, about: int = 5) -> list[Tick]:
    """The ticks of an axis with their labels."""
    return [Tick(round(axis.place(value), 2), short(value)) for value in axis.ticks(about)]


def lowest_point(line: Sequence[Point]) -> Point:
    """The point with the lowest value, the first of equals."""
    return min(line, key=lambda point: point[1])


def evaluation_rows(held_out: Sequence[Row]) -> list[list[str]]:
    """The held-out numbers as a table: step, loss, bits per byte, token accuracy, tokens."""
    stride = math.ceil(len(held_out) / SHOWN_EVALUATIONS) or 1
    kept = [row for index, row in enumerate(held_out) if index % stride == 0 or row is held_out[-1]]
    return [
        [
            short(finite(row["step"])),
            short(finite(row.get("eval_loss"))),
            short(finite(row.get("eval_bits_per_byte"))),
            share_or_dash(finite(row.get("eval_token_accuracy"))),
            short(finite(row.get("eval_tokens"))),
        ]
        for row in kept
    ]


# --- Data


def data_view(run: Run) -> Row:
    """The ledger, the findings and the totals of the data."""
    return {
        "fates": fate_bar(run),
        "reasons": [
            (code, fate, count, run.ledger.sentences[fate, code])
            for (fate, code), count in run.ledger.reasons.most_common()
        ],
        "rejected": [
            (place(row), str(row.get("code") or ""), str(row.get("reason") or ""))
            for row in run.ledger.rejected
        ],
        "rejected_count": run.ledger.fates["rejected"],
        "findings": finding_rows(run.findings),
        "facts": data_facts(inside(run.facts, "data")),
        "shapes": settings(inside(run.facts, "data", "shapes")),
    }


def fate_bar(run: Run) -> list[tuple[str, int, float, float]]:
    """Fate, rows, start and width in percent; from the totals of the run where there is no ledger."""
    counts = dict(run.ledger.fates) or {
        fate: int(finite(inside(run.facts, "data", fate)) or 0) for fate in ("kept", "rejected")
    }
    ordered = {
        fate: counts[fate] for fate in [*FATES, *sorted(counts.keys() - set(FATES))] if counts.get(fate)
    }
    total, start, bar = sum(ordered.values()), 0.0, []
    for fate, count in ordered.items():
        bar.append((fate, count, round(start, 3), round(100 * count / total, 3)))
        start += 100 * count / total
    return bar


def finding_rows(findings: Sequence[Row]) -> list[Row]:
    """One row a code, the gravest first: how often, and its first occurrence."""
    counts = Counter(str(finding.get("code")) for finding in findings)
    first: dict[str, Row] = {}
    for finding in findings:
        first.setdefault(str(finding.get("code")), finding)
    ranks = {severity: rank for rank, severity in enumerate(SEVERITIES)}
    ordered = sorted(counts, key=lambda code: (ranks.get(str(first[code].get("severity")), 3), -counts[code]))
    return [
        {
            "code": code,
            "count": counts[code],
            "severity": str(first[code].get("severity") or ""),
            "place": place(first[code]),
            "message": str(first[code].get("message") or ""),
            "fix": str(first[code].get("fix") or ""),
        }
        for code in ordered
    ]


def data_facts(data: object) -> list[tuple[str, str]]:
    """The totals of the data, as far as they are known."""
    names = {
        "examples": "Examples",
        "train_examples": "Examples to train on",
        "validation_examples": "Examples held out",
        "tokens": "Tokens",
        "learned_tokens": "Learned tokens",
        "longest_tokens": "Longest example, tokens",
    }
    numbers = {key: finite(inside(data, key)) for key in names}
    facts = {key: f"{number:,.0f}" for key, number in numbers.items() if number is not None}
    if numbers["tokens"] and numbers["learned_tokens"] is not None:
        facts["learned_tokens"] += f" ({share(numbers['learned_tokens'] / numbers['tokens'])})"
    return [(names[key], text) for key, text in facts.items()]


def length_chart(run: Run) -> Chart | None:
    """Histogram of example lengths; one bar a bin, equally wide also where the bins are not."""
    edges = [finite(edge) for edge in listed(inside(run.facts, "data", "length_histogram", "edges"))]
    counts = [finite(count) for count in listed(inside(run.facts, "data", "length_histogram", "counts"))]
    bounds, heights = [e for e in edges if e is not None], [c for c in counts if c is not None]
    if not heights or len(bounds) != len(heights) + 1 or max(heights) <= 0:
        return None
    upright, width = axis_over([0.0, max(heights)]), 100 / len(heights)
    stride = math.ceil(len(bounds) / 6)
    return Chart(
        key="lengths",
        title="Tokens of an example",
        description=f"{sum(heights):,.0f} examples, {short(bounds[0])} to {short(bounds[-1])} tokens long.",
        x_ticks=[Tick(round(i * width, 2), short(bounds[i])) for i in range(0, len(bounds), stride)],
        y_ticks=placed(upright, about=4),
        bars=[
            (
                round((index + 0.06) * width, 2),
                round(100 - upright.place(height), 2),
                round(0.88 * width, 2),
                round(upright.place(height), 2),
                f"{short(bounds[index])} to {short(bounds[index + 1])} tokens: {height:,.0f}",
            )
            for index, height in enumerate(heights)
        ],
        marker=max_length_marker(run.recipe, bounds, width),
    )


def max_length_marker(recipe: Row, bounds: Sequence[float], width: float) -> Tick | None:
    """The longest example that the recipe allows, where it falls into the histogram."""
    limit = finite(recipe.get("max_length"))
    if limit is None or not bounds[0] <= limit <= bounds[-1] or list(bounds) != sorted(set(bounds)):
        return None
    at = float(np.interp(limit, bounds, [index * width for index in range(len(bounds))]))
    return Tick(round(at, 2), f"max_length {short(limit)}")


def example_view(example: Row) -> Row | None:
    """The tokens of one example in stretches of equal weight; the long middle of a long one is left out."""
    tokens = [token for token in listed(example.get("tokens")) if isinstance(token, dict)]
    if not tokens:
        return None
    learned = [shown_token(token)[0] for token in tokens if weight_of(token) > 0]
    half = SHOWN_TOKENS // 2
    omitted = max(0, len(tokens) - 2 * half)
    parts = [tokens] if not omitted else [tokens[:half], tokens[-half:]]
    return {
        "place": place(example),
        "parts": [[shown_token(token) for token in part] for part in parts],
        "omitted": omitted,
        "count": len(tokens),
        "learned": len(learned),
        "last": learned[-1] if learned else "",
    }


def shown_token(token: Row) -> tuple[str, bool, str]:
    """Text with visible whitespace, whether it is learned, and its weight if that is not 1."""
    weight = weight_of(token)
    remark = "" if weight in (0, 1) else f"weight {weight:g}"
    return visible_whitespace(str(token.get("text"))), weight > 0, remark


def weight_of(token: Row) -> float:
    """The weight with which a token is learned, 0 for context; a plain true is 1."""
    return finite(token.get("supervised")) or float(token.get("supervised") is True)


def place(row: Row) -> str:
    """`file:line` of a row, or as much of it as there is."""
    line = finite(row.get("line"))
    return str(row.get("file") or "") + (f":{line:.0f}" if line else "")


# --- Machine, settings, versions


def machine_facts(facts: Row) -> list[tuple[str, str]]:
    """Model, plan, speed and hardware, as far as they are known."""
    trainable, parameters = (
        finite(inside(facts, "model", key)) for key in ("trainable_parameters", "parameters")
    )
    known = [
        ("Model", inside(facts, "model", "name")),
        ("Parameters", None if parameters is None else f"{parameters:,.0f}"),
        ("Of them trained", None if trainable is None else f"{trainable:,.0f}"),
        ("Method", inside(facts, "model", "method")),
        ("Precision", inside(facts, "model", "dtype")),
        *plan_facts(facts),
        ("Device", inside(facts, "hardware", "device")),
        ("Processor", inside(facts, "hardware", "cpu")),
        ("Cores", inside(facts, "hardware", "cores")),
        ("Memory", gibibytes(inside(facts, "hardware", "memory_bytes"))),
        ("Peak memory", gibibytes(inside(facts, "result", "peak_memory_bytes"))),
        ("Tokens a second", dashless(finite(inside(facts, "result", "tokens_per_second")), short)),
        ("Time", dashless(finite(facts.get("seconds")), duration)),
        ("Started", moment(facts.get("started"))),
        ("Finished", moment(facts.get("finished"))),
    ]
    return [(name, plain(value)) for name, value in known if value not in (None, "")]


def plan_facts(facts: Row) -> list[tuple[str, str | None]]:
    """Steps, epochs and examples a step."""
    names = {
        "steps": "Steps",
        "epochs": "Epochs",
        "batch_size": "Examples a step",
        "steps_per_epoch": "Steps an epoch",
    }
    return [(name, dashless(finite(inside(facts, "plan", key)), short)) for key, name in names.items()]


def dashless(number: float | None, words: Callable[[float], str]) -> str | None:
    """A number in words, or None so that its line is left out."""
    return None if number is None else words(number)


def settings(mapping: object) -> list[tuple[str, str]]:
    """Names and values of a flat mapping."""
    return [(str(key), setting(value)) for key, value in mapping.items()] if isinstance(mapping, dict) else []


def setting(value: object) -> str:
    """A value in words; a nested one is cut short, for YAML aliases can make a small file endless."""
    nested = isinstance(value, dict) or any(isinstance(item, dict | list) for item in listed(value))
    return reprlib.repr(value) if nested else plain(value)


def install_command(facts: Row) -> str:
    """The pip command that brings the same packages; empty if no versions are recorded."""
    versions = inside(facts, "versions")
    packages = {k: v for k, v in versions.items() if k != "python"} if isinstance(versions, dict) else {}
    pins = (shlex.quote(f"{package}=={version}") for package, version in packages.items())
    return f"pip install {' '.join(pins)}" if packages else ""


# --- Numbers and texts in words


def short(number: float | None) -> str:
    """Four digits at most, thousands with commas: `1.234`, `12,000`, `2e-5`; a dash for nothing."""
    if number is None:
        return "–"
    if abs(number) >= 1e6:
        return large(number)
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return re.sub(r"e([+-])0*(\d)", lambda e: f"e{e[1].strip('+')}{e[2]}", f"{number:.4g}")


def large(number: float) -> str:
    """Three digits and a letter: `1.24B`."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def share(value: float) -> str:
    """A share of 1 in percent; 100 % and 0 % only where they are exact."""
    percent = f"{100 * value:.1f}"
    if percent == "100.0" and value < 1:
        percent = "> 99.9"
    elif percent == "0.0" and value > 0:
        percent = "< 0.1"
    elif value in (0, 1):
        percent = percent.removesuffix(".0")
    return f"{percent}{NO_BREAK}%"


def share_or_dash(value: float | None) -> str:
    """`share`, or a dash for nothing."""
    return "–" if value is None else share(value)


def share_interval(score: Score) -> str:
    """Both ends of an interval in percent."""
    return f"{100 * score.low:.1f} to {100 * score.high:.1f}{NO_BREAK}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def counted(count: int, noun: str) -> str:
    """`1 step`, `2,000 steps`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """`41 s`, `12 min`, `2 h 14 min`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"


def moment(value: object) -> str | None:
    """Date and time to the minute; seconds since 1970 are read as UTC."""
    number = finite(value)
    if number is not None and 0 <= number < 1e11:
        return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return value


def gibibytes(value: object) -> str | None:
    """Bytes in GiB."""
    number = finite(value)
    return None if number is None else f"{number / 2**30:.3g} GiB"


def metric_name(metric: str) -> str:
    """The name of a metric in running text."""
    return METRIC_NAMES.get(metric, metric)


def sentence_case(text: str) -> str:
    """The same with a capital at the start."""
    return text[:1].upper() + text[1:]


def plain(value: object) -> str:
    """A setting as a reader would write it: text bare, lists with commas, the rest as JSON."""
    if value is None or value == []:
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def shorten(text: str) -> str:
    """A long text without its middle: answers are often decided at their end."""
    if len(text) <= SHOWN_CHARACTERS:
        return text
    third = SHOWN_CHARACTERS // 3
    return f"{text[: 2 * third]}\n[… {len(text) - 3 * third:,} characters left out …]\n{text[-third:]}"


# Everything that prints nothing or turns the text around it: controls, direction marks, zero width, lone
# surrogates, tag characters. Joiners stay, for emoji and Indic and Persian letters are made with them.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with each character that cannot be seen written out: `⟨U+0000⟩`, `⟨byte FF⟩`."""
    return UNPRINTABLE.sub(lambda found: written_out(ord(found[0])), text)


def written_out(code: int) -> str:
    """One unprintable character in print; a byte that was no UTF-8 was read as U+DC80 to U+DCFF."""
    return f"⟨byte {code - 0xDC00:02X}⟩" if 0xDC80 <= code <= 0xDCFF else f"⟨U+{code:04X}⟩"


def visible_whitespace(text: str) -> str:
    """Text of a token with spaces, tabs and line ends to be seen."""
    return text.replace(" ", "·").replace("\t", "⇥").replace("\n", "↵\n")
