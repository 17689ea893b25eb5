"""One training run from recipe to report: where the rooms meet for `api.train`.

Each method is one stage, in the order `run` calls them. Nothing here computes: it hands values from
room to room and writes down what happened.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tuition import files
from tuition.batch import Plan, make_plan
from tuition.batch.corpus import Corpus, prepare_corpus
from tuition.batch.prepared import tokenizer_sha256
from tuition.conversation import Conversation
from tuition.data import find_sources
from tuition.errors import Interrupted, UserError
from tuition.machine import hardware, versions
from tuition.recipe import (
    AdapterSettings,
    BatchSettings,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RenderSettings,
)
from tuition.redact import redact
from tuition.render import (
    Renderer,
    adopt_template,
    choose_template,
    load_tokenizer,
    on_day,
    unread_pickles,
)
from tuition.render.preview import example_json, token_texts
from tuition.render.proof import Proof, prove, refuse_unproved
from tuition.screen import Opening, Watcher, by_severity, duration, size
from tuition.signals import Signals
from tuition.starter import display_name
from tuition.train.folder import RunFolder
from tuition.train.journal import Journal, Position

_LONGEST_BY_DEFAULT = 8192
_SAMPLE_TOKENS = 96


class Training:
    """A run in the making.

    Args:
        recipe: settings as the user gave them; `auto` is resolved here, once.
        folder: where the run lives.
        resume: go on from the newest checkpoint in it.
        watcher: told what happens.
        command: what was typed, for run.json.
        signals: asked whether to stop.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        *,
        resume: bool,
        watcher: Watcher,
        command: str,
        signals: Signals,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.resume = resume
        self.watcher = watcher
        self.command = command
        self.signals = signals
        self.started = time.monotonic()
        self.changed: dict[str, list[Any]] = {}
        self.notes: list[str] = []

    def prepare(self) -> Opening:
        """Everything before step 1: read, render, load, check, try. Writes nothing."""
        self._read()
        self._load()
        self._resolve()
        self._check_and_try()
        self._prove()
        return self._opening()

    def run(self) -> None:
        """Train, keep the model, answer the samples, write the report.

        Raises:
            Interrupted: a complete checkpoint was written.
        """
        with _disk_trouble_in(self.folder):
            self._begin()
        status = "failed"
        try:
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
            self._finish(status)

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

    # --- before step 1 ---

    def _read(self) -> None:
        """Tokenizer, template and every row of data: what is learned is known before a weight is loaded."""
        from tuition.train.model import context_length, load_config, quiet_transformers

        recipe = self.recipe
        sources = find_sources(recipe.data)
        if recipe.val_data:
            held_out = find_sources(recipe.val_data)
            sources = sources.with_validation(held_out.validation or held_out.test or held_out.train)
        self.sources = sources
        quiet_transformers()
        self.config = load_config(recipe.model, recipe.revision, trusted=recipe.trust_remote_code)
        self.tokenizer = load_tokenizer(recipe.model, recipe.revision, trusted=recipe.trust_remote_code)
        self.template = on_day(choose_template(recipe.chat_template, self.tokenizer), recipe.template_date)
        if self.template is not None and self.template.date is not None:
            recipe = recipe.replace(template_date=self.template.date.isoformat())
        self.new_tokens = adopt_template(self.tokenizer, self.template)
        longest = context_length(self.config)
        if recipe.max_length == "auto":
            recipe = recipe.replace(max_length=min(longest or _LONGEST_BY_DEFAULT, _LONGEST_BY_DEFAULT))
        elif longest is not None and int(recipe.max_length) > longest:
            raise UserError(
                f"max_length {recipe.max_length:,} is more than the {longest:,} positions the model holds",
                where="max_length",
                next_step=f"Set max_length: {longest} or auto",
            )
        self.recipe = recipe
        self.watcher.stage("reading and rendering the data")
        self.renderer = self._make_renderer()
        self.corpus: Corpus = prepare_corpus(
            self.sources,
            self.renderer,
            data=recipe.section(DataSettings),
            render=recipe.section(RenderSettings),
            seed=recipe.seed,
            tell=self.watcher.stage,
        )

    def _make_renderer(self) -> Renderer:
        settings = self.recipe.section(RenderSettings)
        return Renderer.from_settings(
            self.tokenizer, self.template, settings, max_length=int(settings.max_length)
        )

    def _load(self) -> None:
        """The model with what learns in it. New weights come from the seed."""
        import torch

        from tuition.train.adapters import ADAPTERS
        from tuition.train.model import choose_device, choose_dtype, fit_embeddings, load_model

        self.watcher.stage("loading the model")
        recipe = self.recipe
        self.device = choose_device(recipe.device)
        self.dtype = choose_dtype(recipe.dtype, self.device, self.config)
        torch.manual_seed(recipe.seed)
        stored = self.dtype if recipe.method == "lora" else torch.float32
        model = load_model(recipe.section(ModelSettings), self.config, device=self.device, dtype=stored)
        fit_embeddings(model, self.tokenizer)
        self.model = ADAPTERS[recipe.method](model, recipe.section(AdapterSettings), self.new_tokens)

    def _resolve(self) -> None:
        """Every `auto` becomes a value, written to the run folder and never changed again."""
        from tuition.train.model import parameter_counts
        from tuition.train.optimizer import default_learning_rate

        recipe, batch = self.recipe, self.recipe.section(BatchSettings)
        self.parameters, self.trainable = parameter_counts(self.model)
        self.plan: Plan = make_plan(
            examples=len(self.corpus.train),
            batch_size=batch.batch_size,
            epochs=batch.epochs,
            max_steps=batch.max_steps,
            seed=batch.seed,
            keys=[example.prompt_key for example in self.corpus.train] if batch.group_by_prefix else None,
        )
        tenth = max(1, self.plan.steps // 10)
        autos = {
            "learning_rate": default_learning_rate(recipe.method, self.parameters),
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "output_dir": str(self.folder.path),
            "save_every_steps": tenth,
            "eval_every_steps": max(1, self.plan.steps // self._affordable_evaluations()),
        }
        self.recipe = recipe.replace(**{k: v for k, v in autos.items() if getattr(recipe, k) == "auto"})

    def _affordable_evaluations(self) -> int:
        """Ten a run, or as many as take at most a fifth of its time; scoring a token costs a third of learning it."""
        mean_tokens = self.corpus.train.tokens / len(self.corpus.train)
        learning = mean_tokens * self.recipe.batch_size * self.plan.steps
        scoring = self.corpus.validation.tokens / 3
        return min(10, max(1, int(0.2 * learning / max(1.0, scoring))))

    def _check_and_try(self) -> None:
        """Packed must equal alone; then the run's largest pass is tried, which also gives time and memory."""
        from tuition.train.loop import make_learner
        from tuition.train.loss import LOSSES
        from tuition.train.memory import keep_freed_memory
        from tuition.train.selfcheck import choose_path
        from tuition.train.trial import try_largest_step

        self.watcher.stage("checking that packed examples stand apart, and trying the largest step")
        keep_freed_memory()
        settings = self.recipe.section(OptimizerSettings)
        self.learner = make_learner(self.model, self.device, self.dtype, settings)
        self.path = choose_path(
            self.learner, self.corpus.train, share_prefixes=self.recipe.share_prefixes != "off"
        )
        self.trial = try_largest_step(
            self.learner,
            self.corpus.train,
            self.corpus.validation,
            self.plan,
            LOSSES[settings.loss],
            self.packing,
            checkpointing=self.recipe.activation_checkpointing,
        )
        self.recipe = self.recipe.replace(
            micro_batch_tokens=self.trial.token_budget,
            activation_checkpointing="on"
            if self.trial.checkpointing
            else self.recipe.activation_checkpointing,
        )

    @property
    def packing(self) -> tuple[int | None, int]:
        """Most examples and most tokens in one forward pass."""
        return self.recipe.micro_batch_size, self.recipe.micro_batch_tokens

    @property
    def learned(self) -> Any:
        """The float32 masters that the optimizer moves, by name."""
        return self.learner.masters.parameters

    # --- the opening screen ---

    def _opening(self) -> Opening:
        recipe, corpus = self.recipe, self.corpus
        tokens = self.renderer.tokens
        facts = corpus.facts()
        tokens_to_learn = facts["tokens"] / facts["examples"] * self.plan.steps * recipe.batch_size
        seconds = tokens_to_learn / self.trial.tokens_per_second
        share = facts["learned_tokens"] / facts["tokens"]
        lines = [
            (
                "model",
                f"{display_name(recipe.model)}  {self.parameters:,} parameters, {self.trainable:,} learn ({recipe.method})",
            ),
            ("template", self.template.provenance if self.template else "none: plain text"),
            *((("data", f"{source}  {shape}") for source, shape in corpus.shapes.items())),
            (
                "rows",
                f"{facts['rows_in']:,} in, {facts['kept']:,} kept, {facts['rejected']:,} rejected"
                f"{_counted(facts['left_out'], 'left out')}{_counted(facts['truncated'], 'cut')}",
            ),
            (
                "examples",
                f"{len(corpus.train):,} to learn from, {len(corpus.validation):,} held out; "
                f"longest {facts['longest_tokens']:,} of {int(recipe.max_length):,} tokens",
            ),
            (
                "tokens",
                f"{facts['tokens']:,}, of which {facts['learned_tokens']:,} are learned ({share:.0%})",
            ),
            (
                "plan",
                f"{self.plan.steps:,} updates of {recipe.batch_size} examples ({self.plan.epochs:.3g} epochs), "
                f"{recipe.loss}, learning rate {recipe.learning_rate:.1e} {recipe.lr_scheduler}",
            ),
            *(("proof" if n == 0 else "", _proof_line(proof)) for n, proof in enumerate(self.proofs)),
            ("machine", f"{self.device} in {recipe.dtype}; {self.path.how}"),
            (
                "estimate",
                f"{duration(seconds)} and {size(self._memory_bytes())} of memory "
                f"({self.trial.tokens_per_second:,.0f} tokens/s measured on the largest pass, {self.trial.tokens:,} tokens"
                f"{', activations computed twice' if self.trial.checkpointing else ''})",
            ),
            ("run folder", str(self.folder.path)),
        ]
        return Opening(
            title=f"tuition: {recipe.method} fine-tuning of {display_name(recipe.model)}",
            facts=lines,
            example=token_texts(corpus.train.shortest, tokens),
            findings=by_severity(corpus.totals.findings),
            warnings=self._warnings(),
        )

    def _memory_bytes(self) -> int:
        """Measured on the tried step, plus AdamW's two float32 moments, which the first update adds."""
        return self.trial.peak_bytes + 8 * self.trainable

    def _warnings(self) -> list[str]:
        warnings = []
        if self.template is not None and self.template.date is not None:
            warnings.append(
                f"The chat template asks for today's date, and all rows are learned with {self.template.date} (R028). "
                "Served on another day, the model is given another date."
            )
        if pickles := unread_pickles(Path(self.recipe.model)):
            warnings.append(
                f"Not read, because a pickle can run code: {', '.join(pickles)}. The safetensors beside them are used."
            )
        if self.sources.left_out:
            warnings.append(
                f"Not read, because they name no split beside files that do: {', '.join(self.sources.left_out)}"
            )
        if not self.corpus.validation and self.recipe.val_split:
            warnings.append(
                "No row fell to validation, so the last checkpoint becomes the model. "
                "Raise val_split, or give --val-data, to choose by held-out loss."
            )
        if self.recipe.batch_size > len(self.corpus.train):
            warnings.append(
                f"batch_size {self.recipe.batch_size} is more than the {len(self.corpus.train)} examples: "
                "every update sees them all."
            )
        return warnings

    # --- the run ---

    def _begin(self) -> None:
        """Write what is known, or prove that a resume continues the same run."""
        if self.resume:
            self._prove_the_same()
        else:
            files.make_folder(self.folder.path)
            files.copy(self.corpus.prepared.record_file("ledger"), self.folder.ledger)
            files.copy(self.corpus.prepared.record_file("findings"), self.folder.findings)
            shortest = self.corpus.train.shortest
            files.write_json(self.folder.example, example_json(shortest, self.renderer.tokens))
            files.write_json(self.folder.proof, [asdict(proof) for proof in self.proofs])
        files.write_text(self.folder.recipe, self.recipe.to_yaml())
        facts = self._facts() if not self.resume else {**self.folder.read_facts(), "status": "running"}
        files.write_json(self.folder.facts, begin_sitting(facts, self._sitting()))  # last: now it holds a run

    def _prove_the_same(self) -> None:
        """Refuse to resume another run; say what else is not as it was."""
        from tuition.train.fingerprint import changed_settings, refuse_changed

        before = self.folder.read_facts()
        settings = changed_settings(self.folder.read_recipe(), self.recipe)
        refuse_changed(before.get("hashes"), self.hashes, settings, str(self.folder.path))
        self.changed = {**settings, **changed_surroundings(before, self._sitting())}
        for name, (was, now_) in self.changed.items():
            self.watcher.stage(f"{name} was {was} in the sitting before, and is {now_}")

    def _sitting(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "started": now(),
            "status": "running",
            "versions": versions(),
            "hardware": hardware(str(self.device)),
            "changed": self.changed,
            "notes": [],
        }

    def _facts(self) -> dict[str, Any]:
        return {
            "name": self.folder.name,
            "command": self.command,
            "working_folder": str(Path.cwd()),
            "started": now(),
            "status": "running",
            "versions": versions(),
            "hardware": hardware(str(self.device)),
            "hashes": self.hashes,
            "model": {
                "name": display_name(self.recipe.model),
                "parameters": self.parameters,
                "trainable_parameters": self.trainable,
                "method": self.recipe.method,
                "dtype": self.recipe.dtype,
                "new_tokens": self.new_tokens,
            },
            "data": self.corpus.facts(),
            "plan": {
                "steps": self.plan.steps,
                "epochs": self.plan.epochs,
                "batch_size": self.plan.batch_size,
                "steps_per_epoch": self.plan.steps_per_epoch,
            },
            "proof": [asdict(proof) for proof in self.proofs],
        }

    def _prove(self) -> None:
        """Verify over all examples what the run promises; a check that fails refuses to train."""
        self.watcher.stage("verifying every example")
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        self.proofs = [
            *prove(
                self.corpus.evidence,
                self.corpus.totals,
                stop_ids=self.renderer.stop_ids,
                vocabulary=vocabulary,
                tokens=self.corpus.tokens,
            ),
            Proof("packed", True, self.path.detail),
            self._room_on_disk(),
        ]
        refuse_unproved(self.proofs, self.recipe.allow_unproved)

    def _room_on_disk(self) -> Proof:
        """What the run may write at most fits beside what lies there."""
        from tuition.train.saving import bytes_to_write

        need = bytes_to_write(
            self.trainable,
            self.parameters,
            checkpoints=self.recipe.keep_checkpoints + 2,  # the best, and the one being written
            full=self.recipe.method == "full",
        )
        there = files.folder_bytes(self.folder.checkpoints)
        free = files.free_bytes(self.folder.path)
        detail = f"checkpoints and model take {size(need)} at most, and {size(free + there)} is free for them"
        if need > free + there and "disk" not in self.recipe.allow_unproved:
            raise UserError(
                f"the disk is too full: {detail}",
                where=str(self.folder.path),
                next_step="Make room, name an output_dir on another disk, set method: lora, or set "
                "allow_unproved: disk",
            )
        return Proof("disk", need <= free + there, detail)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What fixes the result, by name."""
        from tuition.train import fingerprint as fp

        corpus = self.corpus
        return {
            "data": fp.text_sha256("".join(sha256 for _, sha256 in corpus.sources)),
            "examples": fp.text_sha256(corpus.train.sha256 + corpus.validation.sha256),
            "template": fp.text_sha256(self.template.source if self.template else ""),
            "tokenizer": tokenizer_sha256(self.tokenizer),
            "model": fp.model_sha256(self.recipe.model, self.recipe.revision),
            "recipe": fp.recipe_sha256(self.recipe),
        }

    def _train(self) -> None:
        import torch

        from tuition.train import loop
        from tuition.train.saving import Saver

        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        found = self._find()
        self.progress, position = self._restore(found.folder)
        journal = Journal(self.folder.metrics, position)
        self.saver = Saver(
            self.folder.checkpoints,
            self.identity,
            journal,
            keep=recipe.keep_checkpoints,
            saved_step=self.progress.step or None,
            damaged=found.damaged,
        )
        if self.progress.step == 0:
            self._write_samples("base")
            if self.corpus.validation:
                journal.write(asdict(self._evaluate(0)))
        hooks = loop.Hooks(
            on_step=partial(_report, journal, self.watcher.step),
            on_eval=partial(_report, journal, self.watcher.evaluation),
            evaluate=self._evaluate if self.corpus.validation else None,
            save=self._save,
            should_stop=self._should_stop,
            hurry=self.signals.hurry,
            on_skip=partial(self._skipped, journal),
        )
        with self.signals.gently(), self.saver:
            self.watcher.begin(self.plan.steps, self.progress.step)
            loop.train(
                self.learner,
                self.corpus.train,
                self.plan,
                recipe.section(OptimizerSettings),
                self.packing,
                loop.Pacing(
                    int(recipe.eval_every_steps), int(recipe.save_every_steps), recipe.log_every_steps
                ),
                self.progress,
                hooks,
            )
        if self.signals.asked():  # during the last update: what is left to do, a resume does
            raise Interrupted

    @cached_property
    def identity(self) -> Any:
        """What a checkpoint must agree with."""
        from tuition.train.checkpoint import Identity
        from tuition.train.fingerprint import fingerprint_of, order_sha256

        return Identity(fingerprint_of(self.hashes), partial(order_sha256, self.plan))

    def _find(self) -> Any:
        """The checkpoint to go on from. A new run has none, whatever lies in the folder."""
        from tuition.train.checkpoint import Found, find_checkpoint, sweep

        if not self.resume:
            return Found(None, (), frozenset())
        sweep(self.folder.checkpoints)
        found = find_checkpoint(self.folder.checkpoints, self.identity.fingerprint)
        for sentence in found.sentences:
            self._note(sentence)
        return found

    def _restore(self, folder: Path | None) -> tuple[Any, Position]:
        from tuition.train.checkpoint import Progress, load_checkpoint

        if folder is None:
            if self.resume:
                self._note("no checkpoint to go on from: starting at step 1")
            return Progress(), Position()
        self.watcher.stage(f"going on from {folder}")
        progress, position = load_checkpoint(folder, self.learned, self.learner.optimizer, self.identity)
        self.learner.masters.publish()
        if not self.folder.metrics.exists():
            self._note(f"metrics.jsonl is gone: the figures up to step {progress.step} are not in it")
            position = Position()
        self.folder.update_sitting(from_step=progress.step)
        return progress, position

    def _note(self, sentence: str) -> None:
        """Say something now, and in run.json."""
        self.notes.append(sentence)
        self.watcher.stage(sentence)
        self.folder.update_sitting(notes=self.notes)

    def _should_stop(self) -> bool:
        self.saver.check()
        return self.signals.asked()

    def _skipped(self, journal: Journal, report: Any) -> None:
        journal.write(asdict(report))
        self.watcher.stage(f"step {report.step} is left out: {report.skipped}")

    def _evaluate(self, step: int) -> Any:
        from tuition.evaluate.heldout import held_out_loss
        from tuition.train.loop import EvalReport

        held_out = held_out_loss(
            self.learner,
            self.corpus.validation,
            text_bytes=self._held_out_bytes,
            packing=self.packing,
            go_on=self._refuse_to_linger,
        )
        return EvalReport(step, held_out.loss, held_out.bits_per_byte, held_out.tokens)

    @cached_property
    def _held_out_bytes(self) -> int:
        from tuition.evaluate.heldout import learned_bytes

        return learned_bytes(self.corpus.validation, self.renderer.tokens)

    def _refuse_to_linger(self) -> None:
        if self.signals.hurry():
            raise Interrupted

    def _save(self, progress: Any) -> None:
        self.saver.save(self.learned, self.learner.optimizer, progress)

    def _keep_model(self) -> None:
        """The kept checkpoint becomes model/ or adapter/, whole or not at all."""
        from tuition.ship.export import write_model_folder
        from tuition.train.adapters import save_adapter
        from tuition.train.checkpoint import load_weights
        from tuition.train.model import save_tokenizer

        best = self.progress.best_step
        if self.recipe.keep == "best" and best is not None and best != self.progress.step:
            load_weights(self.folder.checkpoints / f"step-{best}", self.learned)
            self.learner.masters.publish()
        self._write_samples("tuned")
        self.learner.masters.settle()
        final = self.folder.adapter if self.recipe.method == "lora" else self.folder.model
        if final.exists():  # a sitting that was killed after this point
            files.remove_folder(final)
        temporary = files.fresh_folder(final.with_name(f".{final.name}.tmp"))
        if self.recipe.method == "lora":
            save_adapter(
                self.model,
                self.tokenizer,
                temporary,
                base=self.recipe.model,
                stop_ids=self.renderer.stop_ids,
                revision=self.recipe.revision,
            )
            save_tokenizer(
                self.tokenizer,
                temporary,
                base=self.recipe.model,
                vocabulary_changed=bool(self.new_tokens),
                plain=self.template is None,
            )
        else:
            write_model_folder(
                self.model,
                self.tokenizer,
                temporary,
                base=self.recipe.section(ModelSettings),
                stop_ids=self.renderer.stop_ids,
                plain=self.template is None,
            )
        files.publish_folder(temporary, final)

    def _write_samples(self, which: str) -> None:
        """Answer the sample prompts with the model as it is now, beside what was answered before."""
        from tuition.evaluate.generate import generate, question_of

        pool: Sequence[Conversation] = self.corpus.held_out or self.corpus.learned_from
        questions = [q for q in map(question_of, pool) if q is not None][: self.recipe.samples]
        prompts = [(q.messages, q.conversation.tools) for q in questions]
        answers = generate(self.model, self.renderer, prompts, max_new_tokens=_SAMPLE_TOKENS, batch_size=16)
        before = {(row.get("file"), row.get("line")): row for row in read_jsonl(self.folder.samples)}
        rows = []
        for question, answer in zip(questions, answers, strict=True):
            origin = question.conversation.origin
            row = before.get((origin.file, origin.line), {"base": None, "tuned": None})
            place = {
                "prompt": question.prompt,
                "expected": question.expected,
                "file": origin.file,
                "line": origin.line,
            }
            rows.append({**row, **place, which: answer.text})
        files.write_jsonl(self.folder.samples, rows)

    def _finish(self, status: str) -> None:
        from tuition.evaluate.report import write_report
        from tuition.train.memory import peak_memory

        progress = getattr(self, "progress", None)
        result = {}
        if progress is not None:
            result = {
                **asdict(progress),
                "tokens_per_second": progress.tokens / progress.seconds if progress.seconds else None,
                "peak_memory_bytes": peak_memory(self.device),
            }
        try:
            self.folder.update_sitting(status=status, finished=now(), to_step=result.get("step"))
            self.folder.update_facts(
                status=status,
                finished=now(),
                seconds=round(time.monotonic() - self.started, 3),
                result=result,
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


def begin_sitting(facts: dict[str, Any], sitting: dict[str, Any]) -> dict[str, Any]:
    """run.json with another sitting in it. One that still says it is running was killed."""
    before = [{**s, "status": "killed"} if s.get("status") == "running" else s for s in _sittings(facts)]
    return {**facts, "sittings": [*before, sitting]}


@contextmanager
def _disk_trouble_in(folder: RunFolder) -> Iterator[None]:
    """A failed write inside becomes an error that names the cause and the way on."""
    from tuition.train.saving import trouble

    try:
        yield
    except OSError as error:
        raise trouble(error, folder.path) from error


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


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file that tuition wrote; none when there is no file.

    Raises:
        UserError: the file is damaged.
    """
    import json

    if not path.exists():
        return []
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"cannot be read ({error})", where=str(path), next_step="Remove the file, and resume"
        ) from None
    return [row for row in rows if isinstance(row, dict)]


def now() -> str:
    """The time now, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line() -> str:
    """What was typed, as it can be pasted again; `***` for secrets."""
    import shlex

    return redact(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def _report(journal: Journal, tell: Any, report: Any) -> None:
    journal.write(asdict(report))
    tell(report)


def _proof_line(proof: Proof) -> str:
    return f"{'✓' if proof.ok else '✗ allowed by the recipe:'} {proof.detail}"


def _counted(count: int, word: str) -> str:
    return f", {count:,} {word}" if count else ""
