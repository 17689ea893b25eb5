"""The shapes of rows that are read, in order of precedence, and how each becomes conversations.

A new shape is one function and one row of `FORMATS`. Where a shape has an instruction and an input, the
user's turn is the instruction, an empty line, and the input; an empty one of the two adds nothing.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tuition.conversation import Conversation, Message
from tuition.data import exports
from tuition.data.catalogue import finding, quote, refused
from tuition.data.messages import read_list, read_messages, read_text, read_tools
from tuition.data.rowfields import ROW_KEYS, SYSTEM_KEYS, conversation, system_turn
from tuition.errors import Finding, Origin

Fields = Mapping[str, Any]
Matches = Callable[[Fields], bool]
Convert = Callable[[Fields, Origin], list[Conversation]]

NO_INPUT = ("", "<noinput>", "No input", "no input", "<no input>")


@dataclass(frozen=True)
class Format:
    """One shape of rows.

    Attributes:
        describe: as it is shown to people, such as `messages (OpenAI chat)`.
        needs: the keys without which a row does not have this shape.
        matches: whether a row that has these keys has this shape, judged by its values.
        convert: the conversations of a row; raises RowError if it cannot be read.
        reads: the fields that are read, those every shape may have (`ROW_KEYS`) among them.
    """

    describe: str
    needs: frozenset[str]
    matches: Matches
    convert: Convert
    reads: frozenset[str]


def detect(row: Fields) -> Format | None:
    """The first shape that the row has, or None."""
    for shape in _candidates(_NEEDED.intersection(row)):
        if shape.matches(row):
            return shape
    return None


@lru_cache(maxsize=1024)  # the rows of a file have few different sets of keys
def _candidates(keys: frozenset[str]) -> tuple[Format, ...]:
    """The shapes whose keys are all there, in order of precedence."""
    return tuple(shape for shape in FORMATS.values() if shape.needs <= keys)


def no_shape(row: Fields, origin: Origin) -> Finding:
    """The finding about a row of no known shape: the keys found, and the nearest shape."""
    keys = tuple(str(key)[:40] for key in list(row)[:12])
    shown = ", ".join(quote(key) for key in keys) + (" …" if len(row) > 12 else "")
    message = f"the row's keys fit no known shape: {shown or 'it has none'}; "
    if _is_turn(row):
        step = 'Write the turns of a conversation as one row: {"messages": [...]}.'
        return finding("D001", origin, message + "the row is a single turn", step)
    if "input_ids" in row:
        step = "Give the text that they were made from: learned tokens are found, and proved, by making them anew."
        return finding("D001", origin, f"{message}the row holds token ids", step)
    lists = [key for key in keys if isinstance(row.get(key), list) and row[key]]
    if turns := next((key for key in lists if all(map(_is_turn, row[key]))), None):
        step = f"Say so: --mapping messages={shlex.quote(turns)}."
        return finding("D001", origin, f"{message}{quote(turns)} seems to hold the turns", step)
    if lists and len(row) < 4 and all(isinstance(inner, Mapping) for key in lists for inner in row[key]):
        hold, array = (
            ("holds", "the file's array") if len(lists) == 1 else ("hold", "the array of a file each")
        )
        message += f"if {' and '.join(map(quote, lists))} {hold} the rows, write them as {array}"
        return finding("D001", origin, message)
    empty = [quote(key) for key in keys if key in _NEEDED and row[key] is None]
    null = f"; {' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} null" if empty else ""
    return finding("D001", origin, message + _nearest_shape(keys) + null, _mapping_step(keys, origin))


def _is_turn(value: object) -> bool:
    return isinstance(value, Mapping) and (
        {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys()
    )


@lru_cache(maxsize=1024)
def _nearest_shape(keys: tuple[str, ...]) -> str:
    """The shape that shares most keys with a row, where similar spellings count as well."""
    near = alike(keys)
    nearest = max(
        _PLAIN_SHAPES, key=lambda shape: len(shape.needs.intersection(near.values())) / len(shape.needs)
    )
    if not nearest.needs.intersection(near.values()):
        return "nearest shape: none; prompt and completion is the simplest"
    respelled = ", ".join(f"{key} → {meant}" for key, meant in near.items() if meant != key)
    return f"nearest shape: {nearest.describe}" + (f" ({respelled}?)" if respelled else "")


@lru_cache(maxsize=1024)
def alike(keys: tuple[str, ...]) -> dict[str, str]:
    """Each key that is spelled as one that shapes need, or nearly so → that one."""
    near = {
        key: difflib.get_close_matches(key.strip().lower(), sorted(_NEEDED), n=1, cutoff=0.75) for key in keys
    }
    return {key: found[0] for key, found in near.items() if found}


def _mapping_step(keys: tuple[str, ...], origin: Origin) -> str | None:
    """The catalogue's next step with the row's own columns in it; None where it does not show which they are."""
    near = alike(keys)
    asked, answered = ([key for key in keys if near.get(key) in side] for side in (_ASKED, _ANSWERED))
    if len(asked) != 1 or len(answered) != 1 or {",", "="} & {*asked[0], *answered[0]}:
        return None
    mapping = shlex.quote(f"prompt={asked[0]},completion={answered[0]}")
    return finding("D001", origin, "").fix.replace("prompt=COLUMN,completion=COLUMN", mapping)


# --- message lists ---


def _from_messages(row: Fields, origin: Origin) -> list[Conversation]:
    messages = system_turn(row, origin) + read_messages(row["messages"], origin)
    return [conversation(row, messages, origin, tools=read_tools(row, origin))]


def _from_sharegpt(row: Fields, origin: Origin) -> list[Conversation]:
    messages = system_turn(row, origin) + read_messages(row["conversations"], origin, "conversations")
    return [conversation(row, messages, origin, tools=read_tools(row, origin))]


# --- a prompt and an answer ---


def _pair(prompt: str, answer: str, *, extra: str | None = None) -> Convert:
    """How a row with two fields, and perhaps an input beside the prompt, is converted."""

    def convert(row: Fields, origin: Origin) -> list[Conversation]:
        asked = _side(row[prompt], "user", origin, prompt)
        if extra is not None and (more := read_text(row.get(extra), origin, extra)) not in NO_INPUT:
            asked = (Message("user", with_input(read_text(row[prompt], origin, prompt), more)),)
        answered = _side(row[answer], "assistant", origin, answer)
        before = system_turn(row, origin) + (_history(row, origin) if row.get("history") else ())
        return [conversation(row, before + asked + answered, origin, tools=read_tools(row, origin))]

    return convert


def with_input(instruction: str, more: str) -> str:
    """The user's turn of an instruction and its input."""
    if more in NO_INPUT:
        return instruction
    return f"{instruction}\n\n{more}" if instruction else more


