"""The suite's share of the kills, in one process that imports everything once: python -m tests.prove.share."""

from __future__ import annotations

import json
import sys

from tests.prove import commands, interruptions


def main() -> int:
    """Twenty kills of training and two of each other command; a line of JSON a proof."""
    training = interruptions.prove(20, tell=_aside)
    others = commands.prove(2, tell=_aside)
    print(json.dumps({"kills": training.kills, "different": training.different}))
    print(json.dumps({"kills": others.kills, "faults": others.faults}))
    return 0


def _aside(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
