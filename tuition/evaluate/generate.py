"""Answers by plain greedy decoding, or drawn by a seed, stopped by the token that training taught.

Prompts of the same length share a batch, so that there is no padding and a batch answers as one prompt
alone would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from tuition.conversation import Conversation, Message
from tuition.errors import UserError, one_line
from tuition.evaluate.drawing import LEAST_TEMPERATURE, Drawing
from tuition.render import Renderer
from tuition.train.distributed import ALONE, Ranks
from tuition.train.loss import within
from tuition.train.model import (
    LoadedModel,
    attention_of,
    base_of,
    context_length,
    evaluating,
    ordinary_attention,
)

Prompts = Sequence[tuple[Sequence[Message], Sequence[Any]]]  # messages and tools of each


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer. `stopped` is True when the model ended it by itself, within the limit.

    A prompt that leaves no room in the model's context has an empty answer that did not stop.
    """

    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the answer expected: a conversation cut before its last assistant turn."""

    messages: tuple[Message, ...]
    expected: str
    conversation: Conversation

    @property
    def prompt(self) -> str:
        """The prompt as one text, for people to read."""
        if len(self.messages) == 1:
            return self.messages[0].content
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)


def question_of(conversation: Conversation) -> Question | None:
    """The question in a conversation; None where there is no prompt before the last answer."""
    answers = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
    if not answers or answers[-1] == 0:
        return None
    context, answer = conversation.messages[: answers[-1]], conversation.messages[answers[-1]]
    return Question(context, answer.content, conversation)


def generate(
    model: Any,
    renderer: Renderer,
    prompts: Prompts,
    *,
    max_new_tokens: int,
    batch_size: int,
    on_answer: Callable[[int], None] = lambda done: None,
    on_generated: Callable[[int, Generated], None] = lambda place, given: None,
    go_on: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> list[Generated]:
    """Answer each prompt greedily, the shortest first.

    Args:
        ranks: share the prompts out, batch by batch; each of them holds the whole model and calls this.
        on_generated: given each answer as it comes, with the place of its prompt.
        on_answer: told how many are answered so far.
        go_on: called before each token; what it raises ends the answering.

    Returns:
        one answer a prompt, in the order given.
    """
    ids = [renderer.prompt_ids(messages, tools).tolist() for messages, tools in prompts]
    answers: dict[int, Generated] = {}
    with evaluating(model), attention_of(model, ordinary_attention(model)):
        for group in list(batches_of(ids, batch_size))[ranks.rank :: ranks.world]:
            batch = torch.tensor([ids[i] for i in group], device=model.device)
            room = room_for_answer(model, batch.shape[1], max_new_tokens)
            if room < 1:
                given = [Generated("", 0, stopped=False)] * len(group)
            else:
                rows = _decode(model, batch, renderer.stop_ids, room, go_on)
                given = [_as_answer(row, renderer) for row in rows]
            for i, answer in zip(group, given, strict=True):
                answers[i] = answer
                on_generated(i, answer)
            on_answer(len(answers))
    everyone = {place: answer for some in ranks.all_of(answers) for place, answer in some.items()}
    return [everyone[i] for i in range(len(prompts))]


def generate_within(loaded: LoadedModel, renderer: Renderer, prompts: Prompts, **how: Any) -> list[Generated]:
    """See `generate`; of a model that many ranks hold: all of them call this, and all have all answers.

    Where each holds the whole, each answers some prompts; where each holds a part, all answer all of them in step.
    """
    ranks = ALONE if loaded.ranks.sharded else loaded.ranks
    with evaluating(loaded.model):
        return within(loaded, lambda inside: generate(inside.model, renderer, prompts, ranks=ranks, **how))


def batches_of(ids: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Places of the prompts that are answered together: those of one length, the shortest first."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for position, row in enumerate(ids):
        by_length[len(row)].append(position)
    for length in sorted(by_length):
        group = by_length[length]
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def room_for_answer(model: Any, prompt_tokens: int, wanted: int) -> int:
    """How many tokens an answer may have; below 1 where the prompt is empty or fills the context."""
    context = context_length(model.config)
    if prompt_tokens == 0:
        return 0
    return wanted if context is None else min(wanted, context - prompt_tokens)


def draw(
    model: Any,
    renderer: Renderer,
    prompt: tuple[Sequence[Message], Sequence[Any]],
    drawing: Drawing,
) -> list[Generated]:
    """Answers to one prompt, drawn from all tokens; the same seed draws the same answers.

    Args:
        prompt: messages and tools.
        drawing: with a temperature above 0, and no text that ends an answer.
    """
    ids = renderer.prompt_ids(*prompt).tolist()
    room = room_for_answer(model, len(ids), drawing.max_new_tokens)
    if room < 1:
        return [Generated("", 0, stopped=False)] * drawing.samples
    batch = torch.tensor([ids] * drawing.samples, device=model.device)
    temperature = max(drawing.temperature, LEAST_TEMPERATURE)
    how = {"do_sample": True, "temperature": temperature, "top_p": drawing.top_p, "top_k": 0}
    devices = [model.device] if model.device.type == "cuda" else []
    with evaluating(model), attention_of(model, ordinary_attention(model)), torch.random.fork_rng(devices):
        torch.seed() if drawing.seed is None else torch.manual_seed(drawing.seed)
        rows = _decode(model, batch, renderer.stop_ids, room, go_on=lambda: None, **how)
    return [_as_answer(row, renderer) for row in rows]


def _decode(
    model: Any, batch: torch.Tensor, stop_ids: Sequence[int], room: int, go_on: Callable[[], None], **how: Any
) -> list[list[int]]:
    """The ids that follow each prompt, found greedily unless `how` says otherwise."""
    from transformers import GenerationConfig

    stops = list(stop_ids) or None
    plain = GenerationConfig(
        max_new_tokens=room, eos_token_id=stops, pad_token_id=stops[0] if stops else 0,
        **{"do_sample": False, **how},
    )  # fmt: skip
    shipped = base_of(model).generation_config
    # transformers fills what is left unset from the model's own file: penalties, banned tokens, sampling
    base_of(model).generation_config = GenerationConfig()
    try:
        output = model.generate(
            input_ids=batch,
            attention_mask=torch.ones_like(batch),
            generation_config=plain,
            stopping_criteria=[partial(_ask, go_on)],
        )
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise UserError(
            f"transformers cannot answer with {type(base_of(model)).__name__} ({one_line(error)})",
            where="model",
            next_step="Try another version of transformers, or another model",
        ) from error
    finally:
        base_of(model).generation_config = shipped
    return [row[batch.shape[1] :] for row in output.tolist()]


def _ask(go_on: Callable[[], None], ids: torch.Tensor, scores: Any, **rest: Any) -> torch.Tensor:
    """Between two tokens: `go_on` may end the answering; no answer ends here."""
    go_on()
    return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def _as_answer(row: Sequence[int], renderer: Renderer) -> Generated:
    """Cut a generated row at its stop token; what follows is the batch's filling."""
    end = next((i for i, token in enumerate(row) if token in renderer.stop_ids), None)
    spoken = row if end is None else row[:end]
    return Generated(renderer.answer_text(spoken), len(spoken), end is not None)
