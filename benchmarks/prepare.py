"""From a file to token ids and what is learned of them: tuition beside TRL, on the same rows.

tuition: reading, checks and rendering, as `tuition train` does before it loads a model. TRL: what
SFTTrainer does to a `messages` dataset in its constructor with assistant_only_loss and no packing, in one
process. Both must give the same ids and learn the same tokens before a second is counted. Seconds are the
process's own CPU time, so that other work of the machine does not count. Runs are interleaved; medians and
ranges are printed and written as JSON.

Run: python -m benchmarks.prepare [--data FILE] [--model FOLDER] [--note TEXT]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import datasets
import trl
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer
from trl.chat_template_utils import get_training_chat_template

from benchmarks.figures import of_this_machine, spread, write_result
from tuition.conversation import Rendered
from tuition.data import Reading, find_sources
from tuition.machine import hardware, versions
from tuition.render import CHATML_TOKENS, Renderer, choose_template, load_tokenizer
from tuition.render.corpus import Rendering, settle

ROWS = 2000
REPEATS = 3
MAX_LENGTH = 4096
TEMPLATES = {"ChatML (Qwen3 2507)": "qwen3_instruct_2507", "Qwen3": "qwen3"}
MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


def main() -> None:
    """Compare, measure, print, write."""
    parser = argparse.ArgumentParser(description="From a file to token ids, tuition beside TRL.")
    parser.add_argument("--data", type=Path, help="JSON Lines with question and answer, or messages")
    parser.add_argument(
        "--model", type=Path, help="folder of a tokenizer; without it one is trained on the data"
    )
    parser.add_argument("--note", default="", help="what the data and the tokenizer are, for the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = read_rows(options.data) if options.data else make_rows()
        data = Path(folder) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        figures = {
            name: compare(data, make_tokenizer(options.model, rows, template), Path(folder))
            for name, template in TEMPLATES.items()
        }
    given = "generated in the shape of GSM8K, with a tokenizer trained on it"
    result = {
        "what": "file to token ids and what is learned, one process, one core",
        "data": options.note or (given if not options.data else "a file of the user's"),
        "rows": len(rows),
        "examples_per_cpu_second": figures,
        "hardware": hardware("cpu"),
        "versions": {**versions(), "trl": trl.__version__, "datasets": datasets.__version__},
    }
    show(figures)
    write_result(of_this_machine("prepare"), result)


# --- rows and tokenizer ---


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file as `messages`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [as_messages(json.loads(line)) for line in lines]


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    """One row as TRL reads it."""
    if "messages" in row:
        return {"messages": row["messages"]}
    turns = (("user", row["question"]), ("assistant", row["answer"]))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def make_rows() -> list[dict[str, Any]]:
    """Word problems in the shape of GSM8K: about 45 words asked, 4 lines answered."""
    chance = random.Random(0)
    return [as_messages(make_problem(chance)) for _ in range(ROWS)]


def make_problem(chance: random.Random) -> dict[str, str]:
    """One problem with its steps and its final number."""
    name, other = chance.sample(["Natalia", "Weng", "Betty", "Julie", "James", "Albert", "Ken", "Mark"], 2)
    thing = chance.choice(["clips", "apples", "pages", "letters", "flowers", "pizzas", "books", "eggs"])
    total, answered = chance.randint(9, 90), []
    asked = f"{name} has {total} {thing}."
    for step in range(chance.randint(2, 5)):
        more = chance.randint(2, 40)
        asked += f" On day {step + 1}, {other} gave {name} {more} more {thing}, wrapped in the colours of the season."
        answered.append(
            f"{name} then had {total} + {more} = <<{total}+{more}={total + more}>>{total + more} {thing}."
        )
        total += more
    return {
        "question": f"{asked} How many {thing} does {name} have now?",
        "answer": "\n".join([*answered, f"#### {total}"]),
    }


def make_tokenizer(model: Path | None, rows: list[dict[str, Any]], template: str) -> Any:
    """The tokenizer with the control tokens of the template, which ships with TRL."""
    tokenizer = load_tokenizer(str(model)) if model else train_tokenizer(rows)
    tokenizer.add_special_tokens({"extra_special_tokens": list(CHATML_TOKENS)})
    tokenizer.add_tokens(list(MARKUP))
    tokenizer.eos_token = CHATML_TOKENS[1]
    tokenizer.chat_template = (Path(trl.__file__).parent / f"chat_templates/{template}.jinja").read_text(
        "utf-8"
    )
    return tokenizer


def train_tokenizer(rows: list[dict[str, Any]]) -> Any:
    """A byte-level BPE of 8,000 tokens."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    texts = (message["content"] for row in rows for message in row["messages"])
    tokenizer.train_from_iterator(texts, vocab_size=8000, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer)


