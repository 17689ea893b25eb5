"""The preview as one page that opens offline: the ledger, the findings, and every example with its tokens.

The page is written while the rows are read: examples first, then what is only known at the end. All data is
JSON that the page's own script puts in as text, so nothing that a row holds can become markup or run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from tuition import files
from tuition.conversation import Rendered
from tuition.data import CODES, Ledger, Reading, Sources, rejected_rows
from tuition.render.codes import RENDER_CODES
from tuition.render.corpus import settle
from tuition.render.preview import Spelling
from tuition.render.renderer import Renderer
from tuition.utf8 import encodable

_EXAMPLES_A_BLOCK = 200
_ENTRIES_A_BLOCK = 2_000
_ROW_CHARACTERS = 4_000  # of a rejected row; the page says how many more there are


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What `write_page` wrote.

    Attributes:
        examples: all examples of the sources.
        shown: those that the page holds; the others are in its ledger.
        ledger: what became of each row.
    """

    examples: int
    shown: int
    ledger: Ledger


def write_page(
    path: Path,
    sources: Sources,
    renderer: Renderer,
    *,
    title: str,
    limit: int,
    mapping: Mapping[str, str] | None = None,
) -> PageFacts:
    """Read the sources and write the page about them; memory holds neither the rows nor the page.

    Args:
        limit: most examples that the page holds. The page says how many it leaves out.
        mapping: which columns hold what, where the shape is not found by itself.

    Raises:
        UserError: as `read_rows`, and what the renderer refuses.
    """
    page = _Page(sources, renderer, limit, mapping)
    files.write_bytes(path, (piece.encode("utf-8") for piece in page.pieces(title)))
    return PageFacts(len(page.lengths), page.shown, page.ledger)


