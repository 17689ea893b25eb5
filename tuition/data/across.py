"""What can only be seen across rows: copies, ids that repeat, columns unused, a language unlike the rest.

Memory grows by a number or two for each row, never by its text.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuition.conversation import Conversation
from tuition.data.catalogue import finding, quote
from tuition.data.firstseen import FirstSeen
from tuition.data.formats import CONTENT_KEYS, FORMATS, Format
from tuition.data.language import LETTERS_READ, language_of
from tuition.data.ledger import Ledger
from tuition.data.messages import unused_fields
from tuition.data.turns import spoken
from tuition.errors import Finding, Origin

_COLUMNS_SAID = 1000  # a new column on every row must not fill the memory
_TURN_LISTS = ("messages", "conversations", "prompt", "completion")
_ROWS_FOR_A_LANGUAGE = 20
_SHARE_OF_ONE_LANGUAGE = 0.9

_Said = tuple[Any, ...]  # what a message says, as it is compared


class Across:
    """What one pass over rows has seen so far.

    Attributes:
        ledger: the account in which the rows are numbered.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        mapped: Format | None = None,
        training: Across | None = None,
    ) -> None:
        """
        Args:
            mapped: the shape that the user's mapping gives to all rows, if there is one.
            training: what the pass over the training data saw, where these rows are held out.
        """
        self.ledger = ledger
        self._mapped = mapped
        self._training = training
        self._conversations = FirstSeen()  # by fingerprint
        self._questions = FirstSeen()  # by fingerprint of all before the last answer
        self._ids = FirstSeen()  # by hash of file and id
        self._unused: dict[str, set[str]] = {}  # file → columns said to be unused
        self._absent: dict[str, frozenset[str]] = {}  # file → mapped columns that no row has had yet
        self._languages: dict[str, array[int]] = {}  # language → numbers of its rows

    # --- copies ---

    def copies(self, conversation: Conversation, number: int) -> list[Finding]:
        """D030 the conversation stands in an earlier row, D077 its question does, with another answer; D039 it
        stands in the training data."""
        turns = _turns(conversation)
        mark = _mark(turns, conversation.tools)
        first = self._conversations.note(mark, number)
        asked_first = self._first_asked(conversation, turns, number)
        found = []
        if first != number:
            message = f"the same conversation stands at {self.ledger.origin(first)}"
            found.append(finding("D030", conversation.origin, message))
        elif asked_first != number:
            message = f"the same question has another answer at {self.ledger.origin(asked_first)}"
            found.append(finding("D077", conversation.origin, message))
        learned = None if self._training is None else self._training._conversations.find(mark)
        if self._training is not None and learned is not None:
            message = f"the same conversation is learned from, at {self._training.ledger.origin(learned)}"
            found.append(finding("D039", conversation.origin, message))
        return found

    def _first_asked(self, conversation: Conversation, turns: Sequence[_Said], number: int) -> int:
        """The first row with the same turns before its last answer."""
        if len(turns) < 2 or conversation.messages[-1].role != "assistant":
            return number
        return self._questions.note(_mark(turns[:-1], conversation.tools), number)

    def repeated_id(self, origin: Origin, number: int) -> list[Finding]:
        """D028."""
        first = self._ids.note(hash((origin.file, origin.row_id)), number)
        if first == number:
            return []
        line = self.ledger.origin(first).line
        return [finding("D028", origin, f"the row at line {line} has the id {quote(origin.row_id)} too")]

    # --- columns ---

    def unused_columns(self, row: Mapping[str, Any], origin: Origin, shape: Format) -> Iterator[Finding]:
        """D042, D043: columns that the shape has no place for, once for each file."""
        said = self._unused.setdefault(origin.file, set())
        unused = row.keys() - shape.reads - said
        # Argilla's columns are named by its users
        if not unused or len(said) > _COLUMNS_SAID or shape is FORMATS["argilla"]:
            return
        said |= {key for key in unused if len(str(key)) < 100}
        # a user who names the columns has decided about the others
        content = {key for key in unused & CONTENT_KEYS if row[key]} if shape is not self._mapped else set()
        for code, keys in (("D043", content), ("D042", unused - content)):
            if keys:
                shown = ", ".join(sorted(quote(str(key), 40) for key in keys)[:20])
                yield finding(code, origin, f"not used in {shape.describe} rows: {shown}")

    def unused_turn_fields(self, row: Mapping[str, Any], origin: Origin) -> Iterator[Finding]:
        """D042 for fields of turns that are not read, once for each file."""
        said = self._unused.setdefault(origin.file, set())
        turns = (turn for key in _TURN_LISTS if isinstance(row.get(key), list) for turn in row[key])
        unused = {field for turn in turns for field in unused_fields(turn) if f"turn {field}" not in said}
        if not unused or len(said) > _COLUMNS_SAID:
            return
        said |= {f"turn {field}" for field in unused if len(field) < 100}
        shown = ", ".join(sorted(quote(field, 40) for field in unused)[:20])
        yield finding("D042", origin, f"not used in the turns: {shown}")

    def note_columns(self, row: Mapping[str, Any], file: str) -> None:
        """Remember which of the mapped columns were seen."""
        if self._mapped is not None and (absent := self._absent.get(file, self._mapped.needs)):
            self._absent[file] = absent - row.keys()

    # --- language ---

    def note_language(self, conversation: Conversation, number: int) -> None:
        """Remember in which language the row seems to be, if it shows."""
        if language := language_of("\n".join(spoken(conversation))[:LETTERS_READ]):
            self._languages.setdefault(language, array("Q")).append(number)

    def _foreign_rows(self) -> Iterator[Finding]:
        """D048, if nearly all rows whose language shows are in one."""
        rows = sum(map(len, self._languages.values()))
        common = max(self._languages, key=lambda language: len(self._languages[language]), default="")
        if rows < _ROWS_FOR_A_LANGUAGE or len(self._languages[common]) < _SHARE_OF_ONE_LANGUAGE * rows:
            return
        for language, numbers in self._languages.items():
            for number in numbers if language != common else ():
                message = f"the row seems to be in {language}; {len(self._languages[common]) / rows:.1%} are in {common}"
                yield finding("D048", self.ledger.origin(number), message)

    # --- at the end ---

    def at_the_end(self) -> Iterator[Finding]:
        """What is known only when all rows were seen: D044, D048."""
        yield from self._foreign_rows()
        for file, absent in self._absent.items():
            for column in sorted(absent):
                yield finding("D044", Origin(file, 0), f"no row has the column {quote(column)}")


def fingerprint(conversation: Conversation) -> int:
    """A number that copies share. Python's own hash: 64 bits, and it lives no longer than the process."""
    return _mark(_turns(conversation), conversation.tools)


def _turns(conversation: Conversation) -> list[_Said]:
    return [
        (m.role, m.content, m.reasoning, repr(m.tool_calls) if m.tool_calls else "")
        for m in conversation.messages
    ]


def _mark(turns: Sequence[_Said], tools: Sequence[Any]) -> int:
    return hash((*turns, repr(tools) if tools else ""))
