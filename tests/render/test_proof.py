"""Each proof holds for what the renderer makes, and fails for what it never should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import CHAT, make_tokenizer, write_jsonl
from tuition.data import find_sources
from tuition.errors import UserError
from tuition.render import Renderer, choose_template
from tuition.render.corpus import Corpus, build_corpus
from tuition.render.proof import prove, refuse_unproved

VOCABULARY = 400


@pytest.fixture
def proven(tmp_path: Path) -> tuple[Corpus, Renderer]:
    tokenizer = make_tokenizer()
    renderer = Renderer(
        tokenizer, choose_template("auto", tokenizer), train_on="assistant", max_length=99, too_long="drop"
    )
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = write_jsonl(
        tmp_path / "rows.jsonl", [{"messages": turns * n} for n in (1, 2, 3)] + [["not a row"]]
    )
    return build_corpus(find_sources([str(path)]), renderer, val_split=0, seed=0), renderer


def failures(corpus: Corpus, renderer: Renderer, vocabulary: int = VOCABULARY) -> list[str]:
    return [proof.name for proof in prove(corpus, renderer, vocabulary=vocabulary) if not proof.ok]


def test_all_holds_for_what_the_renderer_made(proven: tuple[Corpus, Renderer]) -> None:
    corpus, renderer = proven
    proofs = {proof.name: proof for proof in prove(corpus, renderer, vocabulary=VOCABULARY)}
    assert all(proof.ok for proof in proofs.values())
    assert "4 rows in = 3 kept + 1 rejected" in proofs["ledger"].detail
    assert "6 of 6 learned turns" in proofs["stop"].detail
    assert proofs["parity"].detail.startswith("3 prompts")


def test_a_lost_example_is_seen_in_the_ledger(proven: tuple[Corpus, Renderer]) -> None:
    corpus, renderer = proven
    corpus.train.pop()
    assert failures(corpus, renderer)[0] == "ledger"


def test_an_example_that_learns_nothing_is_seen(proven: tuple[Corpus, Renderer]) -> None:
    corpus, renderer = proven
    corpus.train[0] = replace(corpus.train[0], supervised=np.zeros_like(corpus.train[0].supervised))
    assert "learned" in failures(corpus, renderer)


def test_an_answer_without_its_stop_token_is_seen(proven: tuple[Corpus, Renderer]) -> None:
    corpus, renderer = proven
    supervised = corpus.train[1].supervised.copy()
    supervised[-1] = 0
    corpus.train[1] = replace(corpus.train[1], supervised=supervised)
    assert failures(corpus, renderer) == ["stop"]


def test_a_token_beyond_the_vocabulary_is_seen_before_step_1(proven: tuple[Corpus, Renderer]) -> None:
    corpus, renderer = proven
    assert failures(corpus, renderer, vocabulary=50) == ["vocabulary"]


def test_a_prompt_that_serving_would_not_feed_is_seen(proven: tuple[Corpus, Renderer]) -> None:
    corpus, renderer = proven
    ids = corpus.train[0].ids.copy()
    ids[0] += 1
    corpus.train[0] = replace(corpus.train[0], ids=ids)
    assert failures(corpus, renderer) == ["parity"]


def test_what_fails_refuses_to_train_unless_it_is_allowed_by_name(proven: tuple[Corpus, Renderer]) -> None:
    corpus, renderer = proven
    proofs = prove(corpus, renderer, vocabulary=50)
    with pytest.raises(UserError, match=r"vocabulary does not hold: .*rows.jsonl:\d.*allow_unproved"):
        refuse_unproved(proofs, ())
    refuse_unproved(proofs, ("vocabulary",))


# Joins the arguments of a call to the text as they are, so they must be JSON already.
ARGUMENTS_AS_TEXT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name + c.function.arguments }}{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def parity_of(rows: list[object], folder: Path, *, template: str = CHAT, added: tuple[str, ...] = ()) -> str:
    tokenizer = make_tokenizer(template=template)
    tokenizer.add_tokens(list(added))
    renderer = Renderer(
        tokenizer, choose_template("auto", tokenizer), train_on="assistant", max_length=200, too_long="drop"
    )
    path = write_jsonl(folder / "rows.jsonl", rows)
    corpus = build_corpus(find_sources([str(path)]), renderer, val_split=0, seed=0)
    proofs = {proof.name: proof for proof in prove(corpus, renderer, vocabulary=1000)}
    assert proofs["parity"].ok
    return proofs["parity"].detail


def test_prompts_with_tool_calls_are_compared_as_the_template_wants_them(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": "é"}}}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "c", "tool_call_id": "1"},
        {"role": "assistant", "content": "d"},
    ]
    assert parity_of([{"messages": turns}], tmp_path, template=ARGUMENTS_AS_TEXT).startswith("1 prompts")


def test_prompts_that_spell_an_added_token_of_no_special_kind_are_compared(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a <think> b"}, {"role": "assistant", "content": "b"}]
    assert parity_of([{"messages": turns}], tmp_path, added=("<think>",)).startswith("1 prompts")


def test_prompts_that_spell_a_special_token_are_not_since_serving_would_read_the_token(
    tmp_path: Path,
) -> None:
    turns = [{"role": "user", "content": "a <|end|> b"}, {"role": "assistant", "content": "b"}]
    assert parity_of([{"messages": turns}], tmp_path).startswith("0 prompts")
