"""Which template a conversation is written by: the tokenizer's own, ChatML where it has none, a file's, or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuition.errors import UserError
from tuition.foreign import require_readable
from tuition.render.template import ChatTemplate
from tuition.render.tokens import Tokens

_LARGEST_BYTES = 1 << 20
_NAME_A_TEMPLATE = (
    "Give auto (the tokenizer's own, or ChatML where it has none), none, or the path of a Jinja file: "
    "templates have no names here"
)

# What a base model without a template of its own gets: ChatML, the most widely served format.
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BOS = "{{ bos_token }}"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


def choose_template(
    setting: str, tokenizer: Any, given: Mapping[str, Any] | None = None
) -> ChatTemplate | None:
    """The template that `chat_template` names; None for plain text.

    Args:
        setting: `auto`, `none`, or the path of a Jinja file.
        tokenizer: a transformers tokenizer; asked for its own template and special tokens.
        given: values for names that the template reads (`chat_template_kwargs`).

    Raises:
        UserError: there is no such file, or the template does not read one of the names.
    """
    template = _template_of(setting, tokenizer)
    return template if template is None or not given else template.with_values(given)


def _template_of(setting: str, tokenizer: Any) -> ChatTemplate | None:
    special_tokens = dict(tokenizer.special_tokens_map)
    if setting == "none":
        return None
    if setting != "auto":
        return ChatTemplate(_read_template(Path(setting)), special_tokens, setting)
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several named templates; `default` is what serving takes
        own = _default_of(own)
    if own:
        return ChatTemplate(own, special_tokens, "the tokenizer's own")
    return ChatTemplate(_chatml_for(tokenizer), special_tokens, "ChatML (the tokenizer has none of its own)")


def _default_of(named: Mapping[str, str]) -> str:
    if "default" in named:
        return named["default"]
    raise UserError(
        f"the tokenizer has chat templates named {', '.join(map(repr, sorted(named)))} and none named 'default'",
        next_step="Write the one you mean to a file and choose it with --chat-template FILE",
    )


def _chatml_for(tokenizer: Any) -> str:
    """ChatML, behind a BOS where the model saw one before every text it was pretrained on."""
    bos = tokenizer.bos_token_id
    return _BOS + CHATML if bos is not None and bos in Tokens(tokenizer).prefix_ids else CHATML


def _read_template(path: Path) -> str:
    try:
        require_readable(path, _LARGEST_BYTES, _NAME_A_TEMPLATE, no_other="chat template")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("no such chat template", where=str(path), next_step=_NAME_A_TEMPLATE) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"cannot be read as a template ({error})", where=str(path), next_step="Give a UTF-8 text file"
        ) from None


def adopt_template(tokenizer: Any, template: ChatTemplate | None) -> list[int]:
    """Make the template the tokenizer's own, and add the default one's control tokens where they are missing.

    Returns:
        the ids of the tokens that were added; the model must learn them.
    """
    if template is None:
        return []
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = {**tokenizer.chat_template, "default": template.source}
        return []
    if tokenizer.chat_template:
        tokenizer.chat_template = template.source
        return []
    wanted = CHATML_TOKENS if template.source.removeprefix(_BOS) == CHATML else ()
    missing = [token for token in wanted if token not in tokenizer.get_vocab()]
    if missing:
        tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, *missing]})
    tokenizer.chat_template = template.source
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in missing]
