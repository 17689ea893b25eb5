"""Reading: from sources to conversations, one at a time, with every row in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuition.conversation import Conversation
from tuition.data.across import Across
from tuition.data.catalogue import RowError, finding, refused
from tuition.data.checks import CHECKS, DEEP_CHECKS, ROW_CHECKS, final_answer
from tuition.data.exports import joined_trees
from tuition.data.formats import Format, detect, no_shape
from tuition.data.jsontext import MAX_DEPTH, Row, row_from_value
from tuition.data.ledger import Ledger
from tuition.data.mapping import mapped_format
from tuition.data.sources import read_rows, split_share
from tuition.data.splits import copies_of
from tuition.errors import Finding, Origin

PYTHON = "<python>"


class Reading:
    """The conversations of some sources, in order; may be iterated more than once.

    Each conversation that is yielded waits in `ledger` for the caller's verdict: `ledger.keep` or
    `ledger.reject`, with the conversation's origin. Rows that are refused here are rejected here, and rows
    that the share of their source leaves out are left out. A share above 1 yields a conversation several
    times, and each time waits for a verdict. Every pass begins a new ledger; `ledger` is that of the latest
    pass. Memory does not grow with the files, but for the ledger and a number for each row by which copies
    are known.

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
        mapping: Mapping[str, str] | None = None,
        seed: int = 0,
        training: Reading | None = None,
        deep: bool = False,
        choose: Callable[[Mapping[str, Any]], int] | None = None,
        only: Container[tuple[str, int]] | None = None,
    ) -> None:
        """
        Args:
            sources: files and hub names as `find_sources` gives them, each with its share: `b.jsonl#0.3`.
            rows: rows from Python: (prompt, completion) pairs, lists of messages, or dictionaries of any
                shape that files may have.
            ledger: one to go on with, where several readings are one account; None: a new one.
            mapping: which column is what, such as `{"prompt": "question_text", "completion": "reply"}`, in
                all sources; None: found in each row. See `mapped_format`.
            seed: decides with a row's content whether a share below 1 keeps it.
            training: the training data, read before, where these rows are held out: those that stand in
                both are reported.
            deep: also look for personal data, keys, and rows in another language than the rest, which takes
                several times as long as reading.
            choose: how often a row of a file is learned, asked once for each in order, instead of the share
                of its source; 0 leaves it out.
            only: file and line of the rows that are meant; the others are as if they were not there. None: all.

        Raises:
            UserError: the mapping names what no column can be, or no question and answer.
        """
        self.sources = tuple(sources)
        self.rows = None if rows is None else list(rows)
        self.ledger = Ledger() if ledger is None else ledger
        self.shapes: dict[str, str] = {}
        self.seed = seed
        self.deep = deep
        self._choose = choose
        self._only = only
        self._mapped = mapped_format(mapping) if mapping is not None else None
        self._columns = tuple(mapping.values()) if mapping is not None else ()
        self._id_column = mapping.get("id") if mapping is not None else None
        self._training = training
        self._across = Across(self.ledger)
        self._passes = 0

    def __iter__(self) -> Iterator[Conversation]:
        if self._passes:
            self.ledger, self.shapes = Ledger(), {}
        self._passes += 1
        training = self._training._across if self._training is not None else None
        self._across = Across(self.ledger, mapped=self._mapped, training=training)
        return self._read(_Pass(self.ledger, self.shapes, self._across, self._mapped, self.deep))

    def _read(self, a_pass: _Pass) -> Iterator[Conversation]:
        yield from a_pass.read(self._identified(python_rows(self.rows or [])))
        for source in self.sources:
            name, share = split_share(source)
            rows = self._identified(self._meant(joined_trees(read_rows(name, columns=self._columns))))
            yield from a_pass.read(rows, share=share, seed=self.seed, choose=self._choose)
        for complaint in self._across.at_the_end():
            self.ledger.add(complaint)

    def _meant(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows that are to be read at all."""
        only = self._only
        return rows if only is None else (row for row in rows if (row.origin.file, row.origin.line) in only)

    def _identified(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows with the ids that the mapping names."""
        column = self._id_column
        return rows if column is None else (_with_id(row, column) for row in rows)


def _with_id(row: Row, column: str) -> Row:
    row_id = row.value.get(column) if row.value is not None else None
    named = str(row_id)[:200] if isinstance(row_id, str | int) else None
    return replace(row, origin=replace(row.origin, row_id=named))


def read_all(sources: Sequence[str], given: Iterable[Any] = ()) -> Iterator[Row]:
    """Rows from Python, then every row of the sources, whatever their shares."""
    yield from python_rows(given)
    for source in sources:
        yield from read_rows(split_share(source)[0])


def python_rows(given: Iterable[Any]) -> Iterator[Row]:
    """Rows from Python, numbered from 1: (prompt, completion) pairs, lists of messages, or dictionaries."""
    return (_python_row(value, Origin(PYTHON, number)) for number, value in enumerate(given, 1))


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
    """One pass over the rows: each arrives in the ledger, with what was found in it."""

    def __init__(
        self, ledger: Ledger, shapes: dict[str, str], across: Across, mapped: Format | None, deep: bool
    ) -> None:
        self.ledger = ledger
        self.shapes = shapes
        self.across = across
        self.mapped = mapped
        self.deep = deep
        self.checks = (*CHECKS.values(), *(DEEP_CHECKS.values() if deep else ()))

    def read(
        self,
        rows: Iterator[Row],
        *,
        share: float = 1.0,
        seed: int = 0,
        choose: Callable[[Mapping[str, Any]], int] | None = None,
    ) -> Iterator[Conversation]:
        """The conversations that may be learned from, each as often as the share says."""
        copies = 1
        for row in rows:
            if row.value is not None:
                if choose is not None:
                    copies = choose(row.value)
                elif share != 1.0:
                    copies = copies_of(row.value, share=share, seed=seed)
                if copies:
                    yield from self._from_value(row.value, row.origin, copies)
                else:
                    self.ledger.leave_out(row.origin)
            elif row.finding is not None and row.origin.line == 0:
                self.ledger.add(row.finding)
            elif row.finding is not None:
                self._reject(row.origin, row.finding)

    def _from_value(self, value: Mapping[str, Any], origin: Origin, copies: int) -> Iterator[Conversation]:
        if self.mapped is not None:
            self.across.note_columns(value, origin.file)
        try:
            shape, conversations = self._convert(value, origin)
            complaints = [self._complaints(conversation) for conversation in conversations]
        except RowError as refusal:
            self._reject(origin, refusal.reason)
            return
        except RecursionError:
            self._reject(origin, finding("D057", origin, f"the row nests more than {MAX_DEPTH} deep"))
            return
        errors = [_first_error(found) if found else None for found in complaints]
        verdicts = sum([copies if error is None else 1 for error in errors])
        number = self.ledger.arrive(origin, conversations=verdicts)
        self._note_row(value, origin, shape, number)
        for conversation, found, error in zip(conversations, complaints, errors, strict=True):
            if self._survives(conversation, found, error, number):
                kept = _without_trailing_turns(conversation)
                for _ in range(copies):
                    yield kept

    def _complaints(self, conversation: Conversation) -> list[Finding]:
        return [complaint for check in self.checks for complaint in check(conversation)]

    def _reject(self, origin: Origin, reason: Finding) -> None:
        self.ledger.arrive(origin)
        self.ledger.reject(origin, reason)

    def _convert(self, value: Mapping[str, Any], origin: Origin) -> tuple[Format, list[Conversation]]:
        shape = self.mapped or detect(value)
        if shape is None:
            raise RowError(no_shape(value, origin))
        conversations = shape.convert(value, origin)
        if not conversations:
            raise refused("D013", origin, "the row holds no conversation")
        return shape, conversations

    def _survives(
        self, conversation: Conversation, found: list[Finding], error: Finding | None, number: int
    ) -> bool:
        """Note what was found; the first error rejects the conversation."""
        for complaint in found:
            if complaint is not error:
                self.ledger.add(complaint)
        if error is not None:
            self.ledger.reject(conversation.origin, error)
            return False
        for complaint in self.across.copies(conversation, number):
            self.ledger.add(complaint)
        if self.deep:
            self.across.note_language(conversation, number)
        return True

    def _note_row(self, value: Mapping[str, Any], origin: Origin, shape: Format, number: int) -> None:
        """The shape of the source, and what is to be said about the row as it stands in it."""
        said = self.shapes.setdefault(origin.file, shape.describe)
        if said != shape.describe and shape.describe not in said.split(" and "):
            self.shapes[origin.file] = f"{said} and {shape.describe}"
        for check in ROW_CHECKS.values() if self.mapped is None else ():
            for complaint in check(value, origin):
                self.ledger.add(complaint)
        if not value.keys() <= shape.reads:
            for complaint in self.across.unused_columns(value, origin, shape):
                self.ledger.add(complaint)
        for complaint in self.across.unused_turn_fields(value, origin):
            self.ledger.add(complaint)
        if origin.row_id is not None:
            for complaint in self.across.repeated_id(origin, number):
                self.ledger.add(complaint)


def _first_error(found: list[Finding]) -> Finding | None:
    return next((complaint for complaint in found if complaint.severity == "error"), None)


def _without_trailing_turns(conversation: Conversation) -> Conversation:
    """The conversation up to its final answer; what follows was reported as D021."""
    end = final_answer(conversation) + 1
    if end == len(conversation.messages):
        return conversation
    return replace(conversation, messages=conversation.messages[:end])
