"""What is verified over all examples before step 1: each check says what it counted, and one that fails
stops the run. Everything here is recomputed from the examples; nothing is taken on the renderer's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuition.conversation import Conversation, Rendered
from tuition.errors import UserError
from tuition.render.corpus import Corpus
from tuition.render.draft import Draft
from tuition.render.renderer import Renderer


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


def prove(corpus: Corpus, renderer: Renderer, *, vocabulary: int) -> list[Proof]:
    """Every check, in the order of the opening screen.

    Args:
        vocabulary: rows of the model's embedding.
    """
    examples = corpus.examples
    return [
        ledger_adds_up(corpus, examples),
        every_example_is_learned_from(examples),
        answers_end_with_a_stop_token(examples, renderer, cut=len(corpus.ledger.truncated)),
        ids_are_in_the_vocabulary(examples, vocabulary),
        prompts_are_what_serving_feeds(examples, [*corpus.held_out, *corpus.learned_from], renderer),
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


def ledger_adds_up(corpus: Corpus, examples: Sequence[Rendered]) -> Proof:
    """Rows in = kept + rejected + left out, and the ledger's tokens are the examples' tokens."""
    ledger = corpus.ledger
    rows, accounted = ledger.rows_in, ledger.kept + len(ledger.rejected) + ledger.left_out
    in_ledger = sum(int(row["tokens"]) for row in ledger.to_rows())
    in_examples = sum(len(example) for example in examples)
    detail = (
        f"{rows:,} rows in = {ledger.kept:,} kept + {len(ledger.rejected):,} rejected; {in_examples:,} tokens"
    )
    if in_ledger != in_examples:
        detail += f", but the ledger says {in_ledger:,}"
    return Proof("ledger", rows == accounted and in_ledger == in_examples, detail)


def every_example_is_learned_from(examples: Sequence[Rendered]) -> Proof:
    """Each example has a learned token; none learns its first token; no weight is negative or not a number."""
    for example in examples:
        weights = example.supervised
        sound = np.isfinite(weights).all() and (weights >= 0).all() and weights[0] == 0 and weights.any()
        if not sound:
            return Proof("learned", False, f"{example.origin} has no sound learned token")
    learned, tokens = sum(e.learned_tokens for e in examples), sum(len(e) for e in examples)
    return Proof(
        "learned", True, f"{learned:,} of {tokens:,} tokens ({learned / tokens:.1%}), some in each example"
    )


def answers_end_with_a_stop_token(examples: Sequence[Rendered], renderer: Renderer, *, cut: int) -> Proof:
    """Each run of learned tokens ends with a token that ends an answer when served; cut ones end with none."""
    stops = np.asarray(renderer.stop_ids, dtype=np.int32)
    turns, without = 0, []
    for example in examples:
        learned = np.flatnonzero(example.supervised)
        ends = learned[np.flatnonzero(np.diff(learned, append=len(example.supervised) + 1) > 1)]
        ended = np.isin(example.ids[ends], stops)
        if renderer.train_on == "all":
            ended = ended[-1:]
        turns += len(ended)
        without += [example.origin] * int((~ended).sum())
    detail = f"{turns - len(without):,} of {turns:,} learned turns end with a stop token that is exported"
    if without and len(without) > cut:
        return Proof("stop", False, f"{detail}; the first that does not: {without[0]}")
    return Proof("stop", True, detail + (f"; {cut:,} were cut and end with none" if cut else ""))


def ids_are_in_the_vocabulary(examples: Sequence[Rendered], vocabulary: int) -> Proof:
    """No token id is beyond the model's embedding."""
    worst = max(examples, key=lambda example: int(example.ids.max()))
    largest = int(worst.ids.max())
    if largest >= vocabulary:
        detail = f"{worst.origin} has token {largest:,}, the model has {vocabulary:,}"
        return Proof("vocabulary", False, detail)
    return Proof("vocabulary", True, f"the largest token id is {largest:,} of {vocabulary:,}")


def prompts_are_what_serving_feeds(
    examples: Sequence[Rendered], conversations: Sequence[Conversation], renderer: Renderer
) -> Proof:
    """The ids before an answer are those that transformers makes of the prompt, asked independently."""
    by_place: dict[tuple[str, int], list[Rendered]] = {}
    for example in examples:
        by_place.setdefault((example.origin.file, example.origin.line), []).append(example)
    compared = 0
    for conversation in conversations:
        served = _served_ids(conversation, renderer)
        if served is None:
            continue
        place = (conversation.origin.file, conversation.origin.line)
        if not any(_stands_before_the_answer(served, example) for example in by_place.get(place, ())):
            return Proof(
                "parity", False, f"{conversation.origin}: the learned prompt is not what serving would feed"
            )
        compared += 1
    return Proof(
        "parity", True, f"{compared:,} prompts equal the ids that serving feeds, compared one by one"
    )


def _served_ids(conversation: Conversation, renderer: Renderer) -> list[int] | None:
    """The prompt of the last learned turn as transformers serves it; None where the row is of another kind."""
    messages = conversation.messages
    answers = [i for i, m in enumerate(messages) if m.role == "assistant" and m.weight != 0]
    if conversation.plain or not answers or _spells_control_tokens(conversation, renderer):
        return None
    if renderer.template is None:
        return list(renderer.tokens.tokenizer(messages[0].content)["input_ids"]) if answers[-1] else None
    with renderer.template.served():
        ids = renderer.tokens.tokenizer.apply_chat_template(
            renderer.as_served(messages[: answers[-1]]),
            tools=[dict(tool) for tool in conversation.tools] or None,
            chat_template=renderer.template.source,
            add_generation_prompt=True,
            return_dict=False,
        )
    return list(ids)


def _spells_control_tokens(conversation: Conversation, renderer: Renderer) -> bool:
    """Such content is kept plain here, which serving does only where it is asked to."""
    draft = Draft(conversation)
    return renderer.written(draft) is None or bool(draft.mark)


def _stands_before_the_answer(served: list[int], example: Rendered) -> bool:
    length = len(served)
    return (
        len(example) > length
        and example.ids[:length].tolist() == served
        and bool(example.supervised[length] > 0)
    )
