"""Gold items: prompts and pairs whose answer is known, which show whether a person can do the work.

While a project asks for them, a person who has not passed is given nothing else. The numbers that the
founding paper used are offered, not imposed: it screened people at 75 % agreement (InstructGPT, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass

from tuition.collect.people import Person, person
from tuition.collect.store import Store
from tuition.errors import UserError

PAPERS_SHARE = 0.75
_TESTED = ("writer", "evaluator")  # who reviews or manages has been chosen by people


@dataclass(frozen=True, slots=True)
class Rule:
    """How many gold items are asked, and what share of them must be right; 0 items: nobody is tested."""

    items: int = 0
    share: float = PAPERS_SHARE


@dataclass(frozen=True, slots=True)
class Standing:
    """How a person does on gold items.

    Attributes:
        right: items that were accepted, or judged as expected.
        done: items that were decided.
        qualified: the person is given live items.
        failed: enough items are done and too few of them right.
    """

    right: int
    done: int
    qualified: bool
    failed: bool


def rule(store: Store, kind: str) -> Rule:
    """The project's rule for `writing` or `judging`."""
    return Rule(**store.setting(f"qualification for {kind}", {}))


def set_rule(store: Store, kind: str, *, items: int, share: float, by: int) -> None:
    """Ask for gold items from now on, or stop with 0.

    Raises:
        UserError: the numbers are no such rule.
    """
    if items < 0 or not 0 < share <= 1:
        raise UserError("a rule has 0 or more items and a share of up to 1", next_step="Mend the numbers")
    store.set_setting(f"qualification for {kind}", {"items": items, "share": share}, by=by)


def writing_standing(store: Store, person_id: int) -> Standing:
    """By the demonstrations on gold prompts that reviewers accepted or returned."""
    return _standing(store, person_id, "writing")


def judging_standing(store: Store, person_id: int) -> Standing:
    """By the judgements of pairs whose better side is known."""
    return _standing(store, person_id, "judging")


def right_and_done(store: Store, person_id: int, kind: str) -> tuple[int, int]:
    """How many gold items of a kind the person did well, and did, whether the project asks for them or not."""
    with store.reading() as db:
        right, done = db.execute(_COUNTED[kind], (person_id,)).fetchone()
    return int(right), int(done)


def items_there(store: Store, kind: str) -> int:
    """How many gold items of a kind people are given; with fewer than the rule asks for, nobody can pass."""
    with store.reading() as db:
        return int(db.execute(_THERE[kind]).fetchone()[0])


def is_tested(store: Store, who: Person, kind: str) -> bool:
    """Whether the project asks this person for gold items."""
    return rule(store, kind).items > 0 and who.role in _TESTED


def _standing(store: Store, person_id: int, kind: str) -> Standing:
    wanted = rule(store, kind)
    if not wanted.items or person(store, person_id).role not in _TESTED:
        return Standing(0, 0, qualified=True, failed=False)
    right, done = right_and_done(store, person_id, kind)
    enough = done >= wanted.items
    passed = enough and right / done >= wanted.share
    return Standing(right, done, qualified=passed, failed=enough and not passed)


_COUNTED = {
    "writing": """SELECT coalesce(sum(d.status = 'accepted'), 0), coalesce(sum(d.status <> 'submitted'), 0)
        FROM prompt p JOIN demonstration d ON d.prompt_id = p.id WHERE p.gold = 1 AND d.person_id = ?""",
    "judging": """SELECT coalesce(sum(substr(j.verdict, 1, 1) = p.expected AND j.verdict <> 'both_bad'), 0), count(*)
        FROM pair p JOIN judgement j ON j.pair_id = p.id
        WHERE p.expected IS NOT NULL AND j.person_id = ? AND j.state = 'judged'""",
}

_THERE = {
    "writing": "SELECT count(*) FROM prompt WHERE gold = 1 AND paused = 0",
    "judging": """SELECT count(*) FROM pair p JOIN batch b ON b.id = p.batch_id
        WHERE p.expected IS NOT NULL AND b.closed_at IS NULL AND p.answer_a <> p.answer_b""",
}
