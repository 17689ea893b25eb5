"""Everything before step 1: load, resolve, try, prove, from the material that was read. Nothing is written.

`get_ready` reads top to bottom; each stage takes what the ones before found, and nothing is changed after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import files
from tuition.batch import Plan, make_plan
from tuition.batch.corpus import Corpus, data_sha256
from tuition.batch.prepared import tokenizer_sha256
from tuition.batch.stream.files import StreamedSide
from tuition.errors import UserError
from tuition.recipe import (
    AdapterSettings,
    BatchSettings,
    LearnedSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
)
from tuition.render.proof import Proof, prove, refuse_unproved
from tuition.screen import Watcher, size
from tuition.signals import first_signal_leaves
from tuition.train.folder import RunFolder
from tuition.training.material import Material, read_material
from tuition.training.waiting import Start, prepared_once

if TYPE_CHECKING:
    import torch

    from tuition.train.distributed import Ranks
    from tuition.train.learner import Learner
    from tuition.train.selfcheck import PathCheck
    from tuition.train.trial import Trial
    from tuition.training.judging import Judging


@dataclass(frozen=True, kw_only=True)
class Ready(Material):
    """A run that may begin.

    Attributes:
        recipe: every `auto` in it is a value now.
        found: the settings that were `auto`, whose values nobody chose.
        parameters, trainable: how many numbers the model has, and how many of them learn.
        path: how examples are laid in a forward pass, as the self-check chose it.
        trial: what the largest pass took.
        judging: what the run is judged by while it learns.
    """

    learner: Learner
    parameters: int
    trainable: int
    plan: Plan
    path: PathCheck
    trial: Trial
    proofs: list[Proof]
    judging: Judging
    found: tuple[str, ...]

    @property
    def model(self) -> Any:
        """With what learns in it."""
        return self.learner.model

    @property
    def device(self) -> torch.device:
        """Of this rank."""
        return self.learner.device

    @property
    def learned(self) -> dict[str, torch.nn.Parameter]:
        """The float32 masters that the optimizer moves, by name."""
        return self.learner.masters.parameters

    @property
    def packing(self) -> tuple[int | None, int]:
        """Most examples and most tokens in one forward pass."""
        return _packing(self.recipe)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What fixes the result, by name."""
        from tuition.train import fingerprint as fp

        corpus = self.corpus
        return {
            "data": data_sha256(corpus.sources),
            "examples": fp.text_sha256(corpus.train.sha256 + corpus.validation.sha256),
            "template": fp.text_sha256(self.template.source if self.template else ""),
            "tokenizer": tokenizer_sha256(self.tokenizer),
            "model": fp.model_sha256(self.recipe.model, self.recipe.revision),
            "recipe": fp.recipe_sha256(self.recipe),
        }


def get_ready(recipe: Recipe, folder: RunFolder, watcher: Watcher, start: Start) -> Ready:
    """A run that may begin, or the reason why it may not.

    Args:
        recipe: settings as the user gave them; `auto` is resolved here, once.
        folder: where the run will live.
        start: the ranks that will train.

    Raises:
        UserError: anything the user can mend; a proof failed.
    """
    from tuition.training.trackers import refuse_missing

    refuse_missing(recipe.report_to)
    with prepared_once(folder, start):
        material = read_material(recipe, watcher, leads=start.rank == 0)
    from tuition.training.judging import make_judging  # which imports torch

    judging = make_judging(material)
    watcher.stage("loading the model")
    ranks = _meet(material)
    model, device, dtype = load_learned(material, ranks)
    parameters, trainable = _count(model)
    plan = _plan(material)
    resolved = _resolve(material, folder, plan, parameters, device, dtype)
    watcher.stage("checking that packed examples stand apart, and trying the largest step")
    learner, path = _make_learner(model, device, dtype, resolved, ranks, material.corpus)
    path = _compile(learner, path, material.corpus, plan, resolved)
    trial = _try(learner, material.corpus, plan, resolved)
    watcher.stage("verifying every example")
    proofs = [
        *_prove(material, model),
        Proof("packed", True, path.detail),
        _room_on_disk(resolved, folder, plan, parameters, trainable),
    ]
    refuse_unproved(proofs, resolved.allow_unproved)
    resolved = _with_measured(resolved, trial, judging, material, plan, learner)
    ready = Ready(
        **{**vars(material), "recipe": ranks.told(resolved)},
        learner=learner,
        parameters=parameters,
        trainable=trainable,
        plan=plan,
        path=path,
        trial=trial,
        proofs=proofs,
        judging=judging,
        found=tuple(key for key in Recipe.model_fields if getattr(recipe, key) == "auto"),
    )
    ranks.refuse_different("run", ready.hashes if ranks.many else {})
    return ready


