"""The data: what became of its rows, what was found in them, and one example token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuition.evaluate.report.facts import Row, Run, inside, mappings, number, place
from tuition.evaluate.report.machine import settings
from tuition.evaluate.report.words import share, short_path, visible_whitespace, whole

SHOWN_TOKENS = 800

FATES = ("kept", "split", "truncated", "rejected")
SEVERITIES = ("error", "warning", "info")
TOTALS = {
    "examples": "Examples",
    "train_examples": "Examples to train on",
    "validation_examples": "Examples held out",
    "tokens": "Tokens",
    "learned_tokens": "Learned tokens",
    "longest_tokens": "Longest example, tokens",
}


def data_view(run: Run) -> Row:
    """The ledger, the findings and the totals of the data."""
    ledger = run.ledger
    return {
        "fates": fate_bar(run),
        "reasons": [
            (code, fate, count, ledger.sentences[fate, code])
            for (fate, code), count in ledger.reasons.most_common()
        ],
        "rejected": [
            (place(row), str(row.get("code") or ""), str(row.get("reason") or "")) for row in ledger.rejected
        ],
        "rejected_count": ledger.fates["rejected"],
        "findings": finding_rows(run.findings),
        "facts": totals(run.facts.get("data")),
        "shapes": [
            (short_path(source), shape) for source, shape in settings(inside(run.facts, "data", "shapes"))
        ],
    }


def fate_bar(run: Run) -> list[tuple[str, int, float, float]]:
    """Fate, rows, start and width in percent; from the totals of the run where there is no ledger."""
    counts = dict(run.ledger.fates) or {
        fate: int(number(run.facts, "data", fate) or 0) for fate in ("kept", "rejected")
    }
    ordered = [fate for fate in [*FATES, *sorted(counts.keys() - set(FATES))] if counts.get(fate)]
    total, start, bar = sum(counts.values()), 0.0, []
    for fate in ordered:
        width = 100 * counts[fate] / total
        bar.append((fate, counts[fate], round(start, 3), round(width, 3)))
        start += width
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


def totals(data: object) -> list[tuple[str, str]]:
    """The totals of the data, as far as they are known."""
    numbers = {key: number(data, key) for key in TOTALS}
    words = {key: whole(value) for key, value in numbers.items() if value is not None}
    tokens, learned = numbers["tokens"], numbers["learned_tokens"]
    if tokens and learned is not None:
        words["learned_tokens"] += f" ({share(learned / tokens)})"
    return [(TOTALS[key], text) for key, text in words.items()]


# --- One example, token by token


def example_view(example: Row) -> Row | None:
    """The tokens of one example with what is learned; the long middle of a long one is left out."""
    tokens = mappings(example.get("tokens"))
    if not tokens:
        return None
    half = SHOWN_TOKENS // 2
    omitted = max(0, len(tokens) - 2 * half)
    parts = [tokens[:half], tokens[-half:]] if omitted else [tokens]
    learned = [token for token in tokens if weight_of(token) > 0]
    return {
        "place": short_path(place(example)),
        "parts": [[shown_token(token) for token in part] for part in parts],
        "omitted": omitted,
        "count": len(tokens),
        "learned": len(learned),
        "last": shown_token(learned[-1])[0] if learned else "",
    }


def shown_token(token: Row) -> tuple[str, bool, str]:
    """Text with visible whitespace, whether it is learned, and its weight if that is not 1."""
    weight = weight_of(token)
    remark = "" if weight in (0, 1) else f"weight {weight:g}"
    return visible_whitespace(str(token.get("text"))), weight > 0, remark


def weight_of(token: Row) -> float:
    """The weight with which a token is learned, 0 for context; a plain true is 1."""
    return number(token, "supervised") or float(token.get("supervised") is True)
