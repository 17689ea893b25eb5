"""Questions about a prompt: they wait until who reviews answers, and none is lost or stored twice."""

from __future__ import annotations

import pytest

from tests.collect.conftest import add_prompts
from tuition.collect import NotAllowedError, NotFoundError, Store, people, questions, queue
from tuition.errors import UserError


def test_a_question_waits_until_somebody_answers_after_it(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    (prompt_id,) = add_prompts(store, 1)
    held = queue.claim(store, writer.id)
    assert held is not None
    for text in ("Which?", "Which?", "And how long?"):
        questions.ask(store, held.id, writer.id, text)
    assert [one.text for one in questions.waiting(store)] == ["Which?", "And how long?"]
    questions.answer(store, prompt_id, reviewer.id, "Any; short.")
    assert questions.waiting(store) == []
    questions.ask(store, held.id, writer.id, "Really?")
    assert [(one.kind, one.waits) for one in questions.thread(store, prompt_id)] == [
        ("question", False), ("question", False), ("answer", False), ("question", True),
    ]  # fmt: skip
    assert questions.asked_by(store, writer.id)[0].text == "Really?"


def test_only_who_holds_the_prompt_asks_and_only_who_reviews_answers(
    store: Store, writer: people.Person, evaluator: people.Person, reviewer: people.Person
) -> None:
    (prompt_id,) = add_prompts(store, 1)
    held = queue.claim(store, writer.id)
    assert held is not None
    with pytest.raises(NotFoundError):
        questions.ask(store, held.id, reviewer.id, "Mine?")
    for person in (writer, evaluator):
        with pytest.raises(NotAllowedError):
            questions.answer(store, prompt_id, person.id, "So.")
    with pytest.raises(UserError, match="the question is empty"):
        questions.ask(store, held.id, writer.id, " ")
    assert questions.thread(store, prompt_id) == []
