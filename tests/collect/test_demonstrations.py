"""Drafts, posts that are sent twice, revisions and reviews."""

from __future__ import annotations

import pytest

from tests.collect.conftest import Clock, add_prompts, answered
from tuition.collect import (
    ConflictError,
    NotAllowedError,
    NotFoundError,
    Store,
    drafts,
    guidelines,
    people,
    queue,
    reviewing,
    suggestions,
)
from tuition.collect import demonstrations as demos
from tuition.errors import UserError


@pytest.fixture
def task(store: Store, writer: people.Person) -> queue.Assignment:
    add_prompts(store, 1)
    got = queue.claim(store, writer.id)
    assert got is not None
    return got


@pytest.fixture
def sent(store: Store, writer: people.Person, task: queue.Assignment) -> demos.Demonstration:
    return demos.submit(store, task.id, writer.id, answered("It is nought."), post_key="first", seconds=42.0)


# --- drafts ---


def test_a_draft_is_found_again_even_after_its_lease(
    store: Store, writer: people.Person, reviewer: people.Person, task: queue.Assignment, clock: Clock
) -> None:
    drafts.save(store, task.id, writer.id, answered("It is"), rev=0)
    clock.seconds += queue.LEASE_SECONDS + 1
    assert queue.claim(store, reviewer.id) is not None
    assert drafts.draft(store, task.id, writer.id).turns == answered("It is")
    assert [a.id for a in queue.unfinished(store, writer.id)] == [task.id]


def test_two_tabs_cannot_overwrite_each_other(
    store: Store, writer: people.Person, task: queue.Assignment
) -> None:
    assert drafts.save(store, task.id, writer.id, answered("one"), rev=0).rev == 1
    assert drafts.save(store, task.id, writer.id, answered("one"), rev=0).rev == 1  # sent twice: no conflict
    with pytest.raises(drafts.DraftConflictError) as conflict:
        drafts.save(store, task.id, writer.id, answered("two"), rev=0)
    assert conflict.value.stored.turns == answered("one")
    assert drafts.save(store, task.id, writer.id, answered("two"), rev=1).rev == 2


def test_saving_a_draft_holds_the_place(
    store: Store, writer: people.Person, reviewer: people.Person, task: queue.Assignment, clock: Clock
) -> None:
    clock.seconds += queue.LEASE_SECONDS - 1
    drafts.save(store, task.id, writer.id, answered("still here"), rev=0)
    clock.seconds += queue.LEASE_SECONDS - 1
    assert queue.claim(store, reviewer.id) is None


def test_a_draft_is_no_longer_saved_once_the_answer_is_sent(
    store: Store, writer: people.Person, task: queue.Assignment, sent: demos.Demonstration
) -> None:
    with pytest.raises(ConflictError):
        drafts.save(store, task.id, writer.id, answered("too late"), rev=0)


# --- sending ---


def test_a_post_that_is_sent_twice_is_stored_once(
    store: Store, writer: people.Person, task: queue.Assignment, sent: demos.Demonstration
) -> None:
    assert demos.submit(store, task.id, writer.id, answered("It is nought."), post_key="first") == sent
    with pytest.raises(ConflictError):
        demos.submit(store, task.id, writer.id, answered("Another."), post_key="second")
    assert len(demos.find(store)) == 1


@pytest.mark.parametrize("text", ["", " \n ", "half a \ud800 character", "x" * 400_001])
def test_what_is_no_answer_is_never_stored(
    store: Store, writer: people.Person, task: queue.Assignment, text: str
) -> None:
    with pytest.raises(UserError):
        demos.submit(store, task.id, writer.id, answered(text), post_key="1")
    assert demos.find(store) == []


@pytest.mark.parametrize(
    "roles", [[], ["user"], ["assistant", "user"], ["assistant", "assistant"], ["system", "assistant"]]
)
def test_a_conversation_must_take_turns_and_end_with_the_answer(
    store: Store, writer: people.Person, task: queue.Assignment, roles: list[str]
) -> None:
    turns = [{"role": role, "content": "text"} for role in roles]
    with pytest.raises(UserError):
        demos.submit(store, task.id, writer.id, turns, post_key="1")


def test_several_turns_are_one_demonstration(
    store: Store, writer: people.Person, task: queue.Assignment
) -> None:
    turns = [*answered("Zero."), {"role": "user", "content": "Sure?"}, *answered("Yes.")]
    assert demos.submit(store, task.id, writer.id, turns, post_key="1").latest.turns == turns


def test_markup_is_kept_byte_for_byte(store: Store, writer: people.Person, task: queue.Assignment) -> None:
    text = "<img src=x onerror=alert(1)>\r\n\x00\"'; DROP TABLE person; --\u2028"
    sent = demos.submit(store, task.id, writer.id, answered(text), post_key="1")
    assert demos.demonstration(store, sent.id).latest.turns[0]["content"] == text


