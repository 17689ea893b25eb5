"""What a long run keeps: no more after many updates than after a few."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# As updates do whose lengths do not repeat. In a process of its own, because the libraries read settings once.
_MANY_SHAPES = """
import ctypes, tuition, torch
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
Info = type("Info", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names.split()]})
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
torch.set_num_threads(1)
weight = torch.ones(256, 64, dtype=torch.bfloat16)

def used(first, last):
    for rows in range(first, last):
        torch.ones(rows, 64, dtype=torch.bfloat16) @ weight.t()
    return libc.mallinfo2().uordblks

before = used(100, 500)
print(used(500, 900) - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc counts its heap, others do not")
def test_products_of_ever_new_shapes_leave_no_more_behind() -> None:
    own = {"LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [sys.executable, "-c", _MANY_SHAPES], capture_output=True, text=True, check=True, env=environment
    )
    assert int(done.stdout) < 5e6  # 222 MB where PyTorch and oneDNN keep what they do by themselves


def test_who_says_how_much_is_kept_is_heard() -> None:
    said = {"LRU_CACHE_CAPACITY": "77", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "99"}
    code = "import os, tuition; print(*(os.environ[name] for name in ('LRU_CACHE_CAPACITY', 'ONEDNN_PRIMITIVE_CACHE_CAPACITY')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **said}
    )
    assert done.stdout.split() == ["77", "99"]
