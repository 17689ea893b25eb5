"""The conditions that a run was held to, and what it forgot."""

from __future__ import annotations

from collections.abc import Mapping

from tuition.evaluate.report.facts import Row, Run, mappings, number


def condition_rows(run: Run) -> list[Row]:
    """Each condition with its figure, interval and verdict."""
    return [
        {
            "condition": str(row.get("condition")),
            "figure": f"{_digits(row, 'value')}{' over the base' if row.get('relative') else ''}",
            "interval": f"{_digits(row, 'low')} to {_digits(row, 'high')}",
            "met": "met" if row.get("met") is True else "not met",
            "tone": "good" if row.get("met") is True else "bad",
        }
        for row in mappings(run.evaluation.get("gate"))
    ]


def forgetting_sentence(run: Run) -> str:
    """Bits a byte on general text before and after; empty where that was not measured."""
    found = run.evaluation.get("forgetting") or run.facts.get("forgetting")
    parts = (
        [found.get(name) for name in ("base", "tuned", "difference")] if isinstance(found, Mapping) else []
    )
    if not isinstance(found, Mapping) or not all(isinstance(part, Mapping) for part in parts):
        return ""
    base, tuned, difference = (dict(part) for part in parts if isinstance(part, Mapping))
    advice = f" {found['advice']}" if found.get("advice") else ""
    return (
        f"On general text {_digits(base, 'bits_per_byte')} → {_digits(tuned, 'bits_per_byte')} bits a byte: "
        f"{_digits(difference, 'value')} [{_digits(difference, 'low')}, {_digits(difference, 'high')}].{advice}"
    )


def _digits(row: Row, key: str) -> str:
    value = number(row, key)
    return "?" if value is None else f"{value:.4g}"
