"""What a model card says of the evaluation: figures with their intervals, what was forgotten, what was not measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tuition.evaluate.lines import prompts_of
from tuition.interval import Score
from tuition.train.folder import RunFolder

_HEAD = "| figure | base | tuned | difference, in pairs | verdict |\n|---|---|---|---|---|\n"


def evaluated(run: RunFolder) -> str:
    """The section on the evaluation; that there was none, where there was none. Empty without a run."""
    if not run.holds_a_run():
        return ""
    found = json.loads(run.evaluation.read_text(encoding="utf-8")) if run.evaluation.exists() else {}
    facts = run.read_facts()
    rows = [*_comparisons(found), *_losses(found)]
    forgotten = _forgetting(found.get("forgetting") or facts.get("forgetting"))
    if not rows and not forgotten:
        return (
            "## Evaluation\n\nThis model was not compared with its base: whether it is better is not known."
        )
    parts = [
        "## Evaluation",
        f"{_asked(found)}\n\n{_HEAD}" + "\n".join(rows) if rows else "",
    ]
    parts += [
        forgotten,
        _conditions(found),
        "Nothing else was measured: for other uses it is not known to be good.",
    ]
    return "\n\n".join(part for part in parts if part)


def _asked(found: Mapping[str, Any]) -> str:
    """What is asked is said to be held out only where it is known, and what was learned from is said."""
    overlap = found.get("overlap") or {}
    caution = f" {overlap['caution']}." if overlap.get("caution") else ""
    held_out = "On held-out prompts, with" if overlap.get("trained_on") == 0 else "With"
    return f"{held_out} 95% intervals.{caution}"


def _comparisons(found: Mapping[str, Any]) -> Iterator[str]:
    for row in found.get("comparisons", []):
        scores = " | ".join(_score(row[key]) for key in ("base", "tuned", "difference"))
        yield f"| {row['metric']} on {prompts_of(_read(row['tuned']))} | {scores} | {row['verdict']} |"


def _losses(found: Mapping[str, Any]) -> Iterator[str]:
    base, tuned = found.get("base_held_out"), found.get("held_out")
    if not base or not tuned:
        return
    difference = found.get("differences", {}).get("loss")
    paired = _score(difference) if difference else "–"
    verdict = "" if not difference else _of_loss(difference)
    yield f"| loss, nats a token, over {tuned['tokens']:,} tokens | {base['loss']:.3f} | {tuned['loss']:.3f} | {paired} | {verdict} |"


def _of_loss(difference: Mapping[str, Any]) -> str:
    return {1: "worse", -1: "better", 0: "not decided"}[_read(difference).side]


def _forgetting(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    more = "more than" if found["exceeded"] else "within"
    return (
        f"On general text it costs {found['base']['bits_per_byte']:.3f} → {found['tuned']['bits_per_byte']:.3f} bits a "
        f"byte ({_score(found['difference'])}), {more} the {found['most']:g} that may be lost."
    )


def _conditions(found: Mapping[str, Any]) -> str:
    """What was demanded before it was exported, and whether it holds."""
    said = [
        f"`{row['condition']}` {'is met' if row['met'] else 'is NOT met'}" for row in found.get("gate", [])
    ]
    return f"Demanded: {', '.join(said)}." if said else ""


def _score(score: Mapping[str, Any]) -> str:
    between = f" [{score['low']:.3f}, {score['high']:.3f}]" if _read(score).enough else ""
    return f"{score['value']:.3f}{between}"


def _read(score: Mapping[str, Any]) -> Score:
    return Score(
        score["value"], score["low"], score["high"], score["count"], score.get("prompts") or score["count"]
    )
