"""The ledger: what became of each row. Rows in = rows accounted for, always.

A row arrives, waits for one verdict on each conversation that was read from it, and ends as kept,
truncated, split, rejected or left out. Numbers live in flat arrays, so a million rows cost tens of megabytes.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from tuition.counting import counted
from tuition.errors import Finding, Origin

T = TypeVar("T")
Side = Literal["train", "validation"]
Fate = Literal["open", "kept", "truncated", "split", "rejected", "left out"]

# A warning on every row of a large file says the same thing a million times: they are all counted, and
# this many of each code are kept in full. Reasons of rejected and truncated rows are kept without limit.
FINDINGS_KEPT_PER_CODE = 10_000

_SECONDS_BETWEEN_WORDS = 5.0
_SIDES: tuple[Side | None, ...] = (None, "train", "validation")


@dataclass(frozen=True, slots=True)
class Entry:
    """Why one row was rejected or truncated."""

    origin: Origin
    code: str
    reason: str

    def to_json(self) -> dict[str, object]:
        """The object that `check --json` lists."""
        return {"file": self.origin.file, "line": self.origin.line, "code": self.code, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Totals:
    """The figures of a ledger, of which kept includes the truncated and the split rows.

    Attributes:
        tokens: tokens of all examples.
        findings: for each code how often it was found, and the first.
    """

    rows_in: int
    kept: int
    rejected: int
    left_out: int
    truncated: int
    split: int
    tokens: int
    findings: tuple[tuple[int, Finding], ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values, from which `from_json` makes the same totals."""
        figures = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "findings"}
        return {**figures, "findings": [[count, found.to_json()] for count, found in self.findings]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Totals:
        """The totals that were written."""
        findings = tuple((int(count), Finding.from_json(found)) for count, found in value["findings"])
        return cls(**{**value, "findings": findings})

    @classmethod
    def joined(cls, parts: Sequence[Totals]) -> Totals:
        """The figures of several ledgers as one; of each code the first finding."""
        counts: Counter[str] = Counter()
        first: dict[str, Finding] = {}
        for count, found in (pair for part in parts for pair in part.findings):
            counts[found.code] += count
            first.setdefault(found.code, found)
        figures = {
            f.name: sum(getattr(part, f.name) for part in parts) for f in fields(cls) if f.name != "findings"
        }
        return cls(**figures, findings=tuple((counts[code], found) for code, found in sorted(first.items())))


class Ledger:
    """What became of every row.

    Call `arrive` once a row; then, for each conversation read from it, `keep` or `reject`. Rows that share
    file and line (an array written on one line) are settled first come, first served.

    Attributes:
        findings: every complaint, rejections included; at most `FINDINGS_KEPT_PER_CODE` of each code.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._counts: Counter[str] = Counter()
        self._file_names: list[str] = []
        self._file_numbers: dict[str, int] = {}
        self._files, self._lines = array("I"), array("Q")
        self._row_ids = _Texts()
        self._waiting, self._parts, self._sides = array("I"), array("I"), bytearray()
        self._tokens, self._learned_tokens = array("Q"), array("Q")
        self._left_out = bytearray()
        self._rejected: dict[int, tuple[str, str]] = {}  # row → code and reason
        self._truncated: dict[int, tuple[str, str]] = {}
        self._open: dict[tuple[str, int], list[int]] = {}

    def __repr__(self) -> str:
        return f"Ledger({self.rows_in:,} rows in, {self.kept:,} kept, {len(self.rejected):,} rejected)"

    # --- what happens to a row ---

    def arrive(self, origin: Origin, *, conversations: int = 1) -> int:
        """A row was read, and `conversations` verdicts on it will follow. Returns its number, from 0."""
        row = self._add_row(origin, conversations)
        self._open.setdefault((origin.file, origin.line), []).append(row)
        return row

    def leave_out(self, origin: Origin) -> None:
        """A row was read, and the share of its source leaves it out; no verdict follows."""
        self._left_out[self._add_row(origin, 0)] = 1

    def _add_row(self, origin: Origin, waiting: int) -> int:
        row = len(self._lines)
        self._files.append(self._file_number(origin.file))
        self._lines.append(origin.line)
        self._row_ids.append(origin.row_id)
        self._waiting.append(waiting)
        self._parts.append(0)
        self._sides.append(0)
        self._tokens.append(0)
        self._learned_tokens.append(0)
        self._left_out.append(0)
        return row

    def keep(
        self,
        origin: Origin,
        *,
        parts: int = 1,
        tokens: int = 0,
        learned_tokens: int = 0,
        side: Side = "train",
    ) -> None:
        """One conversation of the row became `parts` examples, with so many tokens together.

        Raises:
            ValueError: no such row arrived.
        """
        row = self._find(origin)
        self._parts[row] += parts
        self._tokens[row] += tokens
        self._learned_tokens[row] += learned_tokens
        self._sides[row] = _SIDES.index(side)
        self._settle(row, origin)

    def reject(self, origin: Origin, finding: Finding) -> None:
        """One conversation of the row is not used. The row is rejected if no other of it is kept.

        Raises:
            ValueError: no such row arrived.
        """
        row = self._find(origin)
        self.add(finding)
        self._rejected[row] = (finding.code, finding.message)
        if not self._waiting[row] and self._parts[row]:  # a later stage takes back what was kept
            self._parts[row] -= 1
        self._settle(row, origin)

    def truncate(self, origin: Origin, finding: Finding) -> None:
        """The row lost tokens. It decides nothing: `keep`, before or after, says what is left.

        Raises:
            ValueError: no such row arrived.
        """
        row = self._find(origin)
        self.add(finding)
        self._truncated[row] = (finding.code, finding.message)

    def add(self, finding: Finding) -> None:
        """Note a finding that settles no row: a warning, or a verdict on a whole file."""
        self._counts[finding.code] += 1
        if self._counts[finding.code] <= FINDINGS_KEPT_PER_CODE:
            self.findings.append(finding)

    def telling(self, items: Iterable[T], tell: Callable[[str], None]) -> Iterator[T]:
        """What comes of the rows as it comes, with a word now and then on how many arrived."""
        said = time.monotonic()
        for item in items:
            if time.monotonic() - said > _SECONDS_BETWEEN_WORDS:
                said = time.monotonic()
                tell(f"{counted(self.rows_in, 'row')} read")
            yield item

    # --- what can be asked ---

    @property
    def rows_in(self) -> int:
        """How many rows arrived."""
        return len(self._lines)

    @property
    def kept(self) -> int:
        """How many rows gave at least one example: kept whole, truncated or split."""
        return sum(self.fate(row) not in ("open", "rejected", "left out") for row in range(self.rows_in))

    @property
    def left_out(self) -> int:
        """How many rows the shares of their sources left out. Rows in = kept + rejected + left out."""
        return sum(self._left_out)

    @property
    def split(self) -> int:
        """How many rows gave more than one example: several conversations, a template, or a share above 1."""
        return sum(self.fate(row) == "split" for row in range(self.rows_in))

    @property
    def rejected(self) -> list[Entry]:
        """The rows that gave no example, with the last reason."""
        return [self._entry(row, why) for row, why in self._rejected.items() if self.fate(row) == "rejected"]

    @property
    def truncated(self) -> list[Entry]:
        """The rows that lost tokens and gave an example."""
        return [
            self._entry(row, why) for row, why in self._truncated.items() if self.fate(row) == "truncated"
        ]

    def fate(self, row: int) -> Fate:
        """What became of the row of that number; truncated goes before split."""
        if self._waiting[row]:
            return "open"
        if not self._parts[row]:
            return "left out" if self._left_out[row] else "rejected"
        if row in self._truncated:
            return "truncated"
        return "split" if self._parts[row] > 1 else "kept"

    def origin(self, row: int) -> Origin:
        """Where the row of that number came from."""
        return Origin(self._file_names[self._files[row]], self._lines[row], self._row_ids[row])

    def counts_by_code(self) -> dict[str, int]:
        """How often each code was found, beyond what `findings` holds, in the order of the codes."""
        return dict(sorted(self._counts.items()))

    def check_balance(self) -> None:
        """Make sure that each row has a verdict.

        Raises:
            RuntimeError: a row is unaccounted for, which is a defect of tuition and not of the data.
        """
        waiting = [row for rows in self._open.values() for row in rows]
        if waiting:
            first = self.origin(min(waiting))
            raise RuntimeError(
                f"{len(waiting):,} of {counted(self.rows_in, 'row is', 'rows are')} unaccounted for, the first is {first}"
            )

    def to_rows(self) -> Iterator[dict[str, Any]]:
        """The lines of `ledger.jsonl`, one for each row in the order of arrival."""
        for row in range(self.rows_in):
            fate = self.fate(row)
            why = {"rejected": self._rejected, "truncated": self._truncated}.get(fate, {}).get(row)
            origin = self.origin(row)
            yield {
                "file": origin.file,
                "line": origin.line,
                "row_id": origin.row_id,
                "fate": fate,
                "parts": self._parts[row],
                "side": _SIDES[self._sides[row]] if self._parts[row] else None,
                "tokens": self._tokens[row],
                "learned_tokens": self._learned_tokens[row],
                "code": why[0] if why else None,
                "reason": why[1] if why else None,
            }

    def totals(self) -> Totals:
        """The figures, and one finding of each code."""
        fates = Counter(self.fate(row) for row in range(self.rows_in))
        first: dict[str, Finding] = {}
        for found in self.findings:
            first.setdefault(found.code, found)
        return Totals(
            rows_in=self.rows_in,
            kept=fates["kept"] + fates["truncated"] + fates["split"],
            rejected=fates["rejected"],
            left_out=fates["left out"],
            truncated=fates["truncated"],
            split=fates["split"],
            tokens=sum(self._tokens),
            findings=tuple((self._counts[code], found) for code, found in sorted(first.items())),
        )

    def summary(self) -> dict[str, Any]:
        """The object that `check --json` prints."""
        return {
            "rows_in": self.rows_in,
            "kept": self.kept,
            "left_out": self.left_out,
            "examples": sum(self._parts),
            "tokens": sum(self._tokens),
            "supervised_tokens": sum(self._learned_tokens),
            "rejected": [entry.to_json() for entry in self.rejected],
            "truncated": [entry.to_json() for entry in self.truncated],
            "findings": [finding.to_json() for finding in self.findings],
            "counts": self.counts_by_code(),
        }

    # --- how a row is found ---

    def _file_number(self, file: str) -> int:
        number = self._file_numbers.get(file)
        if number is None:
            number = self._file_numbers[file] = len(self._file_names)
            self._file_names.append(file)
        return number

    def _find(self, origin: Origin) -> int:
        """The first row of that place that waits for a verdict, or else the last one that was settled."""
        waiting = self._open.get((origin.file, origin.line))
        if waiting:
            return waiting[0]
        file = self._file_numbers.get(origin.file)
        for row in range(self.rows_in - 1, -1, -1):
            if self._lines[row] == origin.line and self._files[row] == file:
                return row
        raise ValueError(f"{origin} never arrived in the ledger")

    def _settle(self, row: int, origin: Origin) -> None:
        """Take one verdict; with the last one the row is closed."""
        if not self._waiting[row]:
            return
        self._waiting[row] -= 1
        if not self._waiting[row]:
            place = (origin.file, origin.line)
            self._open[place].remove(row)
            if not self._open[place]:
                del self._open[place]

    def _entry(self, row: int, why: tuple[str, str]) -> Entry:
        return Entry(self.origin(row), *why)


class _Texts:
    """Texts or None, appended and asked for by number: their bytes end to end, not an object each."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q")  # twice the end of the text; one more where it is a text and not None

    def append(self, text: str | None) -> None:
        if text is not None:
            self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(2 * len(self._bytes) + (text is not None))

    def __getitem__(self, number: int) -> str | None:
        end = self._ends[number]
        start = self._ends[number - 1] >> 1 if number else 0
        return str(self._bytes[start : end >> 1], "utf-8", "surrogatepass") if end & 1 else None
