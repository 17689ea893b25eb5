"""The round trip: an export is called exported only after a fresh process has read it and answered alike.

What the model in this process says is taken down before anything is written; `reader.py` then loads the
folder with plain transformers, and every difference is named by the layer or the file it stands in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuition import files
from tuition.conversation import Message
from tuition.counting import counted
from tuition.errors import UserError
from tuition.evaluate.load import Answerer
from tuition.ship import reader
from tuition.ship.weights import fault_in_weights
from tuition.ship.written import check_files, refuse
from tuition.train.fingerprint import text_sha256
from tuition.train.model import base_of, context_length, evaluating
from tuition.train.naming import run_of
from tuition.train.writing import stop_tokens_of

# The largest difference of a logit between what was trained and what was written, as a share of the
# largest logit (at least 1): rounding grows with the numbers.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}
MOST_PROMPTS = 20
READER_SETTINGS = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "CUDA_VISIBLE_DEVICES": ""}
ANSWER_TOKENS = 32
_PROBE_TOKENS = 48
_PROBES = (
    "Hello, how are you?", "What is the capital of France?", "Write one sentence about rain.", "2 + 2 =",
    "Translate to German: good morning", "List three colours.", "Why is the sky blue?", "Say nothing.",
    "Who wrote Hamlet?", "Name a fruit.", "How many days are in a week?", "Spell the word 'island'.",
    "What comes after Tuesday?", "Give me a rhyme for 'light'.", "Is water wet?", "What is the opposite of hot?",
    "Count to five.", "Say thank you in Spanish.", "What is 12 times 12?", "Where do penguins live?",
)  # fmt: skip
_TEXTS = (
    "Plain words, and some more.", "  spaces\tand\n\nlines  ", "def f(x):\n    return x ** 2\n",
    "Größe, 東京, русский, 🙂", "1,234.56 €",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expected:
    """What the model in this process says, taken down before it is written.

    Attributes:
        prompts: user messages, or plain texts where there is no template.
        prompt_ids: each as it is fed to the model.
        answers: the greedy ids of each, its stop token included.
        text_ids: the token ids of `_TEXTS`.
        probe: the ids of the probe row, drawn at random.
        vocabulary: a hash of every token, its id and how it is found.
        layers: hidden states and logits of a probe row, by name, in order.
        template: the chat template; None: plain text.
        template_sha256: of the template that the run learned with; None where nobody wrote it down.
        day: that the template is told, in ISO 8601; None: it asks for none.
        stops: id → its spelling.
        tied: the head is the table of embeddings.
    """

    prompts: list[str]
    prompt_ids: list[list[int]]
    answers: list[list[int]]
    text_ids: list[list[int]]
    vocabulary: str
    probe: list[int]
    layers: Mapping[str, torch.Tensor]
    template: str | None
    template_sha256: str | None
    day: str | None
    stops: dict[int, str]
    tied: bool


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What the fresh process confirmed.

    Attributes:
        difference: the largest difference of a logit on the probe row.
        prompts: how many were answered.
        same: how many of the answers are the same to the token; others part at a tie within rounding.
        stopped: how many answers ended by themselves, within the limit.
        bound: the largest difference of a logit that the dtype may make.
    """

    difference: float
    prompts: int
    same: int
    stopped: int
    bound: float

    @property
    def sentence(self) -> str:
        """For the screen and the card."""
        return (
            f"a fresh process loaded it: logits within {self.difference:.2g} (bound {self.bound:.2g}), "
            f"{self.same} of {counted(self.prompts, 'greedy answer')} the same, {self.stopped} stopped by themselves"
        )


def expect(answerer: Answerer) -> Expected:
    """Take down what the model says to probes and prompts, before it is merged, cast and written."""
    model, tokenizer, renderer = answerer.loaded.model, answerer.tokenizer, answerer.renderer
    stops = list(dict.fromkeys([*renderer.stop_ids, *stop_tokens_of(base_of(model))]))
    prompts, prompt_ids = _prompts_of(answerer)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    probe = torch.randint(
        0, vocabulary, (_PROBE_TOKENS,), generator=torch.Generator().manual_seed(0)
    ).tolist()
    folder = run_of(answerer.name)
    facts = folder.read_facts() if folder.holds_a_run() else {}
    template = renderer.template
    with evaluating(model):
        return Expected(
            prompts=prompts,
            prompt_ids=prompt_ids,
            answers=[reader.greedy(model, ids, stops, ANSWER_TOKENS) for ids in prompt_ids],
            text_ids=[list(map(int, tokenizer(text)["input_ids"])) for text in _TEXTS],
            vocabulary=reader.vocabulary_sha256(tokenizer),
            probe=probe,
            layers=reader.layers_of(model, probe),
            template=None if template is None else template.source,
            template_sha256=facts.get("hashes", {}).get("template"),
            day=None if template is None or template.date is None else template.date.isoformat(),
            stops={stop: str(tokenizer.convert_ids_to_tokens(stop)) for stop in stops},
            tied=reader.is_tied(base_of(model)),
        )


