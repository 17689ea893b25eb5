"""What an evaluation says in the terminal, line by line; plain text, numbers with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuition import starter
from tuition.counting import counted
from tuition.interval import FEW_PROMPTS, LEAST_PROMPTS, Score

if TYPE_CHECKING:
    from tuition.evaluate.demonstrations import RowMarks
    from tuition.evaluate.forgetting import Forgetting
    from tuition.evaluate.heldout import HeldOut
    from tuition.evaluate.judge import Verdicts
    from tuition.evaluate.score import Evaluation


def held_out_line(name: str, held_out: HeldOut) -> str:
    """Loss, perplexity, bits a byte and token accuracy of one model."""
    loss = held_out.intervals.get("loss")
    between = f" [{loss.low:.4f}, {loss.high:.4f}]" if loss and loss.enough else ""
    accuracy = "" if held_out.token_accuracy is None else f", token accuracy {held_out.token_accuracy:.1%}"
    return (
        f"{name}: loss {held_out.loss:.4f}{between}, perplexity {held_out.perplexity:,.2f}, "
        f"{held_out.bits_per_byte:.3f} bits a byte{accuracy} over {counted(held_out.tokens, 'token')}"
    )


def percent(score: Score, *, plain: bool = False) -> str:
    """A score with its interval, where there is one; in plain numbers where it is that of an own function."""
    if not score.enough:
        return f"{score.value:.4g}" if plain else f"{score.value:6.1%}"
    if plain:
        return f"{score.value:.4g}  [{score.low:.4g}, {score.high:.4g}]"
    return f"{score.value:6.1%}  [{score.low:.1%}, {score.high:.1%}]"


def _is_own(metric: str) -> bool:
    return metric.startswith("python:")


def signed(score: Score, unit: str) -> str:
    """A difference with its interval, and what it decides."""
    word = {1: "worse", -1: "better", 0: "not decided"}[score.side]
    between = f" [{score.low:+.4f}, {score.high:+.4f}]" if score.enough else ""
    return f"{score.value:+.4f} {unit}{between}: {word}"


def prompts_of(score: Score) -> str:
    """`1 prompt`, `2 prompts`; where several rows ask the same, both numbers."""
    different = score.prompts or score.count
    same = "" if different == score.count else f"{counted(score.count, 'row')} with "
    return f"{same}{counted(different, 'prompt')}"


def few_line(score: Score) -> str:
    """What too few prompts cannot say."""
    if not score.enough:
        return (
            f"only {counted(score.prompts, 'prompt')}: below {LEAST_PROMPTS} there is no interval and nothing is decided; "
            "test on more"
        )
    return (
        f"only {counted(score.prompts, 'prompt')}: below {FEW_PROMPTS} the intervals themselves are uncertain; "
        "test on more before you decide"
    )


def all_lines(result: Evaluation) -> Iterator[str]:
    """Everything that was found, in the order in which it was asked."""
    if result.asked is not None:
        yield result.asked
    if result.held_out is not None:
        yield from evaluation_lines(result, result.held_out)
    if result.forgetting is not None:
        yield from forgetting_lines(result.forgetting)
    if result.demonstrations is not None:
        yield from row_lines(result.demonstrations)
    if result.judge is not None:
        yield from judge_lines(result.judge)
    yield from map(str, result.gate)


def evaluation_lines(result: Evaluation, held_out: HeldOut) -> Iterator[str]:
    """Scores of one model, or of two, and the losses."""
    for comparison in result.comparisons:
        plain = _is_own(comparison.metric)
        yield f"{comparison.metric}, base:  {percent(comparison.base, plain=plain)}"
        yield f"{comparison.metric}, tuned: {percent(comparison.tuned, plain=plain)}"
        yield (
            f"tuned − base: {percent(comparison.difference, plain=plain)} on {prompts_of(comparison.tuned)}: "
            f"{comparison.verdict}  ({len(comparison.wins):,} won, {len(comparison.losses):,} lost)"
        )
    if not result.comparisons:
        for name, score in result.scores.items():
            yield f"{name} {percent(score, plain=_is_own(name))} on {prompts_of(score)}"
    for name, whole in result.corpus.items():
        yield f"{name} of the whole corpus: " + ", ".join(f"{who} {v * 100:.2f}" for who, v in whole.items())
    scores = list(result.scores.values())
    loss = held_out.intervals.get("loss")
    judged = next(iter([*scores, *([loss] if loss else [])]), None)
    if judged is not None and judged.few:
        yield few_line(judged)
    if scores and scores[0].count != held_out.examples:
        yield f"loss over {counted(held_out.examples, 'example')}, answers to {prompts_of(scores[0])}"
    if result.overlap is not None and result.overlap.caution:
        yield f"caution: {result.overlap.caution}"
    if result.base_held_out is not None:
        yield held_out_line("base ", result.base_held_out)
    yield held_out_line(
        "tuned" if result.base_held_out is not None else starter.display_name(result.model), held_out
    )
    if "loss" in result.differences:
        yield f"loss, tuned − base: {signed(result.differences['loss'], 'nats a token')}"


def forgetting_lines(found: Forgetting) -> Iterator[str]:
    """What training took away."""
    yield found.sentence
    if found.exceeded:
        yield found.advice


def run_lines(facts: Mapping[str, Any], before: float | None = None) -> Iterator[str]:
    """What came of a run, from its run.json: the checkpoint that was best, the average, what was forgotten.

    Args:
        before: the base model's figure of the kind that the best checkpoint was chosen by, where it was measured.
    """
    result, forgetting = facts["result"], facts.get("forgetting")
    if result.get("best_value") is not None:
        name = {"loss": "held-out loss"}.get(result["best_by"], result["best_by"])
        early = f", stopped early at step {result['step']}" if result["stopped_early"] else ""
        was = "" if before is None else f"; the base model's is {before:.4f}"
        yield f"best {name} {result['best_value']:.4f} at step {result['best_step']}{early}{was}"
    if result.get("kept") and result["kept"]["sentence"]:
        yield result["kept"]["sentence"]
    if forgetting:
        yield from filter(None, (forgetting["sentence"], forgetting["advice"]))


def row_lines(rows: Sequence[RowMarks]) -> Iterator[str]:
    """Demonstrations that were not learned or look wrong, the worst first."""
    from tuition.evaluate.demonstrations import summary_of, worst_rows

    found = summary_of(rows)
    learned = found["rows"] - found["held_out"] - found["not_learned"]
    held_out = f"{found['held_out']:,} held out, " if found["held_out"] else ""
    yield (
        f"{counted(found['rows'], 'demonstration')}: {learned:,} learned, {found['not_learned']:,} not, {held_out}"
        f"{counted(found['suspicious'], 'looks', 'look')} wrong; none is dropped"
    )
    for row, reason in worst_rows(rows):
        yield f"  {row.file}:{row.line}  loss {row.before:.3f} → {row.after:.3f}  {reason}"


def judge_lines(found: Verdicts) -> Iterator[str]:
    """What a judge preferred."""
    yield (
        f"judge {found.model}: tuned wins {percent(found.score)} of {prompts_of(found.score)}: {found.verdict}  "
        f"({found.wins:,} won, {found.losses:,} lost, {found.ties:,} tied)"
    )
    if found.order_decided or found.unreadable:
        yield (
            f"  of the ties, {found.order_decided:,} followed the order of the answers; "
            f"{counted(found.unreadable, 'reply', 'replies')} held no verdict"
        )