class _Page:
    """One page in the making: pieces of text, and what is counted on the way."""

    def __init__(
        self, sources: Sources, renderer: Renderer, limit: int, mapping: Mapping[str, str] | None
    ) -> None:
        self.sources = sources
        self.renderer = renderer
        self.limit = limit
        self.mapping = mapping
        self.ledger = Ledger()
        self.lengths = array("Q")
        self.shown = 0
        self._spelling = Spelling(renderer.tokens)
        self._written: set[int] = set()  # ids whose text stands in the page
        self._files: dict[str, dict[str, Any]] = {}
        self._numbers: dict[str, int] = {}
        self._fixes: dict[str, int] = {}

    def pieces(self, title: str) -> Iterator[str]:
        """The page from its first character to its last."""
        style, script = _asset("page.css"), _asset("page.js")
        yield _HEAD.format(
            title=html.escape(title), style=style, style_hash=_hash(style), script_hash=_hash(script)
        )
        yield from self._examples()
        self.ledger.check_balance()
        yield from _blocks("findings", self._findings())
        yield from _blocks("rejected", self._rejected())
        truncated = ([self._file(e.origin.file), e.origin.line] for e in self.ledger.truncated)
        yield from _blocks("truncated", truncated)
        yield _block("facts", self._facts())
        yield f"<script>{script}</script>\n</body></html>\n"

    # --- examples ---

    def _examples(self) -> Iterator[str]:
        examples = self._read()
        while block := list(islice(examples, _EXAMPLES_A_BLOCK)):
            entries = [self._entry(example) for example in block]
            new = {int(token) for example in block for token in example.ids} - self._written
            self._written |= new
            words = [[token, self._spelling.text_of(token)] for token in sorted(new)]
            yield _block("examples", {"words": words, "examples": entries})

    def _read(self) -> Iterator[Rendered]:
        """The examples that the page holds; the others are counted only."""
        before = None
        uses = {"train": self.sources.train, "validation": self.sources.validation, "test": self.sources.test}
        for use, names in uses.items():
            reading = Reading(names, ledger=self.ledger, mapping=self.mapping, training=before)
            before = before or reading
            for outcome in self.renderer.render(reading):
                settle(self.ledger, outcome, side="train")
                for example in outcome.examples:
                    self.lengths.append(len(example))
                    if self.shown < self.limit:
                        self.shown += 1
                        yield example
            for name, shape in reading.shapes.items():
                self._files_entry(name).update(use=use, shape=shape)

    def _entry(self, example: Rendered) -> list[Any]:
        """File, line, part, ids, runs of equal weight, and the tokens whose text is not that of their id."""
        ids = example.ids.tolist()
        texts = self._spelling.texts_of(ids)
        odd = [
            [n, t] for n, (i, t) in enumerate(zip(ids, texts, strict=True)) if t != self._spelling.text_of(i)
        ]
        weights = (round(weight, 6) for weight in example.supervised.tolist())
        runs = [[sum(1 for _ in run), weight] for weight, run in groupby(weights)]
        return [self._file(example.origin.file), example.origin.line, example.part, ids, runs, odd]

    # --- what the ledger knows when all is read ---

    def _findings(self) -> Iterator[list[Any]]:
        for found in self.ledger.findings:
            fix = self._fixes.setdefault(found.fix, len(self._fixes))
            yield [found.code, self._file(found.origin.file), found.origin.line, found.message, fix]

    def _rejected(self) -> Iterator[list[Any]]:
        for row in rejected_rows(self.ledger):
            text = row.get("text")
            if text is None:
                text = json.dumps(row["row"], ensure_ascii=False, default=str) if "row" in row else ""
            shown, more = text[:_ROW_CHARACTERS], max(0, len(text) - _ROW_CHARACTERS)
            yield [self._file(row["file"]), row["line"], row["code"], row["reason"], shown, more]

    def _facts(self) -> dict[str, Any]:
        total = dict.fromkeys(_COUNTS, 0)
        for row in self.ledger.to_rows():
            entry = self._files_entry(row["file"])
            for key in _counted(row["fate"]):
                entry[key] += 1
            for key, counted in (("examples", "parts"), ("tokens", "tokens"), ("learned", "learned_tokens")):
                entry[key] += row[counted]
        for entry in self._files.values():
            for key in _COUNTS:
                total[key] += entry[key]
        counts = self.ledger.counts_by_code()
        return {
            "files": list(self._files.values()),
            "total": total,
            "shown": self.shown,
            "notShown": len(self.lengths) - self.shown,
            "codes": [self._code(code, times) for code, times in counts.items()],
            "fixes": list(self._fixes),
            "histogram": _histogram(self.lengths),
            "controls": sorted(self.renderer.tokens.special_ids),
            "stops": sorted(self.renderer.stop_ids),
        }

    def _code(self, code: str, times: int) -> dict[str, Any]:
        meaning = {**CODES, **RENDER_CODES}[code]
        return {"code": code, "title": meaning.title, "severity": meaning.severity, "times": times}

    def _files_entry(self, name: str) -> dict[str, Any]:
        if name not in self._files:
            self._numbers[name] = len(self._files)
            self._files[name] = {"name": name, "use": "", "shape": "", **dict.fromkeys(_COUNTS, 0)}
        return self._files[name]

    def _file(self, name: str) -> int:
        """The number by which the page names a file."""
        self._files_entry(name)
        return self._numbers[name]


_COUNTS = ("rows", "kept", "rejected", "leftOut", "truncated", "split", "examples", "tokens", "learned")


def _counted(fate: str) -> tuple[str, ...]:
    """Under which counts a row of that fate falls; truncated and split rows are kept rows."""
    own = {"left out": "leftOut"}.get(fate, fate)
    return ("rows", "kept", own) if own in ("truncated", "split") else ("rows", own)


_BARS = 30


