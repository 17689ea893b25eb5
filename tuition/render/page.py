"""The preview as one page: every example with its learned tokens marked, searchable, opens offline."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from pathlib import Path

from tuition import files
from tuition.conversation import Rendered
from tuition.render.preview import token_texts
from tuition.render.tokens import Tokens

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title><style>
:root{{color-scheme:light dark;--ink:#1d2329;--paper:#fdfdfc;--faint:#6b747d;--line:#e2e5e8;--learned:#d7f0e3;--edge:#0a7c4a}}
@media(prefers-color-scheme:dark){{:root{{--ink:#e4e7ea;--paper:#14171a;--faint:#98a2ab;--line:#2a2f34;--learned:#123f2b;--edge:#5fd39b}}}}
body{{font:16px/1.6 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--paper)}}
h1{{font-size:1.4rem;overflow-wrap:anywhere}} label{{display:block;margin:1rem 0 1.5rem}} p.key,h2{{color:var(--faint);font-weight:400;font-size:.9rem}} h2{{margin:0 0 .4rem}}
input{{font:inherit;box-sizing:border-box;width:100%;padding:.5rem .7rem;border:1px solid var(--line);border-radius:.4rem;background:inherit;color:inherit}}
article{{overflow-wrap:anywhere;border-top:1px solid var(--line);padding:1rem 0;content-visibility:auto;contain-intrinsic-size:auto 9rem}}
pre{{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:.9rem/1.7 ui-monospace,monospace;color:var(--faint)}}
b{{font-weight:400;color:var(--ink);background:var(--learned);box-shadow:inset 0 -2px var(--edge)}} i{{font-style:normal;opacity:.75;text-decoration:underline dotted}}
</style></head><body><h1>{title}</h1>
<p class="key"><b>Learned tokens</b> are marked; the rest is context. <i>Control tokens</i> are dotted. ↵ is a learned line break.</p>
<label>Search <input id="q" type="search" autocomplete="off"></label>
"""
_TAIL = """<script>
const q=document.getElementById("q"),all=[...document.querySelectorAll("article")];
q.addEventListener("input",()=>{const s=q.value.toLowerCase();for(const a of all)a.hidden=!a.textContent.toLowerCase().includes(s)});
</script></body></html>
"""


def write_page(path: Path, examples: Iterable[tuple[Rendered, Tokens]], *, title: str) -> int:
    """Write the page; how many examples are in it."""
    articles = [_article(example, tokens) for example, tokens in examples]
    files.write_text(path, _HEAD.format(title=html.escape(title)) + "".join(articles) + _TAIL)
    return len(articles)


def _article(example: Rendered, tokens: Tokens) -> str:
    place = f"{example.origin} · {len(example):,} tokens, {example.learned_tokens:,} learned"
    if example.part:
        place += f" · part {example.part + 1}"
    return f"<article><h2>{html.escape(place)}</h2><pre>{''.join(_marked(example, tokens))}</pre></article>\n"


def _marked(example: Rendered, tokens: Tokens) -> Iterator[str]:
    """Runs of tokens of the same kind, so that a long text is a few elements and not thousands."""
    run, kind = "", (False, False)
    for token in token_texts(example, tokens):
        if (token.supervised > 0, token.special) != kind:
            yield _wrap(run, *kind)
            run, kind = "", (token.supervised > 0, token.special)
        run += token.text.replace("\n", "↵\n") if token.supervised > 0 else token.text
    yield _wrap(run, *kind)


def _wrap(text: str, learned: bool, special: bool) -> str:
    shown = html.escape("".join(c if c in "\n\t" or c.isprintable() else f"⟨{ord(c):02x}⟩" for c in text))
    if not shown:
        return ""
    shown = f"<i>{shown}</i>" if special else shown
    return f"<b>{shown}</b>" if learned else shown
