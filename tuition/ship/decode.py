"""One answer, token by token: greedy as `evaluate.generate` answers, or drawn by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tuition.evaluate.drawing import LEAST_TEMPERATURE, Drawing
from tuition.evaluate.load import Answerer
from tuition.train.model import base_of


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended: by itself (or at a stop text), or at the limit; and its tokens."""

    reason: Literal["stop", "length"]
    tokens: int


def decode(
    answerer: Answerer,
    prompt: Sequence[int],
    drawing: Drawing,
    cancelled: Callable[[], bool] = lambda: False,
    stop: Sequence[str] = (),
) -> Iterator[str | End]:
    """Pieces of the answer's text as they become certain, then its end.

    A piece is certain when no later token can change it: not in the midst of a character, and not where a
    stop text may have begun.

    Args:
        drawing: of one answer.
        stop: texts that end the answer; they are not part of it.
    """
    renderer = answerer.renderer
    ids: list[int] = []
    sent, reason = 0, "length"
    hold = max(map(len, stop), default=1) - 1
    for token in _tokens(answerer.loaded.model, prompt, drawing):
        if token in renderer.stop_ids or cancelled():
            reason = "stop"
            break
        ids.append(token)
        text = renderer.answer_text(ids)
        if (end := _first_stop(text, stop)) is not None:
            yield text[sent:end]
            yield End("stop", len(ids))
            return
        certain = _certain(answerer, ids, text) - hold
        if certain > sent:
            yield text[sent:certain]
            sent = certain
    text = renderer.answer_text(ids)
    if len(text) > sent:
        yield text[sent:]
    yield End("stop" if reason == "stop" else "length", len(ids))


def _certain(answerer: Answerer, ids: Sequence[int], text: str) -> int:
    """How many characters of the text no later token can change."""
    prefix = answerer.renderer.answer_prefix
    if prefix and len(text) < len(prefix) and prefix.startswith(text):
        return 0
    return len(text.rstrip("\ufffd"))


def _first_stop(text: str, stops: Sequence[str]) -> int | None:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return min(places, default=None)


def _tokens(model: Any, prompt: Sequence[int], drawing: Drawing) -> Iterator[int]:
    generator = torch.Generator().manual_seed(drawing.seed) if drawing.seed is not None else torch.Generator()
    if drawing.seed is None:
        generator.seed()
    last_only = getattr(base_of(model), "_supports_logits_to_keep", lambda: False)()
    given: dict[str, Any] = {"logits_to_keep": 1} if last_only else {}
    ids, past = torch.tensor([list(prompt)], device=model.device), None
    for _ in range(drawing.max_new_tokens):
        with torch.inference_mode():
            output = model(input_ids=ids, past_key_values=past, use_cache=True, **given)
        past = output.past_key_values
        token = _draw(output.logits[0, -1].float().cpu(), drawing, generator)
        yield token
        ids = torch.tensor([[token]], device=model.device)


def _draw(logits: torch.Tensor, drawing: Drawing, generator: torch.Generator) -> int:
    if drawing.temperature < LEAST_TEMPERATURE:
        return int(logits.argmax())
    chances, order = torch.softmax(logits / drawing.temperature, -1).sort(descending=True)
    before = chances.cumsum(-1) - chances
    chances = chances.masked_fill(before >= drawing.top_p, 0.0)  # the first token is always kept
    if float(chances.sum()) == 0:
        return int(order[0])
    return int(order[torch.multinomial(chances, 1, generator=generator)])
