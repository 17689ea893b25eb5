"""Tests: prompts and pairs whose good answer is known, the rules that ask for them, and how people did. For admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import Response

from tuition import api
from tuition.counting import counted
from tuition.studio.reading import unix_lines
from tuition.studio.web import Here, Me, Person, Studio, redirect, render

router = APIRouter(prefix="/tests")
Id = Annotated[int, Path(ge=1, lt=2**63)]
Text = Annotated[str, Form(max_length=400_000)]
KINDS = ("writing", "judging")
_A_PAGE = 20


@router.get("")
def show(request: Request, studio: Here, after: Annotated[int, Query(ge=0, lt=2**63)] = 0) -> Response:
    """The rules, the people and the items."""
    store = studio.store
    batch = api.batches.tests_of(store)
    pairs = [] if batch is None else api.batches.pairs(store, batch, after=after, limit=_A_PAGE)
    return render(
        request,
        "tests.html",
        rules={kind: api.gold.rule(store, kind) for kind in KINDS},
        people=[(person, _results(studio, person)) for person in api.people.people(store)],
        prompts=api.prompts.find(store, gold=True, limit=100),
        pairs=[pair for pair in pairs if pair.expected is not None],
        more=pairs[-1].id if len(pairs) == _A_PAGE else None,
    )


def _results(studio: Studio, person: Person) -> dict[str, tuple[int, int, str]]:
    """By kind: items right, items done, and what that means for the person."""
    standings = {"writing": api.gold.writing_standing, "judging": api.gold.judging_standing}
    found = {}
    for kind, right in zip(KINDS, ("write", "judge"), strict=True):
        if person.may(right):
            standing = standings[kind](studio.store, person.id)
            tested = api.gold.is_tested(studio.store, person, kind)
            word = "passed" if standing.qualified else "not passed" if standing.failed else "at it"
            found[kind] = (*api.gold.right_and_done(studio.store, person.id, kind), word if tested else "")
    return found


@router.post("/rule")
def set_rule(
    studio: Here,
    me: Me,
    kind: Annotated[str, Form(pattern="^(writing|judging)$")],
    items: Annotated[int, Form(ge=0, le=1_000)] = 0,
    percent: Annotated[float, Form(gt=0, le=100)] = 75.0,
) -> Response:
    """How many test items people must do well before they get live ones."""
    api.gold.set_rule(studio.store, kind, items=items, share=percent / 100, by=me.id)
    there = api.gold.items_there(studio.store, kind)
    few = (
        f" {counted(there, 'test item is', 'test items are')} there: nobody can pass until there are {items:,}."
        if there < items
        else ""
    )
    return redirect("/tests", f"Set.{few}" if items else "Nobody is tested any more.")


@router.post("/prompt")
def add_prompt(studio: Here, me: Me, question: Text = "", expected: Text = "") -> Response:
    """A question that tests who writes, with a good answer."""
    api.add_test_prompt(studio.store, unix_lines(question), expected=unix_lines(expected), by=me.id)
    return redirect("/tests#prompts", "Added.")


@router.post("/pair")
def add_pair(studio: Here, me: Me, question: Text = "", better: Text = "", worse: Text = "") -> Response:
    """A question and two answers that test who judges."""
    api.add_test_pair(
        studio.store, unix_lines(question), better=unix_lines(better), worse=unix_lines(worse), by=me.id
    )
    return redirect("/tests#pairs", "Added.")


@router.post("/pair/{pair}")
def expect(studio: Here, me: Me, pair: Id, better: Annotated[str, Form(pattern="^[ab]?$")] = "") -> Response:
    """Say which answer of a pair is better, so that it tests who judges; or that it tests nobody."""
    batch = api.batches.expect(studio.store, pair, better or None, by=me.id)
    said = "It tests who judges, and counts for no model." if better else "It tests nobody any more."
    if api.batches.batch(studio.store, batch).tests:
        return redirect("/tests#pairs", said)
    return redirect(f"/overview/comparison/{batch}/pairs?after={pair - 1}", said)
