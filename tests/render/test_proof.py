"""Each proof holds for what the renderer makes, and fails for what it never should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import CHAT, make_tokenizer, write_jsonl
from tests.render.helpers import REWRITES_HISTORY
from tuition.conversation import Conversation, Message, Rendered
from tuition.data import find_sources
from tuition.errors import Origin, UserError
from tuition.render import Outcome, Renderer, choose_template
from tuition.render.corpus import Rendering
from tuition.render.evidence import Evidence, Witness
from tuition.render.proof import (
    Proof,
    answers_end_with_a_stop_token,
    every_example_is_learned_from,
    prompts_are_what_serving_feeds,
    prove,
    refuse_unproved,
)

VOCABULARY = 400
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def make_renderer(**options: Any) -> Renderer:
    tokenizer = make_tokenizer()
    settings = {"train_on": "assistant", "max_length": 99, "too_long": "drop", **options}
    return Renderer(tokenizer, choose_template("auto", tokenizer), **settings)


def rendered(path: Path, rows: list[Any], **options: Any) -> tuple[Rendering, int]:
    """The rendering of these rows, run to its end, and the tokens that came out."""
    file = write_jsonl(path / "rows.jsonl", rows)
    rendering = Rendering(find_sources([str(file)]), make_renderer(**options), val_split=0, seed=0)
    return rendering, sum(len(example) for _, example in rendering)


def proofs_of(rendering: Rendering, tokens: int, vocabulary: int = VOCABULARY) -> dict[str, Proof]:
    proofs = prove(
        rendering.witness.finish(),
        rendering.ledger.totals(),
        stop_ids=rendering.renderer.stop_ids,
        vocabulary=vocabulary,
        tokens=tokens,
    )
    return {proof.name: proof for proof in proofs}


def conversation(*contents: str, **options: Any) -> Conversation:
    roles = ["user", "assistant"] * len(contents)
    messages = tuple(Message(role, text) for role, text in zip(roles, contents, strict=False))  # type: ignore[arg-type]
    return Conversation(messages, Origin("rows.jsonl", 1), **options)


def evidence_of(renderer: Renderer, outcome: Outcome) -> Evidence:
    witness = Witness(renderer)
    witness.see(outcome)
    return witness.finish()


def changed(renderer: Renderer, given: Conversation, change: Callable[[Rendered], Rendered]) -> Evidence:
    """What is seen of a row whose example was changed after it was rendered."""
    (outcome,) = renderer.render([given])
    return evidence_of(renderer, replace(outcome, examples=(change(outcome.examples[0]),)))


def test_all_holds_for_what_the_renderer_made(tmp_path: Path) -> None:
    rows = [{"messages": TURNS * n} for n in (1, 2, 3)] + [["not a row"]]
    proofs = proofs_of(*rendered(tmp_path, rows))
    assert all(proof.ok for proof in proofs.values())
    assert "4 rows in = 3 kept + 1 rejected" in proofs["ledger"].detail
    assert "6 of 6 learned turns" in proofs["stop"].detail
    assert proofs["parity"].detail.startswith("6 prompts")  # each turn of each row, not the last alone


def test_every_row_is_compared_and_not_a_few(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(300)]
    assert proofs_of(*rendered(tmp_path, rows))["parity"].detail.startswith("300 prompts")


def test_a_lost_token_is_seen_in_the_ledger(tmp_path: Path) -> None:
    rendering, tokens = rendered(tmp_path, [{"messages": TURNS}])
    assert not proofs_of(rendering, tokens - 1)["ledger"].ok


def test_an_example_that_learns_nothing_is_seen() -> None:
    seen = changed(
        make_renderer(), conversation("a", "b"), lambda e: replace(e, supervised=np.zeros_like(e.supervised))
    )
    assert seen.unsound == "rows.jsonl:1"


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_seen(weight: float) -> None:
    def spoil(example: Rendered) -> Rendered:
        supervised = example.supervised.copy()
        supervised[-1] = weight
        return replace(example, supervised=supervised)

    assert changed(make_renderer(), conversation("a", "b"), spoil).unsound == "rows.jsonl:1"


def test_an_answer_without_its_stop_token_is_seen() -> None:
    def cut_off(example: Rendered) -> Rendered:
        supervised = example.supervised.copy()
        supervised[-1] = 0
        return replace(example, supervised=supervised)

    renderer = make_renderer()
    seen = changed(renderer, conversation("a", "b"), cut_off)
    proof = answers_end_with_a_stop_token(seen, renderer.stop_ids)
    assert not proof.ok
    assert proof.detail == (
        "0 of 1 learned turn ends with a stop token that is exported; the first that does not: rows.jsonl:1"
    )


def test_an_answer_that_was_cut_needs_no_stop_token(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b " * 200}]
    proofs = proofs_of(*rendered(tmp_path, rows, too_long="cut"))
    assert all(proof.ok for proof in proofs.values())
    assert "1 more ends without one" in proofs["stop"].detail


def test_a_token_beyond_the_vocabulary_is_seen_before_step_1(tmp_path: Path) -> None:
    proofs = proofs_of(*rendered(tmp_path, [{"messages": TURNS}]), vocabulary=50)
    assert [name for name, proof in proofs.items() if not proof.ok] == ["vocabulary"]


def test_a_prompt_that_serving_would_not_feed_is_seen() -> None:
    def other_id(example: Rendered) -> Rendered:
        ids = example.ids.copy()
        ids[1] += 1
        return replace(example, ids=ids)

    assert (
        changed(make_renderer(), conversation("a", "b"), other_id).unlike_serving
        == "rows.jsonl:1 (message 2)"
    )


Change = Callable[[Any, Any], None]


def learn_the_system_prompt(ids: Any, supervised: Any) -> None:
    supervised[1:] = 1


def learn_the_end_of_the_prompt(ids: Any, supervised: Any) -> None:
    supervised[np.flatnonzero(supervised)[0] - 1] = 1


def learn_with_twice_the_weight(ids: Any, supervised: Any) -> None:
    supervised *= 2


@pytest.mark.parametrize(
    "change", [learn_the_system_prompt, learn_the_end_of_the_prompt, learn_with_twice_the_weight]
)
def test_learned_context_and_another_weight_are_seen(change: Change) -> None:
    seen = changed(make_renderer(), conversation("a", "b c d"), spoiled(change))
    assert seen.misplaced == "rows.jsonl:1 (message 2)"
    assert not every_example_is_learned_from(seen).ok


def write_another_word(ids: Any, supervised: Any) -> None:
    ids[-2] += 1


def end_the_answer_in_its_middle(ids: Any, supervised: Any) -> None:
    ids[-3] = ids[-1]


def end_the_answer_twice(ids: Any, supervised: Any) -> None:
    ids[-2] = ids[-1]


@pytest.mark.parametrize("change", [write_another_word, end_the_answer_in_its_middle, end_the_answer_twice])
def test_an_answer_that_the_template_does_not_write_is_seen(change: Change) -> None:
    seen = changed(make_renderer(), conversation("a", "b c d e"), spoiled(change))
    assert seen.unlike_written == "rows.jsonl:1 (message 2)"
    assert not prompts_are_what_serving_feeds(seen).ok


def spoiled(change: Change) -> Callable[[Rendered], Rendered]:
    """Changes copies of an example's arrays."""

    def spoil(example: Rendered) -> Rendered:
        ids, supervised = example.ids.copy(), example.supervised.copy()
        change(ids, supervised)
        return replace(example, ids=ids, supervised=supervised)

    return spoil


