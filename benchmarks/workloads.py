"""What all contestants learn from: token ids, and which of them are learned, made once and fed to everybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 50304
Row = dict[str, list[int]]
"""`ids`, and `learned`: 1 where a token is learned, else 0. The last token of a row is learned."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Rows and how many of them make an update."""

    name: str
    batch: int
    rows: Callable[[int], list[Row]]


def workloads(data: str | None, tokenizer: str | None) -> dict[str, Workload]:
    """The three workloads.

    Args:
        data: JSONL with question and answer for the first; None: random tokens of like lengths.
        tokenizer: folder with vocab.json and merges.txt, for `data`.
    """
    instructions = Workload("short instructions, random tokens", 8, random_instructions)
    if data:
        name = f"short instructions, {Path(data).name}"
        instructions = Workload(name, 8, lambda wanted: read_instructions(data, str(tokenizer), wanted))
    return {
        "instructions": instructions,
        "prompt": Workload("400 tokens of prompt for all, 60 own", 16, long_prompt),
        "turns": Workload("conversations of 4 turns", 8, several_turns),
    }


def read_instructions(data: str, tokenizer: str, wanted: int) -> list[Row]:
    """Questions and answers of a file as ChatML."""
    from tokenizers import ByteLevelBPETokenizer

    encoder = ByteLevelBPETokenizer(f"{tokenizer}/vocab.json", f"{tokenizer}/merges.txt")
    encoder.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    rows = []
    for line in Path(data).read_text(encoding="utf-8").splitlines()[:wanted]:
        row = json.loads(line)
        prompt = f"<|im_start|>user\n{row['question']}<|im_end|>\n<|im_start|>assistant\n"
        rows.append(_row([encoder.encode(prompt).ids, encoder.encode(f"{row['answer']}<|im_end|>").ids]))
    return rows


def random_instructions(wanted: int) -> list[Row]:
    """Lengths as GSM8K spreads them, 60 % learned."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(170), 0.4, wanted).astype(int), 16, 1000)
    return [_row([_some(random, int(0.4 * n)), _some(random, n - int(0.4 * n))]) for n in lengths]


def long_prompt(wanted: int) -> list[Row]:
    """One system prompt with tools for all, a question of 20 tokens and an answer of 40."""
    random = np.random.default_rng(1)
    prompt = _some(random, 400)
    return [_row([prompt + _some(random, 20), _some(random, 40)]) for _ in range(wanted)]


def several_turns(wanted: int) -> list[Row]:
    """Four questions and answers each, of unequal lengths; every answer is learned."""
    random = np.random.default_rng(2)
    return [_row([_some(random, int(n)) for n in random.integers(15, 90, size=8)]) for _ in range(wanted)]


def _some(random: np.random.Generator, count: int) -> list[int]:
    ids: list[int] = random.integers(2, 50000, count).tolist()
    return ids


def _row(pieces: list[list[int]]) -> Row:
    """Pieces that are given and learned in turns."""
    return {
        "ids": [token for piece in pieces for token in piece],
        "learned": [place % 2 for place, piece in enumerate(pieces) for _ in piece],
    }


def counts(batch: list[Row]) -> dict[str, int]:
    """Tokens and learned tokens of an update."""
    return {"tokens": sum(len(r["ids"]) for r in batch), "learned": sum(sum(r["learned"]) for r in batch)}


def needed_operations(batch: list[Row], model: dict[str, int]) -> float:
    """What an update needs where nothing is shared: body on every token, head on learned ones, causal attention
    within rows."""
    width, inner, heads = model["hidden_size"], model["intermediate_size"], model["num_attention_heads"]
    narrow = width * model["num_key_value_heads"] // heads
    layers = model["num_hidden_layers"]
    body = layers * (2 * width * width + 2 * width * narrow + 3 * width * inner)
    squares = sum(len(row["ids"]) ** 2 for row in batch)
    found = counts(batch)
    head = 6 * VOCABULARY * width * found["learned"]
    return float(6 * body * found["tokens"] + head + 6 * layers * width * squares)


def labels(row: Row) -> list[int]:
    """As other trainers take them: −100 where nothing is learned."""
    return [token if learned else -100 for token, learned in zip(row["ids"], row["learned"], strict=True)]


def rendered(row: Row) -> Any:
    """As tuition takes it."""
    from tuition.conversation import Rendered
    from tuition.errors import Origin

    supervised = np.array(row["learned"], dtype=np.float32)
    return Rendered(np.array(row["ids"], dtype=np.int32), supervised, Origin("benchmark", 1))
