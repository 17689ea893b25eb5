"""Tiny models and tokenizers that the tests build themselves: no network, nothing outside the repository."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Tiny models gain nothing from threads, and two of them spinning on busy cores lose everything.
os.environ["OMP_NUM_THREADS"] = "1"

# The same examples each time, however slow the machine is: `make prove` looks for new ones.
settings.register_profile(
    "suite", derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
settings.load_profile("suite")

# A shell that starts the tests in the background has Ctrl-C ignored, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup has the terminal's end ignored

# Servers of the tests are on this machine, whatever proxy the machine uses for others.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"

# Runs keep prepared data in a cache; the tests' own goes with them.
os.environ["TUITION_CACHE"] = tempfile.mkdtemp(prefix="tuition-tests-")
atexit.register(shutil.rmtree, os.environ["TUITION_CACHE"], ignore_errors=True)

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]
TEXT = [
    "Translate English to French: Hello, how are you? Bonjour, comment ça va?",
    "Summarize: The cat sat on the mat. Cat sat on mat.",
    "What is the capital of France? The capital of France is Paris.",
    "def add(a, b):\n    return a + b\n",
] * 3


def make_tokenizer(*, template: str | None = CHAT, bos: bool = False, vocabulary: int = 400) -> Any:
    """A byte-level BPE tokenizer with the control tokens of `CHAT`, and its template unless None."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<s>", "</s>", *(ROLES if template else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<s>",
        eos_token="<|end|>" if template else "</s>",
    )
    fast.chat_template = template
    return fast


def make_model(folder: Path, *, family: str = "llama", tokenizer: Any = None, **config: Any) -> Path:
    """A random tiny model of a family, saved with a tokenizer as a plain transformers folder."""
    import torch
    import transformers

    tokenizer = tokenizer or make_tokenizer()
    sizes = {
        "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
        "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 8}),
        "mistral": ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 16}),
        "gemma2": ("Gemma2Config", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16}),
        "phi3": ("Phi3Config", {"num_key_value_heads": 2, "pad_token_id": 0}),
        "gpt2": ("GPT2Config", {}),
    }
    class_name, extra = sizes[family]
    common = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    if family == "gpt2":
        common = {
            "vocab_size": len(tokenizer), "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, class_name)(**{**common, **extra, **config})
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first: of what is left at the end each process takes a little."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def the_same_random_numbers() -> None:
    """Whichever tests a process ran before."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a chat template."""
    return make_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """Sixty short demonstrations of very unequal lengths."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"What is {i} and {i}?"},
                {"role": "assistant", "content": " ".join(["it is"] * (1 + i * i % 17)) + f" {2 * i}."},
            ]
        }
        for i in range(60)
    ]


@pytest.fixture
def data(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a JSONL file."""
    return write_jsonl(tmp_path / "data.jsonl", rows)


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSONL; the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def settings(llama: Path, data: Path, tmp_path: Path) -> dict[str, Any]:
    """A short run on the tiny Llama."""
    return {
        "model": str(llama), "data": str(data), "output_dir": str(tmp_path / "run"), "batch_size": 8,
        "max_steps": 12, "learning_rate": 3e-3, "val_split": 0.2, "samples": 2, "save_every_steps": 4,
    }  # fmt: skip


# --- one reader of exports ---

# The reader as it is, in a process that never imports tuition, asked again and again.
_READ_ON = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("reader", sys.argv[1])
reader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reader)
for line in sys.stdin:
    try:
        reader.main(*json.loads(line))
        failure = None
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    print("ANSWER", json.dumps(failure), flush=True)
"""


@pytest.fixture(scope="session")
def one_reader() -> Iterator[Callable[[Path, Path], str | None]]:
    """Reads what a fresh process would read, without starting one for every export: that costs seconds."""
    from tuition.ship import gate, reader

    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _READ_ON, reader.__file__], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **gate.READER_SETTINGS},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    questions, answers = process.stdin, process.stdout

    def read(request: Path, answer: Path) -> str | None:
        questions.write(json.dumps([str(request), str(answer)]) + "\n")
        questions.flush()
        said = next(line for line in answers if line.startswith("ANSWER"))
        return json.loads(said.removeprefix("ANSWER"))  # type: ignore[no-any-return]

    yield read
    questions.close()
    process.wait()


@pytest.fixture
def few_questions_of_one_reader(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, one_reader: Callable[..., str | None]
) -> None:
    """Exports of this test are read by one process that serves all tests; a test marked `fresh` has its own."""
    if request.node.get_closest_marker("fresh") is None:
        ask_one_reader(monkeypatch, one_reader)


def ask_one_reader(monkeypatch: pytest.MonkeyPatch, one_reader: Callable[..., str | None]) -> None:
    """Have the gate of exports ask a few questions of a process that runs already."""
    from tuition.ship import gate

    monkeypatch.setattr(gate, "run_reader", one_reader)
    monkeypatch.setattr(gate, "MOST_PROMPTS", 4)
