"""Base and tuned side by side: the same question to both, the answers as they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from tuition import api
from tuition.errors import UserError
from tuition.studio.web import Here, here, render, talk_of

router = APIRouter(prefix="/chat")
Model = Annotated[str, Form(max_length=200)]
History = Annotated[str, Form(max_length=1_000_000)]
Text = Annotated[str, Form(max_length=100_000)]
Tokens = Annotated[int, Form(ge=1, le=api.talk.LONGEST_ANSWER)]
Temperature = Annotated[float, Form(ge=0, le=5, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models, and the conversation with it so far."""

    key: str
    label: str
    model: str
    messages: list[dict[str, str]]

    @property
    def history(self) -> str:
        """The conversation as the form carries it."""
        return json.dumps(self.messages, ensure_ascii=False)


@router.get("")
def show(
    request: Request,
    studio: Here,
    tuned: Annotated[str, Query(max_length=200)] = "",
    base: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """An empty conversation with two models."""
    names = talk_of(request).names()
    unknown = [name for name in (tuned, base) if name and name.removeprefix(api.talk.BASE_OF) not in names]
    if unknown:
        raise api.NotFoundError(
            f"{unknown[0][:100]} has no model to talk to", next_step="Wait until its run has ended"
        )
    tuned = tuned or (names[0] if names else "")
    sides = [_side("base", base or api.talk.BASE_OF + tuned, []), _side("tuned", tuned, [])]
    return _page(request, sides)


@router.post("")
def ask(
    request: Request,
    tuned: Model,
    base: Model,
    text: Text = "",
    history_tuned: History = "[]",
    history_base: History = "[]",
    tokens: Tokens = 256,
    temperature: Temperature = 0.0,
) -> Response:
    """Both answers at once, for browsers without scripts."""
    sides = []
    for key, model, history in (("base", base, history_base), ("tuned", tuned, history_tuned)):
        messages = [*_read(history), {"role": "user", "content": text}]
        pieces = talk_of(request).answer(model, messages, api.Drawing(tokens, temperature, seed=None))
        sides.append(_side(key, model, [*messages, {"role": "assistant", "content": "".join(pieces)}]))
    return _page(request, sides, tokens=tokens, temperature=temperature)


@router.post("/answer")
def answer(
    request: Request, model: Model, history: History, tokens: Tokens = 256, temperature: Temperature = 0.0
) -> Response:
    """One model's answer to the last message, piece by piece."""
    pieces = talk_of(request).answer(model, _read(history), api.Drawing(tokens, temperature, seed=None))
    try:
        first = next(pieces, "")  # what is refused is refused before the answer begins
    except UserError as error:
        return PlainTextResponse(str(error), 422)
    return StreamingResponse(_from(first, pieces), media_type="text/plain; charset=utf-8")


def _from(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _read(history: str) -> list[dict[str, str]]:
    """The conversation that the form carries; what is in it, `Talk` checks."""
    try:
        messages = json.loads(history)
    except (ValueError, RecursionError):
        messages = None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise UserError("the conversation cannot be read", next_step="Start a new one")
    return messages


def _side(key: str, model: str, messages: list[dict[str, str]]) -> Side:
    return Side(key, "Base" if model.startswith(api.talk.BASE_OF) else "Tuned", model, messages)


def _page(request: Request, sides: list[Side], **values: Any) -> Response:
    names, runs = talk_of(request).names(), here(request).runs
    bases = {api.talk.BASE_OF + name: api.board.run_line(runs / name).base for name in names}
    labels = {base: f"{model} ({base})" for base, model in bases.items() if model}
    return render(
        request, "chat.html", names=names, bases=list(bases), labels=labels, sides=sides,
        longest=api.talk.LONGEST_ANSWER, **{"tokens": 256, "temperature": 0.0, **values},
    )  # fmt: skip
