"""Which side of the validation split a conversation is on, and how often a row of a source with a share
is learned: pure functions of the row and the seed.

No order, no count and no other row plays a part, so a row keeps its side when others are added, and
copies of a prompt, or rows of a group, are never on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from tuition.conversation import Conversation
from tuition.data.ledger import Side


def side_of(conversation: Conversation, *, val_split: float, seed: int) -> Side:
    """`validation` for a share `val_split` (0 to 1) of the groups, or prompts where no group is named."""
    if val_split <= 0:
        return "train"
    group = conversation.group
    key = f"group {group}" if group is not None else f"prompt {prompt_key(conversation)}"
    return "validation" if _falls_within(f"{seed} {key}", val_split) else "train"


def copies_of(row: Mapping[str, Any], *, share: float, seed: int) -> int:
    """How often a row is learned in an epoch, by the share of its source: `replay.jsonl#0.1`.

    Below 1, a row is learned once or left out, and what a smaller share keeps, a larger one keeps too. Whole
    numbers repeat every row; 2.5 learns each row twice and half of them a third time. Equal rows fare alike.
    """
    whole, rest = divmod(share, 1.0)
    if not rest:
        return int(whole)
    content = json.dumps(row, sort_keys=True, ensure_ascii=False, default=repr)
    return int(whole) + _falls_within(f"{seed} row {content}", rest)


def _falls_within(key: str, share: float) -> bool:
    """True for a share (0 to 1) of all keys."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def prompt_key(conversation: Conversation) -> str:
    """A short digest of what is asked: the system text and the first user turn, blanks around them aside.

    Conversations with the same key ask the same. Running text is its own key.
    """
    asked = []
    for message in conversation.messages:
        if message.role in ("system", "developer", "user") or conversation.plain:
            asked.append(f"{message.role}\0{message.content.strip()}")
        if message.role == "user":
            break
    if not asked:
        asked.append(conversation.messages[0].content)
    return blake2b("\0".join(asked).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
