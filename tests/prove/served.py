"""Fifty prompts, one answer: in this process, exported and read by plain transformers, and through the `openai` client.

`python -m tests.prove.served` trains the starter in full and by LoRA, exports both, starts `tuition serve` on each way
to name a model (run, adapter, exported folder), and asks each of them fifty held-out questions, streamed and not.
Exit code 1 where any answer differs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import torch

import tuition
from tuition import api, starter
from tuition.evaluate.generate import Question
from tuition.evaluate.prompts import read_prompts

PROMPTS, TOKENS = 50, 32


def main() -> int:
    """Print a line for each way to answer; how many of its answers are those of the run in this process."""
    asked = [item.prompt for item in read_prompts([str(starter.HELDOUT)]) if isinstance(item, Question)]
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        for method in ("full", "lora"):
            run = train(method, Path(place) / method)
            answerer = api.load(str(run.path), device="cpu")
            here = [api.answer(answerer, prompt, max_new_tokens=TOKENS).text for prompt in asked[:PROMPTS]]
            exported = run.export(Path(place) / f"{method}-exported")
            named = {"run": run.path, "exported": exported}
            named |= {"adapter": run.path / "adapter"} if method == "lora" else {}
            wrong += report(
                f"{method}: exported, plain transformers", here, by_transformers(exported, asked[:PROMPTS])
            )
            for name, folder in named.items():
                with served(folder) as client:
                    for streamed in (False, True):
                        given = [ask(client, prompt, streamed=streamed) for prompt in asked[:PROMPTS]]
                        wrong += report(
                            f"{method}: {name} served{', streamed' if streamed else ''}", here, given
                        )
    return 1 if wrong else 0


def train(method: str, folder: Path) -> tuition.Run:
    """One epoch over the starter's demonstrations."""
    return tuition.train(
        model="starter", data=str(starter.DEMONSTRATIONS), output_dir=str(folder), method=method, epochs=1
    )


def report(what: str, here: Sequence[str], given: Sequence[str]) -> int:
    """Print and return how many answers differ."""
    different = sum(a != b for a, b in zip(here, given, strict=True))
    print(f"{what}: {len(here) - different} of {len(here)} the same", flush=True)
    return different


def by_transformers(folder: Path, prompts: Sequence[str]) -> list[str]:
    """What the folder answers without tuition: its own tokenizer, template and generation configuration."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    answers = []
    for prompt in prompts:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            ids = model.generate(**asked, max_new_tokens=TOKENS, do_sample=False)[
                0, asked["input_ids"].shape[1] :
            ]
        # the space that stands before an answer of this template is the template's
        answers.append(tokenizer.decode(ids, skip_special_tokens=True).removeprefix(" "))
    return answers


@contextmanager
def served(folder: Path) -> Iterator[openai.OpenAI]:
    """A client of `tuition serve` on the folder, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tuition", "serve", str(folder), "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().split()[1].rstrip("/")
    try:
        with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def ask(client: openai.OpenAI, prompt: str, *, streamed: bool) -> str:
    """One greedy answer of the first model."""
    (model,) = client.models.list()
    messages: Any = [{"role": "user", "content": prompt}]
    given: Any = client.chat.completions.create(
        model=model.id, messages=messages, max_tokens=TOKENS, stream=streamed
    )
    if not streamed:
        return str(given.choices[0].message.content)
    return "".join(chunk.choices[0].delta.content or "" for chunk in given)


if __name__ == "__main__":
    sys.exit(main())
