"""Whatever people do in whatever order, what the store promises holds. Hypothesis looks for the order that breaks it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.collect.conftest import Clock, add_prompts, answered
from tuition.collect import (
    ConflictError,
    Store,
    accepted,
    drafts,
    overview,
    people,
    prompts,
    queue,
    reviewing,
)
from tuition.collect import demonstrations as demos
from tuition.collect.exports import Split, side_of
from tuition.collect.suggestions import edit_ratio

WRITERS = 3
WHO = st.integers(0, WRITERS - 1)


class Work(RuleBasedStateMachine):
    """Three writers and a reviewer at work on a few prompts, with time passing between."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.store = Store(Path(self._folder.name) / "team.db", now=self.clock)
        self.sent: dict[int, str] = {}  # demonstration → its first text
        self.typed: dict[int, list[dict[str, str]]] = {}  # assignment → what was saved last
        self.posts = 0

    def teardown(self) -> None:
        self.store.close()
        self._folder.cleanup()

    @initialize(count=st.integers(1, 4), overlap=st.integers(1, 3))
    def begin(self, count: int, overlap: int) -> None:
        with self.store.writing():
            self.writers = [
                people.add_person(self.store, f"W{n}", "writer", by=None).id for n in range(WRITERS)
            ]
            self.reviewer = people.add_person(self.store, "R", "reviewer", by=None).id
            self.overlap = overlap
            add_prompts(self.store, count, overlap=overlap)

    @rule(who=WHO)
    def claim(self, who: int) -> None:
        queue.claim(self.store, self.writers[who], lease_seconds=100)

    @rule(seconds=st.sampled_from([1, 60, 101, 500]))
    def time_passes(self, seconds: int) -> None:
        self.clock.seconds += seconds

    def task_of(self, who: int, choose: int) -> queue.Assignment | None:
        with self.store.reading() as db:
            ids = [
                row[0]
                for row in db.execute("SELECT id FROM assignment WHERE person_id = ?", (self.writers[who],))
            ]
        return queue.own(self.store, ids[choose % len(ids)], self.writers[who]) if ids else None

    @rule(who=WHO, choose=st.integers(0, 9), text=st.text(max_size=8))
    def type(self, who: int, choose: int, text: str) -> None:
        task = self.task_of(who, choose)
        if task is None:
            return
        rev = drafts.draft(self.store, task.id, task.person_id).rev
        try:
            drafts.save(self.store, task.id, task.person_id, answered(text), rev=rev)
        except ConflictError:
            return
        self.typed[task.id] = answered(text)

    @rule(who=WHO, choose=st.integers(0, 9), twice=st.booleans())
    def submit(self, who: int, choose: int, twice: bool) -> None:
        task = self.task_of(who, choose)
        if task is None:
            return
        self.posts += 1
        text = f"text {self.posts}"
        for _ in range(1 + twice):
            try:
                sent = demos.submit(self.store, task.id, task.person_id, answered(text), post_key=text)
            except ConflictError:
                return
            self.sent.setdefault(sent.id, text)
            self.typed.pop(task.id, None)

    @rule(who=WHO, choose=st.integers(0, 9))
    def skip(self, who: int, choose: int) -> None:
        task = self.task_of(who, choose)
        if task is not None and task.state != "submitted":
            queue.skip(self.store, task.id, task.person_id, "unclear")

    @rule(choose=st.integers(0, 9))
    def comes_back_from_judging(self, choose: int) -> None:
        queue.open_round(self.store, self.prompt_of(choose))

    @rule(choose=st.integers(0, 9), tags=st.sets(st.sampled_from("ab")), gold=st.booleans())
    def retag(self, choose: int, tags: set[str], gold: bool) -> None:
        prompts.set_tags(self.store, self.prompt_of(choose), sorted(tags), by=None)
        prompts.change(self.store, self.prompt_of(choose), gold=gold, by=None)

    def prompt_of(self, choose: int) -> int:
        with self.store.reading() as db:
            ids = [row[0] for row in db.execute("SELECT id FROM prompt")]
        return int(ids[choose % len(ids)])

    @precondition(lambda self: self.sent)
    @rule(choose=st.integers(0, 9), decision=st.sampled_from(reviewing.DECISIONS))
    def review(self, choose: int, decision: str) -> None:
        found = demos.demonstration(self.store, list(self.sent)[choose % len(self.sent)])
        self.posts += 1
        edit: Any = answered(f"edit {self.posts}") if decision == "edited" else None
        try:
            reviewing.review(
                self.store, found.id, self.reviewer, decision, rev=found.latest.rev, comment="why",
                turns=edit, post_key=f"r{self.posts}",
            )  # fmt: skip
        except ConflictError:
            assert found.status in ("accepted", "returned")

    @invariant()
    def no_prompt_has_more_places_filled_than_its_overlap(self) -> None:
        with self.store.reading() as db:
            rows = db.execute(
                """SELECT p.taken, p.overlap, (SELECT count(*) FROM assignment a WHERE a.prompt_id = p.id
                AND a.extra = 0 AND a.state IN ('claimed', 'submitted')) FROM prompt p"""
            ).fetchall()
        assert all(taken == counted <= overlap for taken, overlap, counted in rows)

    @invariant()
    def every_sent_text_is_there_once_and_every_draft_is_kept(self) -> None:
        for demonstration_id, text in self.sent.items():
            assert demos.demonstration(self.store, demonstration_id).revisions[0].turns == answered(text)
        for task, turns in self.typed.items():
            with self.store.reading() as db:
                row = db.execute("SELECT person_id FROM assignment WHERE id = ?", (task,)).fetchone()
            assert drafts.draft(self.store, task, row[0]).turns == turns

    @invariant()
    def nobody_is_asked_twice_in_one_round(self) -> None:
        with self.store.reading() as db:
            rows = db.execute(
                "SELECT count(*) FROM assignment GROUP BY prompt_id, person_id, round"
            ).fetchall()
            held = db.execute(
                "SELECT count(*) FROM assignment WHERE state = 'claimed' GROUP BY person_id"
            ).fetchall()
        assert {row[0] for row in (*rows, *held)} <= {1}

    @invariant()
    def what_was_counted_as_it_happened_is_what_counting_anew_gives(self) -> None:
        accepted_tags = """SELECT tag, count(*) FROM prompt_tag t JOIN demonstration d ON d.prompt_id = t.prompt_id
            WHERE d.status = 'accepted' GROUP BY tag"""
        accepted_of = "SELECT count(*) FROM demonstration d JOIN prompt p ON p.id = d.prompt_id WHERE d.status = 'accepted'"
        with self.store.reading() as db:
            tags = dict(db.execute(accepted_tags).fetchall())
            (all_of,), (live,) = (
                db.execute(accepted_of + more).fetchone() for more in ("", " AND p.gold = 0")
            )
        assert {one.name: one.accepted for one in overview.by_tag(self.store) if one.accepted} == tags
        assert [one.accepted for one in overview.by_source(self.store)] == [all_of]
        assert accepted.usable(self.store).accepted == live

    @invariant()
    def what_is_accepted_now_is_what_the_events_say(self) -> None:
        now = [
            d.id
            for d in demos.find(self.store, status="accepted", limit=1_000)
            if not prompts.prompt(self.store, d.prompt_id).gold
        ]
        replayed = [one.demonstration_id for one in accepted.read_accepted(self.store)]
        assert sorted(now) == replayed
        for one in accepted.read_accepted(self.store):
            latest = demos.demonstration(self.store, one.demonstration_id).latest
            assert one.row["messages"][1:] == latest.turns


