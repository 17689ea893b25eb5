"""Two models before people: both answer the same prompts, and the pairs are put blind before those who judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuition import starter
from tuition.collect import Store, batches, prompts
from tuition.collecting import import_prompts, new_prompt
from tuition.data import find_sources
from tuition.data.asked import read_asked
from tuition.errors import Finding, UserError
from tuition.evaluate.drawing import Drawing

if TYPE_CHECKING:
    from tuition.evaluate.generate import Generated

MOST_SAMPLES = 64
_BATCH = 32
_MOST_LIKELY = Drawing()


def compare(
    store: Store,
    a: str,
    b: str,
    *,
    data: Sequence[str] = (),
    name: str = "",
    limit: int | None = None,
    overlap: int = 1,
    drawing: Drawing = _MOST_LIKELY,
    device: str = "auto",
    by: int | None = None,
    on_answer: Callable[[str, int, int], None] = lambda model, done, total: None,
) -> batches.Batch:
    """Let two models answer the same prompts, and put the pairs before the people who judge.

    Args:
        data: files of prompts, taken into the store too; none: the store's own queue, the most urgent first.
        limit: only the first so many.
        on_answer: told the model, answers so far and in all.

    Raises:
        UserError: no prompt, a model that cannot be loaded, or several samples that would all be the same.
    """
    _check(drawing)
    ids = _prompts_to_compare(store, data, by)[:limit]
    if not ids:
        raise UserError("there is no prompt to compare on", next_step="Name a file: --prompts FILE")
    asked = [prompts.prompt(store, prompt_id) for prompt_id in ids]
    answers, cut = {}, {}
    for side, model in (("a", a), ("b", b)):
        given = _answers(model, asked, drawing, device, on_answer)
        answers[side] = [[one.text for one in of_prompt] for of_prompt in given]
        cut[f"cut_{side}"] = sum(not one.stopped for of_prompt in given for one in of_prompt)
    pairs = [
        batches.NewPair(prompt_id, *texts, sample=sample)
        for prompt_id, of_a, of_b in zip(ids, answers["a"], answers["b"], strict=True)
        for sample, texts in enumerate(zip(of_a, of_b, strict=True))
    ]
    decoding = {"decoding": "sampled", **asdict(drawing)} if drawing.temperature else {
        "decoding": "greedy", "max_new_tokens": drawing.max_new_tokens
    }  # fmt: skip
    return batches.open_batch(
        store, name=name or f"{_short(a)} and {_short(b)}", model_a=a, model_b=b, pairs=pairs,
        sampling={**decoding, **cut}, overlap=overlap, by=by,
    )  # fmt: skip


def _check(drawing: Drawing) -> None:
    if not 1 <= drawing.samples <= MOST_SAMPLES:
        raise UserError(
            f"{drawing.samples} samples are not 1 to {MOST_SAMPLES}", next_step="Choose another number"
        )
    if drawing.samples > 1 and not drawing.temperature:
        raise UserError(
            "several answers to one prompt would all be the same",
            next_step="Give a temperature too, such as --temperature 1",
        )


def _prompts_to_compare(store: Store, data: Sequence[str], by: int | None) -> list[int]:
    if not data:
        return list(prompts.each(store))
    ids = []
    for file in find_sources(data).train:
        import_prompts(store, [file], source=Path(file).name, per_user=0, by=by)  # all of them are compared
        for asked in read_asked([file]):
            new = None if isinstance(asked, Finding) else new_prompt(asked)
            if isinstance(new, prompts.NewPrompt):
                ids.append(prompts.prompt_of(store, new.messages, new.tools))
    return list(dict.fromkeys(found for found in ids if found is not None))


def _answers(
    model: str,
    asked: Sequence[prompts.Prompt],
    drawing: Drawing,
    device: str,
    on_answer: Callable[[str, int, int], None],
) -> list[list[Generated]]:
    """A model's answers to each prompt: one found greedily, or several drawn."""
    from tuition.evaluate.generate import draw, generate
    from tuition.evaluate.load import load_answerer

    answerer = load_answerer(starter.model_path(model), device=device)
    network, renderer = answerer.loaded.model, answerer.renderer
    questions = [(prompt.messages, prompt.tools) for prompt in asked]
    if not drawing.temperature:
        given = generate(
            network, renderer, questions, max_new_tokens=drawing.max_new_tokens, batch_size=_BATCH,
            on_answer=lambda done: on_answer(model, done, len(asked)),
        )  # fmt: skip
        return [[one] for one in given]
    drawn = []
    for number, question in enumerate(questions):
        of_this = replace(drawing, seed=(drawing.seed or 0) + number)
        drawn.append(draw(network, renderer, question, of_this))
        on_answer(model, number + 1, len(asked))
    return drawn


def _short(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1]