def test_a_prompt_that_is_learned_by_its_weight_is_in_its_place() -> None:
    tokenizer = make_tokenizer(template=None)
    renderer = Renderer(tokenizer, None, train_on="assistant", max_length=99, too_long="drop")
    row = Conversation(
        (Message("user", "a b", weight=1.0), Message("assistant", "c d")), Origin("rows.jsonl", 1)
    )
    seen = evidence_of(renderer, *renderer.render([row]))
    assert (seen.misplaced, seen.unlike_written, seen.answers) == (None, None, 1)


def test_an_earlier_answer_with_a_weight_need_not_be_learned_where_the_last_is() -> None:
    row = Conversation(
        (Message("user", "a"), Message("assistant", "b", weight=1.0), *conversation("c", "d").messages),
        Origin("rows.jsonl", 1),
    )
    renderer = make_renderer(train_on="last")
    seen = evidence_of(renderer, *renderer.render([row]))
    assert (seen.prompts, seen.unlike_serving, seen.misplaced) == (1, None, None)


@pytest.mark.parametrize("too_long", ["cut", "cut_turns", "split"])
@pytest.mark.parametrize("max_length", range(14, 48, 3))
@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_rows_of_several_examples_that_lost_some_are_proved_by_the_rest(
    too_long: str, max_length: int, train_on: Any
) -> None:
    tokenizer = make_tokenizer(template=REWRITES_HISTORY)
    renderer = Renderer(
        tokenizer,
        choose_template("auto", tokenizer),
        train_on=train_on,
        max_length=max_length,
        too_long=too_long,  # type: ignore[arg-type]
    )
    turns = [
        Message(role, f"{role} {n}", reasoning="hm hm" if role == "assistant" else None)  # type: ignore[arg-type]
        for n in range(3)
        for role in ("user", "assistant")
    ]
    seen = evidence_of(renderer, *renderer.render([Conversation(tuple(turns), Origin("rows.jsonl", 1))]))
    assert (seen.unlike_serving, seen.unlike_written, seen.misplaced) == (None, None, None)


