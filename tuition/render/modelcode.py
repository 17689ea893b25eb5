"""Programs in a model folder: whether the folder asks to run some, and whether the user trusts just these.

They are read and hashed here, and never run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuition.files import sha256
from tuition.render.modelfiles import OBJECTS, read_object, refuse

_COMMIT = re.compile(r"[0-9a-f]{40}")


def may_run_code(folder: Path, model: str, trusted: str | None) -> bool:
    """True where the folder asks for code that is trusted by name and content, False where it asks for none.

    Raises:
        UserError: it asks for code that is not trusted.
    """
    asks = next(_requests(folder), None)
    programs = _programs_of(folder)
    if asks is None:  # programs that nothing names are never run
        return False
    if "--" in asks[1]:
        raise refuse(
            asks[0],
            f"asks to run code of another repository ({asks[1]})",
            "Download that code into the model folder, read it, and name the file itself in auto_map",
        )
    named = f"{model}@{_identity(folder, model)}"
    if programs and trusted == named:
        return True
    what = f"asks to run code ({asks[1]})"
    if trusted is not None and programs:
        what += f"; trust_remote_code is {trusted}, which is not this code"
    step = "Use a model without code"
    if programs:
        step = (
            f"Read the code; if you trust it: trust_remote_code: {named}. Otherwise use a model without code"
        )
    raise refuse(asks[0], what, step)


def _identity(folder: Path, model: str) -> str:
    """What pins the code: the commit of a hub name, the SHA-256 of a local folder's programs."""
    of_the_hub = not Path(model).is_dir() and _COMMIT.fullmatch(folder.name)
    return folder.name if of_the_hub else f"sha256:{_sha256_of_programs(folder)}"


def _requests(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each place where a file of the folder names code to run."""
    for name in OBJECTS:
        path = folder / name
        content = read_object(path) if path.exists() else {}
        for part in [content, *(value for value in content.values() if isinstance(value, dict))]:
            for key in ("auto_map", "custom_pipelines", "custom_generate"):
                if part.get(key):
                    yield path, f"{key}: {_shown(part[key])}"


def _shown(value: Any) -> str:
    names = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return ", ".join(str(name) for name in names)[:120]


def _programs_of(folder: Path) -> list[Path]:
    """The programs in a model folder and in the folders directly below it."""
    return sorted([*folder.glob("*.py"), *folder.glob("*/*.py")])


def _sha256_of_programs(folder: Path) -> str:
    """One SHA-256 over the names and contents of a folder's programs."""
    lines = (f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in _programs_of(folder))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