def test_the_guideline_that_the_author_saw_is_kept(
    store: Store, writer: people.Person, admin: people.Person, task: queue.Assignment
) -> None:
    guidelines.save(store, "Be short.", after=0, by=admin.id)
    sent = demos.submit(store, task.id, writer.id, answered("0"), post_key="1", guideline_version=0)
    assert sent.latest.guideline_version == 0
    with pytest.raises(ConflictError):
        guidelines.save(store, "Be long.", after=0, by=admin.id)
    assert [g.version for g in guidelines.history(store)] == [1, 0]
    with pytest.raises(NotFoundError):
        guidelines.version(store, 7)


def test_an_untouched_suggestion_is_marked_as_such(
    store: Store, writer: people.Person, task: queue.Assignment
) -> None:
    suggestion = suggestions.suggest(store, task.id, writer.id, made_by="run-1", text="It is zero.")
    assert suggestions.latest(store, task.id) == suggestion
    sent = demos.submit(
        store, task.id, writer.id, answered("It is zero."), post_key="1", suggestion_id=suggestion.id
    )
    assert (sent.latest.suggested_by, sent.latest.edit_ratio) == ("run-1", 0.0)
    assert [d.id for d in demos.find(store, untouched=True)] == [sent.id]


def test_a_suggestion_to_somebody_else_is_refused(
    store: Store, writer: people.Person, reviewer: people.Person, task: queue.Assignment
) -> None:
    add_prompts(store, 1, first=7)
    other = queue.claim(store, reviewer.id)
    assert other is not None
    suggestion = suggestions.suggest(store, other.id, reviewer.id, made_by="run-1", text="14")
    with pytest.raises(NotFoundError):
        demos.submit(store, task.id, writer.id, answered("0"), post_key="1", suggestion_id=suggestion.id)
    with pytest.raises(NotFoundError):
        suggestions.suggest(store, other.id, writer.id, made_by="run-1", text="14")
    assert demos.find(store) == []


# --- reviewing ---


def test_an_edit_keeps_both_texts_under_their_authors(
    store: Store, reviewer: people.Person, sent: demos.Demonstration
) -> None:
    after = reviewing.review(
        store, sent.id, reviewer.id, "edited", rev=1, turns=answered("Zero."), post_key="r"
    )
    assert after.status == "accepted"
    assert [(r.person, r.turns) for r in after.revisions] == [
        ("Wim", answered("It is nought.")),
        ("Rita", answered("Zero.")),
    ]


def test_a_returned_answer_comes_back_with_its_comment_and_is_sent_again(
    store: Store,
    writer: people.Person,
    reviewer: people.Person,
    task: queue.Assignment,
    sent: demos.Demonstration,
) -> None:
    with pytest.raises(UserError, match="comment is empty"):
        reviewing.review(store, sent.id, reviewer.id, "returned", rev=1)
    reviewing.review(store, sent.id, reviewer.id, "returned", rev=1, comment="say zero")
    (back,) = demos.returned_to(store, writer.id)
    assert back.reviews[-1].comment == "say zero"
    again = demos.submit(store, task.id, writer.id, answered("Zero."), post_key="second")
    assert (again.id, again.status, again.latest.rev) == (sent.id, "submitted", 2)
    assert reviewing.review(store, sent.id, reviewer.id, "accepted", rev=2).status == "accepted"


def test_a_review_of_an_older_revision_is_refused(
    store: Store, admin: people.Person, reviewer: people.Person, sent: demos.Demonstration
) -> None:
    reviewing.review(store, sent.id, admin.id, "accepted", rev=1)
    with pytest.raises(ConflictError):
        reviewing.review(store, sent.id, reviewer.id, "edited", rev=1, turns=answered("x"), post_key="r")


def test_the_same_review_twice_is_stored_once(
    store: Store, reviewer: people.Person, sent: demos.Demonstration
) -> None:
    once = reviewing.review(store, sent.id, reviewer.id, "accepted", rev=1)
    assert reviewing.review(store, sent.id, reviewer.id, "accepted", rev=1) == once
    assert len(once.reviews) == 1


def test_nobody_but_an_admin_reviews_their_own(
    store: Store, admin: people.Person, reviewer: people.Person
) -> None:
    add_prompts(store, 2)
    sent = {}
    for person in (admin, reviewer):
        got = queue.claim(store, person.id)
        assert got is not None
        sent[person.name] = demos.submit(store, got.id, person.id, answered("0"), post_key="1")
    waiting = reviewing.next_to_review(store, reviewer.id)
    assert waiting is not None and waiting.person == "Ada"
    with pytest.raises(NotAllowedError):
        reviewing.review(store, sent["Rita"].id, reviewer.id, "accepted", rev=1)
    assert reviewing.review(store, sent["Ada"].id, admin.id, "accepted", rev=1).status == "accepted"


def test_a_writer_may_not_review(store: Store, writer: people.Person, sent: demos.Demonstration) -> None:
    with pytest.raises(NotAllowedError):
        reviewing.review(store, sent.id, writer.id, "accepted", rev=1)
    with pytest.raises(NotAllowedError):
        reviewing.next_to_review(store, writer.id)
