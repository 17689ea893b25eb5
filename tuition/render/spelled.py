"""Rows whose content spells control tokens out: that none of the spellings became a token.

Such content is kept plain here, which serving does only where it is asked to, so the ids cannot be those that
transformers makes. Its control tokens must be those of the same row with other words in place of the spellings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuition.conversation import Conversation, Rendered
from tuition.render.content import strings_in
from tuition.render.renderer import Outcome, Renderer
from tuition.render.serving import Serving
from tuition.render.tokens import Ids


class Spelled:
    """Finds such rows, and looks at their control tokens. In answers, markup such as `<think>` is allowed.

    Args:
        renderer: asked which spellings it guards.
    """

    def __init__(self, renderer: Renderer, serving: Serving) -> None:
        self._serving = serving
        self._has_template = renderer.template is not None
        self._special = renderer.tokens.special_spellings
        self._guarded = renderer.guarded_spellings
        tokens = renderer.tokens
        self._control_ids = {
            *tokens.special_ids,  # without the unknown token, which is text
            *(
                tokens.id_of(spelling)
                for spelling in self._guarded
                if spelling not in tokens.special_spellings
            ),
        }

    def holds(self, outcome: Outcome) -> bool:
        """Whether the row spells a control token out."""
        if any(found.code == "R007" for found in outcome.findings):
            return True
        messages = self._serving.given(outcome.conversation)
        answers = [message for message in messages if message["role"] == "assistant"]
        others = [message for message in messages if message["role"] != "assistant"]
        return _spells(answers, self._special) or _spells(
            [others, list(outcome.conversation.tools)], self._guarded
        )

    def begins(
        self, conversation: Conversation, positions: Sequence[int], examples: Sequence[Rendered]
    ) -> list[bool] | None:
        """For each learned turn, whether an example begins with the control tokens that stand before it.

        None where the spellings cannot be taken out: they are in characters that only the tokenizer makes into one.
        """
        given = self._serving.given(conversation)
        messages = [
            _without(message, self._special if message["role"] == "assistant" else self._guarded)
            for message in given
        ]
        tools = _without(list(conversation.tools), self._guarded)
        if messages == given and tools == list(conversation.tools):
            return None
        written = [self._control_tokens(example.ids) for example in examples]
        expected = [
            self._control_tokens(self._prompt_ids(messages[:position], tools)) for position in positions
        ]
        return [any(found[: len(prompt)] == prompt for found in written) for prompt in expected]

    def _prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> Ids:
        text = self._serving.chat(messages, tools) if self._has_template else messages[0]["content"]
        return self._serving.ids([text])[0]

    def _control_tokens(self, ids: Ids) -> list[int]:
        return [token for token in ids.tolist() if token in self._control_ids]


def _spells(value: Any, spellings: Sequence[str]) -> bool:
    text = "\0".join(strings_in(value))
    return any(spelling in text for spelling in spellings)


def _without(value: Any, spellings: Sequence[str]) -> Any:
    """The same strings, lists and mappings with other words in the place of spellings."""
    if isinstance(value, str):
        for spelling in spellings:
            value = value.replace(spelling, " x ")
        return value
    if isinstance(value, Mapping):
        return {_without(k, spellings): _without(v, spellings) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without(item, spellings) for item in value]
    return value
