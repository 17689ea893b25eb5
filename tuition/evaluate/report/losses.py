"""Loss, bits a byte and token accuracy of base and tuned over the same answers; the judge; the demonstrations."""

from __future__ import annotations

from tuition.counting import counted
from tuition.evaluate.report.comparison import read_score
from tuition.evaluate.report.facts import Row, Run, inside, mappings, number, place
from tuition.evaluate.report.words import share, short, signed

_LOSSES = (("loss", "Loss, nats a token"), ("bits_per_byte", "Bits a byte"))


def loss_rows(run: Run) -> list[Row]:
    """Each figure over the same answers: base, tuned, and the paired difference where there is one."""
    base, tuned = (run.evaluation.get(key) for key in ("base_held_out", "held_out"))
    rows = [_loss_row(run, key, name, base, tuned) for key, name in _LOSSES]
    accuracy = number(tuned, "token_accuracy")
    if accuracy is not None:
        before = number(base, "token_accuracy")
        rows.append(
            {
                "name": "Token accuracy",
                "base": "–" if before is None else share(before),
                "tuned": share(accuracy),
                "base_interval": "", "tuned_interval": "", "difference": "", "difference_interval": "",
                "verdict": "", "tone": "open",
            }
        )  # fmt: skip
    return [row for row in rows if row is not None]


def _loss_row(run: Run, key: str, name: str, base: object, tuned: object) -> Row | None:
    value = number(tuned, key)
    if value is None:
        return None
    difference = read_score(inside(run.evaluation, "differences", key))
    row = {
        "name": name,
        "base": short(number(base, key)),
        "base_interval": _interval(inside(base, "intervals", key)),
        "tuned": short(value),
        "tuned_interval": _interval(inside(tuned, "intervals", key)),
    }
    if difference is None:
        return {**row, "difference": "", "difference_interval": "", "verdict": "", "tone": "open"}
    verdict = {1: "worse", -1: "better", 0: "not decided"}[difference.side]
    return {
        **row,
        "difference": signed(difference.value),
        "difference_interval": f"{signed(difference.low)} to {signed(difference.high)}"
        if difference.enough
        else "",
        "verdict": verdict,
        "tone": {"better": "good", "worse": "bad"}.get(verdict, "open"),
    }


def _interval(value: object) -> str:
    score = read_score(value)
    return "" if score is None or not score.enough else f"{short(score.low)} to {short(score.high)}"


def other_sentences(run: Run) -> list[str]:
    """What a judge preferred, and which demonstrations were not learned or look wrong."""
    return [sentence for sentence in (_judge(run), _demonstrations(run)) if sentence]


def _judge(run: Run) -> str:
    found = run.evaluation.get("judge")
    score = read_score(inside(found, "score"))
    if score is None:
        return ""
    wins, losses, ties = (int(number(found, key) or 0) for key in ("wins", "losses", "ties"))
    between = f" ({share(score.low)} to {share(score.high)})" if score.enough else ""
    return (
        f"{inside(found, 'model')} as judge, each pair in both orders: the tuned model wins {share(score.value)}"
        f"{between} of {counted(score.count, 'prompt')}, a tie counting half: "
        f"{inside(found, 'verdict')}. {wins:,} won, {losses:,} lost, {ties:,} tied."
    )


def worst_demonstrations(run: Run) -> list[Row]:
    """Demonstrations to look at, with their place in the file, their loss before and after, and why."""
    return [
        {
            "place": place(row),
            "prompt": str(row.get("prompt") or ""),
            "before": short(number(row, "before")),
            "after": short(number(row, "after")),
            "reason": str(row.get("reason") or ""),
        }
        for row in mappings(inside(run.evaluation.get("demonstrations"), "worst"))
    ]


def _demonstrations(run: Run) -> str:
    found = run.evaluation.get("demonstrations")
    figures = {key: number(found, key) for key in ("rows", "not_learned", "suspicious")}
    if None in figures.values():
        return ""
    return (
        f"Of {short(figures['rows'])} demonstrations {short(figures['not_learned'])} are not learned and "
        f"{short(figures['suspicious'])} look wrong; demonstrations.jsonl names them all."
    )