def _prompts_of(answerer: Answerer) -> tuple[list[str], list[list[int]]]:
    """Prompts that can be asked of this model: the run's samples first, then probes of our own."""
    samples = run_of(answerer.name).samples
    rows = samples.read_bytes().splitlines() if samples.exists() else []
    texts = [*dict.fromkeys([*(str(json.loads(row)["prompt"]) for row in rows), *_PROBES])]
    room = context_length(answerer.loaded.model.config) or 10**9
    kept: list[str] = []
    ids: list[list[int]] = []
    for text in texts:
        if len(kept) == MOST_PROMPTS:
            break
        if any(spelling in text for spelling in answerer.renderer.guarded_spellings):
            continue  # serving would take its control tokens for real ones: not a question of the export
        try:
            fed = answerer.renderer.prompt_ids([Message("user", text)]).tolist()
        except UserError:  # the template wants other turns than one of a user
            continue
        if 0 < len(fed) <= room - ANSWER_TOKENS:
            kept.append(text)
            ids.append(fed)
    return kept, ids


def check(folder: Path, expected: Expected, answerer: Answerer, dtype: torch.dtype) -> RoundTrip:
    """Have a fresh process read the folder; compare all it says.

    Raises:
        UserError: it cannot be read, or it differs; the layer or the file is named.
    """
    check_files(folder, answerer, dtype)
    said, layers = _read_afresh(folder, expected, dtype, code=answerer.trusted is not None)
    _check_template(folder, said, expected)
    _check_stops(folder, said, expected)
    _check_tokens(folder, said, expected)
    _check_vocabulary(folder, said, expected)
    _check_head(folder, said, expected)
    difference = _check_layers(folder, layers, expected, answerer, dtype)
    _check_answers(folder, said, expected, TOLERANCES[dtype])
    pairs = list(zip(expected.answers, said["answers"], strict=True))
    return RoundTrip(
        difference=difference,
        prompts=len(pairs),
        same=sum(want == got for want, got in pairs),
        stopped=sum(bool(got) and got[-1] in expected.stops for _, got in pairs),
        bound=_bound(expected.layers["logits"], TOLERANCES[dtype]),
    )


def _read_afresh(
    folder: Path, expected: Expected, dtype: torch.dtype, *, code: bool
) -> tuple[Any, Mapping[str, torch.Tensor]]:
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory(prefix="tuition-gate-") as place:
        request, answer = Path(place) / "request.json", Path(place) / "answer.json"
        asked = {
            "folder": str(folder.resolve()), "dtype": str(dtype).removeprefix("torch."),
            "plain": expected.template is None, "day": expected.day, "texts": list(_TEXTS),
            "prompts": expected.prompts, "prompt_ids": expected.prompt_ids, "answers": expected.answers,
            "probe": expected.probe, "room": ANSWER_TOKENS, "code": code,
        }  # fmt: skip
        files.write_text(request, json.dumps(asked))
        failure = run_reader(request, answer)
        if failure is not None:
            refuse(folder, f"a fresh process cannot load what was written ({failure[:300]})")
        said = json.loads(answer.read_text(encoding="utf-8"))
        return said, load_file(str(answer) + ".safetensors")


def run_reader(request: Path, answer: Path) -> str | None:
    """Have a process that knows nothing of this one read the folder; its last words where it failed."""
    process = subprocess.run(
        [sys.executable, "-P", str(Path(reader.__file__)), str(request), str(answer)],
        capture_output=True, text=True, check=False, cwd=request.parent, env={**os.environ, **READER_SETTINGS},
    )  # fmt: skip
    if process.returncode == 0:
        return None
    return (process.stderr.strip().splitlines() or [f"exit {process.returncode}"])[-1]


