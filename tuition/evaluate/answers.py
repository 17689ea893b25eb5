"""Answers on disk as they come, so that an interrupted evaluation goes on where it stopped.

A file holds the answers of one model under one setting; its first line says which. A line is an answer, known
by the SHA-256 of its prompt's token ids, so a prompt that comes again needs no second answer.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tuition.conversation import Message
from tuition.evaluate.generate import Generated, generate
from tuition.evaluate.kept import Kept, kept_under
from tuition.evaluate.load import Answerer
from tuition.train.model import LoadedModel, base_of

Prompt = tuple[Sequence[Message], Sequence[Any]]
_BATCH = 64


def answer_all(
    answerer: Answerer,
    prompts: Sequence[Prompt],
    folder: Path | None,
    *,
    max_new_tokens: int,
    identity: dict[str, Any] | None = None,
    on_answer: Callable[[int], None] = lambda done: None,
) -> list[Generated]:
    """The answer to each prompt, in order; those that stand in `folder` already are not asked again.

    Args:
        prompts: messages and tools of each.
        folder: where answers are kept; None: nowhere.
        identity: of the model, as `identity_of` finds it; None: it is found here.
        on_answer: told how many are answered so far.
    """
    keys = [_key(answerer, prompt) for prompt in prompts]
    book = answer_book(folder, _settings(answerer, identity or identity_of(answerer.loaded), max_new_tokens))
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in book.found}
    names, askers = list(missing), Counter(keys)
    answered = sum(key in book.found for key in keys)
    on_answer(answered)

    def keep(place: int, given: Generated) -> None:
        nonlocal answered
        row = {"prompt": names[place], "text": given.text, "tokens": given.tokens, "stopped": given.stopped}
        book.add(names[place], given, row)
        answered += askers[names[place]]

    generate(
        answerer.loaded.model,
        answerer.renderer,
        list(missing.values()),
        max_new_tokens=max_new_tokens,
        batch_size=_BATCH,
        on_generated=keep,
        on_answer=lambda _: on_answer(answered),
    )
    return [book.found[key] for key in keys]


def answer_book(folder: Path | None, settings: dict[str, Any]) -> Kept[Generated]:
    """The answers of one model under one setting.

    Args:
        folder: where their file stands; None: in memory only.
        settings: what the answers depend on beside the prompt.
    """
    return kept_under(folder, settings, _read)


def _read(row: Any) -> tuple[str, Generated]:
    return str(row["prompt"]), Generated(str(row["text"]), int(row["tokens"]), bool(row["stopped"]))


def _key(answerer: Answerer, prompt: Prompt) -> str:
    return hashlib.sha256(answerer.renderer.prompt_ids(*prompt).tobytes()).hexdigest()


def _settings(answerer: Answerer, identity: dict[str, Any], max_new_tokens: int) -> dict[str, Any]:
    return {
        **identity,
        "stop_ids": sorted(answerer.renderer.stop_ids),
        "max_new_tokens": max_new_tokens,
        "decoding": "greedy",
    }


def identity_of(loaded: LoadedModel) -> dict[str, Any]:
    """What all that is found of a model depends on: its weights, and where and in what precision it computes."""
    return {
        "weights": weights_digest(loaded.model),
        "dtype": str(loaded.dtype),
        "device": loaded.device.type,
    }


def weights_digest(model: Any) -> str:
    """A digest of all weights, buffers and the configuration: sums over their bits, at the speed of reading them."""
    base = base_of(model)
    digest = hashlib.sha256(json.dumps(base.config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_sums(tensor.detach()))
    return digest.hexdigest()


def _sums(tensor: torch.Tensor) -> bytes:
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = tensor.contiguous().reshape(-1).view(widths[tensor.element_size()])
    total = by_place = 0
    for number, piece in enumerate(bits.split(1 << 22), 1):
        wide = piece.to(torch.int64)
        total += int(wide.sum())
        # so that exchanged rows are seen; what overflows wraps around
        by_place += number * int((wide * torch.arange(1, len(wide) + 1, device=wide.device)).sum())
    return f"{total} {by_place};".encode()
