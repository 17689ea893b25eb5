"""How much a template may make and how long it may take, and the operations that could make more.

An operation that runs in C cannot be stopped halfway, so its size is told beforehand from what it is given.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType
from typing import Any

from jinja2.utils import Cycler, Joiner, Namespace

LIMIT_SECONDS = 0.05  # of one text, compiled or written; an ordinary one takes a fiftieth of that
# more for each that the template was given: some look at all turns for each turn
_SECONDS_PER_CHARACTER = 20e-6
_MOST_SECONDS = 2.0  # whatever it was given
LIMIT_CHARACTERS = 1_000_000  # of one text; and 64 for each that the template was given
_LIMIT_BYTES = 64 << 20  # of all that is made on the way; and 1,024 for each character given
_TICK_BYTES = 64
_UNCOUNTED = 1024
_ITEMS_BETWEEN_LOOKS = 4096
_MOST_DIGITS_BITS = 100_000
_WIDEST = 10_000
_SLOW_FILTERS = {"pprint", "striptags", "urlize", "wordwrap", "xmlattr"}
_SLOW_CHARACTERS = 10_000
_WIDTH_FILTERS = {"batch", "center", "indent", "round", "slice", "tojson"}
_SHALLOW_FILTERS = {"count", "d", "default", "first", "items", "last", "length", "list", "map", "reject"}
_SHALLOW_FILTERS |= {"rejectattr", "reverse", "select", "selectattr"}
_CONSUMING_FILTERS = {"batch", "groupby", "join", "max", "min", "slice", "sort", "sum", "unique"}
_WIDTH_METHODS = {"center", "ljust", "rjust", "zfill", "to_bytes"}
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()), set, frozenset)
_NAMED_BY_ADDRESS = (FunctionType, MethodType, BuiltinFunctionType, Cycler, Joiner)
_SCALARS = (bool, int, float, type(None))
_CONTAINERS: Any = (list, tuple, dict, *_VIEWS)
_PERCENT = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?")
_NUMBER = re.compile(r"\d+")


def full_collections() -> int:
    """How often Python has looked through all that the process holds for what nothing needs any more.

    It comes when it comes, also in the midst of a text that takes a millisecond, and takes a quarter of a second
    where libraries are large.
    """
    return int(gc.get_stats()[-1]["collections"])


class OutOfBounds(Exception):
    """The template would take too long or make too much."""


class Meter:
    """What one rendering has used so far.

    Attributes:
        broken: what was refused last, though Jinja may have passed over it.
    """

    def __init__(self) -> None:
        self.begin(lambda: 0)

    def begin(self, given: Callable[[], int]) -> None:
        """A new rendering.

        Args:
            given: tells how many characters the template is given; asked only when the first share is used up.
        """
        self._given: Callable[[], int] | None = given
        self._seconds = LIMIT_SECONDS
        self._deadline = time.monotonic() + LIMIT_SECONDS
        self._began = time.thread_time()
        self._collections: int | None = full_collections()
        self._bytes_left = _LIMIT_BYTES
        self._longest = LIMIT_CHARACTERS
        self.broken: OutOfBounds | None = None

    def tick(self) -> None:
        """A block of the template begins, or an operation that may be slow."""
        self._bytes_left -= _TICK_BYTES
        if self._bytes_left < 0:
            self.spend(0)
        if time.monotonic() > self._deadline:
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        """Only the thread's own work counts: a machine that slept must not cost a row."""
        used = time.thread_time() - self._began
        if used >= self._seconds:
            self._extend()
        if used >= self._seconds:
            if not self._was_held_up():
                self.refuse(f"it takes longer than {self._seconds:.2g} seconds")
            self._began, used = time.thread_time(), 0.0
        self._deadline = time.monotonic() + self._seconds - used

    def _was_held_up(self) -> bool:
        """Whether Python itself may have taken the time; once in a rendering, so that nobody hides behind it."""
        before, self._collections = self._collections, None
        return before is not None and full_collections() > before

    def fits(self, length: int) -> None:
        """Refuse a text of so many characters, or a list of so many items, where that is too many."""
        if length > self._longest:
            self._extend()
            if length > self._longest:
                self.refuse(f"it writes {length:,} characters, far more than it was given")

    def spend(self, size: int) -> None:
        """Count memory that was taken."""
        self._bytes_left -= size
        if self._bytes_left < 0:
            self._extend()
            if self._bytes_left < 0:
                self.refuse(f"it makes more than {_LIMIT_BYTES >> 20} MiB on the way to its text")

    def made(self, value: Any) -> Any:
        """Count a value that an operation has made."""
        if type(value) in _SCALARS:
            return value
        if isinstance(value, str):
            if len(value) > _UNCOUNTED:
                self.fits(len(value))
                self.spend(len(value) if value.isascii() else 4 * len(value))
        elif isinstance(value, list | tuple | dict | bytes):
            self.fits(len(value))
            self.spend(len(value) * (1 if isinstance(value, bytes) else 64))
        return value

    def weigh(self, value: Any, *, as_argument: bool = False) -> int:
        """Characters and items of a value, those it holds twice counted twice, as writing it out would.

        Args:
            as_argument: it is handed on and not written, so it may be, or hold, what has no value of its own.
        """
        kind = type(value)
        if kind is str:
            if len(value) > LIMIT_CHARACTERS:
                self.fits(len(value))
            return len(value) + 1
        if kind in _SCALARS:
            return 1
        weight, pause, waiting = 0, _ITEMS_BETWEEN_LOOKS, [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                weight += len(item)
            elif isinstance(item, _CONTAINERS):
                self.fits(weight + len(item))
                if isinstance(item, dict):
                    waiting.extend(item.keys())
                    waiting.extend(item.values())
                else:
                    waiting.extend(item)
            elif isinstance(item, Namespace):
                waiting.append(object.__getattribute__(item, "_Namespace__attrs"))
            elif not as_argument and isinstance(item, _NAMED_BY_ADDRESS):
                self.refuse_address()
            weight += 1
            if weight > pause:
                pause = weight + _ITEMS_BETWEEN_LOOKS
                self.tick()
                self.fits(weight)
        return weight

    def refuse_wide(self, width: Any) -> None:
        """Refuse a number of places that no conversation needs."""
        if isinstance(width, int) and abs(width) > _WIDEST:
            self.refuse(f"it pads to {width:,} places" if abs(width) < 10**15 else "it pads without bound")

    def refuse_address(self) -> None:
        """Refuse to write out where an object lies in memory: chance, by which a template could act otherwise later."""
        self.refuse("it writes an object that is no value")

    def refuse(self, what: str) -> None:
        """Stop the template, and remember why.

        Raises:
            OutOfBounds: always.
        """
        self.broken = OutOfBounds(what)
        raise self.broken

    def _extend(self) -> None:
        """Allow for what the template was given."""
        if self._given is not None:
            given, self._given = self._given(), None
            self._bytes_left += 1024 * given
            self._longest += 64 * given
            self._seconds = min(_MOST_SECONDS, LIMIT_SECONDS + _SECONDS_PER_CHARACTER * given)


# --- operators ---


def multiply(meter: Meter, left: Any, right: Any) -> Any:
    """`left * right`, its size told before it is made."""
    if isinstance(left, int) and isinstance(right, int):
        _refuse_long_number(meter, left.bit_length() + right.bit_length())
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
            meter.fits(len(many) * max(times, 0))
    return meter.made(left * right)


def power(meter: Meter, left: Any, right: Any) -> Any:
    """`left ** right`, its size told before it is made."""
    if isinstance(left, int) and isinstance(right, int):
        _refuse_long_number(meter, left.bit_length() * abs(right))
    return left**right


def add(meter: Meter, left: Any, right: Any) -> Any:
    """`left + right`."""
    if isinstance(left, str | bytes | list | tuple) and isinstance(right, str | bytes | list | tuple):
        meter.fits(len(left) + len(right))
    return meter.made(left + right)


def percent(meter: Meter, left: Any, right: Any) -> Any:
    """`left % right`: of a text, its fields filled in."""
    if isinstance(left, str | bytes):
        _refuse_percent(meter, left, right)
    return meter.made(left % right)


def _refuse_percent(meter: Meter, pattern: str | bytes, values: Any) -> None:
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else str(pattern)
    widths = [width for pair in _PERCENT.findall(text) for width in pair]
    for width in widths:
        if width == "*":
            meter.refuse("it pads to a width that its values name")
        meter.refuse_wide(int(width[:20]) if width else 0)
    fields = text.count("%")
    meter.fits(len(text) + sum(int(width) for width in widths if width) + fields * meter.weigh(values))


def _refuse_long_number(meter: Meter, bits: int) -> None:
    if bits > _MOST_DIGITS_BITS:
        meter.refuse("it computes a number of more than ten thousand digits")


BINARY_OPERATORS: dict[str, Callable[[Meter, Any, Any], Any]] = {
    "*": multiply,
    "**": power,
    "+": add,
    "%": percent,
}


# --- methods of texts, numbers, lists and mappings ---


def call(meter: Meter, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a call that could make too much."""
    meter.tick()
    for value in (*args, *kwargs.values()):
        meter.weigh(value, as_argument=True)
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, list | tuple | dict):
        meter.weigh(owner)
    if name in _WIDTH_METHODS:
        for value in (*args, *kwargs.values()):
            meter.refuse_wide(value)
    elif isinstance(owner, str | bytes) and name in _GROWING:
        meter.fits(_GROWING[name](owner, *args, **kwargs))


def _replaced(text: Any, old: Any, new: Any, count: int = -1) -> int:
    found: int = text.count(old)
    return len(text) + (found if count < 0 else min(found, count)) * len(new)


def _joined(text: Any, items: Any) -> int:
    # what is used up by looking at it cannot be looked at
    return sum(len(text) + len(i) for i in items) if isinstance(items, list | tuple | dict) else 0


def _expanded(text: Any, tabsize: int = 8) -> int:
    tabs: int = text.count(b"\t" if isinstance(text, bytes) else "\t")
    return len(text) + tabs * max(tabsize, 0)


def _translated(text: Any, table: Any, *_: Any) -> int:
    longest = (
        max((len(v) for v in table.values() if isinstance(v, str)), default=1)
        if isinstance(table, dict)
        else 1
    )
    return len(text) * longest


_GROWING: dict[str, Callable[..., int]] = {
    "replace": _replaced,
    "join": _joined,
    "expandtabs": _expanded,
    "translate": _translated,
}


def format_spec(meter: Meter, spec: str) -> None:
    """Refuse a field such as `{:>1000000000}`."""
    for number in _NUMBER.findall(spec):
        meter.refuse_wide(int(number[:20]))


# --- filters ---


def guarded(meter: Meter, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter with its sizes told before it runs."""
    shallow = name in _SHALLOW_FILTERS
    passes = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        meter.tick()
        if shallow:  # it hands items on and looks at none
            return meter.made(function(*args, **kwargs))
        own, given = args[:passes], list(args[passes:])
        if name == "random":
            meter.refuse("it draws a random item")
        if given and isinstance(given[0], GeneratorType) and name not in _CONSUMING_FILTERS:
            meter.refuse_address()
        if name == "join" and given and isinstance(given[0], Iterator):
            given[0] = list(given[0])
        weight = sum(meter.weigh(value) for value in (*given, *kwargs.values()))
        _refuse_filter(meter, name, given, kwargs, weight)
        return meter.made(function(*own, *given, **kwargs))

    return run


def _refuse_filter(meter: Meter, name: str, args: list[Any], kwargs: Mapping[str, Any], weight: int) -> None:
    if name in _SLOW_FILTERS and weight > _SLOW_CHARACTERS:
        meter.refuse(f"it gives the filter {name} more than {_SLOW_CHARACTERS:,} characters")
    options = [*args[1:], *kwargs.values()]
    if name in _WIDTH_FILTERS:
        for option in options:
            meter.refuse_wide(option)
            if isinstance(option, str | list | tuple) and meter.weigh(option) > 100:
                meter.refuse(f"it gives the filter {name} a text of more than 100 characters to pad with")
    if name == "indent" and args and isinstance(args[0], str):
        widest = max(
            (o if isinstance(o, int) else len(o) for o in options if isinstance(o, int | str)), default=4
        )
        meter.fits(len(args[0]) + (args[0].count("\n") + 1) * widest)
    elif name == "tojson":
        widest = max((o for o in options if isinstance(o, int)), default=0)
        meter.fits(weight * max(1, widest))
    elif name == "join" and args:
        items = len(args[0]) if hasattr(args[0], "__len__") else 0
        meter.fits(weight + items * sum(len(o) for o in options if isinstance(o, str)))
    elif name == "replace" and len(args) + len(kwargs) > 2:
        old = args[1] if len(args) > 1 else kwargs["old"]
        new = args[2] if len(args) > 2 else kwargs["new"]
        meter.fits(_replaced(str(args[0]), str(old), str(new)))
    elif name == "format" and args:
        _refuse_percent(meter, str(args[0]), [*args[1:], *kwargs.values()])
