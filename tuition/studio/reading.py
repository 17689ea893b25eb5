"""Texts that people wrote and models answered, as they will read: Markdown, with nothing in it that acts.

Raw HTML is shown as it was typed; a picture is a link, because nothing is loaded from elsewhere.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from tuition.counting import counted

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_MOST_CHARACTERS = 60_000  # a longer text is shown literally: setting it would keep others waiting
_TAGS = {
    "a", "blockquote", "br", "code", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
# Each reads in the direction of its script.
_BLOCKS = {"h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "table", "ul"}


def as_read(text: str) -> Markup:
    """The text as HTML without scripts, styles, pictures or frames."""
    import nh3

    if len(text) > _MOST_CHARACTERS:
        return Markup('<p class="literal">{}</p>').format(text)
    html = _markdown().render(text.replace("\0", "�"))
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={block: {"dir": "auto"} for block in _BLOCKS},
    )
    return Markup(clean)  # nh3 has just cleaned it


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # a line break is one: people who write an answer press Enter and mean it
    rules = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20})
    return rules.enable(["table", "strikethrough"]).disable("image")


def how_long(seconds: float) -> str:
    """A time as people say it: 40 seconds, 2.5 minutes."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return counted(whole, "second")
    return f"{seconds / 60:.1f} minutes"


def unix_lines(text: str) -> str:
    """Forms send a line's end as two characters, whatever was typed."""
    return text.replace("\r\n", "\n")
