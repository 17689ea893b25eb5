"""From a conversation to the text that serving would show the model.

A template is somebody else's program: it runs in transformers' sandbox, is never edited, and what it
does to the text is compared, not assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.errors import UserError

# What a base model without a template of its own gets: ChatML, the most widely served format.
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


class TemplateRefusal(Exception):
    """The template raised an error for this conversation."""


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template and the special tokens that it may name.

    Attributes:
        source: the Jinja text.
        special_tokens: `bos_token`, `eos_token` and so on, as the tokenizer's file names them.
        provenance: where it came from, for the opening screen.
    """

    source: str
    special_tokens: Mapping[str, Any]
    provenance: str

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
    ) -> str:
        """The conversation as text, as `apply_chat_template(tokenize=False)` gives it.

        Raises:
            TemplateRefusal: the template raised, with its own words.
        """
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, _ = render_jinja_template(
                [list(messages)],
                tools=[dict(tool) for tool in tools] or None,
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise TemplateRefusal(" ".join(str(error).split()) or type(error).__name__) from error
        return str(texts[0])


def choose_template(setting: str, tokenizer: Any) -> ChatTemplate | None:
    """The template that `chat_template` names; None for plain text.

    Args:
        setting: `auto`, `none`, or the path of a Jinja file.
        tokenizer: a transformers tokenizer; asked for its own template and special tokens.
    """
    special_tokens = dict(tokenizer.special_tokens_map)
    if setting == "none":
        return None
    if setting != "auto":
        return ChatTemplate(_read_template(Path(setting)), special_tokens, setting)
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several named templates; `default` is what serving takes
        own = own.get("default")
    if own:
        return ChatTemplate(own, special_tokens, "the tokenizer's own")
    return ChatTemplate(CHATML, special_tokens, "ChatML (the tokenizer has none of its own)")


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            "no such chat template", where=str(path), next_step="Give auto, none, or the path of a Jinja file"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(
            f"cannot be read as a template ({error})", where=str(path), next_step="Give a UTF-8 text file"
        ) from None


def adopt_template(tokenizer: Any, template: ChatTemplate | None) -> list[int]:
    """Make the template the tokenizer's own, and add the default one's control tokens where they are missing.

    Returns:
        the ids of the tokens that were added; the model must learn them.
    """
    if template is None or tokenizer.chat_template:
        if template is not None and isinstance(tokenizer.chat_template, str):
            tokenizer.chat_template = template.source
        return []
    wanted = CHATML_TOKENS if template.source == CHATML else ()
    missing = [token for token in wanted if token not in tokenizer.get_vocab()]
    if missing:
        tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, *missing]})
    tokenizer.chat_template = template.source
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in missing]
