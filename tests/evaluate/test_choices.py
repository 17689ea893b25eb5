"""Multiple choice by likelihood, and the figures over learned tokens."""

import dataclasses
import math

import pytest
import torch

from tests.conftest import make_model, make_tokenizer, write_jsonl
from tuition.data import Ledger
from tuition.data.reading import Reading
from tuition.evaluate.choices import Choice, choice_of, choose, read_choices
from tuition.evaluate.heldout import held_out_loss, learned_bytes, score_examples, totals
from tuition.evaluate.load import load_answerer
from tuition.train.selfcheck import choose_path

TWO = {"question": "2 + 2?", "choices": ["three", "four"]}


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({**TWO, "answer": 1}, 1),
        ({**TWO, "answer": "B"}, 1),
        ({**TWO, "answer": "four"}, 1),
        ({**TWO, "label": "0"}, 0),
        ({"ctx": "A man", "endings": ["runs", "flies"], "label": "1"}, 1),
        ({"question": "?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, 1),
        ({"question": "?", "choices": ["B", "A"], "answer": "A"}, 1),
        ({"question": "?", "choices": ["1", "0"], "answer": "0"}, 1),
    ],
)
def test_the_shapes_of_multiple_choice(row, right):
    found = choice_of(row)
    assert isinstance(found, Choice)
    assert found.right == right


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"choices": ["a", "b"], "answer": 0}, "no question"),
        ({"question": "?", "answer": 0}, "two choices"),
        ({"question": "?", "choices": ["a"], "answer": 0}, "two choices"),
        ({**TWO, "answer": 2}, "none of its choices"),
        ({**TWO, "answer": "C"}, "none of its choices"),
        ({**TWO, "answer": True}, "none of its choices"),
        (TWO, "none of its choices"),
    ],
)
def test_a_row_that_is_no_multiple_choice_says_why(row, reason):
    assert reason in choice_of(row)


def test_every_row_is_asked_or_rejected_with_its_place(tmp_path):
    file = write_jsonl(tmp_path / "mc.jsonl", [{**TWO, "answer": 1}, TWO, {**TWO, "answer": 0}])
    ledger = Ledger()
    asked = list(read_choices([str(file)], ledger))
    assert [conversation.messages[-1].content for conversation, _ in asked] == ["four", "three"]
    assert (ledger.rows_in, [entry.origin.line for entry in ledger.rejected]) == (3, [2])


@pytest.mark.parametrize("how", ["sum", "byte"])
def test_the_choice_is_the_likeliest_by_the_models_own_logits(llama, tmp_path, how):
    choices = ["Paris", "it is a very long and winding answer", "x", "The capital of France"]
    rows = [{"question": f"What is {n}?", "choices": choices, "answer": 0} for n in range(4)]
    answerer = load_answerer(str(llama), device="cpu")
    asked = list(read_choices([str(write_jsonl(tmp_path / "mc.jsonl", rows))], Ledger()))
    tokenizer, model = answerer.tokenizer, answerer.loaded.model
    expected = []
    for row in rows:
        costs = []
        for choice in choices:
            prompt = f"<|user|>\n{row['question']}<|end|>\n<|assistant|>\n"
            context = tokenizer(prompt, add_special_tokens=False).input_ids
            answer = tokenizer(f"{choice}<|end|>", add_special_tokens=False).input_ids
            with torch.no_grad():
                logits = model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
            cost = -sum(float(logits[len(context) - 1 + i, token]) for i, token in enumerate(answer))
            costs.append(cost / (len(choice.encode()) if how == "byte" else 1))
        expected.append(choices[costs.index(min(costs))])
    assert choose(answerer, asked, how) == expected


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def answerer(request, tmp_path_factory):
    folder = make_model(
        tmp_path_factory.mktemp(request.param), family=request.param, tokenizer=make_tokenizer()
    )
    return load_answerer(str(folder), device="cpu")


def test_bits_a_byte_weigh_the_bytes_as_they_weigh_the_bits(answerer, rows):
    """A file in which every answer has weight 2 says the same of the model as the file without weights."""
    weighed = [{**row, "weight": 2} for row in rows]
    found = []
    for some in (rows, weighed, rows + weighed):
        outcomes = answerer.renderer.render(list(Reading(rows=some)))
        examples = [example for outcome in outcomes for example in outcome.examples]
        size = learned_bytes(examples, answerer.renderer.tokens)
        found.append(held_out_loss(answerer.loaded, examples, text_bytes=size, packing=(1, 4096)))
    for figures in found:
        assert figures.bits_per_byte == pytest.approx(found[0].bits_per_byte)


def test_figures_do_not_depend_on_batch_or_packing(answerer, rows):
    examples = [e for outcome in answerer.renderer.render(list(Reading(rows=rows))) for e in outcome.examples]
    size = learned_bytes(examples, answerer.renderer.tokens)
    choose_path(answerer.loaded, examples)
    found = []
    for most in (1, 7, 64):
        marks = score_examples(answerer.loaded, examples, packing=(most, 10**6), accuracy=True)
        found.append(totals(marks, size))
        found.append(totals([*marks[::2], *marks[1::2]], size))  # as two ranks would add up
    for packed in (True, False):  # shared prefixes computed once, and each example in a pass of its own
        loaded = dataclasses.replace(answerer.loaded, packed=packed, shares=packed)
        if not packed:
            loaded.model.set_attn_implementation("eager")
        alone = held_out_loss(loaded, examples, text_bytes=size, packing=(None, 10**6))
        found.append(dataclasses.replace(alone, token_accuracy=found[0].token_accuracy))
    hits, tokens, nats = 0, 0, 0.0
    model = answerer.loaded.model
    model.set_attn_implementation("eager")
    for example in examples:
        ids = torch.from_numpy(example.ids).long()
        with torch.no_grad():
            logits = model(ids[None]).logits[0].float()
        learned = torch.from_numpy(example.supervised > 0).nonzero()[:, 0]
        hits += int((logits[learned - 1].argmax(-1) == ids[learned]).sum())
        nats += float(torch.nn.functional.cross_entropy(logits[learned - 1], ids[learned], reduction="sum"))
        tokens += len(learned)
    for figures in found:
        assert figures.token_accuracy == hits / tokens
        assert figures.loss == pytest.approx(nats / tokens, abs=1e-5)
        assert figures.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-4)
        assert figures.bits_per_byte == pytest.approx(nats / math.log(2) / size, abs=1e-5)
        assert (figures.tokens, figures.examples) == (tokens, len(examples))
