"""Verbs around the work: init, demo, report, explain, doctor, schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuition import files, starter
from tuition.api.answers import evaluate
from tuition.api.training import Run, train
from tuition.errors import UserError
from tuition.recipe import Recipe
from tuition.recipe.values import as_written
from tuition.screen import Watcher

if TYPE_CHECKING:
    from tuition.evaluate.report.several import Several
    from tuition.evaluate.score import Evaluation


def report(run: str | Path, *, png: bool = False) -> Path:
    """Write the report of a run anew from what its folder holds; the page.

    Args:
        png: also write each of its pictures into `pictures/` in the folder; needs matplotlib.

    Raises:
        UserError: there is no run, or matplotlib is wanted and not installed.
    """
    from tuition.evaluate.report import write_report
    from tuition.evaluate.report.pictures import write_pictures

    if png:
        write_pictures(Path(run))
    return write_report(Path(run))


def report_several(runs: Sequence[str | Path], to: str | Path) -> Several:
    """Write one page that compares runs, against the first in pairs where they answered the same prompts.

    Raises:
        UserError: a folder holds no run, or is named twice.
    """
    from tuition.evaluate.report.several import read_runs
    from tuition.evaluate.report.severalpage import write_comparison

    return write_comparison(read_runs([Path(run) for run in runs]), Path(to))


def init(folder: str | Path) -> list[Path]:
    """Write a commented recipe.yaml and 20 sample rows; the paths written.

    Raises:
        UserError: one of them exists already.
    """
    target = Path(folder)
    rows = starter.DEMONSTRATIONS.read_text(encoding="utf-8").splitlines()[:20]
    contents = {target / "recipe.yaml": _SAMPLE_RECIPE, target / "data.jsonl": "\n".join(rows) + "\n"}
    for path in contents:
        if path.exists():
            raise UserError("exists already", where=str(path), next_step="Name another folder, or remove it")
    files.make_folder(target)
    for path, text in contents.items():
        files.write_text(path, text)
    return list(contents)


_SAMPLE_RECIPE = """\
# Every setting with its sentence: tuition schema. Run it: tuition train recipe.yaml
model: starter            # a local folder or a hub name; starter is the tiny model that comes with tuition
data: data.jsonl          # files, folders or hub names; the shape is found by itself
method: full              # full, or lora
epochs: 3
batch_size: 16            # examples in one update
learning_rate: auto       # by method and size of the model
max_length: auto          # tokens; what the model can hold
too_long: drop            # longer rows: drop (counted), cut, cut_turns, split, or refuse
train_on: assistant       # assistant turns, the last one, all tokens, or marked spans
val_split: 0.05           # share of rows held out to choose the best checkpoint
seed: 0
output_dir: auto          # outputs/ and the name of the data file, the first that is free
"""


def demo(*, watcher: Watcher | None = None, output_dir: str = "auto") -> tuple[Run, Evaluation]:
    """The whole journey on the embedded starter: train it, and ask base and tuned what neither was shown."""
    from tuition.train.folder import first_free

    run = train(
        model=str(starter.BASE),
        data=_from_here(starter.DEMONSTRATIONS),
        general="starter",
        output_dir=str(first_free("demo")) if output_dir == "auto" else output_dir,
        watcher=watcher,
        command="tuition demo",
    )
    result = evaluate(
        str(run.path),
        str(starter.HELDOUT),
        baseline=str(starter.BASE),
        metric="exact_match",
        max_new_tokens=32,
    )
    return run, result


def explain(code: str) -> dict[str, str]:
    """What a finding code means, or what a setting does, by our name or another tool's.

    Raises:
        UserError: there is no such code, and no such setting.
    """
    from dataclasses import asdict

    from tuition.data import CODES
    from tuition.recipe import said_here
    from tuition.render.codes import RENDER_CODES

    codes = {**CODES, **RENDER_CODES}
    name = code.lstrip("-").replace("-", "_")
    if code.upper() in codes:
        return {"code": code.upper(), **asdict(codes[code.upper()])}
    if name in Recipe.model_fields:
        what, how = _setting(name)
        return {"code": name, "title": "a setting", "explanation": what, "mend": how}
    if (said := said_here(name)) is not None:
        what = f"{said[0].upper()}{said[1:]}."
        return {"code": name, "title": "a setting of other tools", "explanation": what, "mend": _ours(name)}
    raise _nothing_so_called(code, [*codes, *Recipe.model_fields])


def _setting(name: str) -> tuple[str, str]:
    """What a setting does, and how it is given."""
    field = Recipe.model_fields[name]
    default = "required" if field.is_required() else f"default {as_written(field.get_default())}"
    flag = name.replace("_", "-")
    return str(field.description), f"`--{flag}` on the command line, `{name}:` in a recipe ({default})."


def _ours(name: str) -> str:
    """Our setting behind another tool's name."""
    from tuition.recipe import ALIASES

    if name not in ALIASES:
        return "docs/settings.md lists the settings that there are."
    what, how = _setting(ALIASES[name])
    return f"{ALIASES[name]}: {what}\n{how}"


def _nothing_so_called(word: str, known: list[str]) -> UserError:
    import difflib

    alike = [*difflib.get_close_matches(word.upper(), known), *difflib.get_close_matches(word.lower(), known)]
    near = f"; near are {', '.join(sorted(alike))}" if alike else ""
    return UserError(
        f"there is no code '{word}', and no such setting",
        next_step=f"docs/findings.md and docs/settings.md list them all{near}",
    )


def doctor() -> dict[str, Any]:
    """The machine and the versions, each with a verdict."""
    from tuition.machine import examine

    return examine()


def _from_here(path: Path) -> str:
    """The shorter of the two ways to write a path: from the working folder where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def schema() -> dict[str, Any]:
    """The JSON schema of the recipe."""
    return Recipe.model_json_schema()
