"""The conditions that a run was held to, and what it forgot."""

from __future__ import annotations

from tuition.evaluate.report.comparison import read_score
from tuition.evaluate.report.facts import Row, Run, inside, mappings, number
from tuition.evaluate.report.words import signed


def condition_rows(run: Run) -> list[Row]:
    """Each condition with its figure, interval and verdict."""
    return [
        {
            "condition": str(row.get("condition")),
            "figure": f"{_digits(row, 'value')}{' over the base' if row.get('relative') else ''}",
            "interval": "too few prompts"
            if row.get("enough") is False
            else f"{_digits(row, 'low')} to {_digits(row, 'high')}",
            "met": "met" if row.get("met") is True else "not met",
            "tone": "good" if row.get("met") is True else "bad",
        }
        for row in mappings(run.evaluation.get("gate"))
    ]


def forgetting_of(run: Run) -> Row:
    """What was found on general text, by the evaluation or else by the run itself; empty where nothing was."""
    found = run.evaluation.get("forgetting") or run.facts.get("forgetting")
    parts = [inside(found, name) for name in ("base", "tuned", "difference")]
    return found if isinstance(found, dict) and all(isinstance(part, dict) for part in parts) else {}


def forgetting_sentence(run: Run) -> str:
    """Bits a byte on general text before and after; empty where that was not measured."""
    found = forgetting_of(run)
    if not found:
        return ""
    difference = found["difference"]
    score, most = read_score(difference), number(found, "most")
    between = ""
    if score is not None and score.enough:
        between = f" (95 % interval {signed(score.low)} to {signed(score.high)})"
    return (
        f"General text costs {_digits(found['base'], 'bits_per_byte')} → {_digits(found['tuned'], 'bits_per_byte')} "
        f"bits a byte, {_signed(difference, 'value')}{between}: {_weighed(found, most)}"
    )


def _weighed(found: Row, most: float | None) -> str:
    """What the difference means against what may be lost."""
    lost = number(found, "difference", "value")
    if found.get("exceeded") is True or found.get("advice"):
        return f"more was forgotten than may be. {found.get('advice') or ''}".strip()
    if lost is not None and lost <= 0:
        return "nothing was forgotten."
    return "less was forgotten than may be." if most is None else f"less than the {most:g} that may be lost."


def forgotten_too_much(run: Run) -> bool:
    """More was lost on general text than the threshold allows."""
    return forgetting_of(run).get("exceeded") is True


def conditions_not_met(run: Run) -> list[str]:
    """The conditions that do not hold, as they were written."""
    rows = mappings(run.evaluation.get("gate"))
    return [str(row.get("condition")) for row in rows if row.get("met") is not True]


def _digits(row: Row, key: str) -> str:
    value = number(row, key)
    return "?" if value is None else f"{value:.4g}"


def _signed(row: Row, key: str) -> str:
    value = number(row, key)
    return "?" if value is None else signed(value)