def _side(value: object, role: str, origin: Origin, field: str) -> tuple[Message, ...]:
    """One side of a pair: a text, or a list of messages. What stands in the prompt is context only."""
    if not isinstance(value, list):
        text = read_text(value, origin, field)
        return (Message("user", text) if role == "user" else Message("assistant", text),)
    messages = read_messages(value, origin, field)
    if role == "assistant":
        return messages
    return tuple(_as_context(message) if message.role == "assistant" else message for message in messages)


def _as_context(message: Message) -> Message:
    return message if message.weight is not None else replace(message, weight=0.0)


def _history(row: Fields, origin: Origin) -> tuple[Message, ...]:
    """LLaMA-Factory's `history`: earlier pairs of question and answer, which are learned as well."""
    turns: list[Message] = []
    for pair in read_list(row["history"], origin, "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise refused(
                "D003", origin, f"history must be pairs of question and answer, and holds {quote(pair)}"
            )
        turns.append(Message("user", read_text(pair[0], origin, "a question in history")))
        turns.append(Message("assistant", read_text(pair[1], origin, "an answer in history")))
    return tuple(turns)


# --- several conversations in a row ---


def _from_seed_task(row: Fields, origin: Origin) -> list[Conversation]:
    """Self-Instruct's seed tasks: one conversation for each instance, on one side of the split."""
    instruction = read_text(row["instruction"], origin, "instruction")
    return _instances(row, "instances", instruction, origin)


def _from_super_natural(row: Fields, origin: Origin) -> list[Conversation]:
    """Super-Natural Instructions: the definition and the input are asked, the first output is learned."""
    definition = row["Definition"]
    lines = definition if isinstance(definition, list) else [definition]
    return _instances(row, "Instances", "\n".join(read_text(d, origin, "Definition") for d in lines), origin)


def _instances(row: Fields, field: str, instruction: str, origin: Origin) -> list[Conversation]:
    instances = read_list(row[field], origin, field)
    if not instances:
        raise refused("D013", origin, f"{field} is empty")
    converted = []
    for instance in instances:
        if not isinstance(instance, Mapping) or not {"input", "output"} <= instance.keys():
            raise refused(
                "D003", origin, f"{field} must hold objects with input and output: {quote(instance)}"
            )
        output = instance["output"]
        answer = (output[0] if output else "") if isinstance(output, list) else output
        asked = Message("user", with_input(instruction, read_text(instance["input"], origin, "input")))
        answered = Message("assistant", read_text(answer, origin, "output"))
        converted.append(conversation(row, (asked, answered), origin, group=instruction))
    return converted


# --- running text, and rows that are no demonstrations ---


def _from_text(row: Fields, origin: Origin) -> list[Conversation]:
    answer = Message("assistant", read_text(row["text"], origin, "text"))
    return [conversation(row, (answer,), origin, plain=True)]


def _refuse_preference(row: Fields, origin: Origin) -> list[Conversation]:
    pair = ("chosen", "rejected") if "chosen" in row else ("preferred_output", "non_preferred_output")
    raise refused("D002", origin, f"the row holds {pair[0]} and {pair[1]}: it compares answers")


def _asks_for_two_answers(row: Fields) -> bool:
    """LLaMA-Factory's preferences: turns that end with a question, and two answers to it beside them."""
    turns = row.get("conversations") or row.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, Mapping) and (last.get("from") or last.get("role")) in ("human", "user")


