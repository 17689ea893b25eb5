"""The command line: one command per verb. Parse, call api, print; results to stdout, the rest to stderr.

Nothing heavy is imported before a command needs it, so that `--help` answers at once. Importing a module here
adds its commands; the help shows them in this order.
"""

# ruff: noqa: I001  the order of the help
from tuition.cli.shared import app
from tuition.cli import training, rows, evaluating, answers, shipping, around
from tuition.cli.entry import main

__all__ = ["answers", "app", "around", "evaluating", "main", "rows", "shipping", "training"]
