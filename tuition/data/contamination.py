"""Overlap of training rows with what the model is judged by: validation files and benchmarks.

Two texts overlap where they share a run of 13 words (GPT-3, appendix C); texts of the evaluation below 13
words are looked for by runs of 8. A question overlaps where all its words are equal. The evaluation is held in
memory, at 16 bytes a word; training rows pass through one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from tuition.conversation import Conversation
from tuition.data.catalogue import finding, quote
from tuition.data.shingles import Numbers, codes_of, runs_of, words_of
from tuition.data.turns import spoken
from tuition.errors import Finding, Origin

_RUN_WORDS = 13
_SHORT_RUN_WORDS = 8
_LEAST_QUESTION_WORDS = 3  # `Hi` and `Go on` are everybody's
_BOILERPLATE_ROWS = 10  # a run in more rows of the evaluation is its instruction, not its content


def overlap(train: Iterable[Conversation], others: Iterable[Conversation]) -> Iterator[Finding]:
    """D038 for each training conversation that shares a question or a run of words with one of `others`.

    Args:
        train: the training data; the findings are about its rows.
        others: validation data or a benchmark, read into conversations.
    """
    evaluation = _Evaluation(others)
    for conversation in train:
        if message := evaluation.shares(conversation):
            yield finding("D038", conversation.origin, message)


class _Evaluation:
    """The questions and runs of words of the evaluation, to be looked up."""

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        self._origins: list[Origin] = []
        self._questions: dict[int, int] = {}  # number of all words → row
        self._sizes: set[int] = set()
        runs: list[Numbers] = []
        rows: list[npt.NDArray[np.uint32]] = []
        for row, conversation in enumerate(conversations):
            self._origins.append(conversation.origin)
            if question := _question(conversation):
                self._questions.setdefault(question, row)
            texts = [codes_of(words_of(text)) for text in spoken(conversation)]
            found = np.unique(np.concatenate([_looked_for(codes) for codes in texts] or [_NONE]))
            self._sizes |= {_run_words(codes) for codes in texts if len(codes) >= _SHORT_RUN_WORDS}
            runs.append(found)
            rows.append(np.full(len(found), row, np.uint32))
        self._runs, self._rows = _without_boilerplate(
            np.concatenate(runs or [_NONE]), np.concatenate(rows or [_NONE.astype(np.uint32)])
        )

    def shares(self, conversation: Conversation) -> str:
        """What the conversation shares with the evaluation, in words; empty if nothing."""
        question = _question(conversation)
        if question in self._questions:
            return f"the question stands word for word at {self._origins[self._questions[question]]}"
        for text in spoken(conversation):
            words = words_of(text)
            codes = codes_of(words)
            for size in sorted(self._sizes, reverse=True):
                if found := self._longest(codes, size):
                    start, length, row = found
                    shown = quote(" ".join(words[start : start + length]))
                    return f"{length} words in a row stand at {self._origins[row]} too: {shown}"
        return ""

    def _longest(self, codes: Numbers, size: int) -> tuple[int, int, int] | None:
        """The longest stretch of shared runs: first word, words, and the row of the evaluation."""
        runs = runs_of(codes, size)
        if not len(runs) or not len(self._runs):
            return None
        places = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        shared = self._runs[places] == runs
        if not shared.any():
            return None
        ends = np.flatnonzero(np.diff(np.concatenate(([False], shared, [False])).astype(np.int8)))
        starts, lengths = ends[::2], ends[1::2] - ends[::2]
        longest = int(lengths.argmax())
        start = int(starts[longest])
        return start, int(lengths[longest]) + size - 1, int(self._rows[places[start]])


_NONE = np.empty(0, np.uint64)


def _question(conversation: Conversation) -> int:
    """A number for the words of the first user turn; 0 if they are too few to tell questions apart."""
    asked = next((message.content for message in conversation.messages if message.role == "user"), "")
    codes = codes_of(words_of(asked))
    return hash(codes.tobytes()) if len(codes) >= _LEAST_QUESTION_WORDS else 0


def _looked_for(codes: Numbers) -> Numbers:
    return runs_of(codes, _run_words(codes))


def _run_words(codes: Numbers) -> int:
    return _RUN_WORDS if len(codes) >= _RUN_WORDS else _SHORT_RUN_WORDS


def _without_boilerplate(
    runs: Numbers, rows: npt.NDArray[np.uint32]
) -> tuple[Numbers, npt.NDArray[np.uint32]]:
    """Each run once, in order, with the first row that has it; those that many rows have are dropped."""
    distinct, firsts, counts = np.unique(runs, return_index=True, return_counts=True)
    content = counts <= _BOILERPLATE_ROWS
    return distinct[content], rows[firsts[content]]
