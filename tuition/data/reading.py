"""Reading: from sources to conversations, one at a time, with every row in the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuition.conversation import Conversation
from tuition.data.catalogue import RowError, finding, quote, refused
from tuition.data.checks import CHECKS, ROW_CHECKS, final_answer
from tuition.data.exports import joined_trees
from tuition.data.formats import CONTENT_KEYS, FORMATS, Format, detect, no_shape
from tuition.data.jsontext import MAX_DEPTH, Row, row_from_value
from tuition.data.ledger import Ledger
from tuition.data.sources import read_rows
from tuition.errors import Finding, Origin

PYTHON = "<python>"


class Reading:
    """The conversations of some sources, in order; may be iterated more than once.

    Each conversation that is yielded waits in `ledger` for the caller's verdict: `ledger.keep` or
    `ledger.reject`, with the conversation's origin. Rows that are refused here are rejected here. Every
    pass begins a new ledger; `ledger` is that of the latest pass. Memory does not grow with the files,
    but for the ledger and a number for each row by which copies are known.

    Attributes:
        ledger: what became of the rows of the latest pass.
        shapes: the shapes that were found, by source, such as `messages (OpenAI chat)`.
    """

    def __init__(
        self,
        sources: Sequence[str] = (),
        *,
        rows: Iterable[Any] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """
        Args:
            sources: files and hub names as `find_sources` gives them.
            rows: rows from Python: (prompt, completion) pairs, lists of messages, or dictionaries of any
                shape that files may have.
            ledger: one to go on with, where several readings are one account; None: a new one.
        """
        self.sources = tuple(sources)
        self.rows = None if rows is None else list(rows)
        self.ledger = Ledger() if ledger is None else ledger
        self.shapes: dict[str, str] = {}
        self._passes = 0

    def __iter__(self) -> Iterator[Conversation]:
        if self._passes:
            self.ledger, self.shapes = Ledger(), {}
        self._passes += 1
        return _Pass(self.ledger, self.shapes).read(self._all_rows())

    def _all_rows(self) -> Iterator[Row]:
        for position, value in enumerate(self.rows or [], 1):
            yield _python_row(value, Origin(PYTHON, position))
        for source in self.sources:
            yield from joined_trees(read_rows(source))


def _python_row(value: Any, origin: Origin) -> Row:
    """A row from Python, in a shape that files have too."""
    if isinstance(value, tuple) and len(value) == 2:
        value = {"prompt": value[0], "completion": value[1]}
    elif isinstance(value, list):
        value = {"messages": value}
    elif isinstance(value, Mapping):
        value = dict(value)
    return row_from_value(value, origin)


class _Pass:
    """One pass over the rows: what has been seen so far, for the findings that need several rows."""

    def __init__(self, ledger: Ledger, shapes: dict[str, str]) -> None:
        self.ledger = ledger
        self.shapes = shapes
        self._seen: dict[int, int] = {}  # fingerprint of a conversation → number of its row
        self._unused_said: dict[str, set[str]] = {}  # by file

    def read(self, rows: Iterator[Row]) -> Iterator[Conversation]:
        """The conversations that may be learned from; every row arrives in the ledger."""
        for row in rows:
            if row.value is not None:
                yield from self._from_row(row.value, row.origin)
            elif row.finding is not None and row.origin.line == 0:
                self.ledger.add(row.finding)
            elif row.finding is not None:
                self._reject(row.origin, row.finding)

    def _from_row(self, value: Mapping[str, Any], origin: Origin) -> Iterator[Conversation]:
        try:
            shape, conversations = self._convert(value, origin)
            complaints = [_complaints(conversation) for conversation in conversations]
        except RowError as refusal:
            self._reject(origin, refusal.reason)
            return
        except RecursionError:
            self._reject(origin, finding("D057", origin, f"the row nests more than {MAX_DEPTH} deep"))
            return
        number = self.ledger.arrive(origin, conversations=len(conversations))
        self._note_row(value, origin, shape)
        for conversation, found in zip(conversations, complaints, strict=True):
            if self._survives(conversation, found, number):
                yield _without_trailing_turns(conversation)

    def _reject(self, origin: Origin, reason: Finding) -> None:
        self.ledger.arrive(origin)
        self.ledger.reject(origin, reason)

    def _convert(self, value: Mapping[str, Any], origin: Origin) -> tuple[Format, list[Conversation]]:
        shape = detect(value)
        if shape is None:
            raise RowError(no_shape(value, origin))
        conversations = shape.convert(value, origin)
        if not conversations:
            raise refused("D013", origin, "the row holds no conversation")
        return shape, conversations

    def _survives(self, conversation: Conversation, found: list[Finding], number: int) -> bool:
        """Note what was found; an error rejects the conversation, with the first one as the reason."""
        errors = [complaint for complaint in found if complaint.severity == "error"] if found else []
        for complaint in found:
            if not errors or complaint is not errors[0]:
                self.ledger.add(complaint)
        if errors:
            self.ledger.reject(conversation.origin, errors[0])
            return False
        self._note_duplicate(conversation, number)
        return True

    def _note_row(self, value: Mapping[str, Any], origin: Origin, shape: Format) -> None:
        """The shape of the source, and columns that the shape has no place for, once for each file."""
        said = self.shapes.setdefault(origin.file, shape.describe)
        if said != shape.describe and shape.describe not in said.split(" and "):
            self.shapes[origin.file] = f"{said} and {shape.describe}"
        for check in ROW_CHECKS.values():
            for complaint in check(value, origin):
                self.ledger.add(complaint)
        if not value.keys() <= shape.reads:
            self._say_unused(value, origin, shape)

    def _say_unused(self, value: Mapping[str, Any], origin: Origin, shape: Format) -> None:
        """Name the columns that are not learned; louder for those that hold text in other shapes."""
        said = self._unused_said.setdefault(origin.file, set())
        unused = value.keys() - shape.reads - said
        # a new column on every row must not fill the memory; Argilla's columns are named by its users
        if not unused or len(said) > 1000 or shape is FORMATS["argilla"]:
            return
        said |= {key for key in unused if len(str(key)) < 100}
        content = {key for key in unused & CONTENT_KEYS if value[key]}
        for code, keys in (("D043", content), ("D042", unused - content)):
            if keys:
                shown = ", ".join(sorted(quote(str(key), 40) for key in keys)[:20])
                self.ledger.add(finding(code, origin, f"not used in {shape.describe} rows: {shown}"))

    def _note_duplicate(self, conversation: Conversation, number: int) -> None:
        first = self._seen.setdefault(_fingerprint(conversation), number)
        if first != number:
            message = f"the same conversation stands at {self.ledger.origin(first)}"
            self.ledger.add(finding("D030", conversation.origin, message))


def _complaints(conversation: Conversation) -> list[Finding]:
    return [complaint for check in CHECKS.values() for complaint in check(conversation)]


def _fingerprint(conversation: Conversation) -> int:
    """A number that copies share. Python's own hash: 64 bits, and it lives no longer than the pass."""
    turns = [
        (m.role, m.content, m.reasoning, repr(m.tool_calls) if m.tool_calls else "")
        for m in conversation.messages
    ]
    return hash((*turns, repr(conversation.tools) if conversation.tools else ""))


def _without_trailing_turns(conversation: Conversation) -> Conversation:
    """The conversation up to its final answer; what follows was reported as D021."""
    end = final_answer(conversation) + 1
    if end == len(conversation.messages):
        return conversation
    return replace(conversation, messages=conversation.messages[:end])
