"""The verb that trains, and a run from Python."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import files
from tuition.api.answers import ANSWER_TOKENS, answer, at_checkpoint, evaluate, load
from tuition.api.shipping import export
from tuition.door import (
    Rows,
    choose_folder,
    gather,
    refuse_mixed_runs,
    refuse_resume_of_no_run,
    refuse_strangers_among_ranks,
    write_rows,
)
from tuition.errors import UserError
from tuition.recipe import Recipe, make_recipe
from tuition.screen import Opening, Watcher
from tuition.signals import Signals
from tuition.train.folder import RunFolder
from tuition.training.finished import is_finished
from tuition.training.opening import opening_of
from tuition.training.ready import get_ready
from tuition.training.waiting import ALONE, Start, forget_word, start_of_environment

if TYPE_CHECKING:
    from tuition.evaluate.load import Answerer
    from tuition.evaluate.score import Evaluation
    from tuition.planning import Expected


class Run:
    """A run folder, from Python.

    Args:
        path: the folder that `train` wrote.
        was_finished: a resume found it finished, and did nothing.
    """

    def __init__(self, path: str | Path, *, was_finished: bool = False) -> None:
        self.path = Path(path)
        self.was_finished = was_finished
        self._answerer: Answerer | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def at(self, checkpoint: str) -> Run:
        """The run as it was at one of its checkpoints: `step-120`, `epoch-2`, `best` or `last`.

        Raises:
            UserError: no such checkpoint was kept.
        """
        return Run(at_checkpoint(self.path, checkpoint))

    @property
    def passed(self) -> bool:
        """No more of the general text was forgotten than the recipe allows; True where none was given."""
        forgetting = read_report_facts(self.path).get("forgetting")
        return not (forgetting and forgetting["exceeded"])

    def generate(
        self, prompt: str | Sequence[Mapping[str, Any]], *, max_new_tokens: int = ANSWER_TOKENS
    ) -> str:
        """The trained model's answer to a prompt or a list of messages, decoded greedily."""
        if self._answerer is None:
            self._answerer = load(str(self.path))
        return answer(self._answerer, prompt, max_new_tokens=max_new_tokens).text

    def evaluate(self, data: str | Path | Sequence[str | Path] | Rows = (), **options: Any) -> Evaluation:
        """See `tuition.evaluate`."""
        return evaluate(str(self.path), data, **options)

    def export(self, to: str | Path, *, format: str = "hf", dtype: str = "float32") -> Path:
        """See `tuition.export`."""
        return export(str(self.path), to, format=format, dtype=dtype)


def train(
    recipe: str | Path | Recipe | None = None,
    *,
    data: str | Path | Sequence[str | Path] | Rows | None = None,
    resume: bool = False,
    resume_if_begun: bool = False,
    watcher: Watcher | None = None,
    command: str = "tuition.train(…)",
    **settings: Any,
) -> Run:
    """Fine-tune a model on demonstrations.

    Args:
        recipe: a recipe file, a run folder to resume, or a Recipe; settings given beside it win.
        data: files, folders or hub names; or rows themselves: (prompt, completion) pairs, dictionaries
            in any shape that a file may have, or lists of messages.
        resume: go on from the newest checkpoint of the run folder; a run that is finished and whole is left as it is.
        resume_if_begun: the same where the folder holds a run, and begin one where it holds none.
        watcher: told what happens; None: silence.
        command: what run.json says the run was started with.
        settings: any key of the recipe, such as `model` or `epochs`.

    Raises:
        UserError: anything the user can mend.
        tuition.errors.Interrupted: stopped by a signal, with a complete checkpoint written.
    """
    refuse_resume_of_no_run(recipe, settings, resume=resume)
    _refuse_no_watcher(watcher)
    given, rows = gather(recipe, data, settings)
    start = start_of_environment()
    if start.many:
        refuse_strangers_among_ranks(given, rows)
    folder, given = choose_folder(recipe, given, resume=resume)
    # one of the ranks died, and torchrun has started all again; or a scheduler has
    if (start.restarts or resume_if_begun) and folder.holds_a_run():
        given, resume = gather(folder.path, None, {})[0], True
    signals = Signals()
    with signals.listening(), folder.claimed() if start.rank == 0 else nullcontext():
        if start.rank == 0:
            refuse_mixed_runs(folder, resume)
        written = None if rows is None else write_rows(folder.path, rows, resume=resume)
        if written is not None:
            given["data"] = (str(written),)
        told = watcher if watcher is not None and start.rank == 0 else Watcher()
        try:
            wanted = make_recipe(given)
            if resume and is_finished(folder, wanted):
                return Run(folder.path, was_finished=True)
            _learn(wanted, folder, told, start, resume=resume, command=command, signals=signals)
        finally:
            forget_word(folder, start)
            if written is not None and not folder.holds_a_run():  # it never began: leave nothing behind
                files.remove_file(written)
    return Run(folder.path)


