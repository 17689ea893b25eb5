"""Which checkpoint became the model, and why: by which figure, after how many updates, alone or averaged."""

from __future__ import annotations

from tuition.counting import counted
from tuition.evaluate.report.facts import Run, inside, listed, number
from tuition.evaluate.report.words import short


def choice_sentence(run: Run) -> str:
    """What the run says of its choice; empty where it had nothing to choose by."""
    kept = inside(run.facts, "result", "kept")
    value = number(kept, "value")
    if value is None:
        return ""
    steps = " and ".join(str(step) for step in listed(inside(kept, "steps")))
    many = len(listed(inside(kept, "steps"))) > 1
    parts = [
        f"The model is the {'average of the checkpoints' if many else 'checkpoint'} after step {steps}: "
        f"{inside(kept, 'by')} {short(value)} on the held-out rows."
    ]
    if isinstance(inside(kept, "sentence"), str):
        parts.append(f"{kept['sentence'][:1].upper()}{kept['sentence'][1:]}.")
    if inside(run.facts, "result", "stopped_early") is True:
        patience = number(run.facts, "result", "evaluations_without_gain")
        if patience is not None:
            parts.append(
                f"Training stopped early, after {counted(int(patience), 'evaluation')} without a gain."
            )
    return " ".join(parts)
