"""From files to conversations: formats, checks, the ledger and the split."""

from tuition.data.catalogue import CODES, Code, finding
from tuition.data.checks import CHECKS
from tuition.data.formats import FORMATS
from tuition.data.ledger import Entry, Ledger, Side
from tuition.data.quarantine import rejected_rows
from tuition.data.reading import Reading
from tuition.data.sources import Row, Sources, content_sha256, find_sources, read_rows
from tuition.data.splits import prompt_key, side_of

__all__ = [
    "CHECKS",
    "CODES",
    "FORMATS",
    "Code",
    "Entry",
    "Ledger",
    "Reading",
    "Row",
    "Side",
    "Sources",
    "content_sha256",
    "find_sources",
    "finding",
    "prompt_key",
    "read_rows",
    "rejected_rows",
    "side_of",
]
