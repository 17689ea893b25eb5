"""Preview, prepared data and the packs that a step trains on are, token for token, what a slow reference makes.

The reference is a page of plain transformers: the prompt that serving feeds before each answer, the answer, and
the token that ends it. It knows nothing of pieces, chunks, caches or memory maps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_tokenizer, write_jsonl
from tests.test_cli import tuition
from tuition.batch import make_packs
from tuition.batch.prepared import open_prepared
from tuition.conversation import Rendered
from tuition.train.loss import LOSSES

Reference = list[tuple[list[int], list[float]]]


def slow_reference(rows: list[list[dict[str, str]]], tokenizer: Any) -> Reference:
    """ids and weights of each row, one turn after the other."""
    stop = tokenizer.convert_tokens_to_ids("<|end|>")
    made = []
    for messages in rows:
        ids: list[int] = []
        weights: list[float] = []
        for position, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = tokenizer.apply_chat_template(
                messages[:position], add_generation_prompt=True, return_dict=False
            )
            assert prompt[: len(ids)] == ids  # this template never rewrites history
            answer = [*tokenizer(message["content"], add_special_tokens=False)["input_ids"], stop]
            weights += [0.0] * (len(prompt) - len(ids)) + [1.0] * len(answer)
            ids = [*prompt, *answer]
        made.append((ids, weights))
    return made


@pytest.fixture
def rows() -> list[list[dict[str, str]]]:
    texts = [
        "What is the capital of France?",
        " The cat sat on the mat.",
        "é\n\nça va?",
        "def add(a, b):\n",
        "😀 \t x",
    ]
    return [
        [{"role": "system", "content": texts[n % 5]}] * (n % 3 == 0)
        + [
            {"role": role, "content": f"{texts[(n + turn) % 5]} {n}"}
            for turn in range(1 + n % 3)
            for role in ("user", "assistant")
        ]
        for n in range(30)
    ]


def test_all_three_agree_with_the_reference(
    rows: list[list[dict[str, str]]],
    llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = slow_reference(rows, make_tokenizer())
    data = write_jsonl(tmp_path / "rows.jsonl", [{"messages": messages} for messages in rows])
    words = (str(data), "--model", str(llama), "--json")
    _, out, _ = tuition(capsys, monkeypatch, "preview", *words)
    preview = [json.loads(line) for line in out.splitlines()]
    assert [(row["ids"], row["supervised"]) for row in preview] == expected

    _, out, _ = tuition(
        capsys, monkeypatch, "prepare", *words, "--to", str(tmp_path / "to"), "--val-split", "0"
    )
    train = open_prepared(Path(json.loads(out)["folder"])).train
    assert [(e.ids.tolist(), e.supervised.tolist()) for e in train] == expected

    examples = [train[n] for n in range(len(train))]
    for most, budget in ((1, 10**9), (4, 10**9), (None, 200), (None, 10**9)):
        assert what_packs_learn(examples, most, budget) == [
            (context, target, weight)
            for ids, weights in expected
            for context, target, weight in learned_tokens(ids, weights)
        ]


def learned_tokens(ids: list[int], weights: list[float]) -> list[tuple[list[int], int, float]]:
    """Each learned token with all that stands before it."""
    return [(ids[:n], ids[n], weight) for n, weight in enumerate(weights) if weight]


def what_packs_learn(
    examples: list[Rendered], most: int | None, budget: int
) -> list[tuple[list[int], int, float]]:
    """The same, read back out of the flat rows: what a model sees before each target."""
    learned = []
    for pack in make_packs(examples, LOSSES["token_mean"], max_examples=most, token_budget=budget):
        for place, target, weight in zip(pack.keep, pack.targets, pack.weights, strict=True):
            start = place - pack.positions[place]
            learned.append((pack.ids[start : place + 1].tolist(), int(target), float(weight)))
    return learned
