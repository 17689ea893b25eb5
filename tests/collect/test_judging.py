"""Blind pairs: sides, verdicts, win rates, and the queue that follows."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict

import pytest

from tests.collect.conftest import Clock, add_prompts
from tuition import collecting
from tuition.collect import (
    ConflictError,
    NotAllowedError,
    NotFoundError,
    Store,
    batches,
    exports,
    gold,
    judging,
    people,
    prompts,
    queue,
    results,
)
from tuition.collect.agreement import agreement
from tuition.collect.winrate import judgements_for, win_rate
from tuition.errors import UserError

BASE, TUNED = "models/base-7b", "outputs/tuned-run"


def open_batch(
    store: Store, prompt_ids: list[int], *, overlap: int = 1, expected: str | None = None
) -> batches.Batch:
    """A batch in which A's answers begin with `good` and B's with `poor`."""
    pairs = [batches.NewPair(p, f"good {p}", f"poor {p}", expected) for p in prompt_ids]
    return batches.open_batch(
        store, name="night", model_a=TUNED, model_b=BASE, pairs=pairs, sampling={"greedy": True},
        overlap=overlap, by=None,
    )  # fmt: skip


def prefer(task: judging.Task, beginning: str, *, much: bool = False) -> judging.Verdict:
    """The verdict of somebody who prefers answers that begin so."""
    side = "left" if task.left.startswith(beginning) else "right"
    return judging.Verdict(f"{side}_much" if much else side)


def judge_all(store: Store, person_id: int, beginning: str) -> int:
    """Judge until there is nothing left; how many."""
    done = 0
    while (task := judging.claim(store, person_id)) is not None:
        judging.judge(store, task.id, person_id, prefer(task, beginning))
        done += 1
    return done


def test_who_judges_is_told_no_model_and_the_same_sides_again(store: Store, evaluator: people.Person) -> None:
    open_batch(store, add_prompts(store, 1))
    task = judging.claim(store, evaluator.id)
    assert task is not None and judging.claim(store, evaluator.id) == task
    shown = json.dumps(asdict(task))
    assert BASE not in shown and TUNED not in shown and "night" not in shown
    assert {task.left, task.right} == {"good 1", "poor 1"}


def test_sides_are_drawn_evenly(store: Store, evaluator: people.Person) -> None:
    open_batch(store, add_prompts(store, 120))
    left = 0
    while (task := judging.claim(store, evaluator.id)) is not None:
        left += task.left.startswith("good")
        judging.judge(store, task.id, evaluator.id, judging.Verdict("tie"))
    spread = 4.5 * math.sqrt(120) / 2  # one in 150,000 draws lies outside
    assert abs(left - 60) < spread


def test_a_verdict_about_a_side_becomes_one_about_a_model(store: Store, evaluator: people.Person) -> None:
    batch = open_batch(store, add_prompts(store, 40))
    assert judge_all(store, evaluator.id, "good") == 40
    found = results.results(store, batch.id)
    assert found.rate.counts["a"] == 40 and found.rate.winner == "a"
    assert found.left_share is not None and 0.2 < found.left_share.value < 0.8


def test_ratings_and_flags_follow_the_answer_and_not_the_side(store: Store, evaluator: people.Person) -> None:
    batch = open_batch(store, add_prompts(store, 30))
    while (task := judging.claim(store, evaluator.id)) is not None:
        first = task.left.startswith("good")
        verdict = judging.Verdict(
            "left" if first else "right",
            rating_left=7 if first else 2,
            rating_right=2 if first else 7,
            flags_left=() if first else ("hallucination",),
            flags_right=("hallucination",) if first else (),
        )
        judging.judge(store, task.id, evaluator.id, verdict)
    found = results.results(store, batch.id)
    assert found.ratings is not None
    assert [score.value for score in found.ratings] == [7.0, 2.0]
    assert {flag: (a.value, b.value) for flag, (a, b) in found.flags.items()} == {"hallucination": (0.0, 1.0)}


def test_overlap_is_exact_and_agreement_is_over_pairs_that_several_judged(store: Store) -> None:
    batch = open_batch(store, add_prompts(store, 6), overlap=2)
    judges = [people.add_person(store, f"E{n}", "evaluator", by=None).id for n in range(3)]
    done = [
        judge_all(store, judges[0], "good"),
        judge_all(store, judges[1], "poor"),
        judge_all(store, judges[2], "good"),
    ]
    assert done == [6, 6, 0]
    found = results.results(store, batch.id)
    assert found.batch.judged == found.batch.wanted == 12
    assert (
        found.agreement.items == 6
        and found.agreement.share is not None
        and found.agreement.share.value == 0.0
    )
    assert (
        found.rate.score is not None and found.rate.score.value == 0.5 and found.rate.winner == "not decided"
    )


def test_identical_answers_are_ties_that_nobody_is_asked_about(
    store: Store, evaluator: people.Person
) -> None:
    one, two = add_prompts(store, 2)
    batch = batches.open_batch(
        store, name="x", model_a="a", model_b="b", sampling={}, by=None,
        pairs=[batches.NewPair(one, "same", "same"), batches.NewPair(two, "good", "poor")],
    )  # fmt: skip
    assert judge_all(store, evaluator.id, "good") == 1
    found = results.results(store, batch.id)
    assert (found.batch.identical, found.rate.counts["tie"], found.rate.counts["a"]) == (1, 1, 1)


def test_a_verdict_sent_twice_is_stored_once_and_another_one_refused(
    store: Store, evaluator: people.Person
) -> None:
    batch = open_batch(store, add_prompts(store, 1))
    task = judging.claim(store, evaluator.id)
    assert task is not None
    for _ in range(2):
        judging.judge(store, task.id, evaluator.id, judging.Verdict("both_bad"))
    with pytest.raises(ConflictError):
        judging.judge(store, task.id, evaluator.id, judging.Verdict("left"))
    assert batches.batch(store, batch.id).judged == 1


def test_a_judgement_after_its_lease_is_kept_as_an_extra(
    store: Store, evaluator: people.Person, reviewer: people.Person, clock: Clock
) -> None:
    batch = open_batch(store, add_prompts(store, 1))
    slow = judging.claim(store, evaluator.id)
    clock.seconds += judging.LEASE_SECONDS + 1
    quick = judging.claim(store, reviewer.id)
    assert slow is not None and quick is not None
    judging.judge(store, quick.id, reviewer.id, prefer(quick, "good"))
    judging.judge(store, slow.id, evaluator.id, prefer(slow, "good"))
    assert batches.batch(store, batch.id).judged == 2


@pytest.mark.parametrize(
    "verdict",
    [
        judging.Verdict("best"),
        judging.Verdict("left", rating_left=8),
        judging.Verdict("left", flags_left=("rude",)),
    ],
)
def test_what_is_no_verdict_is_refused(
    store: Store, evaluator: people.Person, verdict: judging.Verdict
) -> None:
    batch = open_batch(store, add_prompts(store, 1))
    task = judging.claim(store, evaluator.id)
    assert task is not None
    with pytest.raises(UserError):
        judging.judge(store, task.id, evaluator.id, verdict)
    assert batches.batch(store, batch.id).judged == 0


def test_writers_do_not_judge_and_nobody_judges_for_another(
    store: Store, writer: people.Person, evaluator: people.Person, reviewer: people.Person
) -> None:
    open_batch(store, add_prompts(store, 1))
    with pytest.raises(NotAllowedError):
        judging.claim(store, writer.id)
    task = judging.claim(store, evaluator.id)
    assert task is not None
    with pytest.raises(NotFoundError):
        judging.judge(store, task.id, reviewer.id, judging.Verdict("tie"))


def test_a_closed_batch_asks_nobody(store: Store, evaluator: people.Person) -> None:
    batch = open_batch(store, add_prompts(store, 2))
    batches.close_batch(store, batch.id, by=None)
    assert judging.claim(store, evaluator.id) is None and batches.batch(store, batch.id).closed


def test_an_evaluator_in_qualification_judges_gold_pairs_first(
    store: Store, admin: people.Person, evaluator: people.Person
) -> None:
    known, live = add_prompts(store, 1), add_prompts(store, 1, first=1)
    open_batch(store, live)
    open_batch(store, known, expected="a")
    gold.set_rule(store, "judging", items=1, share=1.0, by=admin.id)
    task = judging.claim(store, evaluator.id)
    assert task is not None and "good 1" in (task.left, task.right)
    judging.judge(store, task.id, evaluator.id, prefer(task, "good"))
    assert gold.judging_standing(store, evaluator.id).qualified
    assert judge_all(store, evaluator.id, "good") == 1


def test_a_pair_whose_better_side_is_known_tests_who_judges_and_counts_for_no_model(
    store: Store, admin: people.Person, evaluator: people.Person
) -> None:
    batch = open_batch(store, add_prompts(store, 2))
    first, _ = batches.pairs(store, batch.id)
    assert batches.expect(store, first.id, "b", by=admin.id) == batch.id
    assert judge_all(store, evaluator.id, "good") == 2
    assert gold.right_and_done(store, evaluator.id, "judging") == (0, 1)
    assert results.results(store, batch.id).rate.counts["a"] == 1
    batches.expect(store, first.id, None, by=admin.id)
    assert results.results(store, batch.id).rate.counts["a"] == 2
    with pytest.raises(UserError, match="no side"):
        batches.expect(store, first.id, "c", by=admin.id)


def test_pairs_that_were_written_as_tests_are_given_to_those_who_are_tested_only(
    store: Store, admin: people.Person, evaluator: people.Person, writer: people.Person
) -> None:
    for worse in ("No.", "Go away."):
        collecting.add_test_pair(store, "Will you help?", better="Gladly.", worse=worse, by=admin.id)
    assert judging.claim(store, evaluator.id) is None, "nobody is tested yet"
    assert queue.claim(store, writer.id) is None, "its question is asked of no writer"
    gold.set_rule(store, "judging", items=2, share=1.0, by=admin.id)
    assert judging.claim(store, admin.id) is None
    assert judge_all(store, evaluator.id, "Gladly") == 2
    assert gold.judging_standing(store, evaluator.id).qualified
    assert batches.batches(store) == [], "they compare no models"
    with pytest.raises(UserError, match="the same"):
        collecting.add_test_pair(store, "Will you help?", better="Yes", worse="Yes", by=admin.id)


def test_answers_that_name_a_model_are_counted_as_leaks(store: Store) -> None:
    (one,) = add_prompts(store, 1)
    batch = batches.open_batch(
        store, name="x", model_a=TUNED, model_b=BASE, sampling={}, by=None,
        pairs=[batches.NewPair(one, "I am Base-7B.", "I am a model.")],
    )  # fmt: skip
    assert batch.leaks == 1
    checkpoint = batches.open_batch(
        store, name="x", model_a="outputs/nightly/checkpoints/step-20", model_b=BASE, sampling={}, by=None,
        pairs=[batches.NewPair(one, "Nightly am I called.", "At step-20 I stopped.")],
    )  # fmt: skip
    assert checkpoint.leaks == 1
    alone = batches.open_batch(
        store, name="x", model_a="outputs/nightly/checkpoints/step-20", model_b=BASE, sampling={}, by=None,
        pairs=[batches.NewPair(one, "Climb step-20 first.", "No.")],
    )  # fmt: skip
    assert alone.leaks == 0


# --- statistics ---


def test_judgements_needed_are_those_of_the_textbook() -> None:
    assert [judgements_for(rate) for rate in (0.55, 0.60, 0.65, 0.70)] == [783, 194, 85, 47]
    assert judgements_for(0.4) == 194 and judgements_for(0.5) is None


def test_half_of_a_tie_goes_to_each_and_a_wide_interval_decides_nothing() -> None:
    rate = win_rate([(1, "a"), (2, "tie"), (3, "both_bad"), (4, "b_much")])
    assert rate.score is not None and rate.score.value == 0.5
    assert (rate.winner, rate.decided, rate.needed) == ("not decided", 2, None)
    assert win_rate([]).score is None


def test_many_judgements_of_few_prompts_decide_less_than_the_same_number_of_prompts() -> None:
    chance = random.Random(1)
    loved = {prompt: chance.random() for prompt in range(40)}  # prompts differ strongly in who wins
    many = [(p, "a" if chance.random() < loved[p] else "b") for p in loved for _ in range(10)]
    by_prompt, pooled = win_rate(many), win_rate([(n, verdict) for n, (_, verdict) in enumerate(many)])
    assert by_prompt.score is not None and pooled.score is not None
    assert by_prompt.score.high - by_prompt.score.low > 1.5 * (pooled.score.high - pooled.score.low)


def test_agreement_is_one_when_all_say_the_same_and_alpha_is_near_nought_by_chance() -> None:
    assert agreement({1: ["a", "a"], 2: ["b", "b", "b"], 3: ["a"]}).alpha == 1.0
    chance = random.Random(0)
    random_said = {n: [chance.choice("ab"), chance.choice("ab")] for n in range(2_000)}
    found = agreement(random_said)
    assert found.alpha is not None and abs(found.alpha) < 0.08
    assert found.share is not None and found.share.low < 0.5 < found.share.high
    assert agreement({1: ["a"]}).share is None


def test_krippendorffs_alpha_equals_a_published_example() -> None:
    # two observers, ten units (Krippendorff, 2011, "Computing Krippendorff's alpha-reliability", section A)
    first, second = "0100000000", "1110010010"
    assert agreement(dict(enumerate(zip(first, second, strict=True)))).alpha == pytest.approx(0.095, abs=5e-4)


# --- tomorrow's queue ---


def test_the_next_queue_begins_with_what_was_judged_lost_or_bad(
    store: Store, evaluator: people.Person, writer: people.Person
) -> None:
    """20 planted failures among 200 prompts: at least 15 of them in the first 40 that are asked."""
    ids = add_prompts(store, 200)
    failures = set(random.Random(0).sample(ids, 20))
    batch = open_batch(store, ids)
    chance = random.Random(1)
    while (task := judging.claim(store, evaluator.id)) is not None:
        prompt_id = int(task.left.split()[1])
        lost = prompt_id in failures or chance.random() < 0.1  # who judges errs in a tenth
        judging.judge(
            store, task.id, evaluator.id, prefer(task, "poor" if lost else "good", much=prompt_id in failures)
        )
    back = results.send_back(store, batch.id, by=None)
    assert set(back[:20]) == failures
    asked = []
    for _ in range(40):
        got = queue.claim(store, writer.id)
        assert got is not None
        asked.append(got.prompt_id)
        queue.skip(store, got.id, writer.id, "only looking")
    assert len(failures & set(asked)) >= 15


def test_a_low_rating_sends_back_even_a_prompt_that_was_won(store: Store, evaluator: people.Person) -> None:
    (one,) = add_prompts(store, 1)
    batch = open_batch(store, [one])
    task = judging.claim(store, evaluator.id)
    assert task is not None
    judging.judge(
        store,
        task.id,
        evaluator.id,
        judging.Verdict(prefer(task, "good").choice, rating_left=3, rating_right=3),
    )
    assert results.send_back(store, batch.id, by=None) == [one]


def test_with_its_last_judgement_a_comparison_sends_back_by_itself_what_was_lost(
    store: Store, evaluator: people.Person, writer: people.Person
) -> None:
    _, lost, won = add_prompts(store, 3)
    batch = open_batch(store, [lost, won])
    for beginning, urgency in (("poor", 0.0), ("good", 0.75)):
        task = judging.claim(store, evaluator.id)
        assert task is not None
        judging.judge(store, task.id, evaluator.id, prefer(task, beginning))
        assert prompts.prompt(store, lost).priority == urgency
    got = queue.claim(store, writer.id)
    assert got is not None and got.prompt_id == lost
    assert judging.last_batch_of(store, evaluator.id) == batch.id
    assert judging.last_batch_of(store, writer.id) is None


def test_a_judgement_that_comes_after_the_last_one_sends_nothing_back(
    store: Store, evaluator: people.Person, reviewer: people.Person, clock: Clock
) -> None:
    (one,) = add_prompts(store, 1)
    open_batch(store, [one])
    slow = judging.claim(store, evaluator.id)
    clock.seconds += judging.LEASE_SECONDS + 1
    quick = judging.claim(store, reviewer.id)
    assert slow is not None and quick is not None
    judging.judge(store, quick.id, reviewer.id, prefer(quick, "good"))
    judging.judge(store, slow.id, evaluator.id, prefer(slow, "poor"))
    assert prompts.prompt(store, one).priority == 0.0


def test_a_test_pair_is_neither_exported_when_it_is_taken_out_nor_its_question_compared_on(
    store: Store, admin: people.Person, evaluator: people.Person
) -> None:
    gold.set_rule(store, "judging", items=1, share=0.75, by=admin.id)
    (asked,) = add_prompts(store, 1)
    collecting.add_test_pair(store, "Will you help?", better="Gladly.", worse="No.", by=admin.id)
    assert list(prompts.each(store)) == [asked]
    task = judging.claim(store, evaluator.id)
    assert task is not None
    judging.judge(store, task.id, evaluator.id, judging.Verdict("left"))
    batch = batches.tests_of(store)
    assert batch is not None
    batches.expect(store, batches.pairs(store, batch)[0].id, None, by=admin.id)
    drawn = exports.make(store, "preferences", exports.Split(), made_by="tuition", by=None)
    assert drawn.files == {}


def test_identical_answers_weigh_as_much_as_pairs_that_several_people_judge(
    store: Store, evaluator: people.Person
) -> None:
    ids = add_prompts(store, 4)
    pairs = [batches.NewPair(p, f"good {p}", f"good {p}" if p in ids[2:] else f"poor {p}") for p in ids]
    batch = batches.open_batch(
        store, name="x", model_a=TUNED, model_b=BASE, pairs=pairs, sampling={}, overlap=3, by=None
    )
    for name in (evaluator.name, "Ed", "Els"):
        judge = evaluator if name == evaluator.name else people.add_person(store, name, "evaluator", by=None)
        assert judge_all(store, judge.id, "good") == 2
    score = results.rate(store, batch.id).score
    assert score is not None and score.value == 0.75


def test_a_prompt_that_is_a_test_no_more_is_not_asked_of_a_hundred_people(
    store: Store, admin: people.Person
) -> None:
    (one,) = add_prompts(store, 1)
    assert gold.items_there(store, "writing") == 0
    prompts.change(store, one, gold=True, overlap=1, by=admin.id)
    assert gold.items_there(store, "writing") == 1
    shown = prompts.prompt(store, one).overlap  # the page sends what it shows
    prompts.change(store, one, gold=False, overlap=shown, by=admin.id)
    assert prompts.prompt(store, one).overlap == 1
    collecting.add_test_pair(store, "Who?", better="Me.", worse="No.", by=admin.id)
    assert gold.items_there(store, "judging") == 1
