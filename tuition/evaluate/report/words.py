"""Numbers and texts as the page shows them; nothing here knows what a run is."""

from __future__ import annotations

import json
import re
from datetime import datetime

SHOWN_CHARACTERS = 900
NO_BREAK = "\u00a0"  # a number and its unit stay on one line


def short(number: float | None) -> str:
    """Four digits at most, thousands with commas: `1.234`, `12,000`, `2e-5`; a dash for nothing."""
    if number is None:
        return "–"
    if abs(number) >= 1e6:
        return large(number)
    if abs(number) >= 1000:
        return whole(number)
    return re.sub(r"e([+-])0*(\d)", lambda e: f"e{e[1].strip('+')}{e[2]}", f"{number:.4g}")


def large(number: float) -> str:
    """Three digits and a letter: `1.24B`."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def whole(number: float) -> str:
    """All digits before the point, thousands with commas: `596,049,920`."""
    return f"{number:,.0f}"


def share(value: float) -> str:
    """A share of 1 in percent; 100 % and 0 % only where they are exact."""
    percent = f"{100 * value:.1f}"
    if percent == "100.0" and value < 1:
        percent = "> 99.9"
    elif percent == "0.0" and value > 0:
        percent = "< 0.1"
    elif value in (0, 1):
        percent = percent.removesuffix(".0")
    return f"{percent}{NO_BREAK}%"


def share_interval(low: float, high: float) -> str:
    """Both ends of an interval in percent."""
    return f"{100 * low:.1f} to {100 * high:.1f}{NO_BREAK}%"


def percentage_points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def signed(number: float) -> str:
    """A difference in three digits, with its sign."""
    return f"{number:+.3g}".replace("-", "−")


def short_path(path: str) -> str:
    """A path, or `path:line`, by its last two parts: enough to know the file, and nobody's disk."""
    return "/".join(path.split("/")[-2:]) if path.startswith("/") else path


def duration(seconds: float) -> str:
    """`41 s`, `12 min`, `2 h 14 min`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"


def gibibytes(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / 2**30:.3g} GiB"


def moment(value: object) -> str | None:
    """Date and time to the minute; a text that is no date stays as it is."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return value


def sentence_case(text: str) -> str:
    """The same with a capital at the start."""
    return text[:1].upper() + text[1:]


def plain(value: object) -> str:
    """A setting as a reader would write it: text bare, lists with commas, the rest as JSON."""
    if value is None or value == []:
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def shorten(text: str) -> str:
    """A long text without its middle: answers are often decided at their end."""
    if len(text) <= SHOWN_CHARACTERS:
        return text
    third = SHOWN_CHARACTERS // 3
    return f"{text[: 2 * third]}\n[… {len(text) - 3 * third:,} characters left out …]\n{text[-third:]}"


# Everything that prints nothing or turns the text around it: controls, direction marks, zero width, lone
# surrogates, tag characters. Joiners stay, for emoji and Indic and Persian letters are made with them.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with each character that cannot be seen written out: `⟨U+0000⟩`, `⟨byte FF⟩`."""
    return UNPRINTABLE.sub(lambda found: written_out(ord(found[0])), text)


def written_out(code: int) -> str:
    """One unprintable character in print; a byte that was no UTF-8 was read as U+DC80 to U+DCFF."""
    return f"⟨byte {code - 0xDC00:02X}⟩" if 0xDC80 <= code <= 0xDCFF else f"⟨U+{code:04X}⟩"


def visible_whitespace(text: str) -> str:
    """Text of a token with spaces, tabs and line ends to be seen."""
    return text.replace(" ", "·").replace("\t", "⇥").replace("\n", "↵\n")
