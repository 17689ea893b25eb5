"""The run folder: where things lie in it, and who may write there."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition import files
from tuition.errors import UserError, typed
from tuition.foreign import OBJECT_BYTES, fault_of, leads_out
from tuition.recipe import read_settings

_LOCK = ".lock"
_MOST_TRIES = 100  # a folder that its last holder removes is there again at the next
_SECONDS_OF_A_LOOK = 0.01


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths within one run folder, and who may write there.

    Attributes:
        recipe: the settings, every `auto` a value.
        facts: run.json: versions, hashes, sittings, and what came of them.
        ledger, findings: what became of each row, and what was said of it.
        prompts: what was learned from, as numbers by which it is known again.
        metrics: the journal, a line for each update and evaluation.
        samples: prompts answered before and after.
        example: one example, token by token.
        general: general text as the base model scored it.
        proof: what was verified before step 1.
        evaluation, demonstrations, answers: what `tuition evaluate` found; answers are kept so that it goes on.
        checkpoints, model, adapter: folders of weights.
        jobs: what the studio started.
        report: the page.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def facts(self) -> Path:
        return self.path / "run.json"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def findings(self) -> Path:
        return self.path / "findings.jsonl"

    @property
    def prompts(self) -> Path:
        return self.path / "prompts.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def example(self) -> Path:
        return self.path / "example.json"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def general(self) -> Path:
        return self.path / "general.json"

    @property
    def proof(self) -> Path:
        return self.path / "proof.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def answers(self) -> Path:
        return self.path / "answers"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def demonstrations(self) -> Path:
        return self.path / "demonstrations.jsonl"

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def folders(self) -> set[Path]:
        """The folders in it that a run writes by itself."""
        return {self.checkpoints, self.model, self.adapter, self.answers, self.jobs}

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def resume_command(self) -> str:
        """What is typed to go on with the run."""
        return f"tuition train {typed(self.path)} --resume"

    def holds_a_run(self) -> bool:
        """True when a run was begun here. run.json is the last thing that beginning one writes."""
        return os.path.lexists(self.facts)

    def kept_model(self) -> Path:
        """The folder of what the run learned: its adapter, or its whole model.

        Raises:
            UserError: the run has not come to its end.
        """
        kept = next((folder for folder in (self.adapter, self.model) if folder.exists()), None)
        if kept is None:
            raise UserError(
                "the run has no model yet",
                where=str(self.path),
                next_step=f"Finish it: {self.resume_command}",
            )
        return kept

    def read_facts(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            UserError: it is missing or damaged, or `refuse_foreign` refuses the folder.
        """
        self.refuse_foreign()
        try:
            facts = json.loads(self.facts.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                "is not a run folder: it has no run.json",
                where=str(self.path),
                next_step="Name the folder that `tuition train` wrote",
            ) from None
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"cannot be read ({error})", where=str(self.facts), next_step="Start a new run"
            ) from None
        if not isinstance(facts, dict):
            raise UserError("holds no JSON object", where=str(self.facts), next_step="Start a new run")
        return facts

    def refuse_foreign(self) -> None:
        """Refuse what no run writes under the names of its own: links that lead out, pipes, devices, endless files.

        Raises:
            UserError: naming it.
        """
        objects = {self.recipe, self.facts, self.example, self.evaluation, self.general, self.proof}
        lines = {self.ledger, self.findings, self.prompts, self.metrics, self.samples}
        written_over = {self.report, self.path / _LOCK}
        for path in sorted(objects | lines | written_over | self.folders):
            fault = leads_out(path, self.path)
            if not fault and path not in self.folders and path.exists():
                fault = fault_of(path, OBJECT_BYTES if path in objects else None)
            if fault:
                step = "No run writes that: remove it, or put the file itself there"
                raise UserError(fault, where=str(path), next_step=step)

    def update_facts(self, **changes: Any) -> None:
        """Lay `changes` over run.json."""
        facts = self.read_facts() if self.facts.exists() else {}
        files.write_json(self.facts, {**facts, **changes})

    def update_sitting(self, **changes: Any) -> None:
        """Lay `changes` over the last sitting in run.json."""
        facts = self.read_facts()
        *before, last = facts["sittings"]
        files.write_json(self.facts, {**facts, "sittings": [*before, {**last, **changes}]})

    def read_recipe(self) -> dict[str, Any]:
        """The settings that the last sitting had; none where the file is missing."""
        return read_settings(self.recipe) if self.recipe.exists() else {}

    def is_claimed(self) -> bool:
        """Whether a process holds the folder now."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            return _is_held(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder for one process. The lock goes with the process, so a dead one never blocks.

        A folder that was made for a run which never began is removed again.

        Raises:
            UserError: another process holds it, or the folder cannot be made.
        """
        descriptor = self._lock()
        try:
            yield
        finally:
            self._leave(descriptor)

    def _lock(self) -> int:
        """The descriptor that holds the lock."""
        lock, why = self.path / _LOCK, "it appears and goes again and again"
        for _ in range(_MOST_TRIES):
            try:
                files.make_folder(self.path)
                descriptor = files.open_lock(lock)
            except FileNotFoundError as error:
                # its holder, whose run never began, removed the folder just now; or no folder can be made there
                why = str(error.strerror)
                continue
            except OSError as error:
                why = str(error.strerror)
                break
            if _take(descriptor, fcntl.LOCK_EX):
                if _still_named(lock, descriptor):
                    return descriptor
                os.close(descriptor)  # locked a file that its last holder removed meanwhile
                continue
            held = _is_held(descriptor)
            os.close(descriptor)
            if held:
                raise UserError(
                    "another process is training in this folder",
                    where=str(self.path),
                    next_step="Wait for it, stop it, or name another --output-dir",
                )
            time.sleep(_SECONDS_OF_A_LOOK)  # somebody only looks whether it is held
        raise UserError(
            f"the run folder cannot be written ({why})",
            where=str(self.path),
            next_step="Name another --output-dir",
        )

    def _leave(self, descriptor: int) -> None:
        if not self.holds_a_run():
            with suppress(OSError):  # a folder that holds anything of the user's stays as it was
                files.remove_file(self.path / _LOCK)
                files.remove_empty_folder(self.path)
        os.close(descriptor)


def _take(descriptor: int, lock: int) -> bool:
    """Whether the lock could be taken at once."""
    try:
        fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_held(descriptor: int) -> bool:
    """Whether a process works under this lock. Looking shares it for a moment with others who look."""
    return not _take(descriptor, fcntl.LOCK_SH)


def refuse_runs_own(path: Path) -> None:
    """Refuse a place at or below a folder that a run writes by itself: it takes what it finds there for its own.

    Raises:
        UserError: naming the run.
    """
    resolved = path.resolve()
    for place in (resolved, *resolved.parents):
        run = RunFolder(place.parent)
        if place in run.folders and run.holds_a_run():
            raise UserError(
                f"{place.name}/ is what the run {run.name} keeps its own files in",
                where=str(path),
                next_step=f"Name a folder outside of it, such as {run.name}-exported",
            )


def _still_named(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def first_free(stem: str) -> Path:
    """`outputs/STEM`, or the first of `outputs/STEM-2` and so on that is not there."""
    number = 1
    while True:
        path = Path("outputs") / (stem if number == 1 else f"{stem}-{number}")
        if not path.exists():
            return path
        number += 1
