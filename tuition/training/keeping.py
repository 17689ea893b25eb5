"""What stays of a run: the sample answers of base and tuned model, and the model or the adapter itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuition import files
from tuition.conversation import Conversation
from tuition.errors import UserError
from tuition.foreign import lines_of
from tuition.recipe import ModelSettings
from tuition.train.folder import RunFolder
from tuition.training.ready import Ready

_SAMPLE_TOKENS = 96


def write_samples(ready: Ready, folder: RunFolder, which: str) -> None:
    """Answer the sample prompts with the model as it is now, beside what was answered before.

    All ranks answer, and the first writes.

    Args:
        which: `base` or `tuned`.
    """
    from tuition.evaluate.generate import generate_within, question_of

    pool: Sequence[Conversation] = ready.corpus.held_out or ready.corpus.learned_from
    questions = [q for q in map(question_of, pool) if q is not None][: ready.recipe.samples]
    prompts = [(q.messages, q.conversation.tools) for q in questions]
    answers = generate_within(
        ready.learner, ready.renderer, prompts, max_new_tokens=_SAMPLE_TOKENS, batch_size=16
    )
    if not ready.learner.ranks.first:
        return
    before = {(row.get("file"), row.get("line")): row for row in read_jsonl(folder.samples)}
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
    files.write_jsonl(folder.samples, rows)


def write_model(ready: Ready, folder: RunFolder) -> None:
    """The model as it is now becomes model/ or adapter/, whole or not at all."""
    from tuition.train.writing import disk_faults_of

    ready.learner.masters.settle()
    adapted = ready.recipe.adapted
    final = folder.adapter if adapted else folder.model
    if final.exists():  # a sitting that was killed after this point
        files.remove_folder(final)
    temporary = files.fresh_folder(final.with_name(f".{final.name}.tmp"))
    with disk_faults_of(temporary):
        (_write_adapter if adapted else _write_whole)(ready, temporary)
    files.publish_folder(temporary, final)


def _write_adapter(ready: Ready, folder: Path) -> None:
    from tuition.train.adapters import save_adapter
    from tuition.train.writing import save_tokenizer

    recipe = ready.recipe
    save_adapter(
        ready.model,
        ready.tokenizer,
        folder,
        base=recipe.model,
        stop_ids=ready.renderer.stop_ids,
        revision=recipe.revision,
    )
    save_tokenizer(
        ready.tokenizer,
        folder,
        base=recipe.model,
        vocabulary_changed=bool(ready.new_tokens),
        plain=ready.template is None,
    )


def _write_whole(ready: Ready, folder: Path) -> None:
    from tuition.ship.export import write_model_folder

    write_model_folder(
        ready.model,
        ready.tokenizer,
        folder,
        base=ready.recipe.section(ModelSettings),
        stop_ids=ready.renderer.stop_ids,
        plain=ready.template is None,
    )


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file that tuition wrote; none when there is no file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        rows = [json.loads(line) for line in lines_of(path)]
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"cannot be read ({error})", where=str(path), next_step="Remove the file, and resume"
        ) from None
    return [row for row in rows if isinstance(row, dict)]
