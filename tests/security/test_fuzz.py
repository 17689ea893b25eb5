"""A handful of damaged inputs for each parser; `make prove` feeds thousands."""

from __future__ import annotations

import pytest

from tests.prove.fuzz import LIMIT_BYTES, LIMIT_SECONDS, fuzz
from tests.prove.inputs import Parser
from tests.prove.parsers import make_parsers

NAMES = [
    "rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet", "rows.arrow", "rows.jsonl.gz", "rows.jsonl.zst",
    "rows of any shape", "recipe file", "recipe values", "--set", "mapping", "conditions of the gate", "body of a request", "request",
    "report of a run", "resume of a run", "journal", "manifest",
    "checkpoint", "prepared data", "template", "template file", "config.json", "generation_config", "safetensors header",
    "tokenizer_config", "tokenizer.json", "adapter_config.json",
    "reply of a service", "job", "recipe to launch", "answers of before", "prompts that were learned",
    "general text of before", "text to evaluate", "schema of a metric", "store",
]  # fmt: skip


@pytest.fixture(scope="module")
def parsers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parser]:
    return make_parsers(tmp_path_factory.mktemp("fuzz"))


def test_every_parser_has_its_test(parsers: dict[str, Parser]) -> None:
    assert sorted(parsers) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_damage_ends_in_our_own_errors_only(name: str, parsers: dict[str, Parser]) -> None:
    outcome = fuzz(parsers[name], 30)
    assert outcome.surprises == {}
    assert outcome.refused + outcome.read == outcome.inputs > 0
    assert outcome.worst[0] < 20 * LIMIT_SECONDS  # generous: the machine may be busy
    assert outcome.grown_bytes < LIMIT_BYTES
