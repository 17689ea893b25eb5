"""The guard against forgetting: general text scored before step 1 and again with the model that is kept."""

from __future__ import annotations

import json
from collections.abc import Callable

from tuition import files
from tuition.errors import UserError
from tuition.evaluate.forgetting import Forgetting, General, forgetting_of, score_general
from tuition.foreign import OBJECT_BYTES, read_text
from tuition.train.folder import RunFolder
from tuition.training.ready import Ready


def score_general_before(ready: Ready, folder: RunFolder) -> None:
    """Keep what the base model makes of the general text: a resume has no base model any more.

    The ranks score it together, and the first writes.
    """
    text = ready.judging.general
    if text is None:
        return
    marks = score_general(ready.learner, ready.renderer.tokens, text)
    if ready.learner.ranks.first:
        files.write_json(folder.general, marks.to_json())


def forgotten(ready: Ready, folder: RunFolder, note: Callable[[str], None]) -> Forgetting | None:
    """What training took away, with the model as it is now; None where nothing was asked.

    Args:
        note: told why it is not known.
    """
    text = ready.judging.general
    if text is None:
        return None
    try:
        before = General.from_json(json.loads(read_text(folder.general, OBJECT_BYTES, "Remove it")))
    except (UserError, OSError, ValueError, RecursionError) as error:
        note(f"what was forgotten is not known: {folder.general} cannot be read ({error})")
        return None
    after = score_general(ready.learner, ready.renderer.tokens, text)
    return forgetting_of(before, after, most=ready.recipe.max_forgetting)
