"""Metrics of a model's own answers while it learns: the same held-out prompts, asked again and again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuition.conversation import Conversation
from tuition.errors import UserError
from tuition.evaluate.generate import Question, batches_of, generate_within, question_of
from tuition.evaluate.measures import Metric, find_metrics
from tuition.evaluate.testset import reads_rows, rows_of
from tuition.render import Renderer
from tuition.train.model import LoadedModel

_BATCH = 64
_TOKENS_TIMED = 8


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """What is asked, how it is scored, and how long an answer may be.

    Attributes:
        rows: each question's row as it stands in its file, for metrics that read it.
    """

    questions: Sequence[Question]
    rows: Sequence[Mapping[str, Any]]
    metrics: Sequence[Metric]
    max_new_tokens: int

    def scores(
        self, loaded: LoadedModel, renderer: Renderer, go_on: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Each metric by name: the mean over the prompts, or the score of all answers where that is not the mean.

        Where many ranks hold the model, all of them call this.

        Args:
            go_on: called before each token; what it raises ends the answering.
        """
        written = generate_within(
            loaded,
            renderer,
            [(q.messages, q.conversation.tools) for q in self.questions],
            max_new_tokens=self.max_new_tokens,
            batch_size=_BATCH,
            go_on=go_on,
        )
        answers = [given.text for given in written]
        return {metric.name: self._score(metric, answers) for metric in self.metrics}

    def _score(self, metric: Metric, answers: Sequence[str]) -> float:
        expected = [question.expected for question in self.questions]
        if metric.corpus is not None:
            return metric.corpus(answers, expected)
        values = [metric.measure(*each) for each in zip(answers, expected, self.rows, strict=True)]
        return sum(values) / len(values)

    def most_seconds(self, loaded: LoadedModel, renderer: Renderer) -> float:
        """How long the answers take if none ends early, from the first tokens of the longest batch of prompts."""
        prompts = [(q.messages, q.conversation.tools) for q in self.questions]
        ids = [renderer.prompt_ids(messages, tools).tolist() for messages, tools in prompts]
        batches = list(batches_of(ids, _BATCH))
        tried = [prompts[i] for i in max(batches, key=len)]
        started = time.perf_counter()
        generate_within(loaded, renderer, tried, max_new_tokens=_TOKENS_TIMED, batch_size=_BATCH)
        at_once = 1 if loaded.ranks.sharded else loaded.ranks.world
        turns = math.ceil(len(batches) / at_once)
        return (time.perf_counter() - started) / _TOKENS_TIMED * self.max_new_tokens * turns


def make_scorer(
    conversations: Sequence[Conversation],
    sources: Sequence[str],
    names: Sequence[str],
    *,
    most: int,
    max_new_tokens: int,
) -> AnswerScorer:
    """The scorer of these metrics on the first `most` conversations that have a prompt and an answer.

    Args:
        sources: where the rows of the conversations stand.

    Raises:
        UserError: a metric is unknown or does not score written answers, or nothing can be asked.
    """
    metrics = find_metrics(names)
    chosen = next((metric.name for metric in metrics if metric.choice is not None), None)
    if chosen is not None:
        raise UserError(
            f"'{chosen}' scores no written answers",
            where="eval_metrics",
            next_step=f"Measure it after the run: tuition evaluate RUN --data FILE --metric {chosen}",
        )
    questions = [q for q in map(question_of, conversations) if q is not None][:most]
    if not questions:
        raise UserError(
            "no held-out row has a prompt and an answer",
            where="eval_metrics",
            next_step="Raise val_split, or name rows with prompts in val_data",
        )
    rows = rows_of(sources, questions) if reads_rows(metrics) else [{}] * len(questions)
    return AnswerScorer(questions, rows, metrics, max_new_tokens)
