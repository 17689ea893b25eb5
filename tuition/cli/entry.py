"""Where a command begins and how it ends: exit codes, errors without tracebacks, --version."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Annotated

import typer

from tuition.cli import collecting
from tuition.cli.shared import Stopped, among_ranks, app, complain, me
from tuition.errors import Interrupted, UserError, typed
from tuition.leaving import INTERRUPTED


def main() -> None:
    """The `tuition` command: exit 0 done, 1 findings or a failed gate, 2 user error, 130 interrupted."""
    sys.excepthook = _show_traceback
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except UserError as error:
        if debug:
            raise
        complain(str(error))
        sys.exit(2)
    except (Interrupted, Stopped, KeyboardInterrupt) as stop:
        sys.exit(_told_to_stop(stop))
    except BrokenPipeError:  # `tuition preview … | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        complain(f"{error.filename or 'a file'}: {error.strerror or error}. Mend that, or name another path.")
        sys.exit(2)
    except MemoryError:
        if debug:
            raise
        complain("memory ran out, or a limit on it (ulimit -v) did. Free some, or take a smaller model.")
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        complain(f"{type(error).__name__}: {error}. This is a defect of tuition; --debug shows where.")
        sys.exit(2)


def _told_to_stop(stop: BaseException) -> int:
    """Say what became of the work; the exit code."""
    if among_ranks():
        # whoever started them says it once; any code but 0 would have torchrun start them again
        return 0 if isinstance(stop, Interrupted) else INTERRUPTED
    if isinstance(stop, Interrupted):
        complain(f"interrupted; nothing is lost. Go on with: {me()} train {typed(stop.folder)} --resume")
    else:
        complain(str(stop) or "interrupted")
    return INTERRUPTED


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What --debug shows: Python's own words, without secrets."""
    import traceback

    from tuition.redact import redact
    from tuition.screen import printable

    print(printable(redact("".join(traceback.format_exception(kind, error, trace)))), file=sys.stderr)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    if version:
        from tuition import __version__

        print(__version__)
        raise typer.Exit


app.add_typer(collecting.app)


app.command()(collecting.compare)
