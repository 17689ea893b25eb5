"""Models that are talked to from the page: few stay loaded, and one answers at a time.

Torch is imported when the first model is asked, and not before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tuition import board
from tuition.conversation import Message
from tuition.errors import UserError
from tuition.evaluate.drawing import Drawing
from tuition.train.folder import RunFolder
from tuition.utf8 import encodable

if TYPE_CHECKING:
    from tuition.evaluate.load import Answerer

BASE_OF = "base of "  # "base of NAME": the model that the run NAME learned from
LONGEST_ANSWER = 2048
_MOST_TURNS = 200
_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system", "user": "user", "assistant": "assistant",
}  # fmt: skip


class Talk:
    """The models of one folder of runs.

    Args:
        runs: the folder; a model is called by the name of its run, or `base of NAME`.
        most: models that stay in memory.
    """

    def __init__(self, runs: Path, most: int = 2) -> None:
        self._runs, self._most = runs, most
        self._loaded: OrderedDict[tuple[str, float], Answerer] = OrderedDict()
        self._one_at_a_time = threading.Lock()  # held across threads, so no RLock

    def names(self) -> list[str]:
        """Every model that can be asked: the tuned ones, the newest run first."""
        return [line.name for line in board.list_runs(self._runs) if line.has_model]

    def answer(self, name: str, messages: Sequence[Mapping[str, str]], drawing: Drawing) -> Iterator[str]:
        """Pieces of the answer as they become certain. Whoever stops listening ends it.

        Raises:
            UserError: there is no such model, or the messages leave no room; before the first piece.
        """
        from tuition.evaluate.generate import room_for_answer
        from tuition.ship.decode import decode

        asked = read_messages(messages)
        with self._one_at_a_time:
            answerer = self._load(name)
            if answerer.renderer.template is None:  # a model of plain text knows no conversation
                asked = asked[-1:]
            prompt = answerer.renderer.prompt_ids(asked).tolist()
            room = room_for_answer(answerer.loaded.model, len(prompt), drawing.max_new_tokens)
            if room < 1:
                raise UserError(
                    "the conversation fills the model's context", where=name, next_step="Start a new one"
                )
            for piece in decode(answerer, prompt, replace(drawing, max_new_tokens=room)):
                if isinstance(piece, str):
                    yield piece

    def _load(self, name: str) -> Answerer:
        run = board.find_run(self._runs, name.removeprefix(BASE_OF))
        facts = RunFolder(run).facts
        if not facts.is_file():
            raise UserError("has no model yet", where=name, next_step="Wait until its run has ended")
        key = (name, facts.stat().st_mtime)  # a run that was resumed is another model
        if key not in self._loaded:
            tuned = self._load(run.name) if name.startswith(BASE_OF) else None
            while len(self._loaded) >= self._most:
                self._loaded.popitem(last=False)
            self._loaded[key] = _load_tuned(run) if tuned is None else _load_base(run, tuned)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def read_messages(messages: Sequence[Mapping[str, str]]) -> list[Message]:
    """The conversation so far; the last turn is the user's.

    Raises:
        UserError: it is none.
    """
    if not 1 <= len(messages) <= _MOST_TURNS or messages[-1].get("role") != "user":
        raise UserError("there is no question to answer", next_step="Write a message first")
    read = []
    for message in messages:
        role, content = _ROLES.get(str(message.get("role"))), message.get("content")
        if role is None or not isinstance(content, str):
            raise UserError("the conversation cannot be read", next_step="Start a new one")
        if not encodable(content):
            raise UserError("the message holds half a character", next_step="Write that character anew")
        read.append(Message(role, content))
    if not read[-1].content.strip():
        raise UserError("the message is empty", next_step="Write something first")
    return read


def _load_tuned(run: Path) -> Answerer:
    from tuition.evaluate.load import load_answerer

    return load_answerer(str(run))


def _load_base(run: Path, tuned: Answerer) -> Answerer:
    """The model before training, asked through the template of the tuned one."""
    from tuition.evaluate.load import base_named_by, load_answerer

    named = base_named_by(str(run))
    if named is None:
        raise UserError(
            "nothing says which model this run came from", where=str(run), next_step="Choose another"
        )
    return load_answerer(named[0], revision=named[1], template=tuned.renderer.template)