def test_markup_in_an_earlier_answer_is_no_forged_token() -> None:
    seen = evidence_over(
        Message("user", "what is <|end|>?"),
        Message("assistant", "<think>hm</think>an end"),
        Message("user", "thanks"),
        Message("assistant", "bye"),
        template=CHAT + "{# <think> </think> #}",
        added=("<think>", "</think>"),
    )
    assert (seen.spelled_turns, seen.forged) == (2, None)


def test_a_control_token_that_the_template_did_not_write_is_seen() -> None:
    renderer = make_renderer()
    given = conversation("what is <|end|> for?", "it ends")
    assert evidence_of(renderer, *renderer.render([given])).forged is None

    def forge(example: Rendered) -> Rendered:
        ids = renderer.tokens.encode(
            ["<|user|>\nwhat is <|end|> for?<|end|>\n<|assistant|>\nit ends<|end|>"]
        )[0]
        supervised = np.zeros(len(ids), dtype=np.float32)
        supervised[-2:] = 1
        return replace(example, ids=ids, supervised=supervised)

    forged = changed(renderer, given, forge).forged
    assert forged is not None
    assert "rows.jsonl:1" in forged


def test_two_bos_tokens_are_seen() -> None:
    def doubled(example: Rendered) -> Rendered:
        bos = renderer.tokens.tokenizer.bos_token_id
        return replace(
            example,
            ids=np.concatenate([np.int32([bos, bos]), example.ids]),
            supervised=np.concatenate([np.float32([0, 0]), example.supervised]),
        )

    renderer = make_renderer()
    assert (
        changed(renderer, conversation("a", "b"), doubled).forged == "rows.jsonl:1 begins with two BOS tokens"
    )


def test_what_was_seen_outlives_the_process() -> None:
    renderer = make_renderer()
    seen = evidence_of(renderer, *renderer.render([conversation("a", "b", "c", "d")]))
    assert Evidence.from_json(seen.to_json()) == seen


def test_what_fails_refuses_to_train_unless_it_is_allowed_by_name(tmp_path: Path) -> None:
    proofs = list(proofs_of(*rendered(tmp_path, [{"messages": TURNS}]), vocabulary=50).values())
    with pytest.raises(UserError, match=r"vocabulary does not hold: .*rows.jsonl:\d.*allow_unproved"):
        refuse_unproved(proofs, ())
    refuse_unproved(proofs, ("vocabulary",))


# Joins the arguments of a call to the text as they are, so they must be JSON already.
ARGUMENTS_AS_TEXT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name + c.function.arguments }}{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def evidence_over(*messages: Message, template: str = CHAT, added: tuple[str, ...] = ()) -> Evidence:
    tokenizer = make_tokenizer(template=template)
    tokenizer.add_tokens(list(added))
    renderer = Renderer(
        tokenizer, choose_template("auto", tokenizer), train_on="assistant", max_length=200, too_long="drop"
    )
    return evidence_of(renderer, *renderer.render([Conversation(messages, Origin("rows.jsonl", 1))]))


def test_prompts_with_tool_calls_are_compared_as_the_template_wants_them() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": "é"}}}
    seen = evidence_over(
        Message("user", "a"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "c", tool_call_id="1"),
        Message("assistant", "d"),
        template=ARGUMENTS_AS_TEXT,
    )
    assert (seen.prompts, seen.unlike_serving) == (2, None)


def test_prompts_that_spell_an_added_token_of_no_special_kind_are_compared() -> None:
    seen = evidence_over(Message("user", "a <think> b"), Message("assistant", "b"), added=("<think>",))
    assert (seen.prompts, seen.unlike_serving) == (1, None)


def test_prompts_that_spell_a_special_token_are_not_since_serving_would_read_the_token() -> None:
    seen = evidence_over(Message("user", "a <|end|> b"), Message("assistant", "b"))
    assert (seen.prompts, seen.spelled_turns, seen.forged) == (0, 1, None)
