"""Templates that write one message after the other, told by their programs.

What such a template writes of the first messages of a conversation is what it writes of all, up to the next
message, and then what it writes behind the last. So all turns of a long conversation are told from one run. Any
other template, or one whose program is not plainly of this kind, is run anew for each turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import nodes

_SO_FAR = {"index", "index0", "first"}  # what a loop knows without looking ahead
_ELSEWHERE = (
    nodes.Block,
    nodes.Extends,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Break,
    nodes.Continue,
)


@dataclass(frozen=True, slots=True)
class Along:
    """The text of a whole conversation, and where its messages begin.

    Attributes:
        text: through the last message.
        places: characters before each message, and before what stands behind the last.
        behind: what the template writes behind the messages, however many there are.
    """

    text: str
    places: list[int]
    behind: str

    def first(self, count: int) -> str:
        """What the template writes of the first messages, 1 or more."""
        return self.text[: self.places[count]] + self.behind


def loop_of(program: nodes.Template) -> nodes.For | None:
    """The loop over the messages, where none is looked at before its turn but the first; None in any other template."""
    messages = {"messages", *_other_names(program)}
    loops = [node for node in program.body if isinstance(node, nodes.For) and _is(node.iter, messages)]
    if len(loops) != 1 or any(program.find_all(_ELSEWHERE)):
        return None
    (loop,) = loops
    if loop.test or loop.else_ or loop.recursive or _looks_ahead(program, messages):
        return None
    behind = nodes.Output(program.body[program.body.index(loop) + 1 :])
    return None if _names_in(behind) & _written(program) else loop


def _other_names(program: nodes.Template) -> set[str]:
    """What `messages` is called besides, by `{% set loop_messages = messages %}` outside of any block."""
    sets = [node for node in program.body if isinstance(node, nodes.Assign) and _is(node.node, {"messages"})]
    return {node.target.name for node in sets if isinstance(node.target, nodes.Name)}


def _looks_ahead(program: nodes.Template, messages: set[str]) -> bool:
    """Whether messages are read other than by the loop and as `messages[0]`, or a loop is asked what is to come."""
    firsts = sum(
        _is(node.node, messages) and isinstance(node.arg, nodes.Const) and repr(node.arg.value) == "0"
        for node in program.find_all(nodes.Getitem)
    )
    so_far = sum(
        _is(node.node, {"loop"}) and node.attr in _SO_FAR for node in program.find_all(nodes.Getattr)
    )
    names = [node.name for node in program.find_all(nodes.Name)]
    # the loop itself, and for each other name its own place and that of `messages` where it is given
    expected = 1 + firsts + 2 * (len(messages) - 1)
    return sum(name in messages for name in names) != expected or names.count("loop") != so_far


def _written(program: nodes.Template) -> set[str]:
    """The names that the template gives a value, or changes."""
    given = {name.name for name in program.find_all(nodes.Name) if name.ctx != "load"}
    changed = {reference.name for reference in program.find_all(nodes.NSRef)}
    return given | changed | {macro.name for macro in program.find_all(nodes.Macro)}


def _names_in(node: nodes.Node) -> set[str]:
    return {name.name for name in node.find_all(nodes.Name)} | {
        ref.name for ref in node.find_all(nodes.NSRef)
    }


def _is(node: nodes.Node, names: set[str]) -> bool:
    return isinstance(node, nodes.Name) and node.name in names
