"""The door of a run: from what the user gave (a file, flags, rows) to a run that may begin, or a refusal."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuition import files, starter
from tuition.data.storefiles import pinned
from tuition.errors import UserError, typed
from tuition.recipe import Recipe, make_recipe, read_settings
from tuition.train.folder import RunFolder, first_free

# rows from Python: (prompt, completion) pairs, dictionaries in any shape that a file may have, or lists of messages
Rows = Iterable[tuple[str, str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]]


def gather(
    recipe: str | Path | Recipe | None, data: Any, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any] | None]:
    """The settings from file and flags, checked at once; and the rows, where data is rows."""
    typed = {k: v for k, v in settings.items() if v is not None}
    written = _settings_of(recipe)
    if isinstance(recipe, str | Path):
        refuse_programs({k: v for k, v in written.items() if k not in typed}, str(recipe))
    given = {**written, **typed}
    rows = None
    if data is not None:
        given["data"], rows = names_or_rows(data)
    if rows is None and given.get("data"):
        given["data"] = pinned(as_names(given["data"]))  # people may go on writing while the run learns
    where = str(recipe) if isinstance(recipe, str | Path) else "recipe"
    make_recipe(
        {**given, "data": given["data"] if rows is None else ("rows",)} if "data" in given else given,
        where=where,
    )
    given["model"] = starter.model_path(str(given["model"]))
    return given, rows


def metrics_named(written: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The settings of a recipe that name metrics, and what they name."""
    for key in ("eval_metrics", "best_by"):
        value = written.get(key)
        names = re.split(r"[,\s]+", value) if isinstance(value, str) else value
        yield key, [str(name).strip() for name in names] if isinstance(names, list | tuple) else []


def refuse_programs(written: Mapping[str, Any], where: str) -> None:
    """A metric that is a program runs where its user typed it, and never because a file or a page says so.

    Raises:
        UserError: naming the metric.
    """
    for key, names in metrics_named(written):
        for name in names:
            if name.startswith("python:"):
                typed_again = shlex.quote(f"{key}={','.join(names)}")
                raise UserError(
                    f"{key} names a program to run ({name}), which no file or page may",
                    where=where,
                    next_step=f"Read the program; if you trust it, name it yourself: --set {typed_again}",
                )


def choose_folder(
    recipe: str | Path | Recipe | None, given: dict[str, Any], *, resume: bool
) -> tuple[RunFolder, dict[str, Any]]:
    """The folder of the run: the one that was named, or the first free one under outputs/."""
    if resume and isinstance(recipe, str | Path) and RunFolder(Path(recipe)).holds_a_run():
        folder = RunFolder(Path(recipe))
        _refuse_other_working_folder(folder, given)
    elif given.get("output_dir", "auto") != "auto":
        folder = RunFolder(Path(given["output_dir"]))
    elif resume:
        raise _which_run()
    else:
        first = next(iter(as_names(given["data"])), "rows")
        folder = RunFolder(first_free(Path(first.split("#")[0].rstrip("/")).name.split(".")[0] or "run"))
    return folder, {**given, "output_dir": str(folder.path)}


def refuse_resume_of_no_run(recipe: object, settings: Mapping[str, Any], *, resume: bool) -> None:
    """A resume that names neither a run nor settings; what is missing is the run, and not its model."""
    if resume and recipe is None and not settings.get("output_dir"):
        raise _which_run()


def _which_run() -> UserError:
    return UserError(
        "--resume needs to know which run",
        where="output_dir",
        next_step="Name its folder: tuition train RUN_FOLDER --resume",
    )


def _refuse_other_working_folder(folder: RunFolder, given: Mapping[str, Any]) -> None:
    """Relative names in a recipe mean what they meant where the run was started."""
    started_in = Path(str(folder.read_facts().get("working_folder", ".")))
    names = [*as_names(given["data"]), str(given["model"])]
    lost = [name for name in names if not _exists(Path(name)) and _exists(started_in / name)]
    if lost:
        raise UserError(
            f"the run was started in {started_in}, and {lost[0]} is named from there",
            where=str(folder.path),
            next_step=f"cd {typed(started_in)} && {RunFolder(folder.path.resolve()).resume_command}",
        )


def _settings_of(recipe: str | Path | Recipe | None) -> dict[str, Any]:
    """The settings of a recipe file, of a run folder, or of a Recipe."""
    if recipe is None:
        return {}
    if isinstance(recipe, Recipe):
        return recipe.model_dump(mode="json", exclude_unset=True)
    if not isinstance(recipe, str | Path):
        raise UserError(
            f"the first argument is a file, a run folder or a Recipe, not {recipe!r:.60}",
            where="recipe",
            next_step="Give settings by name: tuition.train(model=…, data=…)",
        )
    path = Path(recipe)
    path = path / "recipe.yaml" if os.path.lexists(path / "recipe.yaml") else path
    return _beside(path, read_settings(path))


