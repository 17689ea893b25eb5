"""The split is a pure function of the row: stable, seeded, and never through a group."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuition.conversation import Conversation, Message
from tuition.data import copies_of, prompt_key, side_of
from tuition.errors import Origin


def ask(prompt: str, answer: str = "a", *, group: str | None = None, line: int = 1) -> Conversation:
    turns = (Message("system", "S"), Message("user", prompt), Message("assistant", answer))
    return Conversation(turns, Origin("a", line), group=group)


shares = st.floats(0, 1)
seeds = st.integers(0, 2**32)


@given(st.text(), st.text(), st.text(), shares, seeds)
def test_copies_of_a_prompt_stay_together_wherever_they_stand(
    prompt: str, one: str, other: str, share: float, seed: int
) -> None:
    first, second = ask(prompt, one, line=1), ask(f" {prompt}\n", other, line=999)
    assert prompt_key(first) == prompt_key(second)
    assert side_of(first, val_split=share, seed=seed) == side_of(second, val_split=share, seed=seed)


@given(st.text(), st.text(), st.text(), shares, seeds)
def test_a_group_stays_together(group: str, one: str, other: str, share: float, seed: int) -> None:
    sides = {side_of(ask(prompt, group=group), val_split=share, seed=seed) for prompt in (one, other)}
    assert len(sides) == 1


@given(st.lists(st.text(), unique=True), st.text(), seeds)
def test_a_row_keeps_its_side_when_the_share_grows(prompts: list[str], added: str, seed: int) -> None:
    def held_out(share: float) -> set[str]:
        return {p for p in prompts if side_of(ask(p), val_split=share, seed=seed) == "validation"}

    assert held_out(0) == set()
    assert held_out(0.1) <= held_out(0.3) <= held_out(1.0) == set(prompts)


def test_the_share_is_met_and_the_seed_counts() -> None:
    def held_out(seed: int) -> set[int]:
        return {n for n in range(4000) if side_of(ask(f"q{n}"), val_split=0.1, seed=seed) == "validation"}

    first, second = held_out(1), held_out(2)
    assert 340 < len(first) < 460
    assert len(first & second) < 80


def test_the_sides_never_change_between_versions() -> None:
    sides = "".join(side_of(ask(f"q{n}"), val_split=0.5, seed=7)[0] for n in range(24))
    assert sides == "vtvvvvtttvvtttvvttvvvvtt"


def test_what_is_asked_is_the_system_text_and_the_first_question() -> None:
    longer = Conversation(
        (*ask("q").messages, Message("user", "more"), Message("assistant", "b")), Origin("a", 1)
    )
    assert prompt_key(longer) == prompt_key(ask("q"))
    assert prompt_key(ask("q")) != prompt_key(ask("r"))
    without_system = Conversation(ask("q").messages[1:], Origin("a", 1))
    assert prompt_key(without_system) != prompt_key(ask("q"))


def test_running_text_is_its_own_prompt() -> None:
    first, second = (Conversation((Message("assistant", t),), Origin("a", 1), plain=True) for t in "ab")
    assert prompt_key(first) != prompt_key(second)


# --- shares ---


def kept(share: float, seed: int = 0, rows: int = 4000) -> set[int]:
    return {n for n in range(rows) if copies_of({"prompt": f"q{n}"}, share=share, seed=seed)}


def test_a_share_keeps_about_that_many_rows_and_larger_shares_keep_them_too() -> None:
    small, large = kept(0.1), kept(0.3)
    assert 340 < len(small) < 460 and 1100 < len(large) < 1300
    assert small < large < kept(1.0)


def test_the_seed_chooses_the_rows_of_a_share() -> None:
    assert kept(0.5, rows=16) == {1, 3, 7, 8, 11}
    assert len(kept(0.1, seed=1) & kept(0.1, seed=2)) < 80


def test_a_share_above_one_repeats_rows() -> None:
    copies = [copies_of({"prompt": f"q{n}"}, share=2.5, seed=0) for n in range(2000)]
    assert set(copies) == {2, 3}
    assert 0.45 < copies.count(3) / 2000 < 0.55
    assert copies_of({"prompt": "q"}, share=2, seed=0) == 2


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), shares, seeds)
def test_the_order_of_the_columns_does_not_count(row: dict[str, object], share: float, seed: int) -> None:
    turned = dict(reversed(row.items()))
    assert copies_of(row, share=share, seed=seed) == copies_of(turned, share=share, seed=seed)
