"""What leaves the store: rows with provenance, splits, preferences, refusals, and the same bytes again."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.collect.conftest import add_prompts, answered
from tuition.collect import (
    NotFoundError,
    Store,
    batches,
    exports,
    judging,
    losses,
    overview,
    people,
    prompts,
    queue,
    reviewing,
    sources,
)
from tuition.collect import demonstrations as demos
from tuition.collect.accepted import read_accepted, usable
from tuition.conversation import Message
from tuition.errors import UserError

MADE_BY = "tuition 0.1"


def write_and_accept(store: Store, writer: people.Person, reviewer: people.Person) -> list[int]:
    """Answer the whole queue and accept everything; the demonstrations."""
    done = []
    while (got := queue.claim(store, writer.id)) is not None:
        sent = demos.submit(
            store, got.id, writer.id, answered(f"Answer {got.prompt_id}."), post_key=str(got.id)
        )
        reviewing.review(store, sent.id, reviewer.id, "accepted", rev=1)
        done.append(sent.id)
    return done


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def make(store: Store, kind: str = "demonstrations", **split: float) -> exports.Export:
    return exports.make(store, kind, exports.Split(**split), made_by=MADE_BY, by=None)  # type: ignore[arg-type]


def test_each_row_is_messages_and_beside_it_stands_who_wrote_and_accepted_it(
    store: Store, writer: people.Person, reviewer: people.Person, tmp_path: Path
) -> None:
    (one,) = add_prompts(store, 1)
    prompts.set_tags(store, one, ["maths"], by=None)
    write_and_accept(store, writer, reviewer)
    folder = exports.write(store, make(store, validation=0.0).id, tmp_path / "out")
    assert rows_of(folder / "train.jsonl") == [
        {
            "messages": [
                {"role": "user", "content": "What is 0 and 0?"},
                {"role": "assistant", "content": "Answer 1."},
            ]
        }
    ]
    (beside,) = rows_of(folder / "train.provenance.jsonl")
    expected = {
        "demonstration": 1, "revision": 1, "author": "Wim", "accepted_by": ["Rita"], "edited_by": None, "guideline": 0,
        "source": "ours", "licence": "CC0-1.0", "consent": "terms of use, 2026", "tags": ["maths"],
    }  # fmt: skip
    assert {key: beside[key] for key in expected} == expected
    with store.reading() as db:
        event = db.execute("SELECT verb, target FROM event WHERE id = ?", (beside["event"],)).fetchone()
    assert tuple(event) == ("submitted", "demonstration 1")


def test_the_same_export_gives_the_same_bytes_whatever_happened_since(
    store: Store, writer: people.Person, reviewer: people.Person, tmp_path: Path
) -> None:
    add_prompts(store, 30)
    done = write_and_accept(store, writer, reviewer)
    drawn = make(store, validation=0.3)
    first = exports.write(store, drawn.id, tmp_path / "first")
    reviewing.review(store, done[0], reviewer.id, "returned", rev=1, comment="on second thoughts, no")
    sources.state_source(store, "ours", licence="all rights reserved", by=None)
    again = exports.write(store, drawn.id, tmp_path / "again")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {
        p.name: p.read_bytes() for p in again.iterdir()
    }
    assert make(store, validation=0.3).id != drawn.id


def test_drawing_twice_without_a_change_is_one_export(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    add_prompts(store, 3)
    write_and_accept(store, writer, reviewer)
    assert make(store) == make(store)
    assert len(exports.exports(store)) == 1


def test_rows_without_consent_or_licence_are_refused_by_name(
    store: Store, writer: people.Person, reviewer: people.Person, tmp_path: Path
) -> None:
    add_prompts(store, 2)
    add_prompts(store, 2, first=2, source="scraped", consent="")
    write_and_accept(store, writer, reviewer)
    drawn = make(store, validation=0.0)
    assert drawn.refused == 2
    folder = exports.write(store, drawn.id, tmp_path / "out")
    assert len(rows_of(folder / "train.jsonl")) == 2
    assert {row["reason"] for row in rows_of(folder / "refused.jsonl")} == {
        "source 'scraped' states no consent"
    }


def test_only_accepted_demonstrations_and_no_gold_items_are_exported(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    ids = add_prompts(store, 3)
    prompts.change(store, ids[0], gold=True, by=None)
    got = queue.claim(store, writer.id)
    assert got is not None and got.prompt_id == ids[1]
    demos.submit(store, got.id, writer.id, answered("not yet reviewed"), post_key="1")
    write_and_accept(store, writer, reviewer)
    assert make(store, validation=0.0).files == {"train.jsonl": 1, "train.provenance.jsonl": 1}


def test_a_side_that_was_asked_for_and_got_no_group_is_said(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    split = exports.Split(0.004, 0.0)
    assert exports.unfilled(make(store, validation=0.004), split) == "", "there is nothing to fill it with"
    prompts.add(
        store,
        [prompts.NewPrompt((Message("user", "Q"),), "m:0")],
        source="s",
        licence="x",
        consent="y",
        by=None,
    )
    done = write_and_accept(store, writer, reviewer)
    drawn = make(store, validation=0.004)
    assert exports.unfilled(drawn, split).startswith("No group fell into validation (0.4%)")
    assert exports.unfilled(drawn, exports.Split(0.0, 0.0)) == ""
    assert demos.authors_of(store, [*done, 999]) == {done[0]: writer.name}


def test_nobody_and_no_group_stands_on_two_sides(
    store: Store, writer: people.Person, reviewer: people.Person, tmp_path: Path
) -> None:
    new = [
        prompts.NewPrompt(
            (Message("user", f"Q{n}"),), f"m:{n}", source_user=f"user {n % 20}", group=f"group {n // 4}"
        )
        if n < 40
        else prompts.NewPrompt((Message("user", f"Q{n}"),), f"m:{n}")
        for n in range(120)
    ]
    prompts.add(store, new, source="s", licence="x", consent="y", by=None)
    write_and_accept(store, writer, reviewer)
    folder = exports.write(store, make(store, validation=0.3, test=0.2).id, tmp_path / "out")
    sides = defaultdict(set)
    for side in ("train", "validation", "test"):
        for row in rows_of(folder / f"{side}.jsonl"):
            number = int(row["messages"][0]["content"][1:])
            if number < 40:
                sides[f"user {number % 20}"].add(side)
                sides[f"group {number // 4}"].add(side)
    assert len(sides) == 30 and all(len(found) == 1 for found in sides.values())
    assert len(rows_of(folder / "test.jsonl")) > 5


def test_an_assistants_turn_in_the_prompt_is_context_only(
    store: Store, writer: people.Person, reviewer: people.Person, tmp_path: Path
) -> None:
    asked = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yes?"),
        Message("user", "2+2"),
    )
    prompts.add(store, [prompts.NewPrompt(asked, "m:1")], source="s", licence="x", consent="y", by=None)
    write_and_accept(store, writer, reviewer)
    folder = exports.write(store, make(store, validation=0.0).id, tmp_path / "out")
    (row,) = rows_of(folder / "train.jsonl")
    assert [(m["role"], m.get("weight")) for m in row["messages"]] == [
        ("system", None), ("user", None), ("assistant", 0), ("user", None), ("assistant", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "chosen", "rejected"),
    [
        ("preferences", "chosen", "rejected"),
        ("preferences-openai", "preferred_output", "non_preferred_output"),
    ],
)
def test_preferences_keep_the_group_and_ties_are_counted_but_not_exported(
    store: Store, evaluator: people.Person, tmp_path: Path, kind: str, chosen: str, rejected: str
) -> None:
    ids = add_prompts(store, 3)
    batches.open_batch(
        store, name="x", model_a="tuned", model_b="base", sampling={}, by=None,
        pairs=[batches.NewPair(p, f"good {p}", f"poor {p}") for p in ids],
    )  # fmt: skip
    for _ in ids:
        task = judging.claim(store, evaluator.id)
        assert task is not None
        better = "left" if task.left.startswith("good") else "right"
        judging.judge(store, task.id, evaluator.id, judging.Verdict("tie" if "3" in task.left else better))
    folder = exports.write(store, make(store, kind, validation=0.0).id, tmp_path / "out")
    first, second = rows_of(folder / "train.jsonl")
    assert (first[chosen], first[rejected]) == (answered("good 1"), answered("poor 1"))
    assert (first["group_id"], second["group_id"]) == ("1", "2")
    assert len(rows_of(folder / "ties.provenance.jsonl")) == 1
    beside = rows_of(folder / "train.provenance.jsonl")[0]
    assert (beside["chosen"], beside["rejected"], beside["judges"]) == ("tuned", "base", ["Eva"])


def test_an_export_is_written_into_a_new_folder_only(store: Store, tmp_path: Path) -> None:
    drawn = make(store)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="exists already"):
        exports.write(store, drawn.id, tmp_path / "mine")
    with pytest.raises(NotFoundError):
        exports.write(store, "0" * 16, tmp_path / "out")
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    "split", [{"validation": 1.0}, {"validation": -0.1}, {"validation": 0.6, "test": 0.4}]
)
def test_shares_that_leave_nothing_to_train_on_are_refused(store: Store, split: dict[str, float]) -> None:
    with pytest.raises(UserError, match="something to train on"):
        make(store, **split)


# --- counts and losses ---


def test_the_overview_counts_what_people_did(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    ids = add_prompts(store, 4)
    prompts.set_tags(store, ids[0], ["maths"], by=None)
    prompts.change(store, ids[3], paused=True, by=None)
    overview.set_target_mix(store, {"maths": 0.5, "poems": 0.25}, by=None)
    write_and_accept(store, writer, reviewer)
    found = overview.progress(store)
    assert (found.prompts, found.accepted, found.open_places, found.claimed) == (4, 3, 0, 0)
    assert [(s.name, s.accepted, s.share, s.target) for s in overview.by_tag(store)] == [
        ("maths", 1, pytest.approx(1 / 3), 0.5),
        ("poems", 0, 0.0, 0.25),
    ]
    assert [(s.name, s.prompts, s.accepted) for s in overview.by_source(store)] == [("ours", 4, 3)]
    assert [(p.name, p.submitted, p.accepted, p.reviewed) for p in overview.by_person(store)] == [
        ("Wim", 3, 3, 0),
        ("Rita", 0, 0, 3),
    ]
    with pytest.raises(UserError):
        overview.set_target_mix(store, {"maths": 2.0}, by=None)


def test_the_loss_of_a_demonstration_is_kept_by_run_and_the_highest_come_first(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    add_prompts(store, 2)
    one, two = write_and_accept(store, writer, reviewer)
    losses.note(store, [losses.Loss(one, 1, "run", 3.0, 0.5), losses.Loss(two, 1, "run", 2.0, 1.5)])
    losses.note(store, [losses.Loss(two, 1, "run", 2.0, 1.75)])
    assert [loss.after for loss in losses.of_demonstration(store, two)] == [1.75]
    assert [loss.demonstration_id for loss in losses.highest(store)] == [two, one]


def test_the_kept_tallies_equal_a_count_whatever_changes(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    ids = add_prompts(store, 12, overlap=2)
    for number, prompt_id in enumerate(ids):
        prompts.set_tags(store, prompt_id, ["a", "b"] if number % 2 else ["a"], by=None)
    prompts.set_tags(store, ids[0], [], by=None)
    prompts.change(store, ids[1], paused=True, by=None)
    prompts.change(store, ids[2], gold=True, by=None)
    prompts.change(store, ids[3], overlap=5, by=None)
    write_and_accept(store, writer, reviewer)
    with store.reading() as db:
        tallies = dict(db.execute("SELECT key, value FROM tally").fetchall())
        wanted = db.execute(
            "SELECT sum(overlap - taken) FROM prompt WHERE NOT paused AND NOT gold"
        ).fetchone()[0]
        counted = dict(db.execute("SELECT 'tag ' || tag, count(*) FROM prompt_tag GROUP BY tag").fetchall())
    accepted_too = {"accepted source 1", "usable source 1", "accepted tag a", "accepted tag b"}
    assert tallies.keys() - counted.keys() == {"prompts", "wanted", "source 1", *accepted_too}
    assert {key: tallies[key] for key in tallies.keys() - accepted_too} == {
        "prompts": 12, "wanted": wanted, "source 1": 12, **counted
    }  # fmt: skip


def test_what_cannot_be_trained_on_is_said_before_with_what_to_state(
    store: Store, writer: people.Person, reviewer: people.Person
) -> None:
    add_prompts(store, 1)
    add_prompts(store, 2, first=1, source="asked.jsonl", consent="", licence="")
    write_and_accept(store, writer, reviewer)
    said = "1 of 3 accepted can be trained on: state consent and licence for asked.jsonl"
    assert usable(store).sentence == said
    sources.state_source(store, "asked.jsonl", licence="CC0-1.0", by=None)
    assert usable(store).sentence.endswith("state consent for asked.jsonl")
    sources.state_source(store, "asked.jsonl", consent="signed", by=None)
    assert usable(store).sentence == ""
    assert [one.refusal for one in read_accepted(store)] == [None] * 3
