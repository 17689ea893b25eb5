"""One training run from recipe to report: where the rooms meet for `api.train`.

Nothing here computes: values are handed from room to room, and what happened is written down.
`material` is what is learned from, `ready` the run that may begin, `opening` the screen that says it, `sitting` one
time that it is worked on, `beginning` how that starts, `judging` what it is measured by, `choosing` which weights
stay, `keeping` the model and the sample answers, `telling` and `trackers` who hears of it, `facts` what run.json says.
"""

from tuition.training.facts import begin_sitting, changed_surroundings, command_line

__all__ = ["begin_sitting", "changed_surroundings", "command_line"]
