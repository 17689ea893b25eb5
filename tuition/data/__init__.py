"""From files to conversations: formats, checks, the ledger and the split."""

from tuition.data.catalogue import CODES, Code, finding
from tuition.data.checks import CHECKS, DEEP_CHECKS
from tuition.data.contamination import overlap
from tuition.data.duplicates import near_duplicates, near_pairs
from tuition.data.extent import extent_of
from tuition.data.formats import FORMATS
from tuition.data.learned import LearnedFrom, LearnedPrompts
from tuition.data.ledger import Entry, Ledger, Side, Totals
from tuition.data.mending import MENDS, FixedRow, Mend, fixed_rows
from tuition.data.presidio import presidio_check
from tuition.data.quarantine import rejected_lines, rejected_rows
from tuition.data.reading import PYTHON, Reading, read_all
from tuition.data.replay import Replay
from tuition.data.sources import Row, Sources, content_sha256, find_sources, read_rows, split_share
from tuition.data.splits import copies_of, prompt_key, side_of

__all__ = [
    "CHECKS",
    "CODES",
    "DEEP_CHECKS",
    "FORMATS",
    "MENDS",
    "PYTHON",
    "Code",
    "Entry",
    "FixedRow",
    "LearnedFrom",
    "LearnedPrompts",
    "Ledger",
    "Mend",
    "Reading",
    "Replay",
    "Row",
    "Side",
    "Sources",
    "Totals",
    "content_sha256",
    "copies_of",
    "extent_of",
    "find_sources",
    "finding",
    "fixed_rows",
    "near_duplicates",
    "near_pairs",
    "overlap",
    "presidio_check",
    "prompt_key",
    "read_all",
    "read_rows",
    "rejected_lines",
    "rejected_rows",
    "side_of",
    "split_share",
]
