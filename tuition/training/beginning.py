"""How a sitting begins: a new run's folder is filled, or a resume is proved to go on with the same run, from where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tuition import files
from tuition.render.preview import example_json
from tuition.train.checkpoint import Identity, Progress, load_checkpoint
from tuition.train.fingerprint import changed_settings, fingerprint_of, order_sha256, refuse_changed
from tuition.train.folder import RunFolder
from tuition.train.journal import Position
from tuition.train.shelf import Found, find_checkpoint, sweep
from tuition.training.facts import begin_sitting, changed_surroundings, facts_of, sitting_of
from tuition.training.ready import Ready

Tell = Callable[[str], None]


def begin(ready: Ready, folder: RunFolder, command: str) -> None:
    """Write what is known of a run before it learns anything."""
    files.make_folder(folder.path)
    prepared = ready.corpus.prepared
    prepared.copy_records("ledger", folder.ledger)
    prepared.copy_records("findings", folder.findings)
    prepared.copy_records("prompts", folder.prompts)
    files.write_json(folder.example, example_json(ready.corpus.at_hand.typical, ready.renderer.tokens))
    files.write_json(folder.proof, [asdict(proof) for proof in ready.proofs])
    _write_sitting(ready, folder, facts_of(ready, folder, command), sitting_of(ready, command, {}))


def begin_again(ready: Ready, folder: RunFolder, command: str, tell: Tell) -> None:
    """Prove that a resume goes on with the same run, and write that it does.

    Args:
        tell: told what else is not as it was in the sitting before.

    Raises:
        UserError: data, template, tokenizer, model or recipe are not those of the run.
    """
    before = folder.read_facts()
    settings = changed_settings(folder.read_recipe(), ready.recipe)
    refuse_changed(before.get("hashes"), ready.hashes, settings, str(folder.path))
    changed = {**settings, **changed_surroundings(before, sitting_of(ready, command, {}))}
    for name, (was, is_now) in changed.items():
        tell(f"{name} was {was} in the sitting before, and is {is_now}")
    _write_sitting(ready, folder, {**before, "status": "running"}, sitting_of(ready, command, changed))


def _write_sitting(ready: Ready, folder: RunFolder, facts: dict[str, Any], sitting: dict[str, Any]) -> None:
    files.write_text(folder.recipe, ready.recipe.to_yaml())
    files.write_json(folder.facts, begin_sitting(facts, sitting))  # last: now it holds a run


# --- from where ---


def identity_of(ready: Ready) -> Identity:
    """What a checkpoint of the run must agree with."""
    return Identity(fingerprint_of(ready.hashes), partial(order_sha256, ready.plan))


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """Where a sitting takes up the run.

    Attributes:
        progress: updates done, and what is known of them.
        position: where the journal stood then.
        damaged: steps whose checkpoint is there and cannot be used.
    """

    progress: Progress
    position: Position
    damaged: frozenset[int]


def take_up(
    ready: Ready, folder: RunFolder, identity: Identity, *, resume: bool, watch: Tell, note: Tell
) -> StartingPoint:
    """Put the newest checkpoint of the run into the learner; a new run has none, whatever lies in the folder.

    Args:
        watch: told what goes on.
        note: told what a person should know later, too.

    Raises:
        UserError: the checkpoint is of another order of examples, or cannot be read.
    """
    ranks = ready.learner.ranks
    found = Found(None, (), frozenset())
    if ranks.told(resume):  # the others wait here until the first rank has made the folder
        if ranks.first:
            sweep(folder.checkpoints)
        found = find_checkpoint(folder.checkpoints, identity.fingerprint, ranks)
    for sentence in found.sentences:
        note(sentence)
    if found.folder is None:
        if resume:
            note("no checkpoint to go on from: starting at step 1")
        return StartingPoint(Progress(), Position(), found.damaged)
    watch(f"going on from {found.folder}")
    progress, position = _load(ready, folder, found.folder, identity, note)
    if progress.step >= ready.plan.steps:
        watch("every update has been taken: only what follows them is made again")
    return StartingPoint(progress, position, found.damaged)


def _load(
    ready: Ready, folder: RunFolder, checkpoint: Path, identity: Identity, note: Tell
) -> tuple[Progress, Position]:
    learner = ready.learner
    progress, position = load_checkpoint(
        checkpoint, ready.learned, learner.optimizer, identity, learner.ranks.rank
    )
    learner.masters.publish()
    if not folder.metrics.exists():
        note(f"metrics.jsonl is gone: the figures up to step {progress.step} are not in it")
        position = Position()
    if learner.ranks.first:
        folder.update_sitting(from_step=progress.step)
    return progress, position
