"""What `train` prints when the run has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuition.cli.shared import me, print_json
from tuition.errors import typed


def print_end(folder: Path, as_json: bool, *, was_finished: bool) -> None:
    """What came of a run and where to go from here; as_json: one object.

    Args:
        was_finished: a resume found it so, and did nothing.
    """
    from tuition import api

    facts = api.read_report_facts(folder)
    forgetting = facts.get("forgetting")
    if as_json:
        shown = {"run": str(folder), "result": facts["result"], "report": str(folder / "report.html")}
        print_json(shown if forgetting is None else {**shown, "forgetting": forgetting})
        return
    if was_finished:
        _print_finished(folder)
    else:
        _print_result(folder, facts)
    print(f"report: {folder / 'report.html'}")
    print("next:")
    run, base = typed(folder), typed(facts["model"]["name"])
    print(f"  {me()} chat {run}")
    print(f"  {me()} evaluate {run} --data YOUR_TEST_FILE --baseline {base}")
    print(f"  {me()} export {run} --format hf --to exported")
    if was_finished:
        print(
            f"  {me()} train {run} {_for_longer(folder)} --output-dir {typed(f'{folder}-longer')}  # anew, and twice as long"
        )


def _print_finished(folder: Path) -> None:
    from tuition.train.folder import RunFolder

    learned = RunFolder(folder).kept_model()
    print(f"{folder} is finished, and nothing is left to do; what it learned is {learned}")


def _print_result(folder: Path, facts: dict[str, Any]) -> None:
    """What the model answered before and after, and the figures of the run."""
    from tuition import api
    from tuition.evaluate.lines import run_lines
    from tuition.screen import show_samples

    prompts = "held-out prompts" if facts["data"]["validation_examples"] else "prompts that were learned from"
    show_samples(api.read_samples(folder), f"before and after, on {prompts}")
    for line in run_lines(facts, api.figure_before(folder, facts)):
        print(line)


def _for_longer(folder: Path) -> str:
    """The flag with which a new run of the same recipe learns twice as long."""
    from tuition.train.folder import RunFolder

    recipe = RunFolder(folder).read_recipe()
    steps = recipe.get("max_steps")
    return f"--max-steps {2 * steps}" if steps else f"--epochs {2 * recipe['epochs']:g}"
