"""Prompts to be answered, from any shape of row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuition.data.asked import read_asked
from tuition.errors import Finding
from tuition.evaluate.generate import Question


def read_prompts(sources: Sequence[str]) -> Iterator[Question | Finding]:
    """Each row as a question, or the finding that says why it is none."""
    for asked in read_asked(sources):
        yield (
            asked
            if isinstance(asked, Finding)
            else Question(asked.messages, asked.expected, asked.conversation)
        )
