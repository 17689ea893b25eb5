"""Near duplicates are found, named by the earlier row, and nothing else is; and benchmarks stay apart."""

from __future__ import annotations

import random
import time

import pytest

from tuition.conversation import Conversation, Message
from tuition.data import near_duplicates, overlap
from tuition.data.duplicates import _earlier_likeness, _sketched
from tuition.data.shingles import codes_of, runs_of, words_of
from tuition.errors import Origin

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]


def talk(answer: str, line: int, question: str = "", system: str = "") -> Conversation:
    turns = [Message("system", system)] if system else []
    turns += [Message("user", question)] if question else []
    return Conversation((*turns, Message("assistant", answer)), Origin("a.jsonl", line))


def text(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def changed(original: str, seed: int, share: float) -> str:
    """The text with a share of its words replaced."""
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) if chance.random() < share else word for word in original.split())


def found(conversations: list[Conversation], threshold: float = 0.8) -> list[tuple[int, str]]:
    return [(f.origin.line, f.message) for f in near_duplicates(conversations, threshold)]


def jaccard(one: str, other: str) -> float:
    a, b = (set(runs_of(codes_of(words_of(t)), 5).tolist()) for t in (one, other))
    return len(a & b) / len(a | b)


def test_a_few_changed_words_make_a_near_duplicate_of_the_earlier_row() -> None:
    original = text(1, 200)
    rows = [talk(text(0, 200), 1), talk(original, 2), talk(text(2, 200), 3)]
    words = original.split()
    edited = " ".join([*words[:100], "another", *words[101:]])
    assert 0.9 < jaccard(original, edited) < 1
    ((line, message),) = found([*rows, talk(edited, 4)])
    assert line == 4
    assert message.startswith("about 9") and message.endswith("% of it stands at a.jsonl:2")


def test_case_and_marks_do_not_tell_rows_apart() -> None:
    assert found([talk("One, two; three four five six!", 1), talk("one two three: FOUR five six", 2)]) == [
        (2, "about 100% of it stands at a.jsonl:1")
    ]


def test_exact_copies_are_left_to_the_reading() -> None:
    assert found([talk(text(1, 50), 1), talk(text(1, 50), 2)]) == []


def test_a_system_text_that_all_rows_share_makes_no_duplicates() -> None:
    system = text(9, 400)
    assert found([talk(text(n, 20), n, system=system) for n in range(1, 20)]) == []


def test_rows_without_words_are_like_nothing() -> None:
    assert found([talk("?!", 1), talk("…", 2), talk("", 3)]) == []


def test_short_rows_are_alike_only_if_all_their_words_are() -> None:
    assert found([talk("yes sir", 1), talk("yes madam", 2), talk("Yes, sir.", 3)]) == [
        (3, "about 100% of it stands at a.jsonl:1")
    ]


def test_chinese_is_compared_by_its_characters() -> None:
    one = "我们今天去公园散步然后在湖边吃午饭看见许多鸟儿在水上飞来飞去非常美丽"
    assert [line for line, _ in found([talk(one, 1), talk(one[:-1] + "好", 2), talk(one[::-1], 3)])] == [2]


def test_the_estimate_is_near_the_truth() -> None:
    pairs = [(text(n, 150), changed(text(n, 150), n, 0.002 * n)) for n in range(60)]
    for n, (one, other) in enumerate(pairs):
        _, sketches = _sketched([talk(one, 1), talk(other + " .", 2)], seed=n)
        estimate = float((sketches[0] == sketches[1]).mean()) if len(sketches) == 2 else 1.0
        assert abs(estimate - jaccard(one, other)) < 0.16


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_pairs_above_the_threshold_are_found_and_pairs_below_are_not(threshold: float) -> None:
    rows, above, below = [], set(), set()
    for n in range(300):
        original, line = text(n, 120), 2 * n + 1
        other = changed(original, n, 0.0003 * n)
        rows += [talk(original, line), talk(other + " .", line + 1)]
        if jaccard(original, other) >= min(threshold + 0.1, 1):
            above.add(line + 1)
        if jaccard(original, other) < threshold - 0.15:
            below.add(line + 1)
    lines = {line for line, _ in found(rows, threshold)}
    assert above and above <= lines
    assert not below & lines


def test_the_seed_decides_and_nothing_else() -> None:
    rows = [talk(changed(text(0, 100), n, 0.05), n) for n in range(50)]
    assert found(rows) == found(rows)
    first, second = (_sketched(rows, seed)[1] for seed in (1, 2))
    assert (first != second).any()


def test_a_bucket_that_holds_all_rows_costs_no_pairs() -> None:
    rows = [talk(f"{text(0, 80)} {text(n, 3)}", n) for n in range(3000)]
    origins, sketches = _sketched(rows, seed=0)
    began = time.process_time()
    earlier, _ = _earlier_likeness(sketches, 0.8)
    assert time.process_time() - began < 3
    assert (earlier[1:] >= 0).all() and len(origins) == 3000


# --- overlap with the evaluation ---


def shared(train: Conversation, *others: Conversation) -> list[str]:
    return [f.message for f in overlap([train], others)]


BENCHMARK = [talk(text(n + 100, 60), n, question=text(n + 200, 30)) for n in range(1, 30)]


def test_a_question_of_the_benchmark_is_found_whatever_its_case_and_marks() -> None:
    copied = talk("my own answer", 7, question=text(205, 30).upper() + "?")
    assert shared(copied, *BENCHMARK) == ["the question stands word for word at a.jsonl:5"]


def test_a_passage_of_the_benchmark_is_found_inside_other_text() -> None:
    passage = " ".join(text(112, 60).split()[20:40])
    message = shared(talk(f"{text(1, 50)} {passage} {text(2, 50)}", 7), *BENCHMARK)[0]
    assert message.startswith(f"20 words in a row stand at a.jsonl:12 too: '{passage[:40]}")


def test_twelve_words_in_a_row_are_no_overlap_and_thirteen_are() -> None:
    words = text(112, 60).split()
    assert shared(talk(" ".join(words[:12]), 7), *BENCHMARK) == []
    assert len(shared(talk(" ".join(words[:13]), 7), *BENCHMARK)) == 1


def test_short_questions_are_looked_for_by_eight_words() -> None:
    short = talk("no", 3, question=text(5, 10))
    assert shared(talk(f"{text(1, 9)} {text(5, 10)}", 7), short)[0].startswith("10 words in a row")
    assert shared(talk(" ".join(text(5, 10).split()[:7]), 7), short) == []


def test_what_everybody_says_is_no_overlap() -> None:
    assert shared(talk("a", 7, question="Hi!"), talk("b", 1, question="hi")) == []


def test_an_instruction_that_all_questions_share_is_no_overlap() -> None:
    instruction = text(0, 25)
    asked = [talk("no", n, question=f"{instruction} {text(n, 20)}") for n in range(1, 21)]
    assert shared(talk(f"{instruction} {text(99, 20)}", 7), *asked) == []
    assert len(shared(talk(f"{instruction} {text(4, 20)}", 7), *asked)) == 1


def test_only_planted_rows_are_found() -> None:
    train = [talk(text(n + 10_000, 80), n, question=text(n + 20_000, 30)) for n in range(400)]
    train[123] = talk(train[123].messages[-1].content + " " + text(110, 60), 123)
    train[321] = talk("other", 321, question=text(220, 30))
    assert [f.origin.line for f in overlap(train, BENCHMARK)] == [123, 321]
    assert [*overlap(train, [])] == []
