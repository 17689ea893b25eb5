"""The head of the page: the verdict, what speaks against shipping, and the few numbers in large type."""

from __future__ import annotations

from collections.abc import Iterator

from tuition.counting import counted
from tuition.errors import typed
from tuition.evaluate.report.comparison import comparison_rows, headline, verdict_badge
from tuition.evaluate.report.conditions import (
    conditions_not_met,
    forgetting_of,
    forgetting_sentence,
    forgotten_too_much,
)
from tuition.evaluate.report.facts import Run, inside, lowest_point, number, series
from tuition.evaluate.report.words import (
    duration,
    large,
    moment,
    sentence_case,
    short,
    signed,
    whole,
)

UNFINISHED = {"running": "is still running", "failed": "failed", "interrupted": "was interrupted"}

Tile = tuple[str, str, str]  # label, number, remark


def verdict(run: Run) -> str:
    """The one sentence that whoever decides reads: the strongest statement that the folder allows."""
    judged = headline(run)
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
        loss = f"Training loss{run.objective} {short(first_loss)} → {short(last_loss)}"
        return f"{loss} in {counted(len(training), 'step')}"
    return "No training step is recorded yet"


def badge(run: Run) -> tuple[str, str]:
    """Words and tone beside the verdict."""
    status = str(run.facts.get("status"))
    if status in UNFINISHED:
        return status, "bad" if status == "failed" else "open"
    unmet = conditions_not_met(run)
    if unmet:
        return f"{counted(len(unmet), 'condition')} not met", "bad"
    if forgotten_too_much(run):
        return "forgot more than may be", "bad"
    if run.comparisons:
        return verdict_badge(run.comparisons[0])
    return "not compared with the base model", "open"


def detail(run: Run) -> str:
    """The sentence under the verdict: how sure it is, and what lies behind it; or how that would be known."""
    judged = headline(run)
    if not judged:
        return _how_to_know(run)
    interval = judged["difference_interval"]
    between = f" (95 % interval {interval})" if interval else ", too few prompts for an interval"
    return (
        f"Paired difference {judged['difference']}{between}: "
        f"{judged['wins']:,} better than before, {judged['losses']:,} worse, "
        f"{judged['both_right']:,} right both times, {judged['both_wrong']:,} equal and not right."
    )


def _how_to_know(run: Run) -> str:
    """The way from a loss to answers, for a run that is finished and was never compared."""
    base = inside(run.facts, "model", "name")
    was_judged = run.comparisons or not (run.training or run.held_out)
    if run.facts.get("status") != "finished" or was_judged or not base:
        return ""
    return (
        "Lower is better, and no proof of better answers. To know: tuition evaluate "
        f"{typed(run.folder)} --data YOUR_TEST_FILE --baseline {typed(str(base))}"
    )


def about(run: Run) -> list[str]:
    """What was trained, how and when, in a few words."""
    parameters = number(run.facts, "model", "parameters")
    seconds = number(run.facts, "seconds")
    device = inside(run.facts, "hardware", "device") or "one machine"
    words = [
        inside(run.facts, "model", "name") or run.recipe.get("model"),
        f"{large(parameters)} parameters" if parameters else None,
        inside(run.facts, "model", "method") or run.recipe.get("method"),
        moment(run.facts.get("finished") or run.facts.get("started")),
        f"{duration(seconds)} on {device}" if seconds else None,
    ]
    return [str(word) for word in words if word]


# --- Cautions


def cautions(run: Run) -> list[str]:
    """What speaks against shipping, as far as the folder knows; each a whole sentence."""
    return [
        *overlap_cautions(run),
        *status_cautions(run),
        *gate_cautions(run),
        *proof_cautions(run),
        *comparison_cautions(run),
        *learning_cautions(run),
        *data_cautions(run),
        *run.unreadable,
    ]


def overlap_cautions(run: Run) -> Iterator[str]:
    """Questions that are no test, because the run learned from them."""
    caution = inside(run.evaluation, "overlap", "caution")
    if caution:
        yield f"{sentence_case(str(caution))}."


def status_cautions(run: Run) -> Iterator[str]:
    """A run that did not come to its end, or left updates out."""
    words = UNFINISHED.get(str(run.facts.get("status")))
    if words:
        planned = number(run.facts, "plan", "steps")
        of = f" of {short(planned)}" if planned else ""
        yield f"The run {words}: {counted(len(run.training), 'step')}{of} recorded."
    skipped = number(run.facts, "result", "skipped")
    if skipped:
        yield (
            f"{counted(int(skipped), 'update')} {'was' if skipped == 1 else 'were'} left out, "
            "because the loss or a gradient was not finite: metrics.jsonl names the rows."
        )


def gate_cautions(run: Run) -> Iterator[str]:
    """What somebody demanded and does not hold."""
    yield from (f"Condition not met: {condition}." for condition in conditions_not_met(run))
    if forgotten_too_much(run):
        yield forgetting_sentence(run)


