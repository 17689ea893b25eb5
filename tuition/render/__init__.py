"""From conversations to token ids with `supervised` beside them: templates, tokens, preview.

Works on a tokenizer alone; importing it imports no torch, and nothing here ever runs a model.
"""

from tuition.render.renderer import Outcome, Renderer
from tuition.render.template import (
    CHATML_TOKENS,
    ChatTemplate,
    adopt_template,
    choose_template,
    date_notice,
    on_day,
)
from tuition.render.tokens import check_local_folder, load_tokenizer

__all__ = [
    "CHATML_TOKENS",
    "ChatTemplate",
    "Outcome",
    "Renderer",
    "adopt_template",
    "check_local_folder",
    "choose_template",
    "date_notice",
    "load_tokenizer",
    "on_day",
]
