"""Runs a chat template as transformers does, within bounds of time and memory in any thread.

The environment is transformers' own, its filters and globals included. What is added stops a template that
would take too long or make too much; what an ordinary one writes is the same to the byte.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from itertools import accumulate
from types import BuiltinFunctionType, GeneratorType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators, optimizeconst
from jinja2.runtime import Context, LoopContext, Macro, new_context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace
from transformers.utils import chat_template_utils as theirs

from tuition.render.bounds import BINARY_OPERATORS, Meter, call, format_spec, guarded
from tuition.render.onebyone import Along, loop_of

_PROGRAMS_KEPT = 8
_COMPARING_TESTS = (
    "eq", "==", "equalto", "ne", "!=", "gt", ">", "greaterthan", "ge", ">=", "lt", "<", "lessthan", "le", "<=", "in",
)  # fmt: skip
_MOST_SOURCE = 100_000  # characters; the longest known template has a fifth of that
_TEXT_METHODS = frozenset(name for name in dir(str) if name[0] != "_") - {"format", "format_map"}
_MAPPING_NAMES = frozenset(dir(dict))
_PLAIN = (str, int, bool)
_CONTEXT_VARIABLES = ("_block_vars", "_loop_vars")


class Program:
    """A template, compiled once for one thread.

    Args:
        source: the Jinja text.

    Raises:
        Exception: whatever Jinja raises for a text that is no template.
    """

    def __init__(self, source: str) -> None:
        self._meter = Meter()
        if len(source) > _MOST_SOURCE:
            self._meter.refuse(f"it is {len(source):,} characters long")
        self._meter.begin(lambda: len(source))
        self._environment = _bounded(self._meter)
        self._template = self._environment.from_string(source)
        if self._meter.broken is not None:  # Jinja computes constants early, and passes over what they raise
            raise self._meter.broken
        self._globals = dict(self._template.globals)

    def run(self, variables: Mapping[str, Any], given: Callable[[], int]) -> str:
        """The text for these variables.

        Args:
            given: how many characters they hold, asked only where the template makes much.

        Raises:
            OutOfBounds: it took too long, or made too much.
            Exception: whatever the template raised.
        """
        return str(self._environment.concat(self._pieces(variables, given)))

    def along(self, variables: Mapping[str, Any], given: Callable[[], int]) -> Along | None:
        """The text with the places of its messages; None where the template does not write one after the other.

        Raises: as `run`.
        """
        environment = self._environment
        if environment.message_loop is None:
            return None
        for piece in self._pieces(variables, given):
            environment.pieces.append(piece)
        if len(environment.borders) != len(variables["messages"]) + 1:
            return None
        whole = str(environment.concat(environment.pieces))
        ends = [0, *accumulate(map(len, environment.pieces))]
        places = [ends[border] for border in environment.borders]
        return Along(whole[: places[-1]], places, whole[places[-1] :])

    def _pieces(self, variables: Mapping[str, Any], given: Callable[[], int]) -> Iterator[str]:
        self._meter.begin(given)
        self._environment.pieces, self._environment.borders = [], []
        template = self._template
        context = new_context(
            self._environment, template.name, template.blocks, {**self._globals, **variables}, shared=True
        )
        yield from template.root_render_func(context)


class _Programs(threading.local):
    """The programs of a thread, so that no two share a meter."""

    def __init__(self) -> None:
        self.kept: dict[str, Program] = {}


_programs = _Programs()


def program_of(source: str) -> Program:
    """The compiled template."""
    kept = _programs.kept
    if source not in kept:
        program = Program(source)
        if len(kept) >= _PROGRAMS_KEPT:
            kept.pop(next(iter(kept)))
        kept[source] = program
    return kept[source]


def plain(value: Any) -> Any:
    """Values as transformers shows them to a template."""
    return getattr(theirs, "_plain_template_data", lambda value: value)(value)


def with_aliases(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose reasoning stands under every name that transformers gives it."""
    return list(getattr(theirs, "_alias_reasoning_fields", lambda messages: messages)(messages))


def names_in(source: str) -> set[str]:
    """The names that a template reads and does not set itself.

    Raises:
        Exception: the text is no template.
    """
    from jinja2.meta import find_undeclared_variables

    meter = Meter()
    if len(source) > _MOST_SOURCE:
        meter.refuse(f"it is {len(source):,} characters long")
    environment = _bounded(meter)
    environment.globals = {}  # names of functions count too
    return find_undeclared_variables(environment.parse(source))


