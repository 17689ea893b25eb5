"""Few-shot prompts from pairs of a question and its answer, as InstructGPT's labelers made them (appendix A.2).

One template gives many prompts: an instruction, some of the pairs as examples, and the question of another one.
All of them share a group, so that no split divides them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence

from tuition.collect import Store, prompts
from tuition.conversation import Message
from tuition.counting import counted
from tuition.data import find_sources
from tuition.data.asked import read_asked
from tuition.errors import Finding, UserError

Pair = tuple[str, str]  # what is asked, and the answer
_TRIES = 50  # for a prompt that was not drawn before


def expand(
    pairs: Sequence[Pair], instruction: str, *, shots: int, count: int, seed: int
) -> list[prompts.NewPrompt]:
    """So many different prompts, each with `shots` examples before the question of a pair that is none of them.

    A question that stands in several pairs counts once, with its first answer: no example gives the answer away.

    Raises:
        UserError: the pairs are too few for it.
    """
    pairs = list({question: (question, answer) for question, answer in reversed(pairs)}.values())[::-1]
    if shots < 1 or count < 1 or len(pairs) <= shots:
        raise UserError(
            f"{counted(len(pairs), 'pair')} with different questions {'gives' if len(pairs) == 1 else 'give'} no prompt with {counted(shots, 'example')}",
            next_step="Add pairs, or lower --shots",
        )
    named = hashlib.sha256(repr((instruction, sorted(pairs))).encode()).hexdigest()[:12]
    drawn: dict[str, prompts.NewPrompt] = {}
    chance = random.Random(seed)
    for _ in range(count * _TRIES):
        *examples, (question, answer) = chance.sample(list(pairs), shots + 1)
        text = _text(instruction, examples, question)
        drawn.setdefault(
            text,
            prompts.NewPrompt(
                (Message("user", text),),
                f"few-shot {named}",
                expected=answer,
                group=f"few-shot {named}",
                tags=("few-shot",),
            ),
        )
        if len(drawn) == count:
            return list(drawn.values())
    raise UserError(
        f"these pairs give fewer than {counted(count, 'different prompt')}",
        next_step="Add pairs, or lower --count",
    )


def _text(instruction: str, examples: Sequence[Pair], question: str) -> str:
    shown = [f"Query: {asked}\nResponse: {answer}" for asked, answer in examples]
    return "\n\n".join(
        [*([instruction.strip()] if instruction.strip() else []), *shown, f"Query: {question}\nResponse:"]
    )


def read_pairs(data: Sequence[str]) -> Iterator[Pair]:
    """The pairs in files: any shape that `check` reads with a question and an answer.

    Raises:
        UserError: a row is no such pair; it is named.
    """
    for asked in read_asked(find_sources(data).train):
        if isinstance(asked, Finding):
            raise UserError(asked.message, where=str(asked.origin), next_step=asked.fix)
        if not asked.expected.strip() or len(asked.messages) != 1:
            raise UserError(
                "is no single question with an answer",
                where=str(asked.conversation.origin),
                next_step="Give each row a question and an answer",
            )
        yield asked.messages[0].content, asked.expected


def add_few_shot(
    store: Store,
    data: Sequence[str],
    *,
    source: str,
    instruction: str = "",
    shots: int = 3,
    count: int = 5,
    seed: int = 0,
    licence: str = "",
    consent: str = "",
    by: int | None = None,
) -> prompts.Added:
    """Take few-shot prompts made of the pairs in files into the store.

    Raises:
        UserError: as in `expand` and `read_pairs`.
    """
    new = expand(list(read_pairs(data)), instruction, shots=shots, count=count, seed=seed)
    return prompts.add(store, new, source=source, licence=licence, consent=consent, by=by)
