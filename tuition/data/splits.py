"""Which side of the validation split a conversation is on: a pure function of the row and the seed.

No order, no count and no other row plays a part, so a row keeps its side when others are added, and
copies of a prompt, or rows of a group, are never on both sides.
"""

from __future__ import annotations

from hashlib import blake2b

from tuition.conversation import Conversation
from tuition.data.ledger import Side


def side_of(conversation: Conversation, *, val_split: float, seed: int) -> Side:
    """`validation` for a share `val_split` (0 to 1) of the groups, or prompts where no group is named."""
    if val_split <= 0:
        return "train"
    group = conversation.group
    key = f"group {group}" if group is not None else f"prompt {prompt_key(conversation)}"
    digest = blake2b(f"{seed} {key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") < val_split * 2.0**64 else "train"


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