def _refuse_no_watcher(watcher: object) -> None:
    if watcher is not None and not hasattr(watcher, "stage"):
        step = "Derive a class from tuition.screen.Watcher, or give tuition.screen.Terminal()"
        raise UserError(f"a watcher is no {type(watcher).__name__}", where="watcher", next_step=step)


def _learn(
    recipe: Recipe,
    folder: RunFolder,
    watcher: Watcher,
    start: Start,
    *,
    resume: bool,
    command: str,
    signals: Signals,
) -> None:
    """One sitting: get ready, say what will be done, do it."""
    began = time.monotonic()
    ready = get_ready(recipe, folder, watcher, start)
    watcher.opening(opening_of(ready, folder))
    from tuition.training.sitting import Sitting  # which imports torch; getting ready has by now

    Sitting(
        ready,
        folder,
        resume=resume,
        watcher=watcher,
        command=command,
        signals=signals,
        start=start,
        began=began,
    ).run()


def plan(
    recipe: str | Path | Recipe | None = None, *, gpus: int = 1, gpu: str = "h100", **settings: Any
) -> Expected:
    """What a run would take on other hardware: memory by part, bytes on the wire, time. Calculated, not measured."""
    from tuition.planning import plan_of

    given, _ = gather(recipe, None, settings)
    return plan_of(make_recipe(dict(given)), gpus=gpus, gpu=gpu)


def run_folder(
    recipe: str | Path | Recipe | None = None,
    *,
    resume: bool = False,
    resume_if_begun: bool = False,
    **settings: Any,
) -> Path:
    """The folder that `train` would write, after the same look at the door.

    Raises:
        UserError: the settings are wrong, or the folder holds another run.
    """
    refuse_resume_of_no_run(recipe, settings, resume=resume)
    given, _ = gather(recipe, None, settings)
    folder, given = choose_folder(recipe, given, resume=resume)
    refuse_mixed_runs(folder, resume or (resume_if_begun and folder.holds_a_run()))
    make_recipe(dict(given))
    return folder.path


def dry_run(
    recipe: str | Path | Recipe | None = None, *, watcher: Watcher | None = None, **settings: Any
) -> Opening:
    """Everything `train` does before step 1, and nothing written: the opening screen."""
    given, _ = gather(recipe, None, settings)
    folder, given = choose_folder(recipe, given, resume=False)
    return opening_of(get_ready(make_recipe(given), folder, watcher or Watcher(), ALONE), folder)


def read_samples(folder: str | Path) -> list[dict[str, Any]]:
    """The prompts that a run answered before and after: prompt, expected, base, tuned.

    Raises:
        UserError: the file is damaged.
    """
    from tuition.training.keeping import read_jsonl

    return read_jsonl(RunFolder(Path(folder)).samples)


def read_report_facts(folder: str | Path) -> dict[str, Any]:
    """What run.json of a run folder says.

    Raises:
        UserError: it is missing or damaged.
    """
    return RunFolder(Path(folder)).read_facts()


def figure_before(folder: str | Path, facts: Mapping[str, Any]) -> float | None:
    """What the base model scored by the figure that the run's best checkpoint was chosen by; None: not measured."""
    from tuition.evaluate.report.facts import number, read_metrics, read_rows

    _, held_out = read_metrics(read_rows(RunFolder(Path(folder)).metrics, []))
    first = next((row for row in held_out if row.get("step") == 0), {})
    return number(first, f"eval_{facts['result'].get('best_by')}")