def _meet(material: Material) -> Ranks:
    """The ranks come together, each with the data at hand."""
    from tuition.train.distributed import join_ranks
    from tuition.train.model import choose_device

    with first_signal_leaves():
        return join_ranks(choose_device(material.recipe.device), material.recipe.parallel)


def load_learned(material: Material, ranks: Ranks) -> tuple[Any, torch.device, torch.dtype]:
    """The model with what learns in it, its device and its dtype. New weights come from the seed."""
    import torch

    from tuition.train.adapters import ADAPTERS, choose_learned, round_frozen
    from tuition.train.model import choose_device, choose_dtype, fit_embeddings, load_model

    recipe = material.recipe
    device = ranks.device_of(choose_device(recipe.device))
    dtype = ranks.told(choose_dtype(recipe.dtype, device, material.config))  # auto measures, and ranks differ
    torch.manual_seed(recipe.seed)
    stored = dtype if recipe.adapted else torch.float32
    # what is rounded moves in 4 bits, and what is shared out in parts
    first = torch.device("cpu") if recipe.method == "qlora" or ranks.sharded else device
    model = load_model(recipe.section(ModelSettings), material.config, device=first, dtype=stored)
    fit_embeddings(model, material.tokenizer)
    model = ADAPTERS[recipe.method](model, recipe.section(AdapterSettings), material.new_tokens)
    choose_learned(model, recipe.section(LearnedSettings))
    if not (recipe.adapted or ranks.sharded):  # shards are rounded as they are gathered
        round_frozen(model, dtype)
    return model if ranks.sharded else model.to(device), device, dtype


def _count(model: Any) -> tuple[int, int]:
    from tuition.train.model import parameter_counts

    return parameter_counts(model)


def _plan(material: Material) -> Plan:
    """Which examples make which update."""
    examples = material.corpus.train
    batch = material.recipe.section(BatchSettings)
    return make_plan(
        examples=len(examples),
        batch_size=batch.batch_size,
        epochs=batch.epochs,
        max_steps=batch.max_steps,
        seed=batch.seed,
        keys=[example.prompt_key for example in examples] if batch.group_by_prefix else None,
        files=examples.files if isinstance(examples, StreamedSide) else None,
        together=material.recipe.stream_files,
    )