Work.TestCase.settings = settings(max_examples=12, stateful_step_count=25)
TestWork = Work.TestCase


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=60)
def test_the_edit_ratio_is_a_share_and_nought_for_an_untouched_text(one: str, other: str) -> None:
    assert edit_ratio(one, one) == 0.0
    assert 0.0 <= edit_ratio(one, other) <= 1.0


@given(st.integers(0, 10**9), st.integers(0, 3))
@settings(max_examples=60)
def test_what_a_larger_share_holds_out_contains_what_a_smaller_one_does(group: int, seed: int) -> None:
    if side_of(str(group), Split(0.1, 0.0, seed)) == "validation":
        assert side_of(str(group), Split(0.4, 0.0, seed)) == "validation"


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
@settings(max_examples=25)
def test_any_text_that_is_unicode_is_kept_as_it_is(texts: list[str]) -> None:
    turns = [{"role": "user" if n % 2 else "assistant", "content": text} for n, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "team.db") as store:
        writer = people.add_person(store, "W", "writer", by=None)
        add_prompts(store, 1)
        task = queue.claim(store, writer.id)
        assert task is not None
        drafts.save(store, task.id, writer.id, turns, rev=0)
        assert drafts.draft(store, task.id, writer.id).turns == turns
        assert prompts.prompt(store, task.prompt_id).taken == 1
