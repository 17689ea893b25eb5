"""Claiming, leases, overlap, skips and flags."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path

import pytest

from tests.collect.conftest import Clock, add_prompts, answered
from tests.patience import PATIENCE_SECONDS
from tuition import collecting
from tuition.collect import (
    ConflictError,
    NotAllowedError,
    NotFoundError,
    Store,
    gold,
    people,
    prompts,
    queue,
    reviewing,
)
from tuition.collect import demonstrations as demos
from tuition.errors import UserError


def test_people_are_given_different_prompts_and_their_own_again(store: Store) -> None:
    first, second = add_prompts(store, 2)
    ann, ben = (people.add_person(store, name, "writer", by=None).id for name in ("Ann", "Ben"))
    got = queue.claim(store, ann)
    assert got is not None and got.prompt_id == first
    assert queue.claim(store, ann) == got
    other = queue.claim(store, ben)
    assert other is not None and other.prompt_id == second
    cleo = people.add_person(store, "Cleo", "writer", by=None).id
    assert queue.claim(store, cleo) is None


def test_the_most_urgent_prompt_comes_first(store: Store, writer: people.Person) -> None:
    ids = add_prompts(store, 5)
    prompts.change(store, ids[3], priority=2.0, by=None)
    got = queue.claim(store, writer.id)
    assert got is not None and got.prompt_id == ids[3]


def test_a_lease_that_ran_out_gives_the_place_on_and_a_late_answer_is_an_extra(
    store: Store, writer: people.Person, reviewer: people.Person, clock: Clock
) -> None:
    add_prompts(store, 1)
    slow = queue.claim(store, writer.id)
    assert slow is not None and queue.claim(store, reviewer.id) is None
    clock.seconds += queue.LEASE_SECONDS + 1
    quick = queue.claim(store, reviewer.id)
    assert quick is not None and quick.prompt_id == slow.prompt_id
    in_time = demos.submit(store, quick.id, reviewer.id, answered("0."), post_key="1")
    late = demos.submit(store, slow.id, writer.id, answered("Zero."), post_key="1")
    assert not in_time.extra and late.extra
    assert late.latest.turns == answered("Zero.")
    assert prompts.prompt(store, slow.prompt_id).taken == 1


def test_a_late_answer_takes_its_place_back_where_nobody_wanted_it(
    store: Store, writer: people.Person, reviewer: people.Person, clock: Clock
) -> None:
    add_prompts(store, 2)
    slow = queue.claim(store, writer.id)
    assert slow is not None
    clock.seconds += queue.LEASE_SECONDS + 1
    other = queue.claim(store, reviewer.id)
    assert other is not None
    queue.skip(store, other.id, reviewer.id, "unclear")
    assert not demos.submit(store, slow.id, writer.id, answered("0."), post_key="1").extra


def test_overlap_asks_so_many_people_and_nobody_twice(store: Store) -> None:
    add_prompts(store, 3, overlap=2)
    writers = [people.add_person(store, f"W{n}", "writer", by=None).id for n in range(3)]
    for _ in range(4):
        for person_id in writers:
            got = queue.claim(store, person_id)
            if got is not None:
                demos.submit(store, got.id, person_id, answered("yes"), post_key=f"{got.id}")
    found = demos.find(store, limit=100)
    assert Counter(d.prompt_id for d in found) == {1: 2, 2: 2, 3: 2}
    assert max(Counter((d.prompt_id, d.person_id) for d in found).values()) == 1


def test_a_skipped_prompt_goes_to_others_and_not_back(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    (only,) = add_prompts(store, 1)
    got = queue.claim(store, writer.id)
    assert got is not None
    with pytest.raises(UserError, match="reason is empty"):
        queue.skip(store, got.id, writer.id, "  ")
    queue.skip(store, got.id, writer.id, "I do not understand it")
    assert queue.claim(store, writer.id) is None
    other = queue.claim(store, reviewer.id)
    assert other is not None and other.prompt_id == only


def test_nobody_can_touch_another_persons_task(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    add_prompts(store, 1)
    got = queue.claim(store, writer.id)
    assert got is not None
    with pytest.raises(NotFoundError):
        queue.skip(store, got.id, reviewer.id, "x")
    with pytest.raises(NotFoundError):
        demos.submit(store, got.id, reviewer.id, answered("mine"), post_key="1")


def test_an_evaluator_is_given_nothing_to_write(store: Store, evaluator: people.Person) -> None:
    add_prompts(store, 1)
    with pytest.raises(NotAllowedError):
        queue.claim(store, evaluator.id)


def test_a_paused_prompt_is_asked_of_nobody(store: Store, writer: people.Person) -> None:
    (only,) = add_prompts(store, 1)
    prompts.change(store, only, paused=True, by=None)
    assert queue.claim(store, writer.id) is None


def test_a_flag_is_open_until_it_is_resolved(
    store: Store, writer: people.Person, admin: people.Person
) -> None:
    (only,) = add_prompts(store, 1)
    queue.flag(store, only, writer.id, "a real name stands in it")
    (shown,) = queue.open_flags(store)
    assert (shown.prompt_id, shown.person, shown.reason) == (only, "Wim", "a real name stands in it")
    queue.resolve_flag(store, shown.id, by=admin.id)
    assert queue.open_flags(store) == []
    with pytest.raises(NotFoundError):
        queue.flag(store, 999, writer.id, "?")


def test_a_person_in_qualification_is_given_gold_only_until_enough_is_accepted(
    store: Store, writer: people.Person, reviewer: people.Person, admin: people.Person
) -> None:
    tests = add_prompts(store, 2)
    (live,) = add_prompts(store, 1, first=2)
    for prompt_id in tests:
        prompts.change(store, prompt_id, gold=True, by=admin.id)
    gold.set_rule(store, "writing", items=2, share=0.75, by=admin.id)
    for _ in tests:
        got = queue.claim(store, writer.id)
        assert got is not None and got.prompt_id in tests
        sent = demos.submit(store, got.id, writer.id, answered("4"), post_key=str(got.id))
        reviewing.review(store, sent.id, reviewer.id, "accepted", rev=1)
    got = queue.claim(store, writer.id)
    assert got is not None and got.prompt_id == live


def test_a_person_who_fails_the_gold_items_is_given_nothing(
    store: Store, writer: people.Person, reviewer: people.Person, admin: people.Person
) -> None:
    (test,) = add_prompts(store, 1)
    add_prompts(store, 3, first=1)
    prompts.change(store, test, gold=True, by=admin.id)
    gold.set_rule(store, "writing", items=1, share=0.75, by=admin.id)
    got = queue.claim(store, writer.id)
    assert got is not None
    sent = demos.submit(store, got.id, writer.id, answered("5"), post_key="1")
    reviewing.review(store, sent.id, reviewer.id, "returned", rev=1, comment="it is 4")
    assert gold.writing_standing(store, writer.id).failed
    assert queue.claim(store, writer.id) is None
    assert queue.claim(store, reviewer.id) is not None  # who reviews is not tested


def test_the_same_prompt_is_kept_once_and_gains_tags(store: Store) -> None:
    first = add_prompts(store, 3)
    assert add_prompts(store, 3) == first
    prompts.set_tags(store, first[0], ["maths", "easy"], by=None)
    assert prompts.prompt(store, first[0]).tags == ("easy", "maths")
    assert prompts.tags(store) == ["easy", "maths"]
    assert [p.id for p in prompts.find(store, tag="maths")] == first[:1]
    assert [p.id for p in prompts.find(store, words="2 AND 2")] == [first[2]]
    assert prompts.find(store, words="100%") == []


def test_an_answered_prompt_cannot_be_skipped(store: Store, writer: people.Person) -> None:
    add_prompts(store, 1)
    got = queue.claim(store, writer.id)
    assert got is not None
    demos.submit(store, got.id, writer.id, answered("0"), post_key="1")
    with pytest.raises(ConflictError):
        queue.skip(store, got.id, writer.id, "changed my mind")


def _work_through(path: Path, person_id: int) -> None:
    with Store(path) as store:
        while (got := queue.claim(store, person_id)) is not None:
            demos.submit(store, got.id, person_id, answered("done"), post_key=str(got.id))


def test_sixteen_processes_fill_every_place_exactly_once(store: Store) -> None:
    add_prompts(store, 30, overlap=3)
    workers = [people.add_person(store, f"W{n}", "writer", by=None).id for n in range(16)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_work_through, args=(store.path, worker)) for worker in workers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
    assert [process.exitcode for process in processes] == [0] * 16
    with store.reading() as db:
        filled = db.execute(
            "SELECT prompt_id, count(*), count(DISTINCT slot), count(DISTINCT person_id), max(extra) FROM assignment GROUP BY 1"
        ).fetchall()
    assert [tuple(row[1:]) for row in filled] == [(3, 3, 3, 0)] * 30


def test_a_prompt_that_is_asked_again_is_only_for_others_than_who_answered_it(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    (one,) = add_prompts(store, 1)
    held = queue.claim(store, writer.id)
    assert held is not None
    demos.submit(store, held.id, writer.id, answered("Mine."), post_key="k")
    assert queue.only_for_others(store, writer.id) == {}, "nobody is asked"
    prompts.change(store, one, overlap=3, by=None)
    assert queue.only_for_others(store, writer.id) == {one: 2}
    assert queue.only_for_others(store, reviewer.id) == {}
    assert queue.claim(store, writer.id) is None


def test_a_prompt_that_is_only_opened_is_not_answered(store: Store, writer: people.Person) -> None:
    (one,) = add_prompts(store, 1)
    held = queue.claim(store, writer.id)
    assert held is not None
    assert (prompts.prompt(store, one).taken, prompts.prompt(store, one).answered) == (1, 0)
    demos.submit(store, held.id, writer.id, answered("Done."), post_key="k")
    assert prompts.prompt(store, one).answered == 1


def test_what_was_lost_is_asked_anew_also_of_who_answered_it_and_both_answers_are_kept(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    (one,) = add_prompts(store, 1)
    first = queue.claim(store, writer.id)
    assert first is not None
    demos.submit(store, first.id, writer.id, answered("Once."), post_key="k")
    queue.open_round(store, one)
    again = queue.claim(store, writer.id)
    assert again is not None and (again.prompt_id, again.round) == (one, 1) and again.id != first.id
    assert queue.claim(store, reviewer.id) is None, "one place was opened, and it is held"
    queue.open_round(store, one)
    assert prompts.prompt(store, one).overlap == 3, "a place more, in the round that nobody has answered"
    demos.submit(store, again.id, writer.id, answered("Twice."), post_key="l")
    assert queue.claim(store, writer.id) is None and queue.only_for_others(store, writer.id) == {one: 1}
    assert [d.latest.turns for d in demos.find(store, prompt_id=one)] == [
        answered("Twice."),
        answered("Once."),
    ]


def test_who_is_at_work_on_a_prompt_that_comes_back_answers_it_in_the_new_round_once(
    store: Store, writer: people.Person, reviewer: people.Person, clock: Clock
) -> None:
    (one,) = add_prompts(store, 1, overlap=2)
    held, other = queue.claim(store, writer.id), queue.claim(store, reviewer.id)
    assert held is not None and other is not None
    demos.submit(store, other.id, reviewer.id, answered("Done."), post_key="k")
    queue.open_round(store, one)
    assert queue.own(store, held.id, writer.id).round == 1
    demos.submit(store, held.id, writer.id, answered("Mine."), post_key="k")
    assert queue.claim(store, writer.id) is None
    skipped = queue.claim(store, reviewer.id)
    assert skipped is not None
    queue.skip(store, skipped.id, reviewer.id, "unclear")
    queue.open_round(store, one)
    assert queue.claim(store, reviewer.id) is None, "what somebody skipped does not come back to them"


def test_a_question_that_people_answer_already_becomes_no_test_unsaid(
    store: Store, writer: people.Person
) -> None:
    admin = people.add_person(store, "Ada", "admin", by=None)
    collecting.add_typed_prompt(store, "Is it safe?", by=admin.id)
    assert queue.claim(store, writer.id) is not None
    with pytest.raises(UserError, match="1 answer was begun or sent to this question"):
        collecting.add_test_prompt(store, "Is it safe?", expected="Yes.", by=admin.id)