def _resolve(
    material: Material,
    folder: RunFolder,
    plan: Plan,
    parameters: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Recipe:
    """Every `auto` becomes a value, written to the run folder and never changed again."""
    from tuition.train.optimizer import default_learning_rate
    from tuition.train.trial import tokens_at_once
    from tuition.training.judging import loss_every_steps

    recipe = material.recipe
    autos = {
        "learning_rate": default_learning_rate(recipe.method, parameters),
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "micro_batch_tokens": tokens_at_once(device.type),
        "output_dir": str(folder.path),
        "save_every_steps": max(1, plan.steps // 10),
        "eval_every_steps": loss_every_steps(material, plan),
    }
    return recipe.replace(**{k: v for k, v in autos.items() if getattr(recipe, k) == "auto"})


def _make_learner(
    model: Any, device: torch.device, dtype: torch.dtype, recipe: Recipe, ranks: Ranks, corpus: Corpus
) -> tuple[Learner, PathCheck]:
    """Packed must equal alone; then the model gets its optimizer, whole or laid over the ranks."""
    import torch

    from tuition.train.learner import make_learner, make_sharded_learner
    from tuition.train.memory import keep_freed_memory
    from tuition.train.model import LoadedModel
    from tuition.train.selfcheck import choose_path

    keep_freed_memory()
    settings, share = recipe.section(OptimizerSettings), recipe.share_prefixes != "off"
    if ranks.sharded:
        whole = LoadedModel(model, torch.device("cpu"), next(model.parameters()).dtype)
        path = choose_path(whole, corpus.at_hand, share_prefixes=share and not settings.neftune_alpha)
        return make_sharded_learner(whole, ranks, device, dtype, settings), path
    learner = make_learner(model, device, dtype, settings)
    learner.ranks = ranks
    return learner, choose_path(learner, corpus.at_hand, share_prefixes=share)


def _compile(learner: Learner, path: PathCheck, corpus: Corpus, plan: Plan, recipe: Recipe) -> PathCheck:
    """Layers and loss become compiled code, where that is wanted and gives the same."""
    from tuition.train.compiled import compile_layers, pays

    if recipe.compile == "off" or (recipe.compile == "auto" and not pays(learner.device, plan.steps)):
        return path
    return compile_layers(learner, path, corpus.at_hand)


def _try(learner: Learner, corpus: Corpus, plan: Plan, recipe: Recipe) -> Trial:
    """The run's largest pass is tried, which also gives time and memory."""
    from tuition.train.loss import LOSSES
    from tuition.train.trial import try_largest_step

    return try_largest_step(
        learner,
        corpus.stand_ins,
        corpus.validation,
        plan,
        LOSSES[recipe.loss],
        _packing(recipe),
        checkpointing=recipe.activation_checkpointing,
    )


def whole_again(ready: Ready, checkpoint: Path) -> Ready:
    """The run with its whole model on one rank, in the machine's own memory, as a checkpoint has it."""
    from tuition.train.checkpoint import load_weights
    from tuition.train.distributed import ALONE

    recipe = ready.recipe.replace(device="cpu")
    model, device, dtype = load_learned(replace(ready, recipe=recipe), ALONE)
    learner, _ = _make_learner(model, device, dtype, recipe, ALONE, ready.corpus)
    load_weights(checkpoint, learner.masters.parameters)
    learner.masters.publish()
    return replace(ready, learner=learner)


def _packing(recipe: Recipe) -> tuple[int | None, int]:
    return recipe.micro_batch_size, int(recipe.micro_batch_tokens)


def _with_measured(
    recipe: Recipe, trial: Trial, judging: Judging, material: Material, plan: Plan, learner: Learner
) -> Recipe:
    """The recipe with what was found to fit, and how often answers can be afforded."""
    from tuition.training.judging import answers_every_steps

    every = recipe.eval_metrics_every_steps
    if every == "auto":
        every = answers_every_steps(judging, material, plan, learner, trial.tokens_per_second)
    return recipe.replace(
        micro_batch_tokens=trial.token_budget,
        activation_checkpointing="on" if trial.checkpointing else recipe.activation_checkpointing,
        eval_metrics_every_steps=every,
    )


def _prove(material: Material, model: Any) -> list[Proof]:
    """Verify over all examples what the run promises."""
    corpus = material.corpus
    return prove(
        corpus.evidence,
        corpus.totals,
        stop_ids=material.renderer.stop_ids,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        tokens=corpus.tokens,
    )


def _room_on_disk(recipe: Recipe, folder: RunFolder, plan: Plan, parameters: int, trainable: int) -> Proof:
    """What the run may write at most fits beside what lies there."""
    from tuition.train.saving import bytes_to_write

    averaged = recipe.average_checkpoints or 0
    epochs = plan.steps // plan.steps_per_epoch if recipe.keep_every_epoch else 0

    need = bytes_to_write(
        trainable,
        parameters,
        checkpoints=recipe.keep_checkpoints + averaged + epochs + 2,  # the best, and the one being written
        full=not recipe.adapted,
    )
    there = files.folder_bytes(folder.checkpoints)
    free = files.free_bytes(folder.path)
    detail = f"checkpoints and model take {size(need)} at most, and {size(free + there)} is free for them"
    if need > free + there and "disk" not in recipe.allow_unproved:
        raise UserError(
            f"the disk is too full: {detail}",
            where=str(folder.path),
            next_step="Make room, name an output_dir on another disk, set method: lora, or set "
            "allow_unproved: disk",
        )
    return Proof("disk", need <= free + there, detail)
