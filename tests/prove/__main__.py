"""`make prove`: every proof, one table, and docs/reliability.md with what came out.

The parts run side by side on two cores (LANES), each keeping its rows as it ends; what measures time runs alone at
the end. About half an hour on two quiet cores; `SCALE=0.02 make prove` rehearses all of it in five minutes.

Settings: PARTS (all), SCALE (1: the share of all the numbers below), LANES (2), MORE (1: numbers are added to those
of the run before), KILLS (300; 60 of other kinds, 50 of ranks in each layout, 25 of each other command), RANKS (2),
LAYOUT of them (both), UPDATES (50) whose losses are compared, SEED (0), FRESH (20 of them), MINUTES for the kills (no
limit), EVERY so many disk operations one that fails (1: all), STEPS of the soak (2000), INPUTS of each parser (20000), REQUESTS to
the studio (10000), POSTS to it (2000), odd ROWS (5000).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.prove import (
    commands,
    cost,
    damage,
    fuzz,
    interruptions,
    lanes,
    models,
    oddrows,
    operations,
    page,
    posts,
    ranks,
    requests,
)
from tests.prove.faultydisk import MODES
from tests.prove.page import Result
from tuition.errors import Interrupted


def kills() -> Result:
    """SIGKILL, resume, compare."""
    tally = interruptions.prove(
        scaled("KILLS", 300), fresh=scaled("FRESH", 20), minutes=setting("MINUTES", 10**9), tell=say
    )
    rows = [(f"SIGKILL {instant}", times, times) for instant, times in tally.kills.items()]
    ended = "runs ended after kills: weights bitwise, journal line by line"
    say("\n".join(tally.different))
    return Result([*rows, (ended, tally.runs, tally.runs - len(tally.different))], [bound(tally.all)])


def other_kinds() -> Result:
    """The same for other optimizers, masters and adapters, a fifth of the kills."""
    tally = interruptions.prove(
        max(1, scaled("KILLS", 300) // 5),
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
    kills = scaled("KILLS", 50)  # of each
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
    return ranks.same_losses(max(8, scaled("UPDATES", 50)), tell=say)


def other_commands() -> Result:
    """Commands that judge, ship and collect are killed too."""
    tally = commands.prove(scaled("KILLS", 25), tell=say)
    say("\n".join(tally.faults))
    rows = []
    for name, kills in tally.kills.items():
        faults = sum(fault.startswith(f"{name},") for fault in tally.faults)
        fault = f"SIGKILL of `{name}`: nothing half done, the end as if left alone"
        rows.append((fault, kills, max(0, kills - faults)))
    return Result(rows)


def sends() -> Result:
    """The studio is killed while people send what they wrote."""
    count = scaled("POSTS", 2000)
    tally = posts.prove(max(1, count // 10), count)
    say("\n".join(tally.faults))
    name = (
        f"demonstrations sent while the studio is killed ({tally.kills:,} kills): each is there exactly once"
    )
    return Result([(name, tally.acknowledged, tally.acknowledged - len(tally.faults))])


def disk() -> Result:
    """Every operation on the disk fails once in each way."""
    results = operations.prove(every=setting("EVERY", round(1 / SCALE)))
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
    return Result(notes=[cost.soak(scaled("STEPS", 2000)).sentence()])


def time() -> Result:
    """What checkpoints cost."""
    return Result(notes=[cost.step_cost(pairs=scaled("PAIRS", 6)).sentence()])


def parsers() -> Result:
    """Damaged and hostile inputs to every parser."""
    return fuzz.prove(scaled("INPUTS", 20_000), tell=say)


def studio() -> Result:
    """Requests of every shape, from everybody."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = requests.fuzz(Path(folder), scaled("REQUESTS", 10_000), setting("SEED", 0))
    say("\n".join([*outcome.surprises[:10], *outcome.stored[:10]]))
    faults = len(outcome.surprises) + len(outcome.stored)
    name = "requests of every shape to the studio: no 500, nothing stored by who may not"
    return Result([(name, outcome.requests, outcome.requests - faults)])


def rows() -> Result:
    """Odd rows are compared with what serving makes of them."""
    return oddrows.prove(scaled("ROWS", 5000), setting("SEED", 0), tell=say)


def other_models() -> Result:
    """Every kind of model that transformers knows."""
    return models.prove(SCALE, say)


# Kills come first: they fork, and nothing here has run a backward pass by then.
PARTS: dict[str, Callable[[], Result]] = {
    "kills": kills, "kinds": other_kinds, "ranks": of_ranks, "losses": losses_of_ranks, "commands": other_commands,
    "sends": sends, "disk": disk, "damage": damaged, "memory": memory, "time": time, "parsers": parsers,
    "requests": studio, "rows": rows, "models": other_models,
}  # fmt: skip
LONGEST_FIRST = (
    "ranks", "parsers", "kills", "losses", "kinds", "rows", "models", "sends", "memory", "disk", "commands", "requests", "damage"
)  # fmt: skip
ALONE = ("time",)
SCALE = float(os.environ.get("SCALE", "1"))


def setting(name: str, default: int) -> int:
    """A whole number from the environment."""
    return int(os.environ.get(name, default))


def scaled(name: str, default: int) -> int:
    """So much of it as SCALE says, once at least."""
    return max(1, round(SCALE * setting(name, default)))


def say(text: str) -> None:
    """Progress, to stderr, each line under the name of its part."""
    part = os.environ.get("PARTS", "")
    for line in text.splitlines():
        print(f"[{part}] {line}" if part else line, file=sys.stderr, flush=True)


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
    say(f"--- {part} begins")
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
