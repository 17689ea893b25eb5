"""`make prove`: every proof, one table, and docs/reliability.md with what came out.

The parts run side by side on two cores (LANES), each keeping its rows as it ends; those that measure run alone at the end.

Settings: PARTS (all), LANES (2), MORE (1: numbers are added to those of the run before), KILLS (300; 50 of ranks in each layout), RANKS (2),
LAYOUT of them (both), UPDATES (50) whose losses are compared, SEED (0), FRESH (20 of them), MINUTES for the kills (no limit), EVERY so-manieth disk
operation (1: all), STEPS of the soak (2000), INPUTS of each parser (20000), REQUESTS to the studio (10000).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.prove import cost, damage, fuzz, interruptions, lanes, operations, page, posts, ranks, requests
from tests.prove.faultydisk import MODES
from tests.prove.page import Result
from tuition.errors import Interrupted


def kills() -> Result:
    """SIGKILL, resume, compare."""
    tally = interruptions.prove(
        setting("KILLS", 300), fresh=setting("FRESH", 20), minutes=setting("MINUTES", 10**9), tell=say
    )
    rows = [(f"SIGKILL {instant}", times, times) for instant, times in tally.kills.items()]
    ended = "runs ended after kills: weights bitwise, journal line by line"
    say("\n".join(tally.different))
    return Result([*rows, (ended, tally.runs, tally.runs - len(tally.different))], [bound(tally.all)])


def other_kinds() -> Result:
    """The same for other optimizers, masters and adapters, a fifth of the kills."""
    tally = interruptions.prove(
        max(1, setting("KILLS", 300) // 5),
        kinds=interruptions.OTHER_KINDS,
        sizes=interruptions.OTHER_SIZES,
        minutes=setting("MINUTES", 10**9),
        tell=say,
    )
    say("\n".join(tally.different))
    names = ", ".join(interruptions.OTHER_KINDS)
    return Result(
        [
            (f"SIGKILL, other kinds of runs ({names})", tally.all, tally.all),
            (
                "those runs ended: weights bitwise, journal line by line",
                tally.runs,
                tally.runs - len(tally.different),
            ),
        ]
    )


def bound(kills: int) -> str:
    """What so many kills without a difference say: the chance of one is below 3 / n."""
    return f"{kills:,} kills without a difference bound the rate of failures below {3 / kills:.1%} (95 %)."


def of_ranks() -> Result:
    """One of several processes is killed, or hangs; torchrun starts all anew."""
    layouts = os.environ.get("LAYOUT", "ddp,fsdp").split(",")
    kills = setting("KILLS", 50)  # of each
    found = [
        ranks.prove(
            kills,
            -(-kills // 10),
            ranks=setting("RANKS", 2),
            layout=layout,
            seed=setting("SEED", 0),
            tell=say,
        )
        for layout in layouts
    ]
    return Result([row for result in found for row in result.rows])


def losses_of_ranks() -> Result:
    """Many ranks learn as one does."""
    return ranks.same_losses(setting("UPDATES", 50), tell=say)


def sends() -> Result:
    """The studio is killed while people send what they wrote."""
    count = setting("POSTS", 2000)
    tally = posts.prove(count // 10, count)
    say("\n".join(tally.faults))
    name = (
        f"demonstrations sent while the studio is killed ({tally.kills:,} kills): each is there exactly once"
    )
    return Result([(name, tally.acknowledged, tally.acknowledged - len(tally.faults))])


def disk() -> Result:
    """Every operation on the disk fails once in each way."""
    results = operations.prove(every=setting("EVERY", 1))
    say("\n".join(line for _, wrong in results.values() for line in wrong))
    return Result(
        [
            (f"disk operation, {mode}: {MODES[mode]}", n, n - len(wrong))
            for mode, (n, wrong) in results.items()
        ]
    )


def damaged() -> Result:
    """Every file of a checkpoint is damaged in every way."""
    with tempfile.TemporaryDirectory() as folder:
        tried = damage.prove(Path(folder))
    say("\n".join(damage.missed))
    lost = {kind: sum(line.startswith(kind) for line in damage.missed) for kind in tried}
    return Result([(f"file of the newest checkpoint {kind}", n, n - lost[kind]) for kind, n in tried.items()])


def memory() -> Result:
    """Memory over many steps."""
    return Result(notes=[cost.soak(setting("STEPS", 2000)).sentence()])


def time() -> Result:
    """What checkpoints cost."""
    return Result(notes=[cost.step_cost().sentence()])


def parsers() -> Result:
    """Damaged and hostile inputs to every parser."""
    return fuzz.prove(setting("INPUTS", 20_000), tell=say)


def studio() -> Result:
    """Requests of every shape, from everybody."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = requests.fuzz(Path(folder), setting("REQUESTS", 10_000), setting("SEED", 0))
    say("\n".join([*outcome.surprises[:10], *outcome.stored[:10]]))
    faults = len(outcome.surprises) + len(outcome.stored)
    name = "requests of every shape to the studio: no 500, nothing stored by who may not"
    return Result([(name, outcome.requests, outcome.requests - faults)])


# Kills come first: they fork, and nothing here has run a backward pass by then.
PARTS: dict[str, Callable[[], Result]] = {
    "kills": kills, "kinds": other_kinds, "ranks": of_ranks, "losses": losses_of_ranks, "sends": sends, "disk": disk, "damage": damaged, "memory": memory, "time": time, "parsers": parsers, "requests": studio,
}  # fmt: skip
LONGEST_FIRST = ("kills", "parsers", "ranks", "kinds", "disk", "losses", "sends", "requests", "damage")
ALONE = ("memory", "time")


def setting(name: str, default: int) -> int:
    """A whole number from the environment."""
    return int(os.environ.get(name, default))


def say(text: str) -> None:
    """Progress, to stderr."""
    if text:
        print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run the proofs, print and write the table; exit 1 when a fault was not survived."""
    named = [part for part in os.environ.get("PARTS", "").split(",") if part]
    if named:
        survived = not [part for part in named if not _run(part)]  # each is run, whatever another gave
    else:
        survived = lanes.run_all(LONGEST_FIRST, ALONE, setting("LANES", 2), say)
    print(page.write(list(PARTS)))
    return 0 if survived else 1


def _run(part: str) -> bool:
    """Run one part here, and keep what it gave; whether all was survived."""
    say(f"--- {part}")
    result = PARTS[part]()
    parsers_named = os.environ.get("PARSERS", "") if part == "parsers" else ""
    page.keep(part, result, some=f"PARSERS={parsers_named}" if parsers_named else "")
    page.write(list(PARTS))
    return result.survived


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, Interrupted):
        say("stopped; what had ended is kept")
        sys.exit(130)
