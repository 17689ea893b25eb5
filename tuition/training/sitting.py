"""One sitting of a run: begin or go on, train, keep the model, finish. The methods stand in the order of the stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch

from tuition.errors import Interrupted, UserError
from tuition.evaluate.forgetting import Forgetting
from tuition.evaluate.report import write_report
from tuition.recipe import OptimizerSettings
from tuition.screen import Watcher
from tuition.signals import Signals
from tuition.train import loop
from tuition.train.checkpoint import Identity, Progress
from tuition.train.distributed import ALONE as NO_OTHERS
from tuition.train.folder import RunFolder
from tuition.train.journal import Journal, NoJournal
from tuition.train.reports import EvalReport
from tuition.train.saving import Saver, trouble
from tuition.training.beginning import StartingPoint, begin, begin_again, identity_of, take_up
from tuition.training.choosing import Kept, choose_weights, early_sentence, stays
from tuition.training.facts import now, result_of, seconds_of_sittings
from tuition.training.forgetting import forgotten, score_general_before
from tuition.training.judging import evaluators_of
from tuition.training.keeping import write_model, write_samples
from tuition.training.pulse import Pulse
from tuition.training.ready import Ready, whole_again
from tuition.training.telling import Telling
from tuition.training.trackers import Trackers, session_of
from tuition.training.waiting import Start


class Sitting:
    """One time that a run is worked on.

    Args:
        ready: the run.
        folder: where it lives.
        resume: go on from the newest checkpoint in it.
        watcher: told what happens.
        command: what was typed, for run.json.
        signals: asked whether to stop.
        start: of the ranks that train. Those behind the first write nothing.
        began: `time.monotonic()` when preparing began.
    """

    def __init__(
        self,
        ready: Ready,
        folder: RunFolder,
        *,
        resume: bool,
        watcher: Watcher,
        command: str,
        signals: Signals,
        start: Start,
        began: float,
    ) -> None:
        self.ready, self.folder, self.resume = ready, folder, resume
        self.watcher, self.command, self.signals = watcher, command, signals
        self.start, self.began = start, began
        self.writes = start.rank == 0
        self.pulse = Pulse(start.rank, ready.recipe.heartbeat_seconds)
        self.notes: list[str] = []
        self.progress: Progress | None = None
        self.telling: Telling | None = None
        self.kept: Kept | None = None
        self.forgotten: Forgetting | None = None

    def run(self) -> None:
        """Train, keep the model, answer the samples, write the report.

        Raises:
            Interrupted: a complete checkpoint was written.
        """
        if not self.writes:
            self._follow()
            return
        with _disk_trouble_in(self.folder), self.signals.gently():  # a moment; half a beginning would stay
            self._begin()
        status = "failed"
        try:
            if self.signals.asked():
                raise Interrupted
            with _disk_trouble_in(self.folder):
                self._keep_model(*self._train())
            status = "finished"
        except Interrupted:
            status = "interrupted"
            raise Interrupted(str(self.folder.path)) from None
        except KeyboardInterrupt as stop:  # outside of the loop, where all that was learned is saved
            status = "interrupted"
            raise self._left(stop) from None
        finally:
            self.watcher.end()
            if self.telling is not None and self.signals.count < 2:
                self.telling.trackers.finish()
            self._finish(status)

    def _follow(self) -> None:
        """What a rank behind the first does: its part of the training."""
        try:
            self._train()
        except Interrupted:
            raise Interrupted(str(self.folder.path)) from None

    def _left(self, stop: KeyboardInterrupt) -> BaseException:
        """What leaving outside of the loop, or at once, means to the user."""
        if not self.folder.holds_a_run():
            return stop
        if self.signals.count < 2:
            return Interrupted(str(self.folder.path))
        return KeyboardInterrupt(
            f"left at once. Go on from the last checkpoint with: {self.folder.resume_command}"
        )

    def _begin(self) -> None:
        if self.resume:
            begin_again(self.ready, self.folder, self.command, self.watcher.stage)
        else:
            begin(self.ready, self.folder, self.command)

    def _note(self, sentence: str) -> None:
        """Say something now, and in run.json."""
        if not self.writes:
            return
        self.notes.append(sentence)
        self.watcher.stage(sentence)
        self.folder.update_sitting(notes=self.notes)

    # --- train ---

    def _train(self) -> tuple[Progress, list[loop.Evaluator]]:
        """Take the updates that are still to take; how far the run is, and what measures it."""
        ready, recipe, ranks = self.ready, self.ready.recipe, self.ready.learner.ranks
        torch.manual_seed(recipe.seed + ranks.rank)
        identity = identity_of(ready)
        start = take_up(
            ready, self.folder, identity, resume=self.resume, watch=self.watcher.stage, note=self._note
        )
        progress = self.progress = start.progress
        saver = self._saver(identity, start)
        telling = self.telling = self._telling(saver.journal, progress.step)
        evaluators = evaluators_of(ready, self._refuse_to_linger)
        if progress.step == 0:
            self._look_before(telling, evaluators)
        hooks = self._hooks(saver, telling, evaluators)
        pacing = loop.Pacing(int(recipe.save_every_steps), recipe.log_every_steps, recipe.keep_every_epoch)
        watched = self.pulse.watched() if self.start.many else nullcontext()
        with self.signals.gently(), saver, watched:
            self.watcher.begin(ready.plan.steps, progress.step)
            loop.train(
                ready.learner, ready.corpus.train, ready.plan, recipe.section(OptimizerSettings), ready.packing,
                pacing, progress, hooks,
            )  # fmt: skip
        if progress.stopped_early:
            self._note(early_sentence(progress, recipe.best_by))
        if ranks.any(self.signals.asked()):  # during the last update: what is left to do, a resume does
            raise Interrupted
        return progress, evaluators

    def _saver(self, identity: Identity, start: StartingPoint) -> Saver:
        metrics = self.folder.metrics
        return Saver(
            self.folder.checkpoints,
            identity,
            Journal(metrics, start.position) if self.writes else NoJournal(metrics),
            keep=self.ready.recipe.keep_checkpoints,
            stays=partial(stays, self.ready.recipe, self.ready.plan),
            saved_step=start.progress.step or None,
            ranks=self.ready.learner.ranks,
            damaged=start.damaged,
        )

    def _telling(self, journal: Journal, step: int) -> Telling:
        recipe = self.ready.recipe
        session = session_of(recipe, self.folder, step)
        told = recipe.report_to if self.writes else ()
        return Telling(journal, self.watcher, Trackers(told, session, self._note))

    def _look_before(self, telling: Telling, evaluators: list[loop.Evaluator]) -> None:
        """The base model, before anything is learned: sample answers, general text, held-out figures."""
        write_samples(self.ready, self.folder, "base")
        score_general_before(self.ready, self.folder)
        if evaluators:
            figures = {k: v for evaluator in evaluators for k, v in evaluator.measure().items()}
            telling.base(EvalReport(0, figures))

    def _hooks(self, saver: Saver, telling: Telling, evaluators: list[loop.Evaluator]) -> loop.Hooks:
        return loop.Hooks(
            on_step=telling.step,
            on_eval=telling.evaluation,
            save=lambda progress: saver.save(self.ready.learned, self.ready.learner.optimizer, progress),
            evaluators=evaluators,
            choosing=self.ready.judging.choosing,
            should_stop=partial(self._should_stop, saver),
            hurry=self._hurry,
            breakable=nullcontext if self.start.many else self.signals.breakable,
            on_skip=telling.skipped,
        )

    def _should_stop(self, saver: Saver) -> bool:
        """Whether a rank was asked to; the same on all, and so is an end because a checkpoint cannot be written."""
        self.pulse.beat()
        failed, asked = self.ready.learner.ranks.sums(saver.failed, self.signals.asked())
        if failed:
            saver.wait()  # says what is wrong, on the ranks that write
            raise UserError(
                "the first rank could not write a checkpoint",
                where=str(self.folder.path),
                next_step="Mend what it says, and go on with --resume",
            )
        return bool(asked)

    def _hurry(self) -> bool:
        """Several ranks can stop between updates only: in the middle of one, they wait for one another."""
        self.pulse.beat()
        return not self.start.many and self.signals.hurry()

    def _refuse_to_linger(self) -> None:
        if self._hurry():
            raise Interrupted

    # --- keep, and finish ---

    def _keep_model(self, progress: Progress, evaluators: list[loop.Evaluator]) -> None:
        """The weights that are kept answer the samples, read the general text, and become the model."""
        if self.ready.learner.ranks.sharded:
            self.ready = whole_again(self.ready, self.folder.checkpoints / f"step-{progress.step}")
            evaluators = evaluators_of(self.ready, self._refuse_to_linger)
        self.ready.learner.ranks = NO_OTHERS  # they have done their part and leave
        self.kept = choose_weights(self.ready, self.folder, progress, evaluators)
        if self.kept.sentence is not None:
            self._note(self.kept.sentence)
        write_samples(self.ready, self.folder, "tuned")
        self.forgotten = forgotten(self.ready, self.folder, self._note)
        write_model(self.ready, self.folder)

    def _finish(self, status: str) -> None:
        result = {} if self.progress is None else result_of(self.ready, self.progress, self.kept)
        try:
            seconds = round(time.monotonic() - self.began, 3)
            self.folder.update_sitting(
                status=status, finished=now(), to_step=result.get("step"), seconds=seconds
            )
            self.folder.update_facts(
                status=status,
                finished=now(),
                seconds=seconds_of_sittings(self.folder.read_facts()),
                result=result,
                **({} if self.forgotten is None else {"forgetting": self.forgotten.to_json()}),
            )
        except (OSError, UserError) as error:  # the fault that ended the run is what is reported
            self.watcher.stage(f"run.json could not be written ({error})")
        if self.signals.count > 1:
            return  # left at once
        try:
            write_report(self.folder.path)
        except Exception as error:  # the model is written: a faulty report must not hide that
            self.watcher.stage(f"the report could not be written ({type(error).__name__}: {error})")


@contextmanager
def _disk_trouble_in(folder: RunFolder) -> Iterator[None]:
    """A failed write inside becomes an error that names the cause and the way on."""
    try:
        yield
    except OSError as error:
        raise trouble(error, folder.path) from error
