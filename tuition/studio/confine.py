"""What somebody who comes over the network may name on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tuition.errors import UserError
from tuition.studio.web import Studio


def refuse_paths_elsewhere(studio: Studio, names: Iterable[str]) -> None:
    """In a studio that is open to others, files below the working folder are named, and none elsewhere.

    Raises:
        UserError: a name leads out of it.
    """
    if not studio.open_to_others:
        return
    root = Path.cwd().resolve()
    for name in names:
        try:
            inside = "://" not in name and (root / name).resolve().is_relative_to(root)
        except (OSError, ValueError):
            inside = False
        if not inside:
            raise UserError(
                f"{name[:200]} is outside of the folder that the studio was started in",
                next_step="Name a file below it; others reach this studio over the network",
            )
