"""What is verified over all examples before step 1: each check says what it counted, and one that fails
stops the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuition.counting import counted
from tuition.data import Totals
from tuition.errors import UserError
from tuition.render.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing that holds, or does not.

    Attributes:
        name: by which `allow_unproved` of the recipe can let it pass.
        ok: it holds for every example that was looked at.
        detail: what was counted; where it fails, the first place.
    """

    name: str
    ok: bool
    detail: str


def prove(
    evidence: Evidence, totals: Totals, *, stop_ids: Sequence[int], vocabulary: int, tokens: int
) -> list[Proof]:
    """Every check, in the order of the opening screen.

    Args:
        stop_ids: the tokens that end an answer when the model is served.
        vocabulary: rows of the model's embedding.
        tokens: tokens of the examples that will be trained on and held out, as they lie there.
    """
    return [
        ledger_adds_up(totals, evidence, tokens),
        every_example_is_learned_from(evidence),
        answers_end_with_a_stop_token(evidence, stop_ids),
        ids_are_in_the_vocabulary(evidence, vocabulary),
        control_tokens_come_from_the_template(evidence),
        prompts_are_what_serving_feeds(evidence),
    ]


def refuse_unproved(proofs: Sequence[Proof], allowed: Sequence[str]) -> None:
    """Stop where a check failed that the recipe does not let pass by name.

    Raises:
        UserError: naming every failed check.
    """
    failed = [proof for proof in proofs if not proof.ok and proof.name not in allowed]
    if failed:
        names = ", ".join(proof.name for proof in failed)
        raise UserError(
            "; ".join(f"{proof.name} does not hold: {proof.detail}" for proof in failed),
            where="proof",
            next_step=f"Look with `tuition preview`, mend the data or the template, or set allow_unproved: [{names}]",
        )


def ledger_adds_up(totals: Totals, evidence: Evidence, tokens: int) -> Proof:
    """Rows in = kept + rejected + left out, and three counts of the tokens are the same.

    They are the ledger's, those counted as the examples were made, and those of the examples as they lie there.
    """
    accounted = totals.kept + totals.rejected + totals.left_out
    left_out = f" + {totals.left_out:,} left out" if totals.left_out else ""
    detail = (
        f"{counted(totals.rows_in, 'row')} in = {totals.kept:,} kept + {totals.rejected:,} rejected{left_out}; "
        f"{counted(tokens, 'token')}"
    )
    if not totals.tokens == evidence.tokens == tokens:
        detail += f", but the ledger says {totals.tokens:,} and {evidence.tokens:,} were made"
    return Proof("ledger", totals.rows_in == accounted and totals.tokens == evidence.tokens == tokens, detail)


def every_example_is_learned_from(evidence: Evidence) -> Proof:
    """Each example has a learned token; none learns its first token or its context; weights are those of the turns."""
    if evidence.unsound is not None:
        return Proof("learned", False, f"{evidence.unsound} has no sound learned token")
    if evidence.misplaced is not None:
        detail = (
            f"{evidence.misplaced}: context is learned, or the answer has another weight than its message"
        )
        return Proof("learned", False, detail)
    learned, tokens = evidence.learned_tokens, evidence.tokens
    detail = (
        f"{learned:,} of {counted(tokens, 'token')} ({learned / tokens:.1%}), "
        f"some in each of {counted(evidence.examples, 'example')}"
    )
    return Proof("learned", True, detail)


def answers_end_with_a_stop_token(evidence: Evidence, stop_ids: Sequence[int]) -> Proof:
    """What is learned ends with a token that ends an answer when served, but where the recipe cuts before."""
    turns = sum(count for count, _ in evidence.ends.values())
    without = {token: end for token, end in evidence.ends.items() if token not in stop_ids}
    missing = sum(count for count, _ in without.values())
    ends = counted(turns, "learned turn ends", "learned turns end")
    detail = f"{turns - missing:,} of {ends} with a stop token that is exported"
    if without:
        return Proof("stop", False, f"{detail}; the first that does not: {next(iter(without.values()))[1]}")
    open_ends = evidence.open_ends  # cut turns, spans, and learned turns that are no answers
    others = (
        f"; {counted(open_ends, 'more ends', 'more end')} without one, as the recipe or a row's weights say"
        if open_ends
        else ""
    )
    return Proof("stop", True, detail + others)


def ids_are_in_the_vocabulary(evidence: Evidence, vocabulary: int) -> Proof:
    """No token id is beyond the model's embedding."""
    if evidence.largest_id >= vocabulary:
        detail = f"{evidence.largest_at} has token {evidence.largest_id:,}, the model has {vocabulary:,}"
        return Proof("vocabulary", False, detail)
    return Proof("vocabulary", True, f"the largest token id is {evidence.largest_id:,} of {vocabulary:,}")


def control_tokens_come_from_the_template(evidence: Evidence) -> Proof:
    """No text became a control token, and no example begins with two BOS."""
    if evidence.forged is not None:
        return Proof("control", False, evidence.forged)
    turns = evidence.spelled_turns
    follow = counted(turns, "turn follows", "turns follow")
    spelled = f"; {follow} text that spells some out, and none of it became one" if turns else ""
    return Proof(
        "control",
        True,
        f"{counted(evidence.control_tokens, 'control token')}, all the template's own{spelled}",
    )


def prompts_are_what_serving_feeds(evidence: Evidence) -> Proof:
    """The ids before an answer, and the answer's own, are those that transformers makes, asked independently."""
    if evidence.unlike_serving is not None:
        detail = f"{evidence.unlike_serving}: the learned prompt is not what serving would feed"
        return Proof("parity", False, detail)
    if evidence.unlike_written is not None:
        detail = f"{evidence.unlike_written}: the learned answer is not what the template writes"
        return Proof("parity", False, detail)
    detail = (
        f"{counted(evidence.prompts, 'prompt equals', 'prompts equal')} the ids that serving feeds, "
        f"{counted(evidence.answers, 'answer')} what the template writes, compared one by one"
    )
    return Proof("parity", True, detail)
