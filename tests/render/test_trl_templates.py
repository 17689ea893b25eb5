"""What is learned, beside the masks of TRL's training templates, computed by transformers from their markers.

Ours comes from the plain twin that serving uses; `docs/templates.md` gives the reason for each difference.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import make_tokenizer
from tests.render.helpers import ORIGIN, calling, over, render_one
from tuition.conversation import Conversation, Message

trl = pytest.importorskip(
    "trl", reason="trl is not installed, so there are no training templates to compare with"
)
FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.name.removesuffix("_training.jinja") for path in FOLDER.glob("*_training.jinja"))
CONTROL = re.compile(
    r"<[|｜][^<>\s'\"]{1,40}[|｜]?>|<[a-z_]{1,40}\|>|<(?:start|end)_of_turn>|<end_of_utterance>|<sop>|\[gMASK\]"
)
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Where."}},
            "required": ["city"],
        },
    },
}
ASK, ANSWER = Message("user", "Who are you?"), Message("assistant", "A cat.")
AGAIN, FINAL = Message("user", "And now?"), Message("assistant", "Still a cat.")
THINKING, FINAL_THINKING = (
    Message("assistant", "A cat.", reasoning="I purr."),
    Message("assistant", "Still a cat.", reasoning="I meow."),
)
SHAPES = {
    "single": Conversation((ASK, ANSWER), ORIGIN),
    "multi-turn": Conversation((ASK, ANSWER, AGAIN, FINAL), ORIGIN),
    "system": Conversation((Message("system", "Be brief."), ASK, ANSWER), ORIGIN),
    "empty system": Conversation((Message("system", ""), ASK, ANSWER), ORIGIN),
    "tools": Conversation(
        (ASK, calling(city="Paris"), Message("tool", "Sunny.", name="weather", tool_call_id="1"), FINAL),
        ORIGIN,
        tools=(TOOL,),
    ),
    "reasoning": Conversation((ASK, THINKING, AGAIN, FINAL_THINKING), ORIGIN),
}


@cache
def tokenizer_of(name: str) -> Any:
    """A small tokenizer with the control tokens that the templates of this name write."""
    plain, training = (FOLDER / f"{name}{kind}.jinja" for kind in ("", "_training"))
    tokenizer = make_tokenizer(template=None)
    source = plain.read_text() if plain.exists() else training.read_text()
    tokenizer.add_special_tokens({"extra_special_tokens": sorted(set(CONTROL.findall(source)))})
    tokenizer.chat_template = source
    return tokenizer


def theirs(name: str, conversation: Conversation) -> tuple[list[int], list[int]] | None:
    """Ids and mask of the training template; None where it refuses."""
    try:
        out = tokenizer_of(name).apply_chat_template(
            [m.to_template() for m in conversation.messages],
            tools=list(conversation.tools) or None,
            chat_template=(FOLDER / f"{name}_training.jinja").read_text(),
            return_assistant_tokens_mask=True,
            return_dict=True,
        )
    except Exception:  # a template may raise anything
        return None
    return out["input_ids"], out["assistant_masks"]


def difference(name: str, shape: str) -> str:
    """How the two compare: whether ours is refused or split, else what theirs learns more and less."""
    conversation, tokenizer = SHAPES[shape], tokenizer_of(name)
    outcome = render_one(over(tokenizer, max_length=5000), conversation)
    reference = theirs(name, conversation)
    if not outcome.examples:
        codes = {finding.code for finding in outcome.findings if finding.severity == "error"}
        return " ".join(["refused", *sorted(codes), *([] if reference else ["by both"])])
    if reference is None:
        return "refused by TRL"
    if len(outcome.examples) > 1:
        return f"{len(outcome.examples)} examples"
    ids, mask = reference
    ours = outcome.examples[0]
    added = int(ids[: len(ours)] != ours.ids.tolist()[: len(ids)])  # the EOS that no template wrote
    length = len(ours) - added
    if ids[:length] != ours.ids[:length].tolist():
        return "another text"
    learned, marked = np.zeros(len(ids), dtype=bool), np.array(mask) > 0
    learned[:length] = ours.supervised[:length] > 0
    more = np.array(ids)[marked & ~learned].tolist()
    less = np.array(ids)[learned & ~marked].tolist() + ours.ids[length:].tolist()
    return (
        ", ".join(f"{word} {quoted(name, ids)}" for word, ids in (("more", more), ("less", less)) if ids)
        or "same"
    )


def quoted(name: str, ids: list[int]) -> str:
    """Tokens as code in one line."""
    return "`" + tokenizer_of(name).decode(ids).replace("\n", "\\n") + "`"


def documented() -> dict[str, list[str]]:
    """The table of docs/templates.md: template → one cell for each shape."""
    lines = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8").splitlines()
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines if line.startswith("| `")]
    cells = [[cell.strip().replace(r"\|", "|") for cell in row] for row in rows]
    return {name.strip("`"): differences for name, *differences in cells}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_differs_from_trl_only_as_documented(name: str) -> None:
    assert [difference(name, shape) for shape in SHAPES] == documented()[name]


def test_every_documented_template_ships_with_trl() -> None:
    assert sorted(documented()) == NAMES
