"""The nouns that the rooms share: Message, Conversation, Rendered.

Every source is read into a Conversation; every Conversation is rendered into token ids with
`supervised` beside them. Nothing here reads a file, renders a template or imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tuition.errors import Origin

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: one of `ROLES`.
        content: the text; empty when the turn is only tool calls.
        tool_calls: calls in the shape `{"id", "type": "function", "function": {"name", "arguments"}}`
            with `arguments` an object.
        reasoning: the model's thoughts before the answer, kept apart from the content.
        weight: None: decided by role (`train_on`); 0: context only; above 0: learned with that weight.
        name: the tool's or speaker's name, when given.
        tool_call_id: which call a tool message answers.
    """

    role: Role
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    reasoning: str | None = None
    weight: float | None = None
    name: str | None = None
    tool_call_id: str | None = None

    def to_template(self) -> dict[str, Any]:
        """The dictionary a chat template sees: only the keys that are set."""
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            fields["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.reasoning is not None:
            fields["reasoning_content"] = self.reasoning
        if self.name is not None:
            fields["name"] = self.name
        if self.tool_call_id is not None:
            fields["tool_call_id"] = self.tool_call_id
        return fields


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row of input, whatever shape it had.

    Attributes:
        messages: the turns in order, at least one.
        origin: the row it was read from.
        tools: JSON schemas of the tools the model may call.
        plain: the row is running text (`text` rows): one assistant message that no template wraps.
        group: rows that name the same group stay on the same side of the validation split.
        weight: the weight of the whole example, multiplied into its tokens' weights.
    """

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()
    plain: bool = False
    group: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One example as the model sees it.

    Attributes:
        ids: (tokens,) int32, token ids.
        supervised: (tokens,) float32. `supervised[i]` is above 0 where token i is learned, and is its
            weight; 0 where it is context only. The first token is never learned: nothing precedes it.
        origin: the row it came from.
        part: 0, or the position among the examples that one conversation was split into.
        group: see `Conversation.group`.
        prompt_key: digest of the system prompt and first user turn; copies of a prompt share it.
        open_ends: how many runs of learned tokens may end with no stop token, because the recipe cuts there,
            learns a span that ends before the turn does, or a message that is no answer.
    """

    ids: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.float32]
    origin: Origin
    part: int = 0
    group: str | None = None
    prompt_key: str = field(default="", repr=False)
    open_ends: int = 0

    def __post_init__(self) -> None:
        if self.ids.shape != self.supervised.shape:
            raise ValueError(f"ids {self.ids.shape} and supervised {self.supervised.shape} differ in shape")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def learned_tokens(self) -> int:
        """How many tokens are learned."""
        return int(np.count_nonzero(self.supervised))
