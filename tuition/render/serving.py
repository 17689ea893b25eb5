"""What serving makes of a conversation, as text and as ids: asked of transformers, for the proof alone.

Every prompt and every finished turn of a conversation is asked for. Most begin with the one before, so only what
follows its last control token is tokenised again: a tokenizer takes those out first and tokenises what stands
between them each by itself. That this is so is seen of the first texts, which are tokenised whole as well; where
it is not, all are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuition.conversation import Conversation
from tuition.render.renderer import Renderer
from tuition.render.texts import with_thought
from tuition.render.tokens import Ids

_TOKENISED_TWICE = 512
_LONG_CHAIN = 1 << 17  # characters of texts that go on, which all of them are tokenised as a whole up to


class Serving:
    """Asks transformers for the texts and ids of conversations.

    Args:
        renderer: asked for its tokenizer and its template, and for nothing that it made.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._tokens = renderer.tokens
        self._tokenises_twice = _TOKENISED_TWICE
        self._goes_on_from_control_tokens = True

    def texts(
        self, conversation: Conversation, positions: Sequence[int], *, thinks: bool = False
    ) -> list[str]:
        """For each of some messages the text that is fed when it is to be written, and the text through it.

        Args:
            thinks: with the thoughts that the template drops (R029).
        """
        if self._renderer.template is None:
            return [_joined(conversation, end) for n in positions for end in (n, n + 1)]
        given = self.given(conversation)
        texts: list[str] = []
        for position in positions:
            prompt = self.chat(given[:position], conversation.tools)
            written = self.chat(given[: position + 1], conversation.tools, prompt=False)
            thought = with_thought(prompt, written, given[position]) if thinks else None
            texts += prompt, thought.text if thought else written
        return texts

    def finished(self, conversation: Conversation, position: int) -> str:
        """The text through the message at `position`."""
        if self._renderer.template is None:
            return _joined(conversation, position + 1)
        return self.chat(self.given(conversation)[: position + 1], conversation.tools, prompt=False)

    def given(self, conversation: Conversation) -> list[dict[str, Any]]:
        """The messages as this template must be given them."""
        return self._renderer.as_served(conversation.messages)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], *, prompt: bool = True
    ) -> str:
        """What the chat template writes, with its generation prompt or without."""
        assert self._renderer.template is not None
        with self._renderer.template.served():
            return str(
                self._tokens.tokenizer.apply_chat_template(
                    list(messages),
                    tools=[dict(tool) for tool in tools] or None,
                    chat_template=self._renderer.template.source,
                    add_generation_prompt=prompt,
                    tokenize=False,
                )
            )

    def ids(self, texts: Sequence[str], *, plain: bool = False) -> list[Ids]:
        """The ids of each text.

        Args:
            plain: as running text, with what the tokenizer puts around one (BOS), as without a template.
        """
        if not texts:
            return []
        bare = not plain and self._renderer.template is not None
        made = self._tokens.tokenizer(list(texts), add_special_tokens=not bare, verbose=False)["input_ids"]
        return [np.array(ids, dtype=np.int32) for ids in made]

    def ids_along(self, texts: Sequence[Sequence[str]]) -> list[list[Ids]]:
        """The ids of each text of each row of texts, which mostly begin with the one before them."""
        chains = self._made([_Chain(row) for row in texts])
        if not self._are_as_whole(chains):
            self._goes_on_from_control_tokens = False
            chains = self._made([_Chain(row) for row in texts])
        return [chain.ids for chain in chains]

    def _made(self, chains: Sequence[_Chain]) -> Sequence[_Chain]:
        """The same with ids, of which the first texts of all are made in one call, then the second ones, and so on."""
        for link in range(max((len(chain.texts) for chain in chains), default=0)):
            longer = [chain for chain in chains if link < len(chain.texts)]
            borders = [self._border(chain) for chain in longer]
            tails = self.ids([chain.texts[link][at:] for chain, (at, _) in zip(longer, borders, strict=True)])
            for chain, (_, known), tail in zip(longer, borders, tails, strict=True):
                chain.ids.append(np.concatenate([chain.ids[-1][:known], tail]) if known else tail)
                chain.goes_on.append(known > 0)
        return chains

    def _are_as_whole(self, chains: Sequence[_Chain]) -> bool:
        """Whether texts that go on have the ids that they have as a whole, as far as is looked."""
        looked_at = [(chain, n) for chain in chains for n in sorted(chain.telling())][: self._tokenises_twice]
        self._tokenises_twice -= len(looked_at)
        whole = self.ids([chain.texts[n] for chain, n in looked_at])
        return all(
            np.array_equal(chain.ids[n], ids) for (chain, n), ids in zip(looked_at, whole, strict=True)
        )

    def _border(self, chain: _Chain) -> tuple[int, int]:
        """Characters and tokens before the last control token of the newest text; zeros where the next does not go on."""
        if not chain.ids or self._renderer.template is None or not self._goes_on_from_control_tokens:
            return 0, 0
        before, text, ids = chain.texts[len(chain.ids) - 1], chain.texts[len(chain.ids)], chain.ids[-1]
        known = next((n for n in range(len(ids) - 1, -1, -1) if int(ids[n]) in self._tokens.special_ids), 0)
        at = before.rfind(str(self._tokens.tokenizer.convert_ids_to_tokens(int(ids[known])))) if known else -1
        return (at, known) if at >= 0 and text.startswith(before) else (0, 0)


@dataclass(slots=True)
class _Chain:
    """Texts that mostly begin with the one before them.

    Attributes:
        ids: of the first texts, as far as they are made.
        goes_on: of these, whether only what follows the last control token of the one before was tokenised.
    """

    texts: Sequence[str]
    ids: list[Ids] = field(default_factory=list)
    goes_on: list[bool] = field(default_factory=list)

    def telling(self) -> list[int]:
        """The texts that go on, to be looked at as a whole; of a long chain the last two of each run.

        These, a prompt and a finished turn, hold every join of the texts before them. All of them would be
        tokenised in time that grows with the square of their number.
        """
        going_on = {n for n, goes_on in enumerate(self.goes_on) if goes_on}
        if sum(len(self.texts[n]) for n in going_on) > _LONG_CHAIN:
            return [n for n in going_on if not {n + 1, n + 2} <= going_on]
        return list(going_on)


def _joined(conversation: Conversation, messages: int) -> str:
    return "".join(message.content for message in conversation.messages[:messages])
