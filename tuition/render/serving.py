"""What serving makes of a conversation, as text and as ids: asked of transformers, for the proof alone.

Every prompt and every finished turn of a conversation is asked for. Most begin with the one before, so only what
follows its last control token is tokenised again: a tokenizer takes those out first and tokenises what stands
between them each by itself. That this is so is seen of the first texts, which are tokenised whole as well; where
it is not, all are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuition.conversation import Conversation
from tuition.render.renderer import Renderer
from tuition.render.texts import with_thought
from tuition.render.tokens import Ids

_TOKENISED_TWICE = 512


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

    def prompt(self, conversation: Conversation, position: int) -> str:
        """The text that is fed when the message at `position` is to be answered."""
        if self._renderer.template is None:
            return _joined(conversation, position)
        return self.chat(self.given(conversation)[:position], conversation.tools)

    def finished(self, conversation: Conversation, position: int, *, thinks: bool = False) -> str:
        """The text through the message at `position`.

        Args:
            thinks: with the thought that the template drops from it (R029).
        """
        if self._renderer.template is None:
            return _joined(conversation, position + 1)
        given = self.given(conversation)[: position + 1]
        written = self.chat(given, conversation.tools, prompt=False)
        if thinks:
            thought = with_thought(self.chat(given[:-1], conversation.tools), written, given[-1])
            written = thought.text if thought else written
        return written

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

    def ids_along(self, chains: Sequence[Sequence[str]]) -> list[list[Ids]]:
        """The ids of each text of each chain, whose texts mostly begin with the one before them."""
        made: list[list[Ids]] = [[] for _ in chains]
        for link in range(max(map(len, chains), default=0)):
            longer = [n for n, chain in enumerate(chains) if link < len(chain)]
            texts = [chains[n][link] for n in longer]
            for n, ids in zip(longer, self._going_on(texts, chains, made, longer), strict=True):
                made[n].append(ids)
        return made

    def _going_on(
        self,
        texts: Sequence[str],
        chains: Sequence[Sequence[str]],
        made: Sequence[list[Ids]],
        numbers: Sequence[int],
    ) -> list[Ids]:
        """The next text of some chains."""
        if not self._goes_on_from_control_tokens:
            return self.ids(texts)
        borders = [self._border(text, chains[n], made[n]) for text, n in zip(texts, numbers, strict=True)]
        tails = self.ids([text[at:] for text, (at, _) in zip(texts, borders, strict=True)])
        result = [
            np.concatenate([made[n][-1][:known], tail]) if known else tail
            for n, (_, known), tail in zip(numbers, borders, tails, strict=True)
        ]
        continued = [k for k, (_, known) in enumerate(borders) if known][: self._tokenises_twice]
        self._tokenises_twice -= len(continued)
        whole = self.ids([texts[k] for k in continued])
        if all(np.array_equal(result[k], ids) for k, ids in zip(continued, whole, strict=True)):
            return result
        self._goes_on_from_control_tokens = False
        return self.ids(texts)

    def _border(self, text: str, chain: Sequence[str], made: Sequence[Ids]) -> tuple[int, int]:
        """Characters and tokens before the last control token of the text before; zeros where `text` does not go on."""
        if not made or self._renderer.template is None:
            return 0, 0
        before, ids = chain[len(made) - 1], made[-1]
        known = next((n for n in range(len(ids) - 1, -1, -1) if int(ids[n]) in self._tokens.special_ids), 0)
        at = before.rfind(str(self._tokens.tokenizer.convert_ids_to_tokens(int(ids[known])))) if known else -1
        return (at, known) if at >= 0 and text.startswith(before) else (0, 0)


def _joined(conversation: Conversation, messages: int) -> str:
    return "".join(message.content for message in conversation.messages[:messages])