def _histogram(lengths: array[int]) -> dict[str, list[int]]:
    """Counts over bars of whole tokens, so that none is empty only because it falls between two counts."""
    if not lengths:
        return {"edges": [], "counts": []}
    shortest = min(lengths)
    width = -(-(max(lengths) - shortest + 1) // _BARS)
    counts = np.bincount((np.asarray(lengths) - shortest) // width)
    edges = [shortest + width * bar for bar in range(len(counts) + 1)]
    return {"edges": edges, "counts": counts.tolist()}


# --- the pieces of the page ---


def _blocks(name: str, entries: Iterable[Any]) -> Iterator[str]:
    entries = iter(entries)
    while block := list(islice(entries, _ENTRIES_A_BLOCK)):
        yield _block(name, block)


def _block(name: str, value: Any) -> str:
    """Data for the script. `<` is escaped, so that no text can end the element or open another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if not encodable(text):  # half a character, or a file name that is not UTF-8
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" data-block="{name}">{text}</script>\n'


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source that a content security policy allows: this very text and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{style_hash}'; script-src '{script_hash}'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<title>{title} · preview</title><style>{style}</style></head><body>
<header><h1>{title}</h1><p class="sub">What the model will see, token by token, and what became of each row.</p></header>
<noscript><p class="note">This page shows its rows with a script of its own. Allow scripts for it; it loads nothing else.</p></noscript>
<p class="note" id="note" hidden></p>
<dl class="tiles" id="tiles"></dl>
<section aria-labelledby="h-files"><h2 id="h-files">Ledger</h2><div class="wide"><table>
<thead><tr><th scope="col">File</th><th scope="col">Rows in</th><th scope="col">Kept</th><th scope="col">Rejected</th><th scope="col">Left out</th><th scope="col">Truncated</th><th scope="col">Split</th><th scope="col">Examples</th><th scope="col">Tokens</th><th scope="col">Learned</th></tr></thead>
<tbody id="files"></tbody><tfoot id="all"></tfoot></table></div>
<p class="sub">Rows in = kept + rejected + left out. Truncated and split rows are among the kept ones.</p></section>
<section id="lengths" aria-labelledby="h-lengths"><h2 id="h-lengths">Tokens of an example</h2><div class="axis" id="most"></div><svg id="histogram" viewBox="0 0 720 131" role="img"></svg><div class="axis"><span id="from"></span><span id="to"></span></div></section>
<section aria-labelledby="h-findings"><h2 id="h-findings">Findings</h2><p id="none" class="quiet" hidden>No complaint about any row.</p><ul class="codes" id="codes"></ul></section>
<section id="rows" aria-labelledby="h-rows"><h2 id="h-rows">Rows</h2>
<p class="sub"><span class="l">Learned tokens</span> are marked, the rest is context; <span class="c">control tokens</span> are dotted, <span class="l e">the one that stops</span> is named. <span class="n"></span> is a line break.</p>
<div class="bar"><input id="q" type="search" autocomplete="off" spellcheck="false" placeholder="Search: text, file:line or code" aria-label="Search text, file:line or code">
<select id="kind" aria-label="Which rows"><option value="all">all rows</option><option value="examples">examples</option><option value="findings">with findings</option><option value="rejected">rejected</option><option value="truncated">truncated</option><option value="weighted">weight not 1</option></select>
<label><input id="borders" type="checkbox"> token borders</label> <label><input id="spaces" type="checkbox"> all spaces</label></div>
<nav class="pager" aria-label="Pages"><button type="button" data-step="-1">Previous</button><output aria-live="polite"></output><button type="button" data-step="1">Next</button></nav>
<div id="list"></div>
<nav class="pager" aria-label="Pages, below"><button type="button" data-step="-1">Previous</button><output></output><button type="button" data-step="1">Next</button></nav>
<p class="sub keys"><kbd>/</kbd> search · <kbd>j</kbd> <kbd>k</kbd> next and previous row · <kbd>n</kbd> <kbd>p</kbd> next and previous page · <kbd>t</kbd> token borders · <kbd>s</kbd> spaces · <kbd>Esc</kbd> clears</p>
</section>
"""
