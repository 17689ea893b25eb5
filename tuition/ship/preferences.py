"""The next step of learning from people: answers that are sampled and judged, as TRL's trainers read them.

Several answers are drawn to each prompt, and every two of them are compared: by a metric where the right
answer is known, or by a judge. All pairs of a prompt stand together under one `group`, as InstructGPT trained
on them (Ouyang et al. 2022, §3.5): pairs that share a prompt are no independent evidence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from tuition import files
from tuition.conversation import Message
from tuition.counting import counted
from tuition.errors import UserError
from tuition.evaluate.compare import Answer
from tuition.evaluate.drawing import Drawing
from tuition.evaluate.generate import Generated, Question, draw
from tuition.evaluate.judge import Judge, one_by_one
from tuition.evaluate.load import Answerer
from tuition.evaluate.measures import Metric

# Which of two answers to a question is better: 1 the second, 0 the first, ½ neither; None: nobody said.
Compare = Callable[[Question, str, str], float | None]


@dataclass(slots=True)
class Counts:
    """What became of the prompts and the answers drawn to them.

    Attributes:
        without_prompt: rows that ask nothing.
        unfinished: answers cut at the limit: as data they would teach a false end, so they are in no pair.
        repeated: answers that were drawn before, to the same prompt.
        ties: pairs of which neither was better.
        unreadable: pairs about which a reply of the judge held no verdict.
        groups: prompts with at least one pair.
    """

    prompts: int = 0
    without_prompt: int = 0
    answers: int = 0
    unfinished: int = 0
    repeated: int = 0
    pairs: int = 0
    ties: int = 0
    unreadable: int = 0
    groups: int = 0

    def to_json(self) -> dict[str, int]:
        """The object that `preferences --json` prints."""
        return asdict(self)


def write_preferences(
    answerer: Answerer,
    questions: Sequence[Question],
    to: Path,
    compare: Compare,
    drawing: Drawing,
    *,
    judged_by: str,
    on_prompt: Callable[[int], None] = lambda done: None,
) -> Counts:
    """Draw answers, compare them, and write the pairs as JSONL: `prompt`, `chosen`, `rejected`, `group`, …

    Raises:
        UserError: the settings draw nothing to compare, or there was no pair with a winner: nothing is written.
    """
    if drawing.samples < 2 or drawing.temperature <= 0:
        raise UserError(
            "one answer, or the same answer again, leaves nothing to compare",
            where="--samples, --temperature",
            next_step="Draw at least 2, at a temperature above 0",
        )
    counts = Counts()
    rows: list[dict[str, Any]] = []
    for done, question in enumerate(questions, 1):
        texts = _answers(answerer, question, drawing, counts)
        rows += _group(question, texts, compare, judged_by, counts)
        on_prompt(done)
    if not rows:
        raise UserError(
            f"no pair has a winner: {counted(counts.answers, 'answer')}, {counts.unfinished:,} unfinished, {counted(counts.ties, 'tie')}, "
            f"{counts.unreadable:,} without a verdict",
            where=str(to),
            next_step="Draw more (--samples), longer (--max-new-tokens), or judge otherwise (--metric, --judge)",
        )
    files.write_jsonl(to, rows)
    return counts


def _answers(answerer: Answerer, question: Question, drawing: Drawing, counts: Counts) -> list[str]:
    """The different answers drawn to one prompt that ended by themselves."""
    drawn: list[Generated] = draw(
        answerer.loaded.model,
        answerer.renderer,
        (question.messages, question.conversation.tools),
        replace(drawing, seed=_seed_of(drawing.seed or 0, question.prompt)),
    )
    finished = [given.text for given in drawn if given.stopped]
    different = list(dict.fromkeys(finished))
    counts.prompts += 1
    counts.answers += len(drawn)
    counts.unfinished += len(drawn) - len(finished)
    counts.repeated += len(finished) - len(different)
    return different


def _seed_of(seed: int, prompt: str) -> int:
    """The same draws for the same prompt, wherever it stands in the file."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()[:7], "big")


def _group(
    question: Question, texts: Sequence[str], compare: Compare, judged_by: str, counts: Counts
) -> Iterator[dict[str, Any]]:
    """Every two answers to one prompt of which one is better."""
    before = counts.pairs
    for first, second in combinations(texts, 2):
        worth = compare(question, first, second)
        if worth is None or worth == 0.5:
            counts.unreadable += worth is None
            counts.ties += worth is not None
            continue
        counts.pairs += 1
        chosen, rejected = (second, first) if worth > 0.5 else (first, second)
        yield preference_row(
            question.messages, chosen, rejected, group=str(question.conversation.origin), judged_by=judged_by
        )
    counts.groups += counts.pairs > before


def preference_row(
    messages: Sequence[Message], chosen: str, rejected: str, *, group: str, judged_by: str
) -> dict[str, Any]:
    """One judged pair in TRL's conversational form.

    Args:
        group: what all pairs of one prompt share.
        judged_by: a metric, a model or a person.
    """
    return {
        "prompt": [{"role": m.role, "content": m.content} for m in messages],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "group": group,
        "judged_by": judged_by,
    }


def by_metric(metric: Metric) -> Compare:
    """The answer that scores higher is better."""

    def compare(question: Question, first: str, second: str) -> float:
        one, two = (metric.measure(text, question.expected, {}) for text in (first, second))
        return 0.5 if one == two else float(two > one)

    return compare


def by_judge(judge: Judge, folder: Path | None) -> Compare:
    """The answer that a model prefers in both orders is better; its replies are kept in `folder`."""

    judged = one_by_one(judge, folder)

    def compare(question: Question, first: str, second: str) -> float | None:
        origin = str(question.conversation.origin)
        found = judged(Answer(question.prompt, question.expected, base=first, tuned=second, origin=origin))
        return None if "unreadable" in (found.base_first, found.tuned_first) else found.worth

    return compare
