"""Gold items: prompts and pairs whose answer is known, which show whether a person can do the work.

While a project asks for them, a person who has not passed is given nothing else. The numbers that the
founding paper used are offered, not imposed: it screened people at 75 % agreement (InstructGPT, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass

from tuition.collect.people import person
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
    query = """SELECT coalesce(sum(d.status = 'accepted'), 0), coalesce(sum(d.status <> 'submitted'), 0)
        FROM demonstration d JOIN prompt p ON p.id = d.prompt_id WHERE d.person_id = ? AND p.gold = 1"""
    return _standing(store, person_id, "writing", query)


def judging_standing(store: Store, person_id: int) -> Standing:
    """By the judgements of pairs whose better side is known."""
    query = """SELECT coalesce(sum(substr(j.verdict, 1, 1) = p.expected AND j.verdict <> 'both_bad'), 0), count(*)
        FROM judgement j JOIN pair p ON p.id = j.pair_id
        WHERE j.person_id = ? AND j.state = 'judged' AND p.expected IS NOT NULL"""
    return _standing(store, person_id, "judging", query)


def _standing(store: Store, person_id: int, kind: str, query: str) -> Standing:
    wanted = rule(store, kind)
    if not wanted.items or person(store, person_id).role not in _TESTED:
        return Standing(0, 0, qualified=True, failed=False)
    with store.reading() as db:
        right, done = db.execute(query, (person_id,)).fetchone()
    enough = done >= wanted.items
    passed = enough and right / done >= wanted.share
    return Standing(right, done, qualified=passed, failed=enough and not passed)
