"""What run.json says: the facts of a run, and a sitting for each time that somebody worked on it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition.errors import UserError
from tuition.machine import hardware, versions
from tuition.redact import redact
from tuition.starter import display_name
from tuition.train.folder import RunFolder
from tuition.training.ready import Ready

if TYPE_CHECKING:
    from tuition.train.checkpoint import Progress
    from tuition.training.choosing import Kept


def facts_of(ready: Ready, folder: RunFolder, command: str) -> dict[str, Any]:
    """What run.json says when a run begins."""
    return {
        "name": folder.name,
        "command": command,
        "working_folder": str(Path.cwd()),
        "started": now(),
        "status": "running",
        "versions": versions(),
        "hardware": hardware(str(ready.device)),
        "hashes": ready.hashes,
        "found_settings": list(ready.found),
        "model": {
            "name": display_name(ready.recipe.model),
            "parameters": ready.parameters,
            "trainable_parameters": ready.trainable,
            "method": ready.recipe.method,
            "dtype": ready.recipe.dtype,
            "new_tokens": ready.new_tokens,
        },
        "data": ready.corpus.facts() | {"validation_sha256": ready.corpus.validation.sha256},
        "plan": {
            "steps": ready.plan.steps,
            "epochs": ready.plan.epochs,
            "batch_size": ready.plan.batch_size,
            "steps_per_epoch": ready.plan.steps_per_epoch,
        },
        "proof": [asdict(proof) for proof in ready.proofs],
    }


def sitting_of(ready: Ready, command: str, changed: dict[str, list[Any]]) -> dict[str, Any]:
    """What run.json says of this sitting when it begins."""
    return {
        "command": command,
        "started": now(),
        "status": "running",
        "versions": versions(),
        "hardware": hardware(str(ready.device)),
        "changed": changed,
        "notes": [],
    }


def result_of(ready: Ready, progress: Progress, kept: Kept | None) -> dict[str, Any]:
    """What run.json says came of the run so far.

    Args:
        kept: the weights that became the model; None where the run has not come so far.
    """
    from tuition.train.memory import peak_memory

    return {
        **asdict(progress),
        "best_by": ready.recipe.best_by,
        "kept": None if kept is None else asdict(kept),
        "tokens_per_second": progress.tokens / progress.seconds if progress.seconds else None,
        "peak_memory_bytes": peak_memory(ready.device),
    }


def begin_sitting(facts: dict[str, Any], sitting: dict[str, Any]) -> dict[str, Any]:
    """run.json with another sitting in it. One that still says it is running was killed."""
    before = [{**s, "status": "killed"} if s.get("status") == "running" else s for s in _sittings(facts)]
    return {**facts, "sittings": [*before, sitting]}


def seconds_of_sittings(facts: dict[str, Any]) -> float:
    """How long the run took in all its sittings; one that was killed could not say, and counts none."""
    told = [sitting.get("seconds") for sitting in _sittings(facts)]
    return round(sum(seconds for seconds in told if isinstance(seconds, int | float)), 3)


def changed_surroundings(facts: dict[str, Any], sitting: dict[str, Any]) -> dict[str, list[Any]]:
    """Versions and devices that are not what the sitting before had: the result may differ in its last bits."""
    last = (_sittings(facts) or [facts])[-1]
    before = {**_object(last.get("versions", {})), **_object(last.get("hardware", {}))}
    after = {**sitting["versions"], **sitting["hardware"]}
    watched = after.keys() - {"memory_bytes", "system"}
    return {
        name: [before.get(name), after[name]] for name in sorted(watched) if before.get(name) != after[name]
    }


def _sittings(facts: dict[str, Any]) -> list[dict[str, Any]]:
    written = facts.get("sittings", [])
    if not isinstance(written, list):
        raise _damaged_facts()
    return [_object(sitting) for sitting in written]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _damaged_facts()
    return value


def _damaged_facts() -> UserError:
    return UserError(
        "does not say what earlier sittings were",
        where="run.json",
        next_step="Put the file back, or start a new run",
    )


def now() -> str:
    """The time now, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line() -> str:
    """What was typed, as it can be pasted again; `***` for secrets."""
    name = Path(sys.argv[0]).name
    return redact(shlex.join(["tuition" if name == "__main__.py" else name, *sys.argv[1:]]))
