"""One input of a parser under fire: how it is drawn, damaged and laid. Any of it comes again from its numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

numbers = st.tuples(st.integers(0, 63), st.integers(0, 2**40))
Damage = tuple[int, int]  # the number of a sound input, and of the way it is damaged


@dataclass(frozen=True)
class Parser:
    """One parser under fire.

    Attributes:
        inputs: what is drawn.
        lay: makes what the parser reads (files, mostly); takes no part in the time.
        read: the parser; returns whether it refused, or raises UserError.
    """

    inputs: st.SearchStrategy[Any]
    lay: Callable[[Any], Any]
    read: Callable[[Any], object]


FRAGMENTS = [
    b"", b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b",", b'"', b"\\", b"{", b"}", b"[",
    b"]", b":", b"{{", b"}}", b"{%", b"%}", b"null", b"NaN", b"-1", b"1e999", b"9" * 5000, b"[" * 3000, b"'", b"&a", b"*a",
    b"!!python/object:os.system", b"!!int", b"!!timestamp", b"<<:", b"- ", b"? ", b"2026-13-45", b"\x1b[2J",
    "\u202e".encode(), b"../", b"%2e%2e%2f", b"<script>", b"\x80\x04", b"PAR1", b"\x28\xb5\x2f\xfd", b"a" * 2000,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "", "x",
    "\0", "\ud800", "\x1b[2J", "../../etc/passwd", "/dev/zero", "a" * 5000, "9" * 5000, "NaN", "<script>", [], {}, [[]],
    [None], ["x"], [1, 2], {"a": 1}, {"": {"": {}}}, {"content": None},
]  # fmt: skip


def damaged_bytes(sound: bytes, way: int) -> bytes:
    """The bytes after one to six cuts, flips, repeats and insertions."""
    chance = random.Random(way)
    content = bytearray(sound)
    for _ in range(chance.randint(0, 6)):
        place = chance.randint(0, len(content))
        length = chance.choice([1, 1, 2, 8, 64, len(content) // 2])
        kind = chance.randrange(6)
        if kind == 0:
            del content[place : place + length]
        elif kind == 1 and place < len(content):
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            content[place:place] = content[place : place + length]
        elif kind == 3:
            content[place : place + length] = chance.choice(FRAGMENTS)
        elif kind == 4:
            content[place:place] = chance.choice(FRAGMENTS)
        else:
            content[place : place + length] = chance.randbytes(length % 100)
    return bytes(content)


def damaged_value(sound: Any, way: int) -> Any:
    """The JSON value with one to four of its parts replaced, removed, moved or said twice."""
    chance = random.Random(way)
    value = json.loads(json.dumps(sound))
    for _ in range(chance.randint(0, 4)):
        places = list(_places(value))
        if not places or chance.random() < 0.01:
            return deepcopy(chance.choice(VALUES))
        holder, key = chance.choice(places)
        kind = chance.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.append(holder[key])
        elif kind == 2 and isinstance(holder, dict):
            holder[chance.choice(["x", "\ud800", "", "../x", "0"])] = holder[key]
        elif kind == 3:
            other, place = chance.choice(places)
            holder[key] = json.loads(json.dumps(other[place]))
        else:
            holder[key] = deepcopy(chance.choice(VALUES))  # else the next input would find it damaged
    return value


def _places(value: Any) -> Any:
    """Every (container, key) within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def as_text(value: Any) -> bytes:
    return json.dumps(value).encode()


def laid_file(root: Path, name: str, make: Callable[[Any], bytes]) -> Callable[[Any], Path]:
    """A function that lays the file which `make` gives for an input."""
    root.mkdir(parents=True, exist_ok=True)

    def lay(value: Any) -> Path:
        path = root / name
        path.write_bytes(make(value))
        return path

    return lay
