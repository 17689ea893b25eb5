"""Write the pages that say what the code says: settings, finding codes, the command line.

`--check` writes nothing and fails when a page differs from what would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tuition.cli import app
from tuition.data import CODES
from tuition.recipe import ALIASES, AS_HERE, NO_SETTING, Recipe, section_titles
from tuition.recipe.values import as_written
from tuition.render.codes import RENDER_CODES

DOCS = Path(__file__).resolve().parent
_NOTE = "<!-- Written by `make docs` from the code; change it there. -->\n\n"


def settings_page() -> str:
    """Every recipe key, by section, with its sentence and default."""
    parts = ["# Settings\n\n", _NOTE, "Flags are the same words with dashes: `--learning-rate`.\n"]
    for title, names in section_titles().items():
        parts.append(f"\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n")
        for name in names:
            field = Recipe.model_fields[name]
            default = "required" if field.is_required() else f"`{as_written(field.get_default())}`"
            parts.append(f"| `{name}` | {default} | {_cell(field.description or '')} |\n")
    parts.append("\n## What other tools call them\n\n")
    parts.append("`tuition explain NAME` says it too.\n\n| there | here | |\n|---|---|---|\n")
    parts += [
        f"| `{there}` | `{here}` | {_cell(AS_HERE.get(there, ''))} |\n"
        for there, here in sorted(ALIASES.items())
    ]
    parts.append("\n## What needs no setting here\n\n| there | here |\n|---|---|\n")
    for sentence in dict.fromkeys(NO_SETTING.values()):
        names = ", ".join(f"`{name}`" for name, same in NO_SETTING.items() if same == sentence)
        parts.append(f"| {names} | {_cell(sentence)} |\n")
    return "".join(parts)


def findings_page() -> str:
    """Every finding code."""
    parts = [
        "# Findings\n\n",
        _NOTE,
        "`tuition explain CODE` prints an entry. Errors set the row aside; it stands in the ledger.\n",
    ]
    for code, entry in {**CODES, **RENDER_CODES}.items():
        parts.append(
            f"\n## {code}: {entry.title}\n\n*{entry.severity}.* {entry.explanation}\n\n{entry.mend}\n"
        )
    return "".join(parts)


def commands_page() -> str:
    """The help text of every verb."""
    parts = ["# The command line\n\n", _NOTE]
    for name, command in _commands(typer.main.get_command(app)):
        with command.make_context(f"tuition {name}", [], resilient_parsing=True) as context:
            context.terminal_width = 100
            parts.append(f"## {name}\n\n```\n{command.get_help(context).rstrip()}\n```\n\n")
    return "".join(parts).rstrip() + "\n"


def _commands(group: Any) -> Iterator[tuple[str, Any]]:
    """Each command with its whole name, those of a group below it."""
    for name, command in group.commands.items():
        yield name, command
        yield from ((f"{name} {below}", one) for below, one in getattr(command, "commands", {}).items())


PAGES = {"settings.md": settings_page, "findings.md": findings_page, "commands.md": commands_page}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the pages, or with --check say which differ."""
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"docs/{', docs/'.join(stale)} differ from the code: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
