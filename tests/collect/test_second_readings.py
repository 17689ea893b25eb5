"""Second readings: blind, counted, and changing nothing by themselves."""

from __future__ import annotations

import pytest

from tests.collect.conftest import add_prompts, answered
from tuition.collect import NotAllowedError, NotFoundError, Store, people, queue, reviewing
from tuition.collect import demonstrations as demos
from tuition.collect.accepted import read_accepted
from tuition.errors import UserError


def write_some(store: Store, writer: people.Person, count: int) -> list[int]:
    add_prompts(store, count)
    ids = []
    for number in range(count):
        held = queue.claim(store, writer.id)
        assert held is not None
        ids.append(demos.submit(store, held.id, writer.id, answered("Hm."), post_key=str(number)).id)
    return ids


@pytest.fixture
def second(store: Store) -> people.Person:
    return people.add_person(store, "Sam", "reviewer", by=None)


def test_a_text_is_read_again_by_somebody_else_as_the_first_reader_saw_it(
    store: Store, writer: people.Person, reviewer: people.Person, second: people.Person
) -> None:
    reviewing.set_second_share(store, 1.0, by=None)
    (one,) = write_some(store, writer, 1)
    assert reviewing.next_second_reading(store, second.id) is None, "nobody has read it once"
    reviewing.review(store, one, reviewer.id, "edited", rev=1, turns=answered("Well."), post_key="r")
    assert reviewing.next_second_reading(store, reviewer.id) is None
    assert reviewing.next_second_reading(store, second.id) == one
    assert reviewing.text_to_read_again(store, one, second.id).turns == answered("Hm.")
    for person in (reviewer, writer):
        with pytest.raises(NotAllowedError):
            reviewing.read_again(store, one, person.id, "accepted")
    with pytest.raises(UserError, match="comment is empty"):
        reviewing.read_again(store, one, second.id, "returned")
    reviewing.read_again(store, one, second.id, "returned", comment="too short")
    found = demos.demonstration(store, one)
    assert (found.status, found.latest.turns, len(found.decisions)) == ("accepted", answered("Well."), 1)
    assert [d.id for d in reviewing.read_differently(store)] == [one]
    with pytest.raises(NotFoundError):
        reviewing.read_again(store, one, second.id, "returned", comment="too short")


def test_agreement_is_over_the_texts_that_two_read(
    store: Store, writer: people.Person, reviewer: people.Person, second: people.Person
) -> None:
    reviewing.set_second_share(store, 1.0, by=None)
    for number, one in enumerate(write_some(store, writer, 4)):
        reviewing.review(store, one, reviewer.id, "accepted", rev=1)
        if number < 3:
            reviewing.read_again(store, one, second.id, "accepted" if number else "edited")
    found = reviewing.agreement_of_reviewers(store)
    assert found.items == 3 and found.share is not None and found.share.value == pytest.approx(2 / 3)
    assert reviewing.second_readings_wanted(store) == 1
    of_each = [reviewing.second_readings_wanted(store, one.id) for one in (writer, reviewer, second)]
    assert of_each == [0, 0, 1], "nobody reads again what he wrote or read"


def test_about_the_share_that_was_asked_for_is_read_twice(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    reviewing.set_second_share(store, 0.5, by=None)
    for one in write_some(store, writer, 60):
        reviewing.review(store, one, reviewer.id, "accepted", rev=1)
    assert 12 <= reviewing.second_readings_wanted(store) <= 48  # missed once in two million
    with pytest.raises(UserError, match="not 0 to 1"):
        reviewing.set_second_share(store, 1.5, by=None)


def test_who_read_a_text_a_second_time_has_not_accepted_it(
    store: Store, writer: people.Person, reviewer: people.Person, second: people.Person
) -> None:
    reviewing.set_second_share(store, 1.0, by=None)
    for one, decision in zip(write_some(store, writer, 2), ("accepted", "edited"), strict=True):
        reviewing.review(store, one, reviewer.id, decision, rev=1, turns=answered("Well."), post_key=decision)
        reviewing.read_again(store, one, second.id, "accepted")
    assert [one.provenance["accepted_by"] for one in read_accepted(store)] == [[reviewer.name]] * 2
