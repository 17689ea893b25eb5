"""What is said of a disk that refuses a write: the name of the file, whoever wrote it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tuition import files
from tuition.train.writing import disk_faults_of


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The operating system refuses to write more than so many bytes into any file (`ulimit -f`)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_the_disk_refuses_names_the_file(tmp_path: Path) -> None:
    page, journal = tmp_path / "page.html", tmp_path / "journal"
    with files_of_at_most(1000):
        with pytest.raises(OSError, match="File too large") as refused:
            files.write_bytes(page, bytes(2000))
        with pytest.raises(OSError, match="File too large") as refused_too:
            files.append_line(journal, "x" * 2000)
    assert (refused.value.filename, refused_too.value.filename) == (str(page), str(journal))
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_so_does_one_of_another_library(tmp_path: Path) -> None:
    with files_of_at_most(1000):
        with pytest.raises(OSError, match="too large") as refused, disk_faults_of(tmp_path):
            save_file({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
        with pytest.raises(OSError, match="too large") as refused_too, disk_faults_of(tmp_path):
            (tmp_path / "config.json").write_text("x" * 2000)
    assert refused.value.filename == refused_too.value.filename == str(tmp_path)
