"""The streams that a command is given: closed, left by whoever read them, or too narrow for what is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_jsonl

AT_THE_BEGINNING = "import os, sys; from tuition.streams import make_usable; make_usable(); "


def told(code: str, *, shell: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run code behind `make_usable`, with the streams that the shell gives it."""
    command = f'exec "$0" -c "$1" {shell}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, AT_THE_BEGINNING + code], capture_output=True, text=True, check=False,
        env={**os.environ, **settings}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip


def test_a_file_never_receives_what_is_said_to_a_stream_that_was_closed(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    done = told(f"f = open({str(file)!r}, 'w'); os.write(2, b'said')", shell="2>&-")
    assert (done.returncode, file.read_text()) == (0, "")


def test_a_closed_stdin_is_at_its_end_and_closed_outputs_take_all() -> None:
    code = "print(1); print(sys.stdin.read(), sys.stdout.isatty(), file=sys.stderr); os._exit(7)"
    assert told(code, shell=">&- 2>&- <&-").returncode == 7


def test_nothing_that_is_said_fails_when_nobody_reads_it_any_more() -> None:
    done = told(
        "[print('said', file=sys.stderr, flush=True) for _ in range(9)]; print('done')", shell="2>/dev/full"
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_does_not_hold_is_shown_by_its_number_and_stays_json(encoding: str) -> None:
    code = "from tuition.screen import print_json; print('\\u4f60'); print_json({'a': 'ü\\u4f60'})"
    done = told(code, PYTHONIOENCODING=encoding)
    shown, written = done.stdout.splitlines()
    assert (shown, json.loads(written)) == ("\\u4f60", {"a": "ü你"})


def test_a_terminal_of_no_width_still_shows_findings(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": ""}])
    done = subprocess.run(
        [sys.executable, "-m", "tuition", "check", str(data)], capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "0"}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 row in = 0 kept + 1 rejected" in done.stdout
