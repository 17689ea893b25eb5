"""The two shapes in which tuition complains: an error that stops, and a finding about data.

Both say what is wrong, where, and what to do next. Nothing here prints or exits.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuition.redact import redact

Severity = Literal["error", "warning", "info"]


class UserError(Exception):
    """Something the user can mend. Shown without a traceback and without secrets; exit code 2.

    Args:
        what: what is wrong, one sentence without a final full stop; or lines, of which the last one ends.
        where: file, `file:line`, recipe key or folder; empty when there is no place.
        next_step: what to do now, one sentence.
    """

    def __init__(self, what: str, *, where: str = "", next_step: str) -> None:
        self.what = redact(what)
        self.where = redact(where)
        self.next_step = redact(next_step)
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        what = self.what if self.what.endswith("\n") else f"{sentence(self.what)} "
        return f"{place}{what}{sentence(self.next_step)}"


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends otherwise already."""
    return text if text.endswith((".", "?", "!", "…")) else f"{text}."


def typed(path: object) -> str:
    """A path as it is typed in a command: one word to the shell, and no flag to the command."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def one_line(error: BaseException, longest: int = 200) -> str:
    """What an exception says, on one line of bounded length; its kind, where it says nothing."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


class LeftInTheMiddle(BaseException):
    """A stop could not wait for the end of what was being computed; nothing that lasts was changed.

    Not an Exception, because a signal's handler raises it in the midst of anybody's code.
    """


class Interrupted(Exception):
    """The user asked to stop; a complete checkpoint of the last whole step was written.

    Args:
        folder: of the run; empty where the loop says it, which does not know.
    """

    def __init__(self, folder: str = "") -> None:
        self.folder = folder
        super().__init__(
            f"stopped; nothing is lost. Go on with: tuition.train({folder!r}, resume=True)" if folder else ""
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from.

    Attributes:
        file: path as the user gave it, a hub name, or `<python>` for rows passed from Python.
        line: first line of the row in the file, or its position, counted from 1.
        row_id: the row's own `id`, if it has one.
    """

    file: str
    line: int
    row_id: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One complaint about data.

    Attributes:
        code: a key of `tuition.data.catalogue.CODES`, such as `D004`.
        severity: `error` rejects the row (or the file), `warning` and `info` keep it.
        origin: the row, or the file with line 0.
        message: what is wrong, with what was seen.
        fix: the next step.
    """

    code: str
    severity: Severity
    origin: Origin
    message: str
    fix: str

    def __str__(self) -> str:
        place = str(self.origin) if self.origin.line else self.origin.file
        return f"{place} ({self.code}): {sentence(self.message)} {self.fix}"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finding:
        """The finding that `to_json` wrote, without the row's own id."""
        place = Origin(value["file"], value["line"])
        return cls(value["code"], value["severity"], place, value["message"], value["fix"])

    def to_json(self) -> dict[str, object]:
        """The object that `check --json` prints for a finding."""
        return {
            "code": self.code,
            "severity": self.severity,
            "file": self.origin.file,
            "line": self.origin.line,
            "message": self.message,
            "fix": self.fix,
        }
