"""Shapes that annotation tools export: OpenAssistant's trees, Label Studio and Argilla."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tuition.conversation import Conversation, Message
from tuition.data.catalogue import finding, quote, refused
from tuition.data.jsontext import Row
from tuition.data.messages import read_messages, read_text
from tuition.data.rowfields import conversation
from tuition.errors import Origin

PROMPT_NAMES = ("prompt", "instruction", "question", "query", "input", "text")
ANSWER_NAMES = ("response", "completion", "answer", "output", "target", "demonstration", "reply")

Fields = Mapping[str, Any]


# --- OpenAssistant: trees of messages ---

_MAX_TREE_MESSAGES = 1_000  # the largest of OpenAssistant's trees has some hundreds


def is_oasst_tree(row: Fields) -> bool:
    """A tree: its root stands under `prompt`, with replies."""
    return "message_tree_id" in row and isinstance(row.get("prompt"), Mapping)


def from_oasst_tree(row: Fields, origin: Origin) -> list[Conversation]:
    """One conversation for each path from the root to a leaf.

    An answer that several paths share is learned in the first and is context in the others, so each
    demonstration counts once.
    """
    group = read_text(row["message_tree_id"], origin, "message_tree_id")
    learned: set[int] = set()
    converted = []
    for path in _paths(row["prompt"], origin):
        turns = [{"role": m.get("role"), "text": m.get("text"), **_once(m, learned)} for m in path]
        converted.append(conversation(row, read_messages(turns, origin), origin, group=group))
    return converted


def _once(message: Fields, learned: set[int]) -> dict[str, float]:
    """Weight 0 for an answer that an earlier path holds."""
    if message.get("role") != "assistant":
        return {}
    if id(message) in learned:
        return {"weight": 0.0}
    learned.add(id(message))
    return {}


def _paths(root: Fields, origin: Origin) -> Iterator[list[Fields]]:
    """The paths to the leaves, best-ranked replies first; a stack, because trees may be deep."""
    stack: list[list[Fields]] = [[root]]
    while stack:
        path = stack.pop()
        replies = path[-1].get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(reply, Mapping) for reply in replies):
            raise refused("D007", origin, f"replies must be a list of messages, and is {quote(replies)}")
        if not replies:
            yield path
        stack += [[*path, reply] for reply in sorted(replies, key=_rank, reverse=True)]


def _rank(message: Fields) -> float:
    rank = message.get("rank")
    return rank if isinstance(rank, int | float) else 1e9


def joined_trees(rows: Iterator[Row]) -> Iterator[Row]:
    """Join OpenAssistant's flat rows (one message each, with `parent_id`) to one row a tree.

    The rows of a tree stand together in these files. All other rows pass through.
    """
    tree: list[Row] = []
    for row in rows:
        value = row.value
        if value is None or "parent_id" not in value or "message_id" not in value:
            yield from _joined(tree)
            yield row
            continue
        same = tree and _tree_id(tree[0]) == _tree_id(row) and value["parent_id"] is not None
        if not same or len(tree) == _MAX_TREE_MESSAGES:
            yield from _joined(tree)
        tree.append(row)
    yield from _joined(tree)


def _tree_id(row: Row) -> Any:
    value = row.value or {}
    return value.get("message_tree_id", value.get("message_id"))


def _joined(tree: list[Row]) -> Iterator[Row]:
    """The tree as one row, and a refusal for each message without its parent. Empties `tree`."""
    if not tree:
        return
    nodes: dict[str, dict[str, Any]] = {}
    first = tree[0]
    for row in tree:
        value, parent = row.value or {}, nodes.get(str((row.value or {}).get("parent_id")))
        node = nodes[str(value.get("message_id"))] = {**value, "replies": []}
        if parent is not None:
            parent["replies"].append(node)
        elif row is not first or value.get("parent_id") is not None:
            message = f"the message it replies to, {quote(value.get('parent_id'))}, does not stand before it"
            yield Row(row.origin, None, finding("D013", row.origin, message))
    root = nodes.get(str((first.value or {}).get("message_id")))
    if root is not None and root.get("parent_id") is None:
        yield Row(first.origin, {"message_tree_id": str(_tree_id(first)), "prompt": root})
    tree.clear()


# --- Label Studio ---


def is_label_studio(row: Fields) -> bool:
    """A task: `data` and a list of `annotations`."""
    return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations"), list)


def from_label_studio(row: Fields, origin: Origin) -> list[Conversation]:
    """One conversation for each annotation that was submitted; the text box is the answer."""
    asked = _asked(row["data"], "data", origin)
    answers = [
        _boxes(annotation.get("result"), origin)
        for annotation in row["annotations"]
        if isinstance(annotation, Mapping) and not annotation.get("was_cancelled")
    ]
    if not answers:
        raise refused("D014", origin, "the task has no submitted annotation")
    return _answered(row, asked, answers, origin)


def _boxes(results: object, origin: Origin) -> str:
    """The text that a person wrote: the box named as an answer, or the only box."""
    boxes: dict[str, str] = {}
    for result in results if isinstance(results, list) else []:
        value = result.get("value") if isinstance(result, Mapping) else None
        if isinstance(value, Mapping) and result.get("type") == "textarea":
            texts = value.get("text")
            lines = texts if isinstance(texts, list) else [texts]
            boxes[str(result.get("from_name"))] = "\n".join(read_text(t, origin, "a text box") for t in lines)
    return boxes[_answer_name(list(boxes), "text box", origin)]


# --- Argilla ---


def is_argilla(row: Fields) -> bool:
    """A record: some question has `.responses`."""
    return any(key.endswith(".responses") for key in row if isinstance(key, str))


def from_argilla(row: Fields, origin: Origin) -> list[Conversation]:
    """One conversation for each submitted response; suggestions of models are no demonstrations."""
    questions = [
        key.removesuffix(".responses")
        for key in row
        if isinstance(key, str) and key.endswith(".responses") and row[key]
    ]
    name = _answer_name(questions, "response", origin)
    answers, states = row[f"{name}.responses"], row.get(f"{name}.responses.status") or []
    if not isinstance(answers, list) or not isinstance(states, list):
        raise refused("D003", origin, f"{name}.responses must be a list, and is {quote(answers)}")
    kept = [answer for n, answer in enumerate(answers) if n >= len(states) or states[n] == "submitted"]
    if not kept:
        raise refused("D014", origin, "no response was submitted")
    return _answered(row, _asked(row, "the record", origin), kept, origin)


# --- what both have ---


def _asked(fields: Fields, where: str, origin: Origin) -> tuple[Message, ...]:
    """The question: a list of messages, or the text of the first name that people use for it."""
    name = next((name for name in ("messages", *PROMPT_NAMES) if fields.get(name) is not None), None)
    if name is None:
        raise refused(
            "D014", origin, f"{where} names no prompt; it has {', '.join(map(quote, list(fields)[:8]))}"
        )
    if isinstance(fields[name], list):
        return read_messages(fields[name], origin, name)
    return (Message("user", read_text(fields[name], origin, name)),)


def _answer_name(names: list[str], kind: str, origin: Origin) -> str:
    """Which of the fields that people filled is the answer."""
    if len(names) == 1:
        return names[0]
    likely = [name for name in names if name in ANSWER_NAMES]
    if len(likely) == 1:
        return likely[0]
    shown = ", ".join(map(quote, names[:8])) or "none"
    raise refused("D014", origin, f"which {kind} is the answer is unclear: {shown}")


def _answered(
    row: Fields, asked: tuple[Message, ...], answers: list[Any], origin: Origin
) -> list[Conversation]:
    turns = [Message("assistant", read_text(answer, origin, "the answer")) for answer in answers]
    return [conversation(row, (*asked, turn), origin) for turn in turns]
