"""Answers on disk as they come, so that an interrupted evaluation goes on where it stopped.

A file holds the answers of one model under one setting; its first line says which. A line is an answer, known
by the SHA-256 of its prompt's token ids, so a prompt that comes again needs no second answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tuition import files
from tuition.conversation import Message
from tuition.evaluate.generate import Generated, generate
from tuition.evaluate.load import Answerer
from tuition.foreign import lines_of
from tuition.train.model import base_of

Prompt = tuple[Sequence[Message], Sequence[Any]]
_BATCH = 64


def answer_all(
    answerer: Answerer,
    prompts: Sequence[Prompt],
    folder: Path | None,
    *,
    max_new_tokens: int,
    on_answer: Callable[[int], None] = lambda done: None,
) -> list[Generated]:
    """The answer to each prompt, in order; those that stand in `folder` already are not asked again.

    Args:
        prompts: messages and tools of each.
        folder: where answers are kept; None: nowhere.
        on_answer: told how many are answered so far.
    """
    keys = [_key(answerer, prompt) for prompt in prompts]
    book = AnswerBook(folder, _settings(answerer, max_new_tokens))
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in book.answers}
    names = list(missing)
    on_answer(sum(key in book.answers for key in keys))

    def keep(place: int, given: Generated) -> None:
        book.add(names[place], given)

    generate(
        answerer.loaded.model,
        answerer.renderer,
        list(missing.values()),
        max_new_tokens=max_new_tokens,
        batch_size=_BATCH,
        on_generated=keep,
        on_answer=lambda _: on_answer(sum(key in book.answers for key in keys)),
    )
    return [book.answers[key] for key in keys]


class AnswerBook:
    """The answers of one model under one setting.

    Args:
        folder: where its file stands; None: in memory only.
        settings: what the answers depend on beside the prompt.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self.answers: dict[str, Generated] = {}
        fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.path = None if folder is None else folder / f"{fingerprint[:16]}.jsonl"
        if self.path is None:
            return
        files.make_folder(self.path.parent)
        if not self.path.exists():
            files.append_line(self.path, json.dumps({"fingerprint": fingerprint, **settings}))
        self._recall(self.path)

    def add(self, key: str, given: Generated) -> None:
        """Keep one answer, on disk before anything else happens."""
        self.answers[key] = given
        if self.path is not None:
            row = {"prompt": key, "text": given.text, "tokens": given.tokens, "stopped": given.stopped}
            files.append_line(self.path, json.dumps(row))

    def _recall(self, path: Path) -> None:
        lines = list(lines_of(path))
        if lines and not lines[-1].endswith(
            b"\n"
        ):  # the machine stopped within a line: that prompt is answered again
            files.append_line(path, "")
        for line in lines:
            try:
                row = json.loads(line)
                given = Generated(str(row["text"]), int(row["tokens"]), bool(row["stopped"]))
                self.answers[str(row["prompt"])] = given
            except (
                ValueError,
                LookupError,
                TypeError,
                OverflowError,
                RecursionError,
            ):  # the head, or a torn line
                continue


def _key(answerer: Answerer, prompt: Prompt) -> str:
    return hashlib.sha256(answerer.renderer.prompt_ids(*prompt).tobytes()).hexdigest()


def _settings(answerer: Answerer, max_new_tokens: int) -> dict[str, Any]:
    return {
        "weights": weights_digest(answerer.loaded.model),
        "dtype": str(answerer.loaded.dtype),
        "device": answerer.loaded.device.type,
        "stop_ids": sorted(answerer.renderer.stop_ids),
        "max_new_tokens": max_new_tokens,
        "decoding": "greedy",
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
    total = squares = 0
    for start, piece in enumerate(bits.split(1 << 22)):
        wide = piece.to(torch.int64)
        total += int(wide.sum())
        # by place, so that exchanged rows are seen; what overflows wraps around
        squares += (start + 1) * int((wide * torch.arange(1, len(wide) + 1, device=wide.device)).sum())
    return f"{total} {squares};".encode()
