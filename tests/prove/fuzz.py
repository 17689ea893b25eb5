"""Feed every parser damaged and hostile inputs: only our own errors, soon, and in bounded memory.

Inputs come from sound files by cutting, flipping, repeating and replacing parts. The suite takes a handful
of each; the large share: PARTS=parsers make prove (INPUTS=20000 of each).
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from tests.prove.faultydisk import memory_folder
from tests.prove.inputs import Damage, Parser
from tests.prove.page import Result
from tests.prove.parsers import make_parsers
from tuition.errors import UserError

LIMIT_SECONDS = 0.1  # of the processor, for one input
LIMIT_BYTES = 500 << 20
_FED_FOR_EACH_DRAWN = 10  # drawing takes longer than most parsers


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
        max_examples=max(1, inputs // _FED_FOR_EACH_DRAWN),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(value=parser.inputs)
    def feed(value: Damage) -> None:
        for one in range(_FED_FOR_EACH_DRAWN):
            near = (value[0] + one, value[1] * _FED_FOR_EACH_DRAWN + one)
            prepared = parser.lay(near)
            outcome.inputs += 1
            _feed(parser, prepared, near, outcome)

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
    if seconds > LIMIT_SECONDS:  # once more: an import, or memory given back, is not the input's time
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


def prove(inputs: int, *, tell: Callable[[str], None]) -> Result:
    """Feed every parser so many inputs; an input that surprises, is slow or fills the memory was not survived.

    PARSERS in the environment names some of them, for looking closer.
    """
    wanted = [name for name in os.environ.get("PARSERS", "").split(",") if name]
    result, slowest = Result(), (0.0, "")
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        os.environ["TUITION_CACHE"] = f"{folder}/cache"
        for name, parser in make_parsers(Path(folder)).items():
            if wanted and name not in wanted:
                continue
            outcome = fuzz(parser, inputs)
            faults = sum(count for count, _ in outcome.surprises.values())
            faults += (outcome.worst[0] > LIMIT_SECONDS) + (outcome.grown_bytes > LIMIT_BYTES)
            result.rows.append((f"damaged input: {name}", outcome.inputs, outcome.inputs - faults))
            slowest = max(slowest, (outcome.worst[0], name))
            tell(
                f"{name}: {outcome.inputs:,} inputs, {outcome.refused:,} refused, {outcome.read:,} read, the slowest "
                f"{1000 * outcome.worst[0]:.1f} ms, {outcome.grown_bytes / 1e6:.0f} MB, {faults} faults"
            )
            if outcome.worst[0] > LIMIT_SECONDS:
                tell(f"slowest input of {name}: {outcome.worst[1]}")
            for place, (count, shown) in outcome.surprises.items():
                tell(f"{name}: {count} × {place}\n{shown!a}")
    which = f"Of {', '.join(wanted)}, the" if wanted else "The"
    result.notes.append(
        f"{which} slowest damaged input took {1000 * slowest[0]:.0f} ms of the processor ({slowest[1]})."
    )
    return result
