"""Feed every parser damaged and hostile inputs: only our own errors, soon, and in bounded memory.

Inputs come from sound files by cutting, flipping, repeating and replacing parts. The suite takes a handful
of each; run the large share: python -m tests.prove.fuzz (INPUTS=20000 of each, PARSERS=recipe,manifest).
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from tests.prove.sound_files import Parser, make_parsers
from tuition.errors import UserError

LIMIT_BYTES = 500 << 20


@dataclass
class Outcome:
    """What became of one parser's inputs.

    Attributes:
        surprises: where an exception that is not ours came from → how often, with one traceback.
        worst: the most CPU seconds that one input took, and that input.
    """

    inputs: int = 0
    refused: int = 0
    read: int = 0
    worst: tuple[float, Any] = (0.0, None)
    grown_bytes: int = 0
    surprises: dict[str, tuple[int, str]] = field(default_factory=dict)


def fuzz(parser: Parser, inputs: int) -> Outcome:
    """Feed one parser so many inputs; nothing is raised, all is counted."""
    outcome = Outcome()
    with suppress(Exception):  # what is made once, such as compiled templates, is no input's time
        parser.read(parser.lay((0, 0)))
    before = _peak_bytes()

    @seed(20)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(value=parser.inputs)
    def feed(value: Any) -> None:
        prepared = parser.lay(value)
        outcome.inputs += 1
        _feed(parser, prepared, value, outcome)

    feed()
    outcome.grown_bytes = _peak_bytes() - before
    return outcome


def _feed(parser: Parser, prepared: Any, value: Any, outcome: Outcome) -> None:
    began = time.process_time()
    try:
        refused = parser.read(prepared)
    except UserError:
        refused = True
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
        count, _ = outcome.surprises.get(place, (0, ""))
        shown = "".join(traceback.format_exception(error)[-12:])
        outcome.surprises[place] = (count + 1, f"{shown}\ninput: {repr(value)[:2000]}")
        return
    seconds = time.process_time() - began
    if seconds > parser.limit_seconds:  # once more: an import, or memory given back, is not the input's time
        prepared, began = parser.lay(value), time.process_time()
        with suppress(UserError):
            parser.read(prepared)
        seconds = time.process_time() - began
    if seconds > outcome.worst[0]:
        outcome.worst = (seconds, value)
    outcome.refused += bool(refused)
    outcome.read += not refused


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Print a line a parser; exit 1 on any surprise."""
    inputs = int(os.environ.get("INPUTS", "20000"))
    wanted = [name for name in os.environ.get("PARSERS", "").split(",") if name]
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUITION_CACHE"] = f"{folder}/cache"
        parsers = make_parsers(Path(folder))
        print(
            f"{'parser':<22}{'inputs':>8}{'refused':>9}{'read':>8}{'worst ms':>10}{'grown MB':>10}  surprises"
        )
        for name, parser in parsers.items():
            if wanted and name not in wanted:
                continue
            outcome = fuzz(parser, max(1, inputs // parser.cost))
            slow = outcome.worst[0] > parser.limit_seconds
            large = outcome.grown_bytes > LIMIT_BYTES
            print(
                f"{name:<22}{outcome.inputs:>8,}{outcome.refused:>9,}{outcome.read:>8,}"
                f"{1000 * outcome.worst[0]:>10.1f}{outcome.grown_bytes / 1e6:>10.0f}  "
                f"{len(outcome.surprises)}{' SLOW' if slow else ''}{' LARGE' if large else ''}",
                flush=True,
            )
            if slow:
                print(f"slowest input of {name}: {repr(outcome.worst[1])[:2000]}", file=sys.stderr)
            for place, (count, shown) in outcome.surprises.items():
                print(f"{name}: {count} × {place}\n{shown}", file=sys.stderr)
            faults += slow + large + len(outcome.surprises)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