class _Generator(CodeGenerator):
    """Writes the program with a look at the clock in each block, and with sizes told beforehand."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        self.writeline("environment.tick()")
        if self._loop is not None and nodes is self._loop.body:
            self.writeline("environment.at_border()")
        super().blockvisit(nodes, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        super().visit_For(node, frame)
        if node is self._loop:
            self.writeline("environment.at_border()")

    @property
    def _loop(self) -> nodes.For | None:
        return getattr(self.environment, "message_loop", None)

    @optimizeconst
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        escapes = frame.eval_ctx.volatile or frame.eval_ctx.autoescape
        if escapes:
            join = "(markup_join if context.eval_ctx.autoescape else str_join)"
            self.write(f"environment.made({join}(map(environment.written, (")
        else:
            self.write("environment.concat(map(environment.text_of, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))))" if escapes else ")))")

    @optimizeconst
    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if any(_is_constant(side) for side in sides):
            super().visit_Compare(node, frame)
            return
        self.write("(")
        self._weighed(node.expr, frame)
        for operand in node.ops:
            self.write(f" {operators[operand.op]} ")
            self._weighed(operand.expr, frame)
        self.write(")")

    @optimizeconst
    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            self.write("environment.made(")
            super().visit_Getitem(node, frame)
            self.write(")")
        else:
            super().visit_Getitem(node, frame)

    def visit_Pair(self, node: nodes.Pair, frame: Frame) -> None:  # noqa: N802
        self._weighed(node.key, frame)
        self.write(": ")
        self.visit(node.value, frame)

    def _weighed(self, node: nodes.Expr, frame: Frame) -> None:
        if _is_constant(node):
            self.visit(node, frame)
            return
        self.write("environment.weighed(")
        self.visit(node, frame)
        self.write(")")


def _is_constant(node: nodes.Node) -> bool:
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(isinstance(item, nodes.Const) for item in node.items)
    return isinstance(node, nodes.Const)


class _Bounded(ImmutableSandboxedEnvironment):
    """transformers' environment with a meter."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(BINARY_OPERATORS)
    meter: Meter
    message_loop: nodes.For | None
    pieces: list[str]
    """What is written so far, where somebody looks at it while it is."""
    borders: list[int]
    """How many pieces stand before each message."""

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        program = super()._parse(source, name, filename)
        self.message_loop = loop_of(program)
        return program

    def at_border(self) -> None:
        self.borders.append(len(self.pieces))

    def tick(self) -> None:
        self.meter.tick()

    def made(self, value: Any) -> Any:
        return self.meter.made(value)

    def weighed(self, value: Any) -> Any:
        if type(value) is not str:
            self.meter.weigh(value)
        return value

    def written(self, value: Any) -> Any:
        if type(value) is not str:
            if isinstance(value, GeneratorType):
                self.meter.refuse_address()
            self.meter.weigh(value)
        return value

    def text_of(self, value: Any) -> str:
        return value if type(value) is str else str(self.written(value))

    def concat(self, parts: Iterable[str]) -> str:
        parts = list(parts)
        length = sum(map(len, parts))
        if length <= 1024:
            return "".join(parts)
        self.meter.fits(length)
        return str(self.meter.made("".join(parts)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is str and type(right) is str and len(left) + len(right) < 1024:
            return left + right
        return BINARY_OPERATORS[operator](self.meter, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is str and attribute in _TEXT_METHODS:  # what Jinja gives after asking whether it is safe
            return getattr(obj, attribute)
        if kind is dict and attribute not in _MAPPING_NAMES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if (kind is LoopContext or isinstance(obj, Namespace)) and attribute[0] != "_":
            value = getattr(obj, attribute, None)
            if type(value) in _PLAIN:
                return value
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(obj, self.weighed(argument) if type(argument) is tuple else argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        meter = __self.meter
        if type(__obj) is BuiltinFunctionType and type(__obj.__self__) is str:
            kwargs.pop("_loop_vars", None)  # what Jinja tells functions that ask for the context
            kwargs.pop("_block_vars", None)
            if __obj.__name__ == "join" and args:
                args = (list(args[0]), *args[1:])
            call(meter, __obj, args, kwargs)
            return meter.made(__obj(*args, **kwargs))
        if type(__obj) is Macro:
            meter.tick()
        else:
            call(meter, __obj, args, {k: v for k, v in kwargs.items() if k not in _CONTEXT_VARIABLES})
        return meter.made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        pattern = value.__self__

        def formatted(*args: Any, **kwargs: Any) -> str:
            if value.__name__ == "format_map":
                (kwargs,), args = args, ()
            self.meter.weigh([args, kwargs])
            return str(_Formatter(self).vformat(pattern, args, kwargs))

        formatted.__name__ = value.__name__
        return formatted


class _Formatter(SandboxedFormatter):
    """Fills in the fields of a text, none of them wider than a conversation needs."""

    _env: _Bounded

    def format_field(self, value: Any, format_spec_: str) -> Any:
        format_spec(self._env.meter, format_spec_)
        return self._env.made(super().format_field(self._env.weighed(value), format_spec_))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return super().convert_field(self._env.weighed(value), conversion)


def _bounded(meter: Meter) -> Any:
    """A `_Bounded`: transformers' environment, with bounds around all that a template may call."""
    environment = theirs._compile_jinja_template("").environment.overlay()
    environment.__class__ = _Bounded
    environment.meter = meter
    environment.finalize = environment.written
    environment.filters = {
        name: guarded(meter, name, function) for name, function in environment.filters.items()
    }
    environment.tests = {
        name: guarded(meter, name, function) if name in _COMPARING_TESTS else function
        for name, function in environment.tests.items()
    }
    lipsum = environment.globals["lipsum"]

    # to be told from it by nothing: a template could else be another one in transformers itself
    @wraps(lipsum)
    def no_filler(*args: Any, **kwargs: Any) -> Any:
        meter.refuse("it asks for filler text")

    environment.globals = {**environment.globals, "lipsum": no_filler}
    return environment