def _refuse_judged(row: Fields, origin: Origin) -> list[Conversation]:
    column = "label" if isinstance(row.get("label"), bool) else "kto_tag"
    raise refused("D017", origin, f"the row judges its answer ({column}: {str(row[column]).lower()})")


# --- the table ---


def _any_of(*keys: str) -> Matches:
    """Whether one of the fields is filled: Arrow gives every row the keys of all rows, and null."""
    first, *others = keys

    def matches(row: Fields) -> bool:
        return row[first] is not None or any(row[key] is not None for key in others)

    return matches


def _shape(
    describe: str, needs: str, convert: Convert, *, matches: Matches | None = None, also: Iterable[str] = ()
) -> Format:
    """A shape by the keys that it needs, in words apart, and others that it reads."""
    keys = needs.split(" ")
    return Format(
        describe, frozenset(keys), matches or _any_of(*keys), convert, frozenset({*keys, *also, *ROW_KEYS})
    )


def _pair_shape(prompt: str, answer: str, note: str = "", *, extra: str | None = None) -> Format:
    fields = [prompt, answer] if extra is None else [prompt, extra, answer]
    describe = "/".join(fields) + (f" ({note})" if note else "")
    also = (*fields, "history", *_CHAT_KEYS)
    return _shape(describe, f"{prompt} {answer}", _pair(prompt, answer, extra=extra), also=also)


_CHAT_KEYS = ("tools", "functions", "parallel_tool_calls", *SYSTEM_KEYS)
_FLAT_KEYS = ("status", *exports.PROMPT_NAMES)

FORMATS: dict[str, Format] = {
    "open preference": _shape(
        "preference pairs (LLaMA-Factory)",
        "chosen rejected",
        _refuse_preference,
        matches=_asks_for_two_answers,
    ),
    "kto": _shape(
        "judged answers (LLaMA-Factory)",
        "kto_tag",
        _refuse_judged,
        matches=lambda row: isinstance(row["kto_tag"], bool),
    ),
    # ultrachat's rows have a `prompt` beside `messages`, which repeats the first turn
    "messages": _shape("messages (OpenAI chat)", "messages", _from_messages, also=("prompt", *_CHAT_KEYS)),
    "conversations": _shape("conversations (ShareGPT)", "conversations", _from_sharegpt, also=_CHAT_KEYS),
    "preference": _shape("preference pairs", "chosen rejected", _refuse_preference),
    "openai preference": _shape("preference pairs (OpenAI)", "preferred_output", _refuse_preference),
    "judged": _shape(
        "judged answers",
        "prompt completion label",
        _refuse_judged,
        matches=lambda row: isinstance(row["label"], bool),
    ),
    "oasst": _shape(
        "message trees (OpenAssistant)",
        "message_tree_id prompt",
        exports.from_oasst_tree,
        matches=exports.is_oasst_tree,
        also=("tree_state",),
    ),
    "label studio": _shape(
        "annotations (Label Studio)",
        "data annotations",
        exports.from_label_studio,
        matches=exports.is_label_studio,
    ),
    "argilla": _shape(
        "responses (Argilla)", "status", exports.from_argilla, matches=exports.is_argilla, also=_FLAT_KEYS
    ),
    "natural instructions": _shape(
        "Definition/Instances (Natural Instructions)", "Definition Instances", _from_super_natural
    ),
    "seed tasks": _shape("instruction/instances (seed tasks)", "instruction instances", _from_seed_task),
    "alpaca": _pair_shape("instruction", "output", "Alpaca", extra="input"),
    "dolly": _pair_shape("instruction", "response", "Dolly", extra="context"),
    "prompt completion": _pair_shape("prompt", "completion"),
    "prompt response": _pair_shape("prompt", "response"),
    "question answer": _pair_shape("question", "answer", "GSM8K"),
    "question response": _pair_shape("question", "response", "OpenOrca"),
    "query response": _pair_shape("query", "response"),
    "flan": _pair_shape("inputs", "targets", "FLAN"),
    "input target": _pair_shape("input", "target"),
    "input output": _pair_shape("input", "output"),
    "text": _shape("text (no turns)", "text", _from_text),
}

REFUSED_SHAPES = ("open preference", "kto", "preference", "openai preference", "judged")

# the shapes that people write by hand, of which one is named as the nearest
_PLAIN_SHAPES = [
    shape
    for name, shape in FORMATS.items()
    if name not in (*REFUSED_SHAPES, "oasst", "label studio", "argilla")
]
_ASKED = ("prompt", "question", "instruction", "query", "inputs")
_ANSWERED = ("completion", "response", "answer", "output", "targets", "target")
_NEEDED = frozenset[str]().union(*(shape.needs for shape in FORMATS.values()))

# Columns that hold what is asked or answered in some shape; where they are not used, people should know.
CONTENT_KEYS = frozenset[str]().union(*(shape.reads for shape in FORMATS.values())) - {
    *ROW_KEYS,
    *(
        "annotations",
        "data",
        "functions",
        "label",
        "message_tree_id",
        "parallel_tool_calls",
        "status",
        "tree_state",
    ),
}
