"""From conversations to token ids with `supervised` beside them: templates, tokens, preview.

Works on a tokenizer alone; importing it imports no torch, and nothing here ever runs a model.
"""

from tuition.render.choosing import CHATML_TOKENS, adopt_template, choose_template
from tuition.render.modelfolder import open_model, unread_pickles
from tuition.render.renderer import Outcome, Renderer
from tuition.render.template import ChatTemplate, date_notice, on_day
from tuition.render.tokens import load_tokenizer

__all__ = [
    "CHATML_TOKENS",
    "ChatTemplate",
    "Outcome",
    "Renderer",
    "adopt_template",
    "choose_template",
    "date_notice",
    "load_tokenizer",
    "on_day",
    "open_model",
    "unread_pickles",
]
