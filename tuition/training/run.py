"""The run itself: begin or go on, train, keep the model, finish. The methods stand in the order of the stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import files
from tuition.errors import Interrupted, UserError
from tuition.recipe import OptimizerSettings, Recipe
from tuition.render.preview import example_json
from tuition.screen import Opening, Watcher
from tuition.signals import Signals
from tuition.train.folder import RunFolder
from tuition.train.journal import Journal, NoJournal, Position
from tuition.training.facts import begin_sitting, changed_surroundings, facts_of, now, sitting_of
from tuition.training.keeping import write_model, write_samples
from tuition.training.opening import opening_of
from tuition.training.pulse import Pulse
from tuition.training.ready import Ready, get_ready, whole_again
from tuition.training.telling import Telling
from tuition.training.trackers import Trackers, session_of
from tuition.training.waiting import ALONE, Start

if TYPE_CHECKING:
    from tuition.evaluate.forgetting import Forgetting
    from tuition.training.choosing import Kept


class Training:
    """A run in the making.

    Args:
        recipe: settings as the user gave them.
        folder: where the run lives.
        resume: go on from the newest checkpoint in it.
        watcher: told what happens.
        command: what was typed, for run.json.
        signals: asked whether to stop.
        start: of the ranks that train. Those behind the first write nothing.
    """

    ready: Ready

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        *,
        resume: bool,
        watcher: Watcher,
        command: str,
        signals: Signals,
        start: Start = ALONE,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.resume = resume
        self.watcher = watcher
        self.command = command
        self.signals = signals
        self.start = start
        self.pulse = Pulse(start.rank, recipe.heartbeat_seconds)
        self.writes = start.rank == 0
        self.started = time.monotonic()
        self.notes: list[str] = []
        self.telling: Telling | None = None
        self.kept: Kept | None = None
        self.forgotten: Forgetting | None = None

    def prepare(self) -> Opening:
        """Everything before step 1. Writes nothing."""
        self.ready = get_ready(self.recipe, self.folder, self.watcher, self.start)
        return opening_of(self.ready, self.folder)

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
                self._train()
                self._keep_model()
            status = "finished"
        except Interrupted as stop:
            status, stop.folder = "interrupted", str(self.folder.path)
            raise
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
        except Interrupted as stop:
            stop.folder = str(self.folder.path)
            raise

    def _left(self, stop: KeyboardInterrupt) -> BaseException:
        """What leaving outside of the loop, or at once, means to the user."""
        if not self.folder.holds_a_run():
            return stop
        if self.signals.count < 2:
            interrupted = Interrupted()
            interrupted.folder = str(self.folder.path)
            return interrupted
        return KeyboardInterrupt(
            f"left at once. Go on from the last checkpoint with: tuition train {self.folder.path} --resume"
        )

    # --- begin, or go on ---

    def _begin(self) -> None:
        """Write what is known, or prove that a resume continues the same run."""
        ready, changed = self.ready, {}
        if self.resume:
            changed = self._prove_the_same()
        else:
            files.make_folder(self.folder.path)
            ready.corpus.prepared.copy_records("ledger", self.folder.ledger)
            ready.corpus.prepared.copy_records("findings", self.folder.findings)
            ready.corpus.prepared.copy_records("prompts", self.folder.prompts)
            typical = ready.corpus.at_hand.typical
            files.write_json(self.folder.example, example_json(typical, ready.renderer.tokens))
            files.write_json(self.folder.proof, [asdict(proof) for proof in ready.proofs])
        files.write_text(self.folder.recipe, ready.recipe.to_yaml())
        facts = (
            {**self.folder.read_facts(), "status": "running"}
            if self.resume
            else facts_of(ready, self.folder, self.command)
        )
        sitting = sitting_of(ready, self.command, changed)
        files.write_json(self.folder.facts, begin_sitting(facts, sitting))  # last: now it holds a run

    def _prove_the_same(self) -> dict[str, list[Any]]:
        """Refuse to resume another run; say what else is not as it was."""
        from tuition.train.fingerprint import changed_settings, refuse_changed

        before = self.folder.read_facts()
        settings = changed_settings(self.folder.read_recipe(), self.ready.recipe)
        refuse_changed(before.get("hashes"), self.ready.hashes, settings, str(self.folder.path))
        changed = {**settings, **changed_surroundings(before, sitting_of(self.ready, self.command, {}))}
        for name, (was, now_) in changed.items():
            self.watcher.stage(f"{name} was {was} in the sitting before, and is {now_}")
        return changed

    def _find(self) -> Any:
        """The checkpoint to go on from. A new run has none, whatever lies in the folder."""
        from tuition.train.shelf import Found, find_checkpoint, sweep

        ranks = self.ready.learner.ranks
        resumes = ranks.told(self.resume)  # said when the first has begun, so that all find its folder
        if not resumes:
            return Found(None, (), frozenset())
        if self.writes:
            sweep(self.folder.checkpoints)
        found = find_checkpoint(self.folder.checkpoints, self.identity.fingerprint, ranks)
        for sentence in found.sentences:
            self._note(sentence)
        return found

    def _restore(self, checkpoint: Path | None) -> tuple[Any, Position]:
        from tuition.train.checkpoint import Progress, load_checkpoint

        if checkpoint is None:
            if self.resume:
                self._note("no checkpoint to go on from: starting at step 1")
            return Progress(), Position()
        self.watcher.stage(f"going on from {checkpoint}")
        learner = self.ready.learner
        progress, position = load_checkpoint(
            checkpoint, self.ready.learned, learner.optimizer, self.identity, learner.ranks.rank
        )
        learner.masters.publish()
        if not self.folder.metrics.exists():
            self._note(f"metrics.jsonl is gone: the figures up to step {progress.step} are not in it")
            position = Position()
        if self.writes:
            self.folder.update_sitting(from_step=progress.step)
        if progress.step >= self.ready.plan.steps:
            self.watcher.stage("every update has been taken: only what follows them is made again")
        return progress, position

    @cached_property
    def identity(self) -> Any:
        """What a checkpoint must agree with."""
        from tuition.train.checkpoint import Identity
        from tuition.train.fingerprint import fingerprint_of, order_sha256

        return Identity(fingerprint_of(self.ready.hashes), partial(order_sha256, self.ready.plan))

    def _note(self, sentence: str) -> None:
        """Say something now, and in run.json."""
        if not self.writes:
            return
        self.notes.append(sentence)
        self.watcher.stage(sentence)
        self.folder.update_sitting(notes=self.notes)

    # --- train ---

    def _train(self) -> None:
        import torch

        from tuition.train import loop
        from tuition.train.saving import Saver
        from tuition.training.choosing import early_sentence, stays
        from tuition.training.judging import evaluators_of

        ready, recipe, ranks = self.ready, self.ready.recipe, self.ready.learner.ranks
        torch.manual_seed(recipe.seed + ranks.rank)
        found = self._find()
        self.progress, position = self._restore(found.folder)
        journal = Journal(self.folder.metrics, position) if self.writes else NoJournal(self.folder.metrics)
        self.saver = Saver(
            self.folder.checkpoints,
            self.identity,
            journal,
            keep=recipe.keep_checkpoints,
            stays=partial(stays, recipe, ready.plan),
            saved_step=self.progress.step or None,
            ranks=ranks,
            damaged=found.damaged,
        )
        session = session_of(recipe, self.folder, self.progress.step)
        told = recipe.report_to if self.writes else ()
        telling = Telling(journal, self.watcher, Trackers(told, session, self._note))
        self.telling = telling
        self.evaluators = evaluators_of(ready, self._refuse_to_linger)
        if self.progress.step == 0:
            self._look_before(telling)
        hooks = loop.Hooks(
            on_step=telling.step,
            on_eval=telling.evaluation,
            save=self._save,
            evaluators=self.evaluators,
            choosing=ready.judging.choosing,
            should_stop=self._should_stop,
            hurry=self._hurry,
            breakable=nullcontext if self.start.many else self.signals.breakable,
            on_skip=telling.skipped,
        )
        pacing = loop.Pacing(int(recipe.save_every_steps), recipe.log_every_steps, recipe.keep_every_epoch)
        watched = self.pulse.watched() if self.start.many else nullcontext()
        with self.signals.gently(), self.saver, watched:
            self.watcher.begin(ready.plan.steps, self.progress.step)
            loop.train(
                ready.learner,
                ready.corpus.train,
                ready.plan,
                recipe.section(OptimizerSettings),
                ready.packing,
                pacing,
                self.progress,
                hooks,
            )
        if self.progress.stopped_early:
            self._note(early_sentence(self.progress, recipe.best_by))
        if ranks.any(self.signals.asked()):  # during the last update: what is left to do, a resume does
            raise Interrupted

    def _look_before(self, telling: Telling) -> None:
        """The base model, before anything is learned: sample answers, general text, held-out figures."""
        from tuition.train.loop import EvalReport
        from tuition.training.forgetting import score_general_before

        write_samples(self.ready, self.folder, "base")
        score_general_before(self.ready, self.folder)
        if self.evaluators:
            figures = {k: v for evaluator in self.evaluators for k, v in evaluator.measure().items()}
            telling.base(EvalReport(0, figures))

    def _should_stop(self) -> bool:
        """Whether a rank was asked to; the same on all, and so is an end because a checkpoint cannot be written."""
        self.pulse.beat()
        failed, asked = self.ready.learner.ranks.sums(self.saver.failed, self.signals.asked())
        if failed:
            self.saver.wait()  # says what is wrong, on the ranks that write
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

    def _save(self, progress: Any) -> None:
        self.saver.save(self.ready.learned, self.ready.learner.optimizer, progress)

    # --- keep, and finish ---

    def _keep_model(self) -> None:
        """The weights that are kept answer the samples, read the general text, and become the model."""
        from tuition.train.distributed import ALONE as NO_OTHERS
        from tuition.training.choosing import choose_weights
        from tuition.training.forgetting import forgotten
        from tuition.training.judging import evaluators_of

        if self.ready.learner.ranks.sharded:
            self.ready = whole_again(self.ready, self.folder.checkpoints / f"step-{self.progress.step}")
            self.evaluators = evaluators_of(self.ready, self._refuse_to_linger)
        self.ready.learner.ranks = NO_OTHERS  # they have done their part and leave
        self.kept = choose_weights(self.ready, self.folder, self.progress, self.evaluators)
        if self.kept.sentence is not None:
            self._note(self.kept.sentence)
        write_samples(self.ready, self.folder, "tuned")
        self.forgotten = forgotten(self.ready, self.folder, self._note)
        write_model(self.ready, self.folder)

    def _finish(self, status: str) -> None:
        from tuition.evaluate.report import write_report

        result = self._result()
        try:
            self.folder.update_sitting(status=status, finished=now(), to_step=result.get("step"))
            self.folder.update_facts(
                status=status,
                finished=now(),
                seconds=round(time.monotonic() - self.started, 3),
                result=result,
                **({} if self.forgotten is None else {"forgetting": self.forgotten.to_json()}),
            )
        except (OSError, UserError) as error:  # the fault that ended the run is what is reported
            self.watcher.stage(f"run.json could not be written ({error})")
        if self.signals.count > 1:
            return  # left at once
        try:
            write_report(self.folder.path)
        except (
            Exception
        ) as error:  # the run is done and its model written: a faulty report must not hide that
            self.watcher.stage(f"the report could not be written ({type(error).__name__}: {error})")

    def _result(self) -> dict[str, Any]:
        """What came of the run, for run.json; nothing before training began."""
        from tuition.train.memory import peak_memory

        progress = getattr(self, "progress", None)
        if progress is None:
            return {}
        return {
            **asdict(progress),
            "best_by": self.ready.recipe.best_by,
            "kept": None if self.kept is None else asdict(self.kept),
            "tokens_per_second": progress.tokens / progress.seconds if progress.seconds else None,
            "peak_memory_bytes": peak_memory(self.ready.device),
        }


@contextmanager
def _disk_trouble_in(folder: RunFolder) -> Iterator[None]:
    """A failed write inside becomes an error that names the cause and the way on."""
    from tuition.train.saving import trouble

    try:
        yield
    except OSError as error:
        raise trouble(error, folder.path) from error