def _beside(recipe: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Names of files that are not in the working folder but beside the recipe mean those."""

    def found(name: Any) -> Any:
        beside = recipe.parent / str(name)
        return str(beside) if not _exists(Path(str(name))) and _exists(beside) else name

    for key in ("data", "val_data", "replay", "general", "model", "chat_template"):
        value = settings.get(key)
        if value is not None:
            settings[key] = [found(name) for name in value] if isinstance(value, list) else found(value)
    return settings


def _exists(path: Path) -> bool:
    """Whether there is such a file; False for what no disk can hold, which is refused where it is read."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def names_or_rows(data: Any) -> tuple[Any, list[Any] | None]:
    """The names of files, or the rows themselves, whichever data is.

    Raises:
        UserError: it is neither.
    """
    if isinstance(data, str | Path):
        return (str(data),), None
    if isinstance(data, Mapping) or hasattr(data, "columns"):  # pandas and others iterate over the names
        raise UserError(
            "these are columns, and rows are needed",
            where="data",
            next_step='Give a list of rows: [{"prompt": …, "completion": …}], frame.to_dict("records")',
        )
    if not isinstance(data, Iterable):
        return as_names(data), None
    items = list(data)
    if all(isinstance(item, str | Path) for item in items):
        return tuple(str(item) for item in items), None
    return (), items


def refuse_strangers_among_ranks(given: Mapping[str, Any], rows: list[Any] | None) -> None:
    """Ranks that were started apart must mean the same run by what they were given."""
    if rows is not None:
        raise UserError(
            "rows from Python are in one process only",
            where="data",
            next_step="Write them to a file that all ranks can read",
        )
    if given.get("output_dir", "auto") == "auto":
        raise UserError(
            "every rank must write into the same run folder",
            where="output_dir",
            next_step="Set output_dir, or let `tuition train … --gpus all` start the ranks",
        )


def refuse_mixed_runs(folder: RunFolder, resume: bool) -> None:
    """A resume needs a run, and a new run needs a folder without one.

    Raises:
        UserError: the folder holds none, or holds one already.
    """
    if resume and not folder.holds_a_run():
        raise UserError(
            "holds no run to resume", where=str(folder.path), next_step="Name a run folder, or drop --resume"
        )
    if not resume and folder.holds_a_run():
        raise UserError(
            "holds a run already",
            where=str(folder.path),
            next_step=f"Go on with it ({folder.resume_command}), name another --output-dir, "
            "or remove the folder",
        )


def write_rows(folder: Path, rows: Sequence[Any], *, resume: bool) -> Path:
    """Rows from Python become a file in the run folder: the run can then be read, resumed and repeated."""
    path = folder / "data.jsonl"
    try:
        text = "".join(json.dumps(_as_row(row), ensure_ascii=False) + "\n" for row in rows)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"rows must be plain JSON values ({error})",
            where="data",
            next_step="Give (prompt, completion) pairs, dictionaries or lists of messages",
        ) from None
    left_by_a_killed_start = path.exists() and path.read_text(encoding="utf-8") == text
    if not resume and path.exists() and not left_by_a_killed_start:
        raise UserError(
            "exists already", where=str(path), next_step="Name another output_dir for rows from Python"
        )
    if not resume:
        files.write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise UserError(
            "these are not the rows that the run began with",
            where=str(path),
            next_step="Leave data out to go on with them, or start a new run",
        )
    return path


def _as_row(row: Any) -> Any:
    if isinstance(row, tuple) and len(row) == 2:
        return {"prompt": row[0], "completion": row[1]}
    if isinstance(row, list):
        return {"messages": row}
    return dict(row) if isinstance(row, Mapping) else row


def as_names(data: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """One name, or several, as texts.

    Raises:
        UserError: it is no name, or a row is among the names.
    """
    if isinstance(data, str | Path):
        return (str(data),)
    if not isinstance(data, Iterable):
        raise UserError(
            f"is a name or a list of names, not {data!r:.40}",
            where="data",
            next_step="For example: data: rows.jsonl",
        )
    names = tuple(data)
    if rows := [name for name in names if not isinstance(name, str | Path)]:
        raise UserError(
            f"here data is files, and this is a row: {rows[0]!r:.60}",
            where="data",
            next_step="Write the rows to a .jsonl file, and name it; `train`, `check` and `preview` take rows themselves",
        )
    return tuple(str(name) for name in names)
