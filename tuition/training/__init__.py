"""One training run from recipe to report: where the rooms meet for `api.train`.

Nothing here computes: values are handed from room to room, and what happened is written down.
`ready` is everything before step 1, `opening` the screen that says it, `run` the run itself, `keeping` what
stays of it, `facts` what run.json says.
"""

from tuition.training.facts import begin_sitting, changed_surroundings, command_line
from tuition.training.run import Training

__all__ = ["Training", "begin_sitting", "changed_surroundings", "command_line"]
