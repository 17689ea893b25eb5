"""What an import leaves out and what it sees: the most of one user, and the language of a prompt."""

from __future__ import annotations

from pathlib import Path

from tests.collect.conftest import add_prompts, answered
from tests.conftest import write_jsonl
from tuition.collect import Store, overview, people, prompts, queue, reviewing
from tuition.collect import demonstrations as demos
from tuition.collecting import import_prompts


def test_of_a_user_with_500_prompts_the_first_200_are_kept(store: Store, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {n}?", "user": "eager"} for n in range(500)]
    rows += [{"prompt": f"Other question {n}?", "user": "calm"} for n in range(3)] + [{"prompt": "Nobody's?"}]
    file = str(write_jsonl(tmp_path / "asked.jsonl", rows))
    done = import_prompts(store, [file], source="web")
    assert (done.read, done.new, dict(done.beyond)) == (504, 204, {"eager": 300})
    assert done.left_out == "left out, beyond what one user may ask: 300 of 'eager'"
    assert not prompts.find(store, words="200") and prompts.find(store, words="199")
    again = import_prompts(store, [file], source="web")
    assert (again.new, again.known, dict(again.beyond)) == (0, 204, {"eager": 300})
    assert import_prompts(store, [file], source="web", per_user=0).new == 300
    elsewhere = str(write_jsonl(tmp_path / "more.jsonl", [{"prompt": "Me too?", "user": "eager"}]))
    assert import_prompts(store, [elsewhere], source="letters").new == 1, "another source, another user"


def test_a_tag_is_read_whether_its_column_is_tag_or_tags(store: Store, tmp_path: Path) -> None:
    rows = [{"prompt": "A?", "tag": "maths"}, {"prompt": "B?", "tags": ["maths"]}]
    import_prompts(store, [str(write_jsonl(tmp_path / "asked.jsonl", rows))], source="web")
    assert len(prompts.find(store, tag="maths")) == 2


def test_prompts_are_counted_by_the_language_that_is_named_or_shows(
    store: Store, tmp_path: Path, writer: people.Person, reviewer: people.Person
) -> None:
    add_prompts(store, 1)  # whose language nobody looked for
    file = write_jsonl(tmp_path / "asked.jsonl", [
        {"prompt": "What is the difference between a virus and a bacterium?"},
        {"prompt": "Wie schreibe ich eine Kündigung für meinen Vertrag, und welche Fristen sind zu beachten?"},
        {"prompt": "Hm?", "language": "de-AT"},
        {"prompt": "東京から京都まで行きたいです。一番安い方法を教えてください。"},
        {"prompt": "sudo?"},
    ])  # fmt: skip
    import_prompts(store, [str(file)], source="web")
    held = queue.claim(store, writer.id, prompt_id=prompts.find(store, words="Kündigung")[0].id)
    assert held is not None
    sent = demos.submit(store, held.id, writer.id, answered("So."), post_key="k")
    reviewing.review(store, sent.id, reviewer.id, "accepted", rev=1)
    overview.set_target_mix(store, {"English": 0.5}, "language", by=None)
    assert [(one.name, one.prompts, one.accepted, one.target) for one in overview.by_language(store)] == [
        ("English", 1, 0, 0.5), ("German", 2, 1, None), ("Japanese", 1, 0, None),
    ]  # fmt: skip
    reviewing.review(store, sent.id, reviewer.id, "returned", rev=1, comment="No.")
    assert sum(one.accepted for one in overview.by_language(store)) == 0
    assert overview.by_tag(store) == [], "the mix of languages is none of tags"


def test_an_older_prompt_gains_its_language_when_it_comes_again(store: Store, tmp_path: Path) -> None:
    add_prompts(store, 1)
    again = write_jsonl(tmp_path / "again.jsonl", [{"prompt": "What is 0 and 0?", "language": "en"}])
    assert import_prompts(store, [str(again)], source="ours").known == 1
    assert [(one.name, one.prompts) for one in overview.by_language(store)] == [("English", 1)]