def _check_template(folder: Path, said: Mapping[str, Any], expected: Expected) -> None:
    got = said["template"]
    learned = expected.template_sha256 or text_sha256(expected.template or "")
    if got is None and expected.template is None:
        return
    if got is None:
        refuse(folder / "chat_template.jinja", "the chat template that training used is missing")
    elif expected.template is None:
        refuse(folder / "chat_template.jinja", "there is a chat template, and training used plain text")
    elif text_sha256(got) != learned and got != expected.template:
        refuse(folder / "chat_template.jinja", "it is not the chat template that training used")
    elsewhere = folder / "tokenizer_config.json"
    if elsewhere.exists():
        second = json.loads(elsewhere.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(second, str) and second != got:
            refuse(elsewhere, "it holds another chat template than chat_template.jinja")


def _check_stops(folder: Path, said: Mapping[str, Any], expected: Expected) -> None:
    file, got = folder / "generation_config.json", set(said["stop_ids"])
    for stop, spelling in expected.stops.items():
        if stop not in got:
            refuse(
                file,
                f"the stop token {spelling} (id {stop}) that training taught is missing: it would not stop",
            )
    for stop in sorted(got - expected.stops.keys()):
        refuse(
            file, f"id {stop} is a stop token there, and it was none in training: answers would be cut short"
        )


def _check_tokens(folder: Path, said: Mapping[str, Any], expected: Expected) -> None:
    for text, want, got in zip(_TEXTS, expected.text_ids, said["text_ids"], strict=True):
        if want != got:
            refuse(folder / "tokenizer.json", f"it gives other token ids than training had, for {text!r}")
    for text, want, got in zip(expected.prompts, expected.prompt_ids, said["prompt_ids"], strict=True):
        # a tokenizer that ends every text with EOS does so here too; serving a plain prompt leaves it off
        same = got == want if expected.template is not None else got[: len(want)] == want
        if not same:
            refuse(
                folder / "chat_template.jinja",
                f"a prompt is written otherwise than in training: {text[:60]!r}",
            )


def _check_vocabulary(folder: Path, said: Mapping[str, Any], expected: Expected) -> None:
    if said["vocabulary"] != expected.vocabulary:
        refuse(folder / "tokenizer.json", "its tokens are not those that training had")


def _check_head(folder: Path, said: Mapping[str, Any], expected: Expected) -> None:
    if said["tied"] == expected.tied:
        return
    ours, theirs = ("tied to", "untied from") if expected.tied else ("untied from", "tied to")
    refuse(
        folder / "config.json",
        f"the head (lm_head) is {theirs} the embeddings, and in training it was {ours} them (tie_word_embeddings)",
    )


def _check_layers(
    folder: Path, got: Mapping[str, torch.Tensor], expected: Expected, answerer: Answerer, dtype: torch.dtype
) -> float:
    want, bound = expected.layers, TOLERANCES[dtype]
    if got["logits"].shape != want["logits"].shape:
        refuse(
            folder / "config.json",
            f"there are logits for {got['logits'].shape[-1]:,} tokens instead of {want['logits'].shape[-1]:,}",
        )
    difference = float((got["logits"] - want["logits"]).abs().max())
    if not _within(got["logits"], want["logits"], bound):
        differing = (
            name for name in sorted(want) if name not in got or not _within(got[name], want[name], bound)
        )
        cause = fault_in_weights(answerer.name, folder)
        refuse(
            folder,
            f"what was written answers differently from what was trained (a logit differs by {difference:.3g}; "
            f"the first difference is in {_layer_name(next(differing))}{f'; {cause}' if cause else ''})",
        )
    return difference


def _within(got: torch.Tensor, want: torch.Tensor, bound: float) -> bool:
    if got.shape != want.shape:
        return False
    return bool(float((got - want).abs().max()) <= _bound(want, bound))  # NaN compares false


def _bound(want: torch.Tensor, tolerance: float) -> float:
    return tolerance * max(1.0, float(want.abs().max()))


def _layer_name(name: str) -> str:
    if name == "logits":
        return "the head"
    return "the embeddings" if int(name) == 0 else f"layer {int(name) - 1}"


def _check_answers(folder: Path, said: Mapping[str, Any], expected: Expected, bound: float) -> None:
    for text, want, got, gap in zip(
        expected.prompts, expected.answers, said["answers"], said["gaps"], strict=True
    ):
        ended = bool(want) and want[-1] in expected.stops
        if want != got and not gap <= bound:
            how = (
                "does not stop where the trained model does" if ended and len(got) > len(want) else "differs"
            )
            refuse(folder, f"its greedy answer to {text[:60]!r} {how}")