def proof_cautions(run: Run) -> Iterator[str]:
    """Checks of the run upon itself that did not hold."""
    for proof in run.proofs:
        if proof.get("ok") is not True:
            remark = f" ({proof['detail']})" if proof.get("detail") else ""
            yield f"Proof failed: {proof.get('name')}{remark}."


def comparison_cautions(run: Run) -> Iterator[str]:
    """Comparisons that decide nothing, or decide against the tuned model."""
    if not run.comparisons and len(run.held_out) < 2:
        yield "Nothing held out was measured before and after: whether the model is better is not known."
    rows = comparison_rows(run)
    for row in rows:
        name = sentence_case(row["name"])
        if row["verdict"] == "worse":
            yield f"{name}: the tuned model is worse, {row['difference']}."
        elif row["verdict"] != "better":
            interval = row["difference_interval"]
            yield f"{name}: the difference may be chance, {f'{interval} points' if interval else 'so few were asked'}."
        if row["difference_interval"] and row["few"]:
            yield f"{name}: {row['few']}, the true interval is wider than the one shown."
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
    rows_in = number(run.facts, "data", "rows_in")
    booked, rejected = run.ledger.fates.total(), run.ledger.fates["rejected"]
    if booked and rows_in is not None and booked != rows_in:
        yield f"The ledger accounts for {booked:,} of {counted(int(rows_in), 'row')}."
    if rejected > 0.01 * booked:
        were = counted(booked, "row was", "rows were")
        yield f"{rejected:,} of {were} rejected; the reasons are below."
    errors = sum(finding.get("severity") == "error" for finding in run.findings)
    if errors and not rejected:
        yield f"The data has {counted(errors, 'error')}; see the findings."


def cleared(run: Run) -> str:
    """The sentence that stands where nothing speaks against shipping; empty where something does."""
    if run.facts.get("status") != "finished" or not run.comparisons or cautions(run):
        return ""
    kept = [
        "the difference is decided",
        "no answer became worse",
        "every row is accounted for" if run.ledger.fates else "",
        counted(len(run.proofs), "proof holds", "proofs hold") if run.proofs else "",
        "nothing was forgotten beyond what may be" if forgetting_of(run) else "",
        "all conditions are met" if run.evaluation.get("gate") else "",
    ]
    return f"Nothing in the files of this run speaks against shipping: {', '.join(filter(None, kept))}."


# --- Tiles


def tiles(run: Run) -> list[Tile]:
    """The few numbers worth a large type."""
    candidates = [
        held_out_tile(run, "eval_loss", "Held-out loss"),
        held_out_tile(run, "eval_bits_per_byte", "Bits per byte"),
        forgetting_tile(run),
        rows_tile(run),
        proofs_tile(run),
        cost_tile(run),
        speed_tile(run),
    ]
    return [tile for tile in candidates if tile]


def held_out_tile(run: Run, key: str, label: str) -> Tile | None:
    """A measure on held-out data, before and at its best."""
    points = series(run.held_out, key)
    if not points:
        return None
    step, lowest = lowest_point(points)
    examples = number(run.facts, "data", "validation_examples")
    on = f" on {counted(int(examples), 'example')}" if examples else ""
    return label, short(lowest), f"from {short(points[0][1])}, best at step {short(step)}{on}"


def rows_tile(run: Run) -> Tile | None:
    """Rows that were learned from."""
    fates = run.ledger.fates
    rejected = fates["rejected"] if fates else number(run.facts, "data", "rejected")
    rows_in = fates.total() if fates else number(run.facts, "data", "rows_in")
    if rows_in is None or rejected is None:
        return None
    return "Rows used", whole(rows_in - rejected), f"of {whole(rows_in)} read, {whole(rejected)} rejected"


def proofs_tile(run: Run) -> Tile | None:
    """Checks that held."""
    held = sum(proof.get("ok") is True for proof in run.proofs)
    return ("Proofs", f"{held} of {len(run.proofs)}", "hold for this run") if run.proofs else None


def forgetting_tile(run: Run) -> Tile | None:
    """Bits a byte lost on general text."""
    found = forgetting_of(run)
    lost, most = number(found, "difference", "value"), number(found, "most")
    if lost is None:
        return None
    return (
        "Forgotten, bits a byte",
        signed(lost),
        f"at most {most:g} may be" if most is not None else "on general text",
    )


def cost_tile(run: Run) -> Tile | None:
    """Tokens that training went through."""
    tokens, learned = number(run.facts, "result", "tokens"), number(run.facts, "result", "learned_tokens")
    remark = f"{large(learned)} of them learned" if learned else "in training"
    return ("Tokens trained on", large(tokens), remark) if tokens else None


def speed_tile(run: Run) -> Tile | None:
    """Tokens a second."""
    speed, seconds = number(run.facts, "result", "tokens_per_second"), number(run.facts, "seconds")
    remark = f"for {duration(seconds)}" if seconds else ""
    return ("Tokens a second", short(speed), remark) if speed else None