# --- the two sides ---


def compare(data: Path, tokenizer: Any, folder: Path) -> dict[str, dict[str, float]]:
    """Examples a second of both, once they were seen to agree."""
    ours, theirs = Ours(data, tokenizer), Theirs(data, tokenizer, folder)
    refuse_unequal(ours.prepare(), theirs.prepare(), tokenizer)  # it also warms both up
    sides = {
        "tuition": ours.prepare,
        "tuition, and every prompt compared with serving": ours.prepare_and_prove,
        f"TRL {trl.__version__}": theirs.prepare,
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    count = 0
    for _ in range(REPEATS):
        for name, prepare in sides.items():
            gc.collect()
            gc.freeze()  # what the other side left in memory is not looked through on this one's time
            started = time.process_time()
            count = len(prepare())
            seconds[name].append(time.process_time() - started)
    return {name: spread([count / s for s in values]) for name, values in seconds.items()}


class Ours:
    """tuition's reading, checks and rendering. A new renderer each time, so that nothing is remembered."""

    def __init__(self, data: Path, tokenizer: Any) -> None:
        self.data = data
        self.tokenizer = tokenizer

    def prepare(self) -> list[Rendered]:
        """From the file to examples, in the order of the rows, each row in the ledger."""
        reading = Reading([str(self.data)])
        examples: list[Rendered] = []
        for outcome in self._renderer().render(reading):
            settle(reading.ledger, outcome, side="train")
            examples += outcome.examples
        return examples

    def prepare_and_prove(self) -> list[Rendered]:
        """The same as a run does it: what it promises is counted over every example."""
        rendering = Rendering(find_sources([str(self.data)]), self._renderer(), val_split=0.0, seed=0)
        examples = [example for _, example in rendering]
        rendering.witness.finish()
        return examples

    def _renderer(self) -> Renderer:
        template = choose_template("auto", self.tokenizer)
        return Renderer(
            self.tokenizer, template, train_on="assistant", max_length=MAX_LENGTH, too_long="drop"
        )


class Theirs:
    """The preparation of SFTTrainer, called as its constructor calls it, with nothing cached on disk."""

    def __init__(self, data: Path, tokenizer: Any, folder: Path) -> None:
        self.data = data
        self.tokenizer = tokenizer
        self.folder = folder
        self.settings = SFTConfig(
            output_dir=str(folder),
            assistant_only_loss=True,
            packing=False,
            max_length=MAX_LENGTH,
            use_cpu=True,
            bf16=False,
            report_to=[],
        )
        self.trainer = SimpleNamespace(
            chat_template=get_training_chat_template(tokenizer),
            completion_only_loss=False,
            _tokenizer=tokenizer,
            template_args=None,
        )
        datasets.disable_caching()
        datasets.disable_progress_bars()

    def prepare(self) -> Any:
        """From the file to a dataset of input_ids and labels."""
        cache = tempfile.mkdtemp(dir=self.folder)
        rows = datasets.load_dataset("json", data_files=str(self.data), split="train", cache_dir=cache)
        return SFTTrainer._prepare_dataset(
            self.trainer, rows, self.tokenizer, self.settings, False, None, "train"
        )


def refuse_unequal(ours: list[Rendered], theirs: Any, tokenizer: Any) -> None:
    """Stop unless both made the same examples.

    TRL also learns the line break after the token that ends the turn, which tuition leaves out of the
    example, because serving stops before it; nothing else may differ.
    """
    assert len(ours) == len(theirs), "not the same rows"
    behind = tokenizer("\n", add_special_tokens=False)["input_ids"]
    for example, row in zip(ours, learned_rows(theirs), strict=True):
        ids, learned = row
        length = len(example)
        assert example.ids.tolist() == ids[:length], "not the same ids"
        assert ids[length:] == behind, "not the same end"
        assert (example.supervised > 0).tolist() == learned[:length], "not the same tokens are learned"


def learned_rows(prepared: Any) -> Iterator[tuple[list[int], list[bool]]]:
    """Ids and what is learned of them, row by row."""
    for row in prepared:
        yield row["input_ids"], [label != -100 for label in row["labels"]]


# --- figures ---


def show(figures: dict[str, dict[str, dict[str, float]]]) -> None:
    """A table: template, side, examples a second."""
    for template, sides in figures.items():
        for name, value in sides.items():
            print(
                f"{template:20} {name:10} {value['median']:8,.0f} examples/CPU s"
                f"  ({value['low']:,.0f} to {value['high']:,.0f})"
            )


if __name__ == "__main__":
    main()
